"""Write, read and remove what is our own, so that nobody ever sees half of a file.

A state file is written to a temporary file beside it and renamed over it; never in place, for on a network
filesystem a reader with stale pages sees a mixture. Reading retries what such filesystems answer while a file is
being replaced (`envsync.system.patience`).

Every rename of envsync goes through `move`, which tries again what some filesystems, and Windows, refuse for a moment
(`envsync.system.refusals`); so does what has to be removed, through `unlink`.

With `--durable` a node that loses power leaves what a killed process leaves. Without it, the order in which renames and
contents reach the disk is the kernel's: a journal may be there without the stage that it speaks of, or a stamp without
the files that it vouches for. With it, each of these is on the disk before the next is begun:

    store entries → stage → journal → renames → removal of the journal, stamp

Journal and stamp are synced by themselves (`write`), the others with their whole filesystem (`sync_filesystem`).
"""

from __future__ import annotations

import errno
import os
import stat
import time

from envsync.errors import FilesystemError
from envsync.launch.reading import content
from envsync.system import core, native, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

SUFFIX = ".new"
"""Of temporary files. A dead writer's are swept away by whoever holds the environment lock next."""
NO_FILE = frozenset({errno.ESPIPE, errno.EISDIR, errno.ENXIO, errno.EFBIG})
"""What is answered of something that no version of ours has put there: a pipe, a socket, a device, ..."""
SENSELESS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a file of ours raises that is read as if it made sense: it is then taken for absent."""
MOVE_SECONDS = 2.0
"""For how long a rename is tried that is refused since somebody has the file open (SMB, virus scanners)."""
TRIES = 20
"""How often a directory is made that others remove meanwhile, or those above it."""
NO_DIRECTORIES = frozenset({errno.EXDEV, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What filesystems answer that do not rename directories; overlay says EXDEV of those in its lower layers."""


def write(
    path: str, data: bytes, *, mode: int = 0o666, durable: bool = False, patience: float = refusals.SECONDS
) -> None:
    """Replace a file as a whole. Its inode is always a new one.

    :param durable: when this returns, the file is on the disk under its name
    :param patience: for how many seconds it is tried at most while somebody is in the way
    :raises FilesystemError: it cannot be written; what was there is untouched and no temporary file is left
    """
    # Threads share a pid, and so do processes in different containers: the name has to be nobody else's.
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    try:
        fd = core.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        move(temporary, path, patience)
        if durable:
            _sync_directory(os.path.dirname(path))
    except OSError as error:
        discard(temporary)
        raise FilesystemError("write", path, error) from error
    except BaseException:
        discard(temporary)
        raise


def make_directory(path: str) -> None:
    """Make a directory, and those above it, as far as they are missing.

    Whoever removes a cache (`rm -rf`) does not ask. What is removed between two calls is made again: mkdir(2) may find
    a directory that is gone a moment later, or be in one that is.

    :raises OSError: it cannot be made
    """
    for _ in range(TRIES):
        try:
            os.makedirs(path, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            continue
        return
    os.makedirs(path, exist_ok=True)


def move(source: str, destination: str, patience: float = refusals.SECONDS) -> None:
    """Rename, and try again for a while what may pass: EBUSY, and EACCES if permissions are not the reason.

    On Windows, whatever `refusals.PASSING` has, and longer.

    :param patience: for how many seconds at most
    :raises OSError: it cannot be renamed
    """
    began, pause = time.monotonic(), 0.01
    while True:
        try:
            refusals.for_seconds(patience, native.replace, source, destination)
        except OSError as error:
            passes = error.errno == errno.EBUSY or (error.errno == errno.EACCES and _may_move(source, destination))
            if not passes or time.monotonic() - began >= min(MOVE_SECONDS, patience):
                raise
        else:
            return
        time.sleep(pause)
        pause = min(0.2, pause * 2)


def move_entry(source: str, destination: str) -> None:
    """Rename what commands may have open: on Windows no directory, which would be refused if a file in it is open.

    :raises OSError: as `move`; EXDEV for such a directory, whose files are then to be moved (`is_refused_directory`)
    """
    if not native.MOVES_DIRECTORIES and os.path.isdir(source) and not os.path.islink(source):
        if not os.path.isdir(os.path.dirname(destination)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source, None, destination)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, destination)
    move(source, destination)


def unlink(path: str) -> None:
    """Remove a file that must not stay, again for a while where Windows refuses what may pass.

    :raises OSError: it is not there, or cannot be removed
    """
    refusals.patiently(os.unlink, path)


def _may_move(source: str, destination: str) -> bool:
    """Tell whether permissions allow a rename. To move a directory one has to be allowed to write to it."""
    places = [os.path.dirname(source) or ".", os.path.dirname(destination) or "."]
    if os.path.isdir(source) and not os.path.islink(source):
        places.append(source)
    return all(os.access(place, os.W_OK | os.X_OK) for place in places)


def is_refused_directory(source: str, error: OSError) -> bool:
    """Tell whether a rename was refused because it was that of a directory: its files may still be moved."""
    return error.errno in NO_DIRECTORIES and os.path.isdir(source) and not os.path.islink(source)


def move_tree(source: str, destination: str, *, last: str = "") -> bool:
    """Move a directory file by file, where it cannot be renamed. What is done already stays done: it may be repeated.

    :param last: a file at the top that is moved after all others
    :returns: False if something else was in the way of a file; that and the file are left
    :raises OSError: something cannot be moved
    """
    try:
        os.mkdir(destination, stat.S_IMODE(os.lstat(source).st_mode))
    except FileExistsError:
        if os.path.islink(destination):
            return False  # it leads elsewhere
    complete = True
    with os.scandir(source) as entries:
        found = sorted((entry.name == last, entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for _, name, is_directory in found:
        if is_directory:
            complete &= move_tree(f"{source}/{name}", f"{destination}/{name}")
        else:
            complete &= _move_file(f"{source}/{name}", f"{destination}/{name}")
    if complete:
        refusals.patiently(os.rmdir, source)
    return complete


def _move_file(source: str, destination: str) -> bool:
    if os.path.lexists(destination):
        if not os.path.samestat(os.lstat(source), os.lstat(destination)):
            return False
        unlink(source)  # two names of one file: rename(2) does nothing then
    else:
        move(source, destination)
    return True


def _sync_directory(path: str) -> None:
    fd = core.open_file(path or ".", os.O_RDONLY | core.DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str) -> None:
    """Force everything written to the filesystem that a directory is on to the disk.

    To sync 22,000 files one by one takes minutes, and most of them are links to files that were synced long ago.

    :raises FilesystemError: the disk refused something (of Linux since 5.8; before, and elsewhere, nobody says so)
    """
    try:
        fd = core.open_file(path, os.O_RDONLY | core.DIRECTORY)
    except OSError as error:
        raise FilesystemError("open", path, error) from error
    try:
        native.sync_filesystem(fd)
    except OSError as error:
        raise FilesystemError("sync the filesystem of", path, error) from error
    finally:
        os.close(fd)


def read_if_there(path: str) -> bytes | None:
    """Read a file; None if there is none, or something else in its place.

    :raises FilesystemError: it is there and cannot be read
    """
    try:
        return content(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise FilesystemError("read", path, error) from error


def remove(path: str) -> None:
    """Remove a file that must not stay.

    :raises FilesystemError: it is there and cannot be removed
    """
    try:
        unlink(path)
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
    if os.path.islink(path) or not os.path.isdir(path):
        discard(path)
        return
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
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
        move(source, destination)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FilesystemError("rename", source, error) from error
    return True
