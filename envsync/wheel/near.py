"""A wheel that is far is read once: what is hashed is kept near by, and unpacked of that.

To unpack takes thousands of small reads, after one of the whole to hash it. Of a file on a network filesystem they come
out of this node's page cache at best, and otherwise go over the network a second time. So the bytes of a wheel that is
on another filesystem than the store are kept while they are hashed: in memory, or if there are many, in a file without
a name in the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from envsync.errors import FilesystemError
from envsync.system import core

IN_MEMORY = 32 * 1024 * 1024
"""Bytes: a larger wheel goes to the disk. As many wheels as there are processors are unpacked at once, 4 at most."""


@contextmanager
def copy_of(status: os.stat_result, store: str, staging: Callable[[], str]) -> Iterator[int | None]:
    """Lend an empty file for the bytes of a wheel that is far; None for one that is not.

    :param status: of the wheel
    :param store: a directory of the store, as near as can be
    :param staging: names a file there that is nobody else's
    :raises FilesystemError: none can be made
    """
    try:
        near = os.stat(store).st_dev == status.st_dev
    except OSError:
        near = True  # whoever writes there will say what is wrong
    if near:
        yield None
        return
    descriptor = _made(status.st_size, staging)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _made(size: int, staging: Callable[[], str]) -> int:
    in_memory = getattr(os, "memfd_create", None)  # of Linux alone
    if size <= IN_MEMORY and in_memory is not None:
        return int(in_memory("envsync wheel"))
    path = staging()
    try:
        descriptor = core.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
    except OSError as error:
        raise FilesystemError("create", path, error) from error
    return descriptor


def write(descriptor: int, data: bytes, directory: str) -> None:
    """Add to what was lent.

    :param directory: of the store, for the message
    :raises FilesystemError: there is no room
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise FilesystemError("write", directory, error) from error
