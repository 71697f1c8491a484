"""What a launch needs of Windows. `envsync.system.posix_core` has the same names, and says what they mean.

Files are opened by CreateFile, so that others may replace and remove them meanwhile (FILE_SHARE_DELETE): the C
library's open(2) has no such thing. Before Windows 10, a name that was unlinked is
free only once the file is closed.

Locks are of two kinds (docs/systems.md):

- **By share modes**: files named `in-use`, which commands hold. To hold it shared is to have it open for reading while
  letting others read; to hold it alone is to let nobody. A handle that a child has inherited keeps the hold when its
  parent is killed, as flock(2) does over exec. LockFileEx does not: its locks are the process's own.
- **By LockFileEx**, one byte at an offset of 2^62: all others. There it excludes uv, which locks the whole range of
  an environment's `.lock`, and leaves the bytes readable, for locks of Windows are mandatory.

No process becomes another one: this one stays, and returns the status of the command (`execute`).
"""

import _winapi
import errno
import msvcrt
import os as os  # noqa: PLC0414  # handed on
import sys

from envsync.system import refusals

assert sys.platform == "win32"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

# Names

BIN = "Scripts"
PYTHON = "Scripts/python.exe"
PATH_SEPARATOR = ";"
DEFAULT_PATH = ""
HOME = "USERPROFILE"
CACHES = "/AppData/Local"
NODE = ""
EXTENSIONS = ".COM;.EXE;.BAT;.CMD"
"""What PATHEXT is if it is not set, of what CreateProcess runs."""


def is_absolute(path: str) -> bool:
    """Tell whether a path begins at a drive or at another host, or at the root of the present drive."""
    return path[:1] in ("/", "\\") or path[1:3] in (":/", ":\\")


def split_root(path: str) -> "tuple[str, str]":
    """Return the root that an absolute path begins at, as a prefix, and the rest: of a drive, or what a host shares."""
    drive, rest = os.path.splitdrive(slashed(path))
    return (drive or os.path.splitdrive(getcwd())[0]) + "/", rest


def has_directory(path: str) -> bool:
    return "/" in path or "\\" in path or path[1:2] == ":"


def getcwd() -> str:
    return slashed(os.getcwd())


def slashed(path: str) -> str:
    return path.replace("\\", "/")


# Files

NONBLOCK = 0
NOFOLLOW = 1 << 28
DIRECTORY = 1 << 29
NOCTTY = 0
_GENERIC_READ, _GENERIC_WRITE, _ATTRIBUTES = 0x80000000, 0x40000000, 0x80
_APPEND_ALONE = 0x120114
"""FILE_GENERIC_WRITE without FILE_WRITE_DATA."""
_SHARE_READ, _SHARE_WRITE, _SHARE_DELETE = 1, 2, 4
SHARE_ALL = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
_CREATE_NEW, _CREATE_ALWAYS, _OPEN_EXISTING, _OPEN_ALWAYS, _TRUNCATE_EXISTING = 1, 2, 3, 4, 5
_NORMAL, _BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x80, 0x02000000, 0x00200000


