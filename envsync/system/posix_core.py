"""What a launch needs of Linux, macOS and other POSIX systems. `envsync.system.windows_core` has the same names.

Built-in modules alone: hundreds of tasks pay for each import at once.
"""

import errno
import posix
import sys

assert sys.platform != "win32"

os = posix
"""All of `os` that a launch needs, without the 1.5 ms that `os` takes to import."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

# Names

BIN = "bin"
"""Directory of an environment's commands."""
PYTHON = "bin/python"
"""The Python of an environment, in it."""
PATH_SEPARATOR = ":"
DEFAULT_PATH = "/bin:/usr/bin"
"""Of processes without PATH, as `os.defpath`."""
HOME = "HOME"
"""The variable that says where one's home is."""
CACHES = "/Library/Caches" if sys.platform == "darwin" else "/.cache"
"""Where caches are, below one's home."""
NODE = "/tmp"
"""Where each node has something of its own (`envsync.system.node_local`); empty: nothing is kept there."""


def is_absolute(path: str) -> bool:
    return path.startswith("/")


def split_root(path: str) -> "tuple[str, str]":
    """Return the root that an absolute path begins at, as a prefix, and the rest."""
    return "/", path


def has_directory(path: str) -> bool:
    """Tell whether a path is more than a name."""
    return "/" in path


getcwd = os.getcwd


def slashed(path: str) -> str:
    """Return a path as it is written everywhere in envsync: with slashes."""
    return path


# Files

NONBLOCK = os.O_NONBLOCK
"""Do not wait for who writes into a pipe, or for a lease (fcntl(2))."""
NOFOLLOW = os.O_NOFOLLOW
"""Refuse a symbolic link."""
DIRECTORY = os.O_DIRECTORY
"""Refuse what is no directory."""
NOCTTY = os.O_NOCTTY


def open_file(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file so that no child gets it, and others may replace it meanwhile.

    :param flags: those of `os`, and those above
    :raises OSError: as open(2) says
    """
    if dir_fd is None:
        return os.open(path, flags | os.O_CLOEXEC, mode)
    return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def is_directory(path: str) -> bool:
    """Tell whether a path is, or leads to, a directory."""
    try:
        os.stat(path + "/.")
    except OSError:
        return False
    return True


def touch(fd: int) -> None:
    """Let an open file look new.

    :raises OSError: it is somebody else's, or on a disk that is read-only
    """
    os.utime(fd)


# Locks


def lock(fd: int, path: str, *, shared: bool) -> None:  # noqa: ARG001  # it says something on Windows
    """Lock an open file without waiting, or turn its lock into one of the other kind, by flock(2).

    :param fd: from `open_file`
    :param path: its name, which here says nothing
    :raises BlockingIOError: somebody has a lock that excludes this one
    :raises OSError: this filesystem has no locks
    """
    import fcntl

    fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def unlock(fd: int) -> None:
    """Unlock an open file, whoever has inherited the descriptor.

    :raises OSError: this filesystem has no locks
    """
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_UN)


_FIRST_FREE = 3
_OUT_OF_THE_WAY = 200
"""Shells and daemons use and close low descriptors (`exec 3>&1`); few go above this."""


def duplicate(fd: int, *, inherited: bool) -> int:
    """Return another descriptor of the same open file, of a high number. A flock is kept, and ends with the last one.

    :param inherited: whether the command that this process becomes, or starts, has it
    :raises OSError: no more files may be open
    """
    import fcntl

    least = _OUT_OF_THE_WAY
    while True:
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD if inherited else fcntl.F_DUPFD_CLOEXEC, least)
        except OSError:  # RLIMIT_NOFILE is lower than that: then as high as it goes, and never a standard stream
            if least == _FIRST_FREE:
                raise
            least = max(_FIRST_FREE, least * 3 // 4)


# Commands


def variables() -> "dict[str, str]":
    """Return all environment variables of this process, as `os.environ` has them.

    Without importing `os`, which takes a tenth of a launch; where it is imported, its word counts, since programs
    that use the library set variables there.
    """
    if "os" in sys.modules:
        import os as whole

        return dict(whole.environ)
    return {_decoded(name): _decoded(value) for name, value in os.environ.items()}


def variable(name: str) -> str:
    """Return one environment variable of this process, as `variables` does; the empty string if it is not set."""
    if "os" in sys.modules:
        import os as whole

        return whole.environ.get(name, "")
    return _decoded(os.environ.get(name.encode(), b""))


def _decoded(value: bytes) -> str:
    return value.decode(sys.getfilesystemencoding(), "surrogateescape")


def take_in(said: str) -> None:
    """Take in what the launcher (`launcher.sh`) could not hand on as it was: LC_CTYPE, and variables of odd names.

    :param said: words, of which `CTYPE` says that LC_CTYPE was set before Python set it; empty: there was no launcher
    """
    if said and "CTYPE" not in said.split() and os.environ.pop(b"LC_CTYPE", b""):
        os.unsetenv(b"LC_CTYPE")
    for key in [key for key in os.environ if key.startswith(b"_envsync_odd")]:
        os.unsetenv(key)
        name, _, value = os.environ.pop(key).replace(b"\1", b"\n").partition(b"=")
        if name:
            os.environ[name] = value
            os.putenv(name, value)


def candidates(directory: str, name: str) -> "Sequence[str]":
    """Return the files that a command may be in a directory, the first that is there counts."""
    return (f"{directory}/{name}",)


def execute(path: str, words: "Sequence[str]", variables: "Mapping[str, str]") -> "NoReturn":
    """Become a command: it has our process id, so its signals and its exit status are its own (execve(2)).

    :raises OSError: it cannot be executed
    """
    try:
        os.execve(path, list(words), variables)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        os.execve("/bin/sh", ["/bin/sh", path, *words[1:]], variables)  # a script without `#!`, as execvp(3) does


# Who and where we are


def user() -> int:
    """Return whose this process is: its effective user id (geteuid(2))."""
    return os.geteuid()


def user_name() -> str:
    """Return the user's name by the database of users, or the number where it has none, as in many containers."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def host() -> str:
    """Return this host's name."""
    return os.uname().nodename


def machine() -> str:
    """Return what this machine is, as in x86_64."""
    return os.uname().machine


def kernel() -> "dict[str, str]":
    """Return the markers that say release and version of the kernel, `platform_release` and `platform_version`."""
    system = os.uname()
    return {"platform_release": system.release, "platform_version": system.version}


def libc_family() -> str:
    """Name the C library's family without a file operation: confstr is glibc's own (confstr(3)).

    Other systems than Linux have but one: there it is the system's name.
    """
    system = str(sys.platform)  # for mypy, which else takes what follows for dead on other systems
    if system != "linux":
        return system
    try:
        return "glibc" if os.confstr("CS_GNU_LIBC_VERSION") else "other"
    except (ValueError, OSError):
        return "other"
