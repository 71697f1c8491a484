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

    def abspath(path: str | PathLike[str]) -> str:
        return ntpath.abspath(path).replace("\\", "/")

    def realpath(path: str | PathLike[str], *, strict: bool = False) -> str:
        return ntpath.realpath(path, strict=strict).replace("\\", "/")

    def join(path: str, *more: str) -> str:
        return ntpath.join(path, *more).replace("\\", "/")

    def normpath(path: str) -> str:
        return ntpath.normpath(path).replace("\\", "/")

    def commonpath(paths: Iterable[str]) -> str:
        return ntpath.commonpath(list(paths)).replace("\\", "/")

    def relpath(path: str, start: str = ".") -> str:
        return ntpath.relpath(path, start).replace("\\", "/")

else:
    from posixpath import abspath, commonpath, join, normpath, realpath, relpath

__all__ = ["abspath", "commonpath", "join", "normpath", "realpath", "relpath"]
