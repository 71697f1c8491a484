"""What is Linux's own, and other POSIX systems' for which nothing else is said. See `envsync.system.native`."""

from __future__ import annotations

import posix as os
import sys

assert sys.platform != "win32"
assert sys.platform != "darwin"


from envsync.system.posix import (
    CAN_FORK,
    CONTINUE,
    KILL,
    PIPE_BUF,
    allocated,
    clock,
    clock_ticks,
    device,
    errno_of,
    fork,
    free,
    home,
    is_of_our_session,
    is_possible_name,
    is_read_only,
    pread,
    pread_into,
    pwrite,
    readable,
    set_nonblocking,
    user_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CAN_FORK",
    "CONTINUE",
    "KILL",
    "NAME",
    "PIPE_BUF",
    "allocated",
    "cache_directory",
    "clock",
    "clock_ticks",
    "clone",
    "device",
    "fork",
    "free",
    "is_of_our_session",
    "is_possible_name",
    "is_read_only",
    "jupyter_directory",
    "libc_version",
    "notes_reading",
    "pread",
    "pread_into",
    "pwrite",
    "readable",
    "send",
    "set_nonblocking",
    "sync_filesystem",
    "user_id",
]

NAME = "linux"
_FICLONE = 0x40049409
_NOATIME = 1024
"""ST_NOATIME of statvfs(3), which musl's headers do not show to Python."""


def clone(source: int, destination: int) -> None:
    """Let an empty file share all blocks of another (ioctl_ficlone(2)).

    :raises OSError: this cannot be done; the destination is still empty
    """
    import fcntl

    fcntl.ioctl(destination, _FICLONE, source)


def send(source: int, destination: int, count: int, position: int) -> int:
    """Copy bytes from a file to the end of another within the kernel (sendfile(2)). Returns how many.

    :raises OSError: this cannot be done, or went wrong
    """
    return os.sendfile(destination, source, position, count)


def sync_filesystem(fd: int) -> None:
    """Force everything that was written to a file's filesystem to the disk (syncfs(2)).

    :raises OSError: the disk refused something (since Linux 5.8; before, nobody says so)
    """
    import ctypes  # 3 ms, for those who ask for it

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError, TypeError):
        os.sync()  # another system
        return
    if function(fd) != 0:
        raise errno_of(ctypes.get_errno())


def notes_reading(path: str) -> bool:
    """Tell whether a filesystem notes when files are read: it is not mounted with `noatime`."""
    return not os.statvfs(path).f_flag & _NOATIME


def libc_version() -> str:
    """Return the C library and its version, as in `glibc 2.36`; `other` for one that does not say (confstr(3))."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "other"
    except (ValueError, OSError):
        return "other"


def cache_directory(environ: Mapping[str, str], name: str) -> str:
    """Return where a program of this name keeps its cache (XDG Base Directory Specification); empty: no home is known.

    As platformdirs says it, without the 25 ms that it takes to import.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return f"{base.rstrip('/')}/{name}"
    return f"{home(environ)}/.cache/{name}" if home(environ) else ""


def jupyter_directory(environ: Mapping[str, str]) -> str:
    """Return where Jupyter has a user's data (jupyter-core, "Common directories"); empty: no home is known."""
    base = environ.get("XDG_DATA_HOME") or (f"{home(environ)}/.local/share" if home(environ) else "")
    return f"{base}/jupyter" if base else ""
