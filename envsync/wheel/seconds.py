"""The second that all files of a store entry have as their modification time: recent, and its own within a project.

CPython takes bytecode for valid if the source's size and mtime, in whole seconds, are those that it was compiled from
(PEP 552). So no two versions of a file may share both, wherever it is installed. What is installed over something else
at one path is nearly always another wheel of the same project, so each of these gets a second of its own:

    <root>/v1/names/<project>/<second>      made with O_EXCL: whoever makes it has that second. Holds the wheel's hash

It is the present one, or if that is taken, the last before it that is not: what is new has to look new, for scratch
filesystems are purged of what is old, and nothing may come from the future. A second that is past is never asked for
again unless a clock is set back, so losing the index costs nothing. For other projects, other caches and clocks that
are set back the commit looks (`envsync.transaction.change`).

After a crash, a second may be taken that no entry has. Nobody misses it.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from envsync.errors import FilesystemError
from envsync.system import core, groups, native

NAMES = "names"
STEP = 2
"""Seconds are even ones: some filesystems (FAT, and servers in front of it) keep no others."""
TRIES = 100
"""How often the directory may be cleaned away beneath us."""
TIMELESS = 0
"""The second of entries that are on a filesystem where the times of files cannot be set."""
DAY_NS = 86_400_000_000_000
"""A day: a file that is linked and has not been read for so long gets an atime of now."""
REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""What utimensat(2) answers of one's own file where times cannot be set at all (CIFS of another user, some of FUSE)."""


def take(root: str, name: str, sha256: str) -> int:
    """Take a second for a new entry, in seconds since the epoch.

    :param root: the cache directory
    :param name: of the project, normalized
    :param sha256: of the wheel
    :raises FilesystemError: the index cannot be written
    """
    directory = f"{root}/v1/{NAMES}/{name}"
    second = int(time.time()) // STEP * STEP
    for attempt in range(TRIES):
        try:
            if attempt:
                groups.make_directory(root, directory)
            while not _take(f"{directory}/{second}", sha256):
                second -= STEP
        except FileNotFoundError as error:
            if attempt == TRIES - 1:
                raise FilesystemError("create", directory, error) from error
        except PermissionError:
            break  # somebody else's, in a cache that is open to all but is no group's: it is free, and not noted down
        except OSError as error:
            raise FilesystemError("write", str(error.filename or directory), error) from error
        else:
            break
    return second


def _take(path: str, sha256: str) -> bool:
    """Take a second. Returns False if somebody has it."""
    try:
        descriptor = core.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:
        return False
    try:
        with suppress(OSError):  # others may look, whatever the umask; nobody needs to
            native.chmod(descriptor, 0o444)
        os.write(descriptor, sha256.encode() + b"\n")  # for people only
    finally:
        os.close(descriptor)
    return True


def stamp(descriptor: int, second: int) -> bool:
    """Give an open file that was made just now its mtime. Its atime stays the present: that is never set back.

    :returns: False if times cannot be set here
    :raises OSError: anything else is wrong
    """
    try:
        native.utime(descriptor, ns=(time.time_ns(), second * 1_000_000_000))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        return False
    return True


def freshen(name: str, mtime_ns: int, directory: int | None) -> None:
    """Let a file that is linked look new, for filesystems that are purged of what was not read for long.

    :param mtime_ns: that it has, and keeps
    :param directory: a descriptor of the directory that its name is relative to
    """
    try:
        native.utime(name, ns=(time.time_ns(), mtime_ns), dir_fd=directory, follow_symlinks=False)
    except OSError:
        pass  # it is as old as it was


def age(descriptor: int, second: int) -> None:
    """Let a file look as old as one that was linked from an entry may be: it is purged no later than that.

    :param second: that of the entry
    :raises OSError: anything but that times cannot be set here
    """
    mtime = second * 1_000_000_000
    try:
        native.utime(descriptor, ns=(max(mtime, time.time_ns() - DAY_NS), mtime))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise


def touch(descriptor: int) -> None:
    """Give an open file of ours the present as its mtime, by a write where times cannot be set.

    :raises OSError: neither works
    """
    try:
        native.utime(descriptor)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        native.pwrite(descriptor, b".", 0)
