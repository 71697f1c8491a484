"""What Linux, macOS and other POSIX systems have in common. It loads built-in modules alone."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import posix as os
import sys

assert sys.platform != "win32"

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import stat_result
    from typing import Any

RESTRICTS_NAMES = False
"""Whether there are names, of those that wheels may have, that a file cannot have."""
HAS_JOBS = False
"""Whether the kernel ends what a program has started, by itself (`envsync.system.windows_jobs`)."""
PIPE_BUF = 512
"""Bytes that reach a pipe as a whole, wherever it is (POSIX)."""
KILL, CONTINUE = int(_signal.SIGKILL), int(_signal.SIGCONT)
_BLOCK = 512
_TEMPORARY = (b"/tmp", b"/var/tmp")


# Files

LINKS = True
"""Whether anybody may make symbolic links."""
MODES = True
"""Whether modes of files say who may do what."""
BY_OTHERS = 0o022
"""The bits of a mode that let others than the owner write; none where modes say nothing."""
stat, utime, chmod, link, unlink, mkdir, listdir = os.stat, os.utime, os.chmod, os.link, os.unlink, os.mkdir, os.listdir
"""As those of `os`, which take descriptors, and names relative to a directory's: not on Windows."""


MOVES_DIRECTORIES = True
"""Whether a directory can be renamed while files in it are open."""
GLANCE_SECONDS = 0.0
"""For how long somebody may have a file open just to look at it, which keeps who wants it alone out."""

replace = os.replace
"""Rename a file over whatever file is there, or a directory over one that is empty (rename(2))."""


def check_movable(path: str) -> None:
    """Try whether an entry can be renamed, with all that is in it, without doing it.

    Here that is a matter of permissions alone; on Windows nothing can that somebody has open without sharing it.

    :raises OSError: it cannot
    """


def umask() -> int:
    """Return this process's umask, for `envsync.system.processes.read_umask`: a file is made, and removed at once.

    In /tmp, for a directory of somebody's own may have a default ACL, which goes before the umask (acl(5)).
    """
    name = f"envsync-umask-{os.getpid()}-{os.urandom(8).hex()}"
    for directory in (*_TEMPORARY, os.environ.get(b"TMPDIR", b"")):
        if not directory:
            continue
        path = directory + b"/" + name.encode()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
        except OSError:
            continue
        try:
            try:
                os.unlink(path)
            except OSError:
                pass  # who cleans up there was faster, or it has to stay there
            return ~os.fstat(fd).st_mode & 0o777
        finally:
            os.close(fd)
    found = os.umask(0o077)  # rather too strict than too lax, for as long as it is
    os.umask(found)
    return found


def pread(fd: int, count: int, offset: int) -> bytes:
    """Read at an offset, wherever the descriptor is.

    :returns: empty at the end of the file
    """
    return os.pread(fd, count, offset)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    """Write at an offset, wherever the descriptor is."""
    return os.pwrite(fd, data, offset)


def allocated(status: stat_result) -> int:
    """Return how many bytes a file takes on the disk."""
    return status.st_blocks * _BLOCK


def device(number: int) -> tuple[int, int]:
    """Return the numbers of a device by which the kernel's tables name it."""
    return os.major(number), os.minor(number)


def free(path: str) -> tuple[int, int | None]:
    """Return how many bytes this user may write, and how many files; None: they are not counted."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None


def is_read_only(path: str) -> bool:
    """Tell whether nobody can write to a filesystem."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def is_possible_name(part: str) -> bool:  # noqa: ARG001  # Windows cannot have each
    """Tell whether a file can have a name, of those that wheels may have."""
    return True


def socket_readable(number: int, seconds: float) -> bool:
    """Wait until there is something to read in a socket, or it has ended. Returns whether there is."""
    return bool(readable([number], seconds))


# Environments

