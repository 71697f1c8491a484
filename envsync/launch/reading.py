"""Read input files and files of ours: whole, with as few calls as it takes, and never what is no file."""

from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

LARGEST = 1 << 28
"""Bytes of an input or of a file of ours; what is larger is none."""


def read_input(path: str) -> bytes:
    """Read an input file that is named or was listed.

    :raises LockFileError: it cannot be read
    """
    try:
        return content_of_named(path)
    except OSError as error:
        from envsync.errors import LockFileError

        raise LockFileError(path, error.strerror or str(error), hint=hint_of(error)) from error


def hint_of(error: OSError) -> str | None:
    """Return what to do about an input that cannot be read."""
    import errno

    if error.errno == errno.ESPIPE:
        return "write what it gives to a file, and name that one: `envsync sync --lock requirements.txt`"
    return None


def content(path: str) -> bytes:
    """Read a file with as few calls as it takes. Nothing else is waited for or read: a pipe has no content to keep to.

    :raises OSError: it cannot be read; ESPIPE: it is no file, but a pipe, a device, ...
    """
    return again_if_refused(_content, path)


def again_if_refused(read: "Callable[[str], T]", path: str) -> "T":
    """Read again what a network filesystem may refuse for an instant; what is not there is not there.

    :raises OSError: it goes on being refused
    """
    try:
        return read(path)
    except FileNotFoundError:
        raise
    except OSError:
        from envsync.system.patience import reading

        return reading(read, path)


def content_if_there(path: str) -> bytes:
    """Read a file that may be missing, and is then as good as empty.

    :raises OSError: as `content`
    """
    try:
        return content(path)
    except FileNotFoundError:
        return b""


def content_of_named(path: str) -> bytes:
    """Read a file that ought to be there.

    :raises OSError: as `content`
    """
    try:
        return content(path)
    except FileNotFoundError:
        from envsync.system.patience import reading_what_is_there

        return reading_what_is_there(_content, path)


def _content(path: str) -> bytes:
    fd = _open(path)
    try:
        status = os.fstat(fd)
        if status.st_mode & _TYPE != _REGULAR:
            raise _no_file(status.st_mode)
        chunks: list[bytes] = []
        read, size = 0, status.st_size
        # Room for all that is said to be there: more of it would be mapped, and unmapped again, for each file.
        while max(read, size) <= LARGEST and (chunk := os.read(fd, max(1 << 12, min(size - read, 1 << 20)))):
            chunks.append(chunk)
            read += len(chunk)
        if max(read, size) > LARGEST:
            raise _too_large()
        return b"".join(chunks)
    finally:
        os.close(fd)


def is_file(path: str) -> bool:
    try:
        return os.stat(path).st_mode & _TYPE == _REGULAR
    except OSError:
        return False


_TYPE, _REGULAR = 0o170000, 0o100000


def _open(path: str) -> int:
    try:
        return core.open_file(path, os.O_RDONLY | core.NONBLOCK)  # a pipe without a writer would be waited for
    except BlockingIOError:  # a server of files wants its lease back first (fcntl(2)): that is worth to wait for
        if os.stat(path).st_mode & _TYPE != _REGULAR:
            raise
        return core.open_file(path, os.O_RDONLY)


def _too_large() -> OSError:
    import errno

    return OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MiB")


def _no_file(mode: int) -> OSError:
    import errno

    if mode & _TYPE == 0o040000:
        return IsADirectoryError(errno.EISDIR, "Is a directory")
    kind = {0o010000: "a pipe", 0o140000: "a socket"}.get(mode & _TYPE, "a device")
    return OSError(errno.ESPIPE, f"it is {kind}, and has to be a regular file: what was read once is read again")
