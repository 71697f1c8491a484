"""What is Windows' own. See `envsync.system.native`. Tested under wine, not yet on Windows itself (docs/systems.md)."""

from __future__ import annotations

import _winapi
import errno
import msvcrt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from os import stat_result
from typing import Any

assert sys.platform == "win32"

from envsync.system import refusals, windows_names
from envsync.system import windows_core as core

NAME = "windows"
CAN_FORK = False
RESTRICTS_NAMES = HAS_JOBS = True
is_possible_name = windows_names.is_possible_name
PIPE_BUF = 512
LOOK_SECONDS = 0.005
"""Between two looks into pipes."""
KILL = CONTINUE = int(signal.SIGTERM)
"""os.kill takes any number for TerminateProcess, and nothing can be stopped."""
_seeking = threading.Lock()
"""Held while a descriptor is moved: the C library has no pread."""


# Files


LINKS = False
MODES = False
"""Modes of files say nothing, and a file that nobody may write could not be removed either."""
BY_OTHERS = 0


MOVES_DIRECTORIES = False
GLANCE_SECONDS = 0.5
_DELETE, _OPEN_EXISTING, _AS_IT_IS = 0x10000, 3, 0x02200000
"""The right to remove and rename; and FILE_FLAG_BACKUP_SEMANTICS, which directories need, and
FILE_FLAG_OPEN_REPARSE_POINT."""


def check_movable(path: str) -> None:
    """Try whether an entry can be renamed, with all that is in it: open each for that.

    A running program and a loaded library can: their files are shared for that.
    """
    refusals.patiently(_try_to_move, path)
    if os.path.isdir(path) and not os.path.islink(path):
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                refusals.patiently(_try_to_move, f"{directory}/{name}")


def _try_to_move(path: str) -> None:
    try:
        _winapi.CloseHandle(_winapi.CreateFile(path, _DELETE, core.SHARE_ALL, 0, _OPEN_EXISTING, _AS_IT_IS, 0))
    except OSError as error:
        raise core.named(error, path) from None


def _path(path: str | int, dir_fd: int | None) -> str:
    if isinstance(path, int):
        return core.names[path]
    return path if dir_fd is None else f"{core.names[dir_fd]}/{path}"


def stat(path: str | int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> stat_result:
    return os.stat(_path(path, dir_fd), follow_symlinks=follow_symlinks)


def utime(
    path: str | int,
    times: tuple[float, float] | None = None,
    *,
    ns: tuple[int, int] | None = None,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,  # noqa: ARG001  # os.utime knows no other way there
) -> None:
    if ns is None:
        os.utime(_path(path, dir_fd), times)
    else:
        os.utime(_path(path, dir_fd), ns=ns)


def chmod(path: str | int, mode: int) -> None:
    """Do nothing (`MODES`)."""


def link(source: str, destination: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    os.link(_path(source, src_dir_fd), _path(destination, dst_dir_fd))


def unlink(path: str, *, dir_fd: int | None = None) -> None:
    os.unlink(_path(path, dir_fd))


def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    os.mkdir(_path(path, dir_fd), mode)


def listdir(path: str | int) -> list[str]:
    return os.listdir(_path(path, None))


def replace(source: str, destination: str) -> None:
    """Rename a file over whatever file is there, or a directory over one that is empty.

    :raises OSError: that cannot be done; ENOTEMPTY: there is a directory with something in it
    """
    try:
        os.replace(source, destination)
    except PermissionError:
        if not (os.path.isdir(source) and os.path.isdir(destination)):
            raise
        try:
            os.rmdir(destination)
        except OSError:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), source, None, destination) from None
        os.replace(source, destination)


def umask() -> int:
    return 0


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


def clone(source: int, destination: int, name: str, directory: int | None) -> None:  # noqa: ARG001  # ReFS has it
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


# Environments

INCLUDE = "Include"
LIBRARIES = ("Lib",)
SITE_PACKAGES = "Lib/site-packages"
DEEP = r"scripts|lib/site-packages"
OWN_DIRECTORIES = r"scripts|include|lib(/site-packages)?"