def open_file(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: ARG001  # no modes
    """Open a file so that no child gets it, and others may replace it meanwhile, and binary.

    :raises OSError: with `winerror`, `errno` and `filename`
    """
    path = path if dir_fd is None else f"{names[dir_fd]}/{path}"
    if _is_in_use(path):  # to be held by `lock`; without access it is in nobody's way
        return _open(path, _ATTRIBUTES, SHARE_ALL, flags)
    return _open(path, _access(flags), SHARE_ALL, flags)


def _is_in_use(path: str) -> bool:
    return path.endswith("/in-use")


def _access(flags: int) -> int:
    kind = flags & (os.O_WRONLY | os.O_RDWR)
    access = {0: _GENERIC_READ, os.O_WRONLY: _GENERIC_WRITE, os.O_RDWR: _GENERIC_READ | _GENERIC_WRITE}[kind]
    if flags & os.O_APPEND:  # who may write elsewhere, too, is not kept at the end: one would write over another's
        return access & ~_GENERIC_WRITE | _APPEND_ALONE
    return access


def _disposition(flags: int) -> int:
    if flags & os.O_CREAT:
        if flags & os.O_EXCL:
            return _CREATE_NEW
        return _CREATE_ALWAYS if flags & os.O_TRUNC else _OPEN_ALWAYS
    return _TRUNCATE_EXISTING if flags & os.O_TRUNC else _OPEN_EXISTING


def _open(path: str, access: int, share: int, flags: int = 0) -> int:
    attributes = _NORMAL | (_BACKUP_SEMANTICS if flags & DIRECTORY else 0)
    attributes |= _OPEN_REPARSE_POINT if flags & NOFOLLOW else 0
    try:
        handle = _winapi.CreateFile(path, access, share, 0, _disposition(flags), attributes, 0)
    except OSError as error:
        if refusals.code(error) == refusals.ACCESS_DENIED and os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) from None
        raise named(error, path) from None
    try:
        fd = msvcrt.open_osfhandle(handle, (flags & os.O_APPEND) | os.O_BINARY | os.O_NOINHERIT)
    except BaseException:
        _winapi.CloseHandle(handle)
        raise
    names[fd] = path
    _holding.discard(fd)  # that of one that was closed
    _shared.pop(fd, None)
    if flags & (NOFOLLOW | DIRECTORY):
        try:
            _check_kind(fd, path, flags)
        except BaseException:
            os.close(fd)
            raise
    return fd


def named(error: OSError, path: str) -> OSError:
    """Return an error of `_winapi`, which does not say of which file it is, with the file's name."""
    # The constructor takes errno from the Windows error, and the class from errno.
    return OSError(None, error.strerror, path, error.winerror)


def _check_kind(fd: int, path: str, flags: int) -> None:
    status = os.fstat(fd)
    is_link = bool(status.st_file_attributes & 0x400)
    if flags & NOFOLLOW and is_link:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if flags & DIRECTORY and not status.st_file_attributes & 0x10:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def is_directory(path: str) -> bool:
    """Tell whether a path is, or leads to, a directory. `file/.` is the file here, not an error."""
    return os.path.isdir(path)


def touch(fd: int) -> None:
    os.utime(names[fd])


names: dict[int, str] = {}
"""The paths of the descriptors that were opened here: Windows' functions take no descriptors."""


# Locks

OFFSET = 1 << 62
"""Of the byte that is locked: behind what anybody reads."""


def lock(fd: int, path: str, *, shared: bool) -> None:
    """Lock an open file without waiting, or turn its lock into one of the other kind.

    What is locked is known by the descriptor, so it has to come from `open_file`: Python's own `open` may return one
    that was locked, closed and is another file's now.

    A lock by share modes is given up for a moment while it is turned into one of the other kind: whoever does that
    holds the environment lock. So is a shared one that is to become exclusive, and it is lost if that is refused, as
    by flock(2).

    :raises BlockingIOError: somebody has a lock that excludes this one
    :raises OSError: it is not there any more, or this filesystem has no locks
    """
    try:
        if _is_in_use(path):
            _hold(fd, path, shared=shared)
        else:
            _lock(fd, shared=shared)
    except OSError as error:
        if refusals.is_held(error) or (_is_in_use(path) and refusals.code(error) == refusals.ACCESS_DENIED):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path) from error
        raise


def _lock(fd: int, *, shared: bool) -> None:
    """Lock the byte, once: each further lock of the same handle would have to be unlocked, too (LockFileEx)."""
    from envsync.system import windows_locks

    handle, before = msvcrt.get_osfhandle(fd), _shared.get(fd)
    if before is shared:
        return
    if before:  # one's own shared lock would be in the way
        unlock(fd)
    windows_locks.lock(handle, OFFSET, shared=shared)
    if before is False:  # the first of the two that is unlocked is the exclusive one
        windows_locks.unlock(handle, OFFSET)
    _shared[fd] = shared


