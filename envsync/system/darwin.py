"""What is macOS's own. See `envsync.system.native`. Nothing here was run on a Mac yet (docs/systems.md)."""

from __future__ import annotations

import errno
import posix as os
import sys

assert sys.platform == "darwin"

from envsync.system.posix import errno_of, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "macos"
_COPYFILE_CLONE_FORCE = 1 << 25


def clone(source: int, destination: int) -> None:
    """Let an empty file share all blocks of another (fcopyfile(3), COPYFILE_CLONE_FORCE).

    :raises OSError: this cannot be done; the destination is still empty
    """
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).fcopyfile
    if function(source, destination, None, ctypes.c_uint32(_COPYFILE_CLONE_FORCE)) != 0:
        raise errno_of(ctypes.get_errno())


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
    """Force everything that was written to the disks, and from their caches onto them.

    sync(2) returns before that is done. F_FULLFSYNC of one file has the disk write all that it was given (fsync(2)).

    :raises OSError: the disk refused something
    """
    import fcntl

    os.sync()
    fcntl.fcntl(fd, fcntl.F_FULLFSYNC)


def notes_reading(path: str) -> bool:  # noqa: ARG001  # nobody says
    """Tell whether a filesystem notes when files are read, as far as is known: it is taken to."""
    return True


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
    """Return the time at which a file was made, in ns since the epoch."""
    return int(os.stat(path).st_birthtime * 1_000_000_000)