INCLUDE = "include"
LIBRARIES = ("lib", "lib64")
"""Directories of an environment, the first of which has the packages; the second is a link to it, if it is there."""
SITE_PACKAGES = "lib/python/site-packages"
"""Stands for where packages are in an environment of which nothing is known."""
DEEP = r"bin|lib(64)?/python[\d.]+/site-packages"
"""Directories of an environment of any version that have commands or packages, as a pattern; in small letters."""
OWN_DIRECTORIES = r"bin|include|lib|lib64|lib/python[\d.]+(/site-packages)?"
"""Directories that belong to an environment itself, as a pattern; in small letters."""


OWN_SCRIPTS = r"python[\d.]*|activate|activate\.(csh|fish|ps1)"
"""Files in the directory of commands that belong to an environment itself, likewise."""
PROGRAM = ""
"""How the name of a program ends."""
ENDS_OF_PYTHON = "0123456789."
"""What the names of an environment's Pythons have after `python`."""
LAUNCHER = ""
"""The kind of the program that starts a script here, as `installer` names it; empty: the kernel does it."""


def site_packages(environment: str) -> list[str]:
    """Return where an environment has packages, by a look at it, relative to it: one place for each Python."""
    try:
        names = os.listdir(f"{environment}/lib")
    except OSError:
        return []
    return [f"lib/{name}/site-packages" for name in sorted(names) if name.startswith(("python", "pypy"))]


def spelled(path: str) -> str:
    """Return a path as programs of this system write it."""
    return path


def spoken(hint: str) -> str:
    """Return a hint, which has the commands of a POSIX shell, with those of this system's shell."""
    return hint


# Processes

START_SECONDS = 0.005
"""By how much two answers to when one process was started may differ: less than a tick, in which it is counted."""
MAY_HAVE_PROC = True
"""Whether there may be a /proc (proc(5))."""


def clock() -> float:
    """Return seconds since the host's boot, sleep included if anybody counts it: one clock for all of a host."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def clock_ticks() -> int:
    """Return how many ticks a second the kernel counts the times of processes in."""
    return os.sysconf("SC_CLK_TCK")


def parents() -> dict[int, int]:
    """Return all processes here and their parents, by ps(1); empty if it does not say."""
    import subprocess

    try:
        done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=5, check=True)
        pairs = [line.split() for line in done.stdout.splitlines()]
        return {int(pid): int(parent) for pid, parent in pairs}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process here, be it a zombie (kill(2))."""
    if pid <= 0:
        return False  # that would be a group, or everybody
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return True


def started_of(pid: int) -> float:  # noqa: ARG001  # who has no /proc does not say
    """Return when a process was started, by `clock()`, where /proc does not say it; 0 if nobody does."""
    return 0.0


def inherit(descriptors: Sequence[int]) -> dict[str, Any]:
    """Return what `subprocess` has to be told so that a child has these descriptors, by their numbers."""
    return {"pass_fds": tuple(descriptors)}


def is_of_our_session(pid: int) -> bool:
    """Tell whether a process is of our session; no if it has ended."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except OSError:
        return False


def user_id(name: str) -> int:
    """Return a user's number.

    :raises KeyError: there is no such user
    """
    import pwd

    return pwd.getpwnam(name).pw_uid


def fork() -> int:
    """Fork (fork(2)). Returns the child's pid, in the child 0.

    :raises OSError: no more processes are allowed, or there is no memory
    """
    return os.fork()


def set_nonblocking(fd: int) -> None:
    """Let reading from a pipe, and writing to it, return at once."""
    os.set_blocking(fd, False)


def readable(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Wait until there is something to read in one of these, or one has ended. Returns which; none if the time is over.

    By poll(2): select(2) knows no descriptor above 1,023, and a program may have more files open.
    """
    import select

    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return {each for each, _ in poll.poll(seconds * 1000)}


# Places

NO_HOME = "HOME is not set or no absolute path, and neither is XDG_CACHE_HOME"
"""Why there is no place for a cache."""


def home_of_user() -> str:
    """Return the home directory of this user; empty if there is no such user, as in many containers."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def home(environ: Mapping[str, str]) -> str:
    """Return the home directory; empty if none is known, or it is no absolute path."""
    found = environ.get("HOME") or home_of_user()
    return found.rstrip("/") if found.startswith("/") else ""


def errno_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))
