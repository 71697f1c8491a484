"""A filesystem that takes names for one that differ by case or Unicode form only, as those of macOS do.

    python -m tests.odd.foldfs MODE DIRECTORY PLACE

shows DIRECTORY at PLACE until it is unmounted. MODE is `preserving`: a name stays as it was made (APFS); or
`decomposing`: it is kept and listed in Unicode form D, however it was made (HFS+).
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import mfusepy

_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2
"""What utimensat(2) is given in the place of nanoseconds for "now" and "as it is"."""


def folded(name: str) -> str:
    """Return what names of one file have in common."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class Folding(mfusepy.Operations):  # type: ignore[misc]  # it has no types that mypy can read
    """The directory below, by whatever name its files are asked for."""

    use_ns = True

    def __init__(self, mode: str, root: str) -> None:
        self.root = root
        self.made_as: Callable[[str], str] = {
            "preserving": str,
            "decomposing": lambda name: unicodedata.normalize("NFD", name),
        }[mode]

    def _path(self, path: str) -> str:
        """Return the path below: each name as it is there, or as it would be made."""
        found = self.root
        for name in path.strip("/").split("/"):
            if name:
                found = self._child(found, self.made_as(name))
        return found

    @staticmethod
    def _child(directory: str, name: str) -> str:
        exact = f"{directory}/{name}"
        if not os.path.lexists(exact) and os.path.isdir(directory):
            same = folded(name)
            for other in os.listdir(directory):
                if folded(other) == same:
                    return f"{directory}/{other}"
        return exact

    def access(self, path: str, amode: int) -> int:
        if not os.access(self._path(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._path(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._path(path), uid, gid, follow_symlinks=False)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._path(path)) if fh is None else os.fstat(fh)
        found: dict[str, Any] = {
            key: getattr(status, key) for key in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        }
        return {**found, **{f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}}

    def link(self, target: str, source: str) -> int:
        os.link(self._path(source), self._path(target), follow_symlinks=False)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._path(path), mode)
        return 0

    def open(self, path: str, flags: int) -> int:
        return os.open(self._path(path), flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        found = self._path(path)
        for name in (".", "..", *os.listdir(found)):
            status = os.lstat(f"{found}/{name}")
            yield name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._path(path))

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def flock(self, path: str, fh: int, op: int) -> int:
        """Lock the file below, for the kernel takes two spellings for two files."""
        fcntl.flock(fh, op)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def rename(self, old: str, new: str) -> int:
        """Another spelling of a name is what it is called from then on."""
        before, after = self._path(old), self._path(new)
        if before == after:
            after = f"{os.path.dirname(after)}/{self.made_as(os.path.basename(new))}"
        os.rename(before, after)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._path(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._path(target))
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._path(path) if fh is None else fh, length)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._path(path))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        found = self._path(path)
        before = os.lstat(found)
        kept = {_OMIT: (before.st_atime_ns, before.st_mtime_ns), _NOW: (time.time_ns(), time.time_ns())}
        ns = tuple(kept[given][which] if given in kept else given for which, given in enumerate(times or (_NOW, _NOW)))
        os.utime(found, ns=(ns[0], ns[1]), follow_symlinks=False)
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._path(path))
        keys = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_files", "f_frsize")
        return {key: getattr(status, key) for key in keys}


if __name__ == "__main__":
    # The kernel keeps no names, for it would take two spellings for two files.
    options = {"use_ino": True, "hard_remove": True, "entry_timeout": 0, "negative_timeout": 0, "attr_timeout": 0}
    mfusepy.FUSE(Folding(*sys.argv[1:3]), sys.argv[3], foreground=True, fsname="foldfs", **options)
