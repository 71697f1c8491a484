"""Paths with slashes: those of `os.path`, which Windows writes with backslashes, though it takes both.

Paths and file URLs (RFC 8089) are made of each other here, too.

Everywhere in envsync a path has slashes, on Windows, too (`C:/Users/me`): it is taken apart and compared as text. What
comes from outside, by these functions or by `core.getcwd` and `core.slashed`, is made so.

Two paths need not have a common root there: `relpath` returns one of another drive absolute, so what takes it has to
join it to the directory with `join`.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ntpath
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

    def relpath(path: str, start: str = ".") -> str:
        try:
            return core.slashed(ntpath.relpath(path, start))
        except ValueError:  # of another drive
            return abspath(path)

    def is_within(path: str, directory: str) -> bool:
        above, below = (ntpath.normcase(each).rstrip("\\") for each in (directory, path))
        return below == above or below.startswith(above + "\\")

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
    from posixpath import abspath, join, normpath, realpath, relpath

    def is_within(path: str, directory: str) -> bool:
        """Tell whether a path is that of a directory, or of something in it, by the text of both: absolute, normal."""
        above = directory.rstrip("/")
        return path == above or path.startswith(above + "/")

    def url_of(path: str) -> str:
        """Return the URL of an absolute path."""
        from urllib.parse import quote

        return "file://" + quote(path)

    def of_url(host: str, path: str) -> str | None:
        """Return the path that is named by host and path of a file URL; None if it is another host's."""
        from urllib.parse import unquote

        return unquote(path) if host in ("", "localhost") else None


__all__ = ["abspath", "is_within", "join", "normpath", "of_url", "realpath", "relpath", "url_of"]
