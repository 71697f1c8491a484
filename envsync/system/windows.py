"""What is Windows' own. See `envsync.system.native`. Tested under wine, not yet on Windows itself (docs/systems.md)."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from os import stat_result

assert sys.platform == "win32"

NAME = "windows"
CAN_FORK = False
PIPE_BUF = 512
KILL = CONTINUE = int(signal.SIGTERM)
"""os.kill takes any number for TerminateProcess, and nothing can be stopped."""
_DEVICE = re.compile(r"(aux|con|nul|prn|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)( *\.|$)", re.IGNORECASE)
"""Names that are devices, whatever their extension ("Naming Files, Paths, and Namespaces")."""
_seeking = threading.Lock()
"""Held while a descriptor is moved: the C library has no pread."""


# Files


def pread(fd: int, count: int, offset: int) -> bytes:
    with _seeking:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)


def pread_into(fd: int, buffer: bytearray, offset: int) -> int:
    data = pread(fd, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    with _seeking:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, data)


def allocated(status: stat_result) -> int:
    """Return how many bytes a file has: what it takes on the disk is not said."""
    return status.st_size


def device(number: int) -> tuple[int, int]:
    return 0, number


def free(path: str) -> tuple[int, int | None]:
    import shutil

    return shutil.disk_usage(path).free, None


def is_read_only(path: str) -> bool:  # noqa: ARG001  # who writes will be told
    return False


def notes_reading(path: str) -> bool:  # noqa: ARG001  # NTFS may note it late, or not at all
    """Say no: since Windows Vista, NTFS does not note when files are read, unless it is told to."""
    return False


def is_possible_name(part: str) -> bool:
    """Tell whether a file can have a name: not a device's, no blank or point at the end, none of `<>:"|?*`."""
    is_odd = _DEVICE.match(part) or part[-1:] in (".", " ") or any(character in part for character in '<>:"|?*\\')
    return not is_odd and all(ord(character) >= 32 for character in part)


def clone(source: int, destination: int) -> None:  # noqa: ARG001  # ReFS has it
    """Refuse: that takes ReFS.

    :raises OSError: always
    """
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def send(source: int, destination: int, count: int, position: int) -> int:  # noqa: ARG001  # there is no such call
    """Refuse: there is no such call.

    :raises OSError: always
    """
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def sync_filesystem(fd: int) -> None:  # it takes an administrator
    """Do nothing: to have a whole volume written takes an administrator. Journal and stamp are synced by themselves."""


# Processes


def clock() -> float:
    """Return seconds since the host's boot, by one clock for all processes."""
    return time.monotonic()


def clock_ticks() -> int:
    return 10_000_000


def is_of_our_session(pid: int) -> bool:  # noqa: ARG001  # sessions are of users there
    return False


def user_id(name: str) -> int:
    """Know nobody: Windows has no such numbers.

    :raises KeyError: always
    """
    raise KeyError(name)


def fork() -> int:
    """Refuse (`CAN_FORK`).

    :raises OSError: always
    """
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def set_nonblocking(fd: int) -> None:  # nobody forks there
    """Do nothing: only who forks wants it."""


def readable(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Wait until there is something to read in one of these sockets; select(2) of Windows knows no other files."""
    import select

    found, _, _ = select.select(list(descriptors), (), (), seconds)
    return set(found)


def libc_version() -> str:
    return "other"


# Places


def cache_directory(environ: Mapping[str, str], name: str) -> str:
    """Return where a program of this name keeps its cache; empty: no home is known."""
    from platformdirs import user_cache_dir

    return user_cache_dir(name, appauthor=False).replace("\\", "/") if environ.get("LOCALAPPDATA") else ""


def jupyter_directory(environ: Mapping[str, str]) -> str:
    base = environ.get("APPDATA", "")
    return f"{base}/jupyter".replace("\\", "/") if base else ""