OWN_SCRIPTS = r"pythonw?[\d.]*\.exe|(de)?activate(\.(bat|ps1|fish|csh))?"
PROGRAM = ".exe"
ENDS_OF_PYTHON = "0123456789.w"
LAUNCHER = {"AMD64": "win-amd64", "ARM64": "win-arm64"}.get(core.machine(), "win-ia32")


def site_packages(environment: str) -> list[str]:
    return [SITE_PACKAGES] if os.path.isdir(f"{environment}/{SITE_PACKAGES}") else []


def spelled(path: str) -> str:
    return path.replace("/", "\\")


def spoken(hint: str) -> str:
    from envsync.system import powershell

    return powershell.spoken(hint)


def inherit(descriptors: Sequence[int]) -> dict[str, Any]:
    """Return what `subprocess` has to be told so that a child has the handles of these descriptors.

    It has them without their numbers: what counts is that they are open.
    """
    handles = [msvcrt.get_osfhandle(fd) for fd in descriptors]
    for handle in handles:
        os.set_handle_inheritable(handle, True)
    startup = subprocess.STARTUPINFO()
    startup.lpAttributeList = {"handle_list": handles}
    return {"startupinfo": startup}


# Processes

START_SECONDS = 2.0
"""The time of day and the time since boot have ticks of 16 ms, and one may be set while the other goes on."""
MAY_HAVE_PROC = False
_SYNCHRONIZE, _QUERY_LIMITED = 0x100000, 0x1000


def clock() -> float:
    """Return seconds since the host's boot, by one clock for all processes."""
    return time.monotonic()


def clock_ticks() -> int:
    return 10_000_000


def parents() -> dict[int, int]:
    from envsync.system import windows_processes

    return windows_processes.parents()


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process here. It is there as an object, too, while anybody has a handle of it."""
    try:
        handle = _winapi.OpenProcess(_SYNCHRONIZE | _QUERY_LIMITED, False, pid)
    except OverflowError:
        return False
    except OSError as error:
        return refusals.code(error) == refusals.ACCESS_DENIED  # somebody else's
    try:
        return bool(_winapi.WaitForSingleObject(handle, 0) == _winapi.WAIT_TIMEOUT)
    finally:
        _winapi.CloseHandle(handle)


def boot() -> str:
    from envsync.system import windows_processes

    return windows_processes.boot()


def started_of(pid: int) -> float:
    from envsync.system import windows_processes

    since = windows_processes.started(pid)
    return clock() - (time.time() - since) if since else 0.0


def command_of(pid: int) -> list[str]:
    from envsync.system import windows_processes

    return windows_processes.words(pid)


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
    """Wait until there is something to read in one of these pipes, or one has ended; by looking again and again."""
    watched, until = list(descriptors), time.monotonic() + seconds
    while not (found := {each for each in watched if _has_data(each)}) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return found


def _has_data(fd: int) -> bool:
    try:
        return _winapi.PeekNamedPipe(msvcrt.get_osfhandle(fd), 0)[0] != 0
    except OSError:
        return True  # it has ended: who reads will be told


def socket_readable(number: int, seconds: float) -> bool:
    import select

    return bool(select.select([number], (), (), seconds)[0])


def libc_version() -> str:
    return "other"


# Places

NO_HOME = "LOCALAPPDATA is not set"


def cache_directory(environ: Mapping[str, str], name: str) -> str:
    """Return where a program of this name keeps its cache; empty: no home is known."""
    from platformdirs import user_cache_dir

    return core.slashed(user_cache_dir(name, appauthor=False)) if environ.get("LOCALAPPDATA") else ""


def jupyter_directory(environ: Mapping[str, str]) -> str:
    base = environ.get("APPDATA", "")
    return core.slashed(f"{base}/jupyter") if base else ""


def birth_ns(path: str) -> int | None:
    """Return the time at which a file was made, in ns since the epoch: what is `st_ctime` elsewhere is that here."""
    return os.stat(path).st_ctime_ns