_shared: dict[int, bool] = {}
"""The descriptors that have the byte of their files locked, and whether that is shared."""


def _hold(fd: int, path: str, *, shared: bool) -> None:
    """Have a descriptor be one of a handle that holds the file."""
    before = os.fstat(fd)
    if fd in _holding:
        unlock(fd)  # one's own hold would be in the way
    access = _GENERIC_READ if shared else _GENERIC_READ | _GENERIC_WRITE
    held = _open(path, access, _SHARE_READ | _SHARE_DELETE if shared else 0)
    try:
        found = os.fstat(held)
        if (found.st_dev, found.st_ino) != (before.st_dev, before.st_ino):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        os.dup2(held, fd, inheritable=False)
    finally:
        os.close(held)
    _holding.add(fd)


_holding: set[int] = set()
"""The descriptors that hold their files by share modes."""


def unlock(fd: int) -> None:
    """Unlock an open file. A hold that a child has inherited is the child's.

    :raises OSError: it is not there any more
    """
    if fd in _holding:
        _holding.discard(fd)
        free = _open(names[fd], _ATTRIBUTES, SHARE_ALL)
        try:
            os.dup2(free, fd, inheritable=False)
        finally:
            os.close(free)
    elif _shared.pop(fd, None) is not None:
        from envsync.system import windows_locks

        windows_locks.unlock(msvcrt.get_osfhandle(fd), OFFSET)


def duplicate(fd: int, *, inherited: bool) -> int:
    other = os.dup(fd)
    _shared.pop(other, None)
    os.set_inheritable(other, inherited)
    return other


# Commands


def variables() -> dict[str, str]:
    return dict(os.environ)


def variable(name: str) -> str:
    return os.environ.get(name, "")


def take_in(said: str) -> None:  # there is no launcher that would say anything
    """Do nothing: there is no launcher here that would have something to say."""


def candidates(directory: str, name: str) -> "Sequence[str]":
    """Return the files that a command may be in a directory: as it is named, if it has an extension, then with each."""
    path = f"{directory}/{name}"
    extensions = [each.lower() for each in (variable("PATHEXT") or EXTENSIONS).split(";") if each]
    named = [path] if any(name.lower().endswith(each) for each in extensions) else []
    return (*named, *(path + each for each in extensions if each in EXTENSIONS.lower().split(";")))


def execute(path: str, words: "Sequence[str]", variables: "Mapping[str, str]") -> "NoReturn":
    """Run a command to its end, and end this process with its status.

    The command inherits the descriptors that are inheritable, so the hold on the environment. This process stays
    until it ends: Ctrl-C and Ctrl-Break go to both, and are heeded by the command alone.

    :raises OSError: it cannot be started
    """
    import signal
    import subprocess

    if not os.path.isfile(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    for number in (signal.SIGINT, signal.SIGBREAK):
        signal.signal(number, signal.SIG_IGN)
    command = [path, *words[1:]]
    process = subprocess.Popen(command, env=dict(variables), close_fds=False)
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            continue
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        # One that was ended by Ctrl-C, or has crashed, has a status above the largest int of C (0xC000013A).
        os._exit(status - (1 << 32) if status >= 1 << 31 else status)


# Who and where we are


def user() -> int:
    """Return 0: Windows has no such numbers. Whose a file is, is not looked at there."""
    return 0


def user_name() -> str:
    return variable("USERNAME")


def host() -> str:
    return variable("COMPUTERNAME") or "localhost"


def machine() -> str:
    """Return what this machine is, as in AMD64."""
    return variable("PROCESSOR_ARCHITEW6432") or variable("PROCESSOR_ARCHITECTURE")


def kernel() -> "dict[str, str]":
    """Return the release and the version of Windows, as `platform` says them."""
    import platform

    return {"platform_release": platform.release(), "platform_version": platform.version()}


def libc_family() -> str:
    return sys.platform
