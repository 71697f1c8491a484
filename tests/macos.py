"""`python macos.py ARGUMENTS`: the command line of envsync, without what macOS lacks. No Mac is claimed.

Takes from `os` and its like what macOS does not have, makes sendfile and confstr as they are there, and hides /proc.
What passes here may still fail on a Mac; what fails here fails there. Also imported by tests for the same effect in
processes of their own.
"""

from __future__ import annotations

import builtins
import errno
import os
import posix
import socket
import stat
import sys
import time
from typing import Any

LACKING = (
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_getscheduler",
    "sched_setscheduler",
    "sched_getparam",
    "copy_file_range",
    "splice",
    "memfd_create",
    "eventfd",
    "pidfd_open",
    "getrandom",
    "posix_fadvise",
    "posix_fallocate",
    "fdatasync",
    "pipe2",
    "getresuid",
    "getresgid",
    "setresuid",
    "getxattr",
    "setxattr",
    "listxattr",
    "removexattr",
    "unshare",
    "setns",
    "O_TMPFILE",
    "O_DIRECT",
    "O_LARGEFILE",
    "O_NOATIME",
    "O_PATH",
    "O_RSYNC",
)
BY_PATH = ("open", "listdir", "readlink", "stat", "lstat", "scandir", "access")


def subtract() -> None:
    """Take it all away from this process, before envsync is imported."""
    for module in (os, posix):
        for name in LACKING:
            if hasattr(module, name):
                delattr(module, name)
        for name, substitute in (("sendfile", _sendfile(posix.sendfile)), ("confstr", _confstr)):
            setattr(module, name, substitute)
    for name in BY_PATH:
        hidden = _without_proc(getattr(posix, name))
        setattr(posix, name, hidden)
        setattr(os, name, hidden)
    builtins.open = _without_proc(builtins.open)
    for name in ("CLOCK_BOOTTIME", "CLOCK_TAI"):
        if hasattr(time, name):
            delattr(time, name)


def _confstr(name: object) -> str:
    raise ValueError(f"unrecognized configuration name {name}")


def _sendfile(real: Any) -> Any:
    def sendfile(out_fd: int, in_fd: int, offset: int, count: int, *rest: Any) -> int:
        offset + 0  # None, "from where it is", is Linux's alone: a TypeError there as here
        if not stat.S_ISSOCK(os.fstat(out_fd).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        return int(real(out_fd, in_fd, offset, count, *rest))

    return sendfile


def _without_proc(real: Any) -> Any:
    def call(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, str) and (path == "/proc" or path.startswith("/proc/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return real(path, *arguments, **named)

    return call


def main() -> None:
    subtract()
    assert not os.path.exists("/proc/self")
    assert socket  # what the library imports anyway is imported whole
    del sys.path[0]
    sys.argv[0] = "envsync"
    from envsync.__main__ import start

    start()


if __name__ == "__main__":
    main()
