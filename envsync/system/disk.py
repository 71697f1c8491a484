"""Force what was written to the disk, for `--durable`: a node that loses power leaves what a killed process leaves.

Without it, the order in which renames and contents reach the disk is the kernel's: a journal may be there without the
stage that it speaks of, or a stamp without the files that it vouches for. With it, each of these is on the disk before
the next is begun:

    store entries → stage → journal → renames → removal of the journal, stamp

A whole filesystem is synced at a time (syncfs(2)): to sync 22,000 files one by one takes minutes, and most of them are
links to files that were synced long ago. Journal and stamp are synced by themselves (`atomic.write`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from envsync.errors import FilesystemError


def sync_filesystem(path: str) -> None:
    """Force everything written to the filesystem that a directory is on to the disk.

    :raises FilesystemError: the disk refused something (of Linux since 5.8; before, and elsewhere, nobody says so)
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FilesystemError("open", path, error) from error
    try:
        syncfs = _syncfs()
        if syncfs is None:
            os.sync()
        elif number := syncfs(fd):
            raise FilesystemError("sync the filesystem of", path, OSError(number, os.strerror(number)))
    finally:
        os.close(fd)


def _syncfs() -> Callable[[int], int] | None:
    """Return a function that syncs the filesystem of a descriptor and returns an errno."""
    import ctypes  # 3 ms, for those who ask for it

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError, TypeError):
        return None  # not Linux
    return lambda fd: ctypes.get_errno() if function(fd) != 0 else 0
