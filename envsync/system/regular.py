"""Read what may be anything: a regular file, or what somebody has put there instead of one."""

from __future__ import annotations

import errno
import os
import stat

from envsync.system import core

FLAGS = os.O_RDONLY | core.NOCTTY | core.NONBLOCK | core.NOFOLLOW
"""A pipe must not keep us waiting for a writer."""


def read_regular(path: str) -> bytes:
    """Read a small file whole.

    :raises OSError: it is not there, cannot be read, or is not a regular file; `strerror` says it
    """
    try:
        fd = core.open_file(path, FLAGS)
    except OSError as error:
        raise OSError(error.errno, describe(path, error)) from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, kind_of(mode))
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)


def describe(path: str, error: OSError) -> str:
    """Say why a file could not be opened."""
    if error.errno in (errno.ELOOP, errno.ENXIO):
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            pass  # then the first answer is the better one
        else:
            if not stat.S_ISREG(mode):
                return kind_of(mode)
    return f"it cannot be read: {error.strerror or error}"


def kind_of(mode: int) -> str:
    """Say what is there instead of a file."""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe"}
    kinds |= {stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'not a file')}"
