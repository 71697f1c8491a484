"""Advisory whole-file locks: flock(2), exclusive and shared.

One small module for all plain locks of envsync. What it relies on:

- A flock belongs to the open file description: it is inherited over fork and exec, shared by duplicates, and
  released when the last of them is closed, so by SIGKILL, too. (POSIX record locks are not used: closing *any*
  descriptor of the file drops them.)
- Lock files are created, never removed and never renamed over: the inode is the lock. Whoever has locked one
  still has to check that the path names the inode it locked (`Flock.is_in_place`), since `rm -rf` and `uv venv
  --clear` do not ask.
- For an exclusive lock the file is opened for reading and writing, since NFS emulates flock by record locks and
  wants it (flock(2)); for a shared one for reading only, so that a read-only environment can be locked.

- So a lock could outlive a sync in whatever the program forked meanwhile, in another thread say. Therefore a child
  that others than envsync fork closes what is held (`os.register_at_fork`), and `command.close_lock` unlocks before
  it closes, for children that C code has forked. Our own children (`fork`) keep it all, for they outlive a SIGKILL of
  their parent. What is exec'd has none of it but by `pass_fds`. The hold of a command, or of `envsync.use`, is shared
  with forks on purpose (`command.let_go`).

In which order locks are taken is said in `envsync.locks`.

Not covered: filesystems where flock is refused are refused in turn (`LockingError`), for an environment is
never changed without a lock that works. Filesystems where it lies are recognized by whoever asks (`grants_twice`).
"""

from __future__ import annotations

import errno

from envsync.launch import command
from envsync.system import (
    core,
    forks,  # noqa: F401  # before the first lock, so that no fork keeps one
)

os = core.os

NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF})
"""What filesystems without flock answer. Never a reason to go on unlocked."""


NEW_SECONDS = 86400
"""A day: a lock file that is older when it is locked looks new from then on."""


class Flock:
    """A held lock. Closing it releases it, unless another descriptor of the same open file is left."""

    __slots__ = ("fd", "path", "shared")

    def __init__(self, path: str, fd: int, *, shared: bool) -> None:
        self.path = path
        self.fd = fd
        self.shared = shared
        command.own(fd, self)

    @property
    def inode(self) -> int:
        return os.fstat(self.fd).st_ino

    def is_in_place(self) -> bool:
        """Tell whether the path still names the locked file."""
        if self.fd < 0:
            return False  # in a child that somebody has forked
        try:
            named, held = os.stat(self.path), os.fstat(self.fd)
        except OSError:
            return False  # of the descriptor it is ESTALE, where another node has removed the file
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def downgrade(self) -> None:
        """Turn an exclusive lock into a shared one.

        flock(2) does not promise that this is atomic: another exclusive taker may get in between. Whoever
        needs that not to happen holds the environment lock meanwhile.
        """
        core.lock(self.fd, self.path, shared=True)
        self.shared = True

    def give_away(self) -> int:
        """Return the descriptor, which is the lock, for somebody else to close."""
        fd, self.fd = self.fd, -1
        return fd

    def release(self) -> None:
        """Unlock, whoever has inherited the lock meanwhile, and close the descriptor. Releasing twice is harmless."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                command.close_lock(fd)
            except OSError:
                pass  # closed it is all the same (close(2)): the network filesystem's client has died, say


def acquire_nowait(path: str, *, shared: bool, create: bool = True, renew: bool = True) -> Flock | None:
    """Try to take a lock without waiting. Returns None if somebody holds it.

    :param create: make the lock file if it is missing, mode 0666 under the umask
    :param renew: let it look new, as in `try_lock`
    :raises LockingError: this filesystem has no flock
    :raises FilesystemError: the lock file cannot be opened
    """
    while True:
        fd = open_file(path, shared=shared, create=create)
        try:
            if try_lock(fd, path, shared=shared, renew=renew):
                return Flock(path, fd, shared=shared)
        except BaseException as error:
            command.close_lock(fd)
            if getattr(error, "errno", None) != errno.ENOENT:  # else it is gone since it was opened
                raise
        else:
            command.close_unlocked(fd)
            return None


def try_lock(fd: int, path: str, *, shared: bool, renew: bool = True) -> bool:
    """Try to lock an open file without waiting.

    :param path: its name, for the error
    :param renew: let it look new if it is old; False for who only wants to know, where the time says when it was used
    :raises LockingError: this filesystem has no flock
    :raises FilesystemError: on Windows, with ENOENT: it was removed or replaced since it was opened
    """
    try:
        core.lock(fd, path, shared=shared)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        from envsync.errors import FilesystemError, LockingError

        if error.errno in NO_FLOCK:
            raise LockingError(
                f"cannot lock `{path}`: its filesystem does not support flock ({error.strerror})",
                hint="put it on a filesystem with flock, as a local disk is: `envsync doctor --env /var/tmp/venv`",
            ) from error
        raise FilesystemError("lock", path, error) from error
    if renew:
        keep_new(fd)
    return True


def keep_new(fd: int) -> None:
    """Let a lock file that is held look new once a day: it is never read, and a purge by age would take it first."""
    from time import time

    try:
        if os.fstat(fd).st_mtime < time() - NEW_SECONDS:
            core.touch(fd)
    except OSError:
        pass  # somebody else's, or read-only: then it is as old as it is


def grants_twice(lock: Flock) -> bool:
    """Tell whether a lock that is held is granted once more: then it excludes nobody."""
    try:
        fd = command.open_lock(lock.path, os.O_RDWR)
    except OSError:
        return False  # somebody has removed the directory: whoever looks at the lock will see that
    try:
        # Of a file that has just been replaced, the lock is free and nothing is proved.
        return try_lock(fd, lock.path, shared=False) and lock.is_in_place()
    finally:
        command.close_lock(fd)


def why_local(fd: int, path: str) -> str:
    """Say by what a lock of an open file is known to stay within this node; empty if nothing is known against it.

    :param path: its name, for the error: what is there by now may be elsewhere, or nothing
    :raises FilesystemError: it cannot be told; ESTALE: another node has removed the file
    """
    from envsync.system import mounts

    try:
        return mounts.local_flock(fd)
    except OSError as error:
        from envsync.errors import FilesystemError

        raise FilesystemError("look at", path, error) from error


def open_file(path: str, *, shared: bool, create: bool = True) -> int:
    """Open a lock file, for `try_lock`.

    :raises FilesystemError: it cannot be opened
    """
    flags = (os.O_RDONLY if shared else os.O_RDWR) | core.NONBLOCK | (os.O_CREAT if create else 0)
    try:
        try:
            return _open(path, flags)
        except OSError as error:
            # EEXIST without O_EXCL: two clients of a network filesystem created it at once (MooseFS does so
            # every other time). ESTALE: it was replaced on the server just now. Both pass, and so does what Windows
            # refuses for a moment.
            from envsync.system import patience, refusals

            if error.errno not in (errno.EEXIST, errno.ESTALE) and not refusals.passes(error):
                raise

            return patience.reading(lambda path: _open(path, flags), path)
    except OSError as error:
        from shlex import quote

        from envsync.errors import FilesystemError

        is_other = error.errno in (errno.ESPIPE, errno.ENXIO)
        hint = f"remove what is there: `rm {quote(path)}`" if is_other else None
        raise FilesystemError("open lock file", path, error, hint=hint) from error


def _open(path: str, flags: int) -> int:
    fd = command.open_lock(path, flags)
    if os.fstat(fd).st_mode & 0o170000 == 0o100000:
        return fd
    command.close_lock(fd)
    raise OSError(errno.ESPIPE, "it is no regular file")
