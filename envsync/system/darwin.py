"""What is macOS's own. See `envsync.system.native`. Nothing here was run on a Mac yet (docs/systems.md)."""

from __future__ import annotations

import errno
import posix as os
import sys

assert sys.platform == "darwin"

from envsync.system.posix import errno_of, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "macos"
CAN_FORK = False
"""Apple's libraries have threads and locks of their own, of which a child is told nothing: one that asks them for the
proxies of the system, as downloads do, may be ended. So `multiprocessing` does not fork there, either."""
_CLONE_NOFOLLOW, _CLONE_NOOWNERCOPY = 1, 2
_AT_FDCWD = -2
_NEITHER = os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_VOLUME_FULLSYNC, _SYNC_VOLUME_WAIT = 1, 2
_NO_SUCH_SYNC = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
_functions: dict[str, Callable[..., int]] = {}


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that says -1 and why.

    :raises OSError: it did, or there is none
    """
    import ctypes

    if name not in _functions:  # a look-up for each file would take longer than the call
        try:
            _functions[name] = getattr(ctypes.CDLL(None, use_errno=True), name)
        except AttributeError:
            raise errno_of(errno.ENOSYS) from None
    if _functions[name](*arguments) != 0:
        raise errno_of(ctypes.get_errno())


def clone(source: int, destination: int, name: str, directory: int | None) -> None:
    """Let an empty file share all blocks of another (fclonefileat(2)). It keeps its name, mode and descriptor.

    A clone is always a new file, so it takes the place of the empty one. It comes with the mode of its source, and at
    once with the time by which it would be known as whole: so it is, and until it has its mode, it is not known.
    (fcopyfile(3) knows descriptors alone, but nothing of clones: it ignores that flag, copies nothing and says 0.)

    :raises OSError: this cannot be done; the destination is still empty
    """
    mode = os.fstat(destination).st_mode & 0o7777
    place = _AT_FDCWD if directory is None else directory
    encoded = name.encode(sys.getfilesystemencoding(), "surrogateescape")
    try:
        os.unlink(name, dir_fd=directory)
        _call("fclonefileat", source, place, encoded, _CLONE_NOFOLLOW | _CLONE_NOOWNERCOPY)
        _become(destination, os.open(name, os.O_RDONLY | _NEITHER, dir_fd=directory))
    except BaseException:  # an interrupt, too: who called removes what is there
        _become(destination, os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NEITHER, 0o600, dir_fd=directory))
        raise
    finally:
        os.fchmod(destination, mode)


def _become(descriptor: int, other: int) -> None:
    """Let a descriptor be one of another's file."""
    try:
        os.dup2(other, descriptor, inheritable=False)
    finally:
        os.close(other)


def send(source: int, destination: int, count: int, position: int) -> int:  # noqa: ARG001  # there is no such call
    """Refuse: sendfile(2) is for sockets there.

    :raises OSError: always
    """
    raise errno_of(errno.ENOTSOCK)


def pread_into(fd: int, buffer: bytearray, offset: int) -> int:
    """Read into a buffer at an offset. Returns how many bytes. preadv(2) is there since macOS 11."""
    data = os.pread(fd, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def sync_filesystem(fd: int) -> None:
    """Force everything that was written to a file's filesystem to the disk, and from its cache onto it.

    fsync_volume_np of the C library does that, as syncfs(2) does on Linux. Where a filesystem does not know it (those
    of other systems), what is next to it is done: sync(2), which returns before it has ended, and fsync(2).

    :raises OSError: the disk refused something
    """
    try:
        _call("fsync_volume_np", fd, _SYNC_VOLUME_FULLSYNC | _SYNC_VOLUME_WAIT)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise
        os.sync()
        _sync_file(fd)


def _sync_file(fd: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # it has the disk write all that it was given (fsync(2))
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise
        os.fsync(fd)


def notes_reading(path: str) -> bool:  # noqa: ARG001  # nobody says
    """Tell whether a filesystem notes when files are read, as far as is known: it is taken to."""
    return True


def boot() -> str:
    """Name this boot of this kernel (sysctlbyname(3), kern.bootsessionuuid); empty if the system does not say it."""
    import ctypes

    said = ctypes.create_string_buffer(64)
    try:
        _call(
            "sysctlbyname", b"kern.bootsessionuuid", said, ctypes.byref(ctypes.c_size_t(64)), None, ctypes.c_size_t(0)
        )
    except OSError:
        return ""
    return said.value.decode("ascii", "replace")


def command_of(pid: int) -> list[str]:
    """Return the words that a process was started with, by ps(1), which does not tell blanks in them from others."""
    import subprocess

    try:
        words = ["ps", "-o", "args=", "-p", str(pid)]
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def libc_version() -> str:
    """Return what stands for the C library, of which there is but one."""
    return "other"


def cache_directory(environ: Mapping[str, str], name: str) -> str:
    """Return where a program of this name keeps its cache; empty: no home is known."""
    from platformdirs import user_cache_dir

    return user_cache_dir(name, appauthor=False) if home(environ) else ""


def jupyter_directory(environ: Mapping[str, str]) -> str:
    """Return where Jupyter has a user's data (jupyter-core, "Common directories"); empty: no home is known."""
    place = home(environ)
    return f"{place}/Library/Jupyter" if place else ""


def birth_ns(path: str) -> int | None:
    """Return the time at which a file was made, in ns since the epoch; Python has it to 200 ns or so."""
    return int(os.stat(path).st_birthtime * 1_000_000_000)
