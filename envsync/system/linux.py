"""What is Linux's own, and other POSIX systems' for which nothing else is said. See `envsync.system.native`."""

from __future__ import annotations

import posix as os
import sys

assert sys.platform != "win32"
assert sys.platform != "darwin"

from envsync.system.posix import errno_of, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "linux"
CAN_FORK = True
"""Whether children may be forked, which share our memory and our locks."""
_FICLONE = 0x40049409
_AT_FDCWD, _BASIC, _BTIME = -100, 0x7FF, 0x800
_MASK = "=I"
_BIRTH = "=qI"
_BIRTH_AT = 80
_SIZE = 256
_NOATIME = 1024
"""ST_NOATIME of statvfs(3), which musl's headers do not show to Python."""


def clone(source: int, destination: int, name: str, directory: int | None) -> None:  # noqa: ARG001  # macOS needs both
    """Let an empty file share all blocks of another (ioctl_ficlone(2)). It keeps its name, mode and descriptor.

    :param source: a descriptor, open for reading
    :param destination: one of the empty file, which nobody else has
    :param name: of the empty file, relative to that directory
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


def pread_into(fd: int, buffer: bytearray, offset: int) -> int:
    """Read into a buffer at an offset. Returns how many bytes."""
    return os.preadv(fd, (buffer,), offset)


def notes_reading(path: str) -> bool:
    """Tell whether a filesystem notes when files are read: it is not mounted with `noatime`."""
    return not os.statvfs(path).f_flag & _NOATIME


def boot() -> str:
    """Name this boot of this kernel where /proc does not; empty if that is not known."""
    return ""


def command_of(pid: int) -> list[str]:  # noqa: ARG001  # who has no /proc does not say
    """Return the words that a process was started with, where /proc does not say them; empty if nobody does."""
    return []


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
    place = home(environ)
    return f"{place}/.cache/{name}" if place else ""


def jupyter_directory(environ: Mapping[str, str]) -> str:
    """Return where Jupyter has a user's data (jupyter-core, "Common directories"); empty: no home is known."""
    place = home(environ)
    base = environ.get("XDG_DATA_HOME") or (f"{place}/.local/share" if place else "")
    return f"{base}/jupyter" if base else ""


def birth_ns(path: str) -> int | None:
    """Return the time at which a file was made, in ns since the epoch; None where nobody knows.

    By statx(2) alone, which Python does not ask before 3.15.
    """
    import ctypes  # 3 ms, for those who ask for it
    import struct

    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):
        return None  # another system, or an old C library
    found = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, path.encode(sys.getfilesystemencoding(), "surrogateescape"), 0, _BASIC | _BTIME, found) != 0:
        return None
    if not struct.unpack_from(_MASK, found)[0] & _BTIME:
        return None
    seconds, nanos = struct.unpack_from(_BIRTH, found, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanos)
