"""Paths with slashes: those of `os.path`, which Windows writes with backslashes, though it takes both.

Everywhere in envsync a path has slashes, on Windows, too (`C:/Users/me`): it is taken apart and compared as text. What
comes from outside, by these functions or by `core.getcwd` and `core.slashed`, is made so.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ntpath
    from collections.abc import Iterable
    from os import PathLike

    from envsync.system import core

    def abspath(path: str | PathLike[str]) -> str:
        return core.slashed(ntpath.abspath(path))

    def realpath(path: str | PathLike[str], *, strict: bool = False) -> str:
        return core.slashed(ntpath.realpath(path, strict=strict))

    def join(path: str, *more: str) -> str:
        return core.slashed(ntpath.join(path, *more))

    def normpath(path: str) -> str:
        return core.slashed(ntpath.normpath(path))

    def commonpath(paths: Iterable[str]) -> str:
        return core.slashed(ntpath.commonpath(list(paths)))

    def relpath(path: str, start: str = ".") -> str:
        return core.slashed(ntpath.relpath(path, start))

else:
    from posixpath import abspath, commonpath, join, normpath, realpath, relpath

__all__ = ["abspath", "commonpath", "join", "normpath", "realpath", "relpath"]
