"""Write, read and remove what is our own, so that nobody ever sees half of a file.

A state file is written to a temporary file beside it and renamed over it; never in place, for on a network
filesystem a reader with stale pages sees a mixture. Reading retries what such filesystems answer while a file is
being replaced: ESTALE for up to a second or so, and EEXIST.
"""

from __future__ import annotations

import errno
import os
import time

from envsync.errors import FilesystemError
from envsync.stamp import checksum

SUFFIX = ".new"
"""Of temporary files. A dead writer's are swept away by whoever holds the environment lock next."""
PASSING = frozenset({errno.ESTALE, errno.EEXIST})


def write(path: str, data: bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Replace a file as a whole. Its inode is always a new one.

    :param durable: when this returns, the file is on the disk under its name
    :raises FilesystemError: it cannot be written; what was there is untouched and no temporary file is left
    """
    # Threads share a pid, and so do processes in different containers: the name has to be nobody else's.
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        if durable:
            _sync_directory(os.path.dirname(path))
    except OSError as error:
        discard(temporary)
        raise FilesystemError("write", path, error) from error
    except BaseException:
        discard(temporary)
        raise


def _sync_directory(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def seal(data: bytes) -> bytes:
    """Append a checksum, so that a cached file that was cut, emptied or replaced is taken for absent."""
    return data + b"\n" + checksum(data).encode() + b"\n"


def unseal(data: bytes) -> bytes:
    """Take the checksum off again.

    :raises ValueError: the data is not what was sealed
    """
    body, _, end = data.removesuffix(b"\n").rpartition(b"\n")
    if end != checksum(body).encode():
        raise ValueError("its checksum does not match")
    return body


def read(path: str) -> bytes | None:
    """Read a file; None if there is none.

    :raises FilesystemError: it is there and cannot be read
    """
    for attempt in range(40):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in PASSING or attempt == 39:
                raise FilesystemError("read", path, error) from error
            time.sleep(0.05)
    raise AssertionError("unreachable")


def remove(path: str) -> None:
    """Remove a file that must not stay.

    :raises FilesystemError: it is there and cannot be removed
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # gone is what was wanted
    except OSError as error:
        raise FilesystemError("remove", path, error) from error


def discard(path: str) -> None:
    """Remove a file if it is there and can be removed."""
    try:
        os.unlink(path)
    except OSError:
        pass  # gone already, or left for a later sync


def discard_tree(path: str) -> None:
    """Remove a directory and all that is in it, as far as it can be removed.

    Never follows a symbolic link. What resists stays: on NFS, a file that is open somewhere becomes `.nfs*`.
    """
    if os.path.islink(path):
        discard(path)
        return
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except NotADirectoryError:
        discard(path)
        return
    except OSError:
        return  # it is gone, or must not be looked into
    for below, is_directory in found:
        if is_directory:
            discard_tree(below)
        else:
            discard(below)
    try:
        os.rmdir(path)
    except OSError:
        pass  # something in it resisted


def rename_if_there(source: str, destination: str) -> bool:
    """Rename a file. Returns False if it is not there.

    :raises FilesystemError: it is there and cannot be renamed
    """
    try:
        os.rename(source, destination)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FilesystemError("rename", source, error) from error
    return True
