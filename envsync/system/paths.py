"""Paths with slashes: those of `os.path`, which Windows writes with backslashes, though it takes both.

Paths and file URLs (RFC 8089) are made of each other here, too.

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

    def url_of(path: str) -> str:
        from urllib.parse import quote

        drive, rest = ntpath.splitdrive(core.slashed(path))
        begin = "file:" if drive.startswith("//") else "file:///"  # a host shares it; else the drive has a letter
        return f"{begin}{quote(drive, safe='/:')}{quote(rest)}"

    def of_url(host: str, path: str) -> str | None:
        from urllib.parse import unquote

        path = unquote(path)
        if ntpath.splitdrive(host)[0] == host != "" and host[1:] == ":":
            return host + path  # `file://C:/...`, as many write it
        if host not in ("", "localhost"):
            return f"//{host}{path}"
        return path[1:] if path[:1] == "/" and path[2:3] == ":" else path

else:
    from posixpath import abspath, commonpath, join, normpath, realpath, relpath

    def url_of(path: str) -> str:
        """Return the URL of an absolute path."""
        from urllib.parse import quote

        return "file://" + quote(path)

    def of_url(host: str, path: str) -> str | None:
        """Return the path that is named by host and path of a file URL; None if it is another host's."""
        from urllib.parse import unquote

        return unquote(path) if host in ("", "localhost") else None


__all__ = ["abspath", "commonpath", "join", "normpath", "of_url", "realpath", "relpath", "url_of"]
