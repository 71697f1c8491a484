"""How an environment is locked: by flock, or where that does not work by a lease; decided once, by its first leader.

`<env>/.envsync/locking` records the decision, and everybody keeps to it, on whatever host: a host whose flock works
and one whose flock does not would otherwise each hold a lock of their own. A host that cannot do what is recorded
refuses. It is decided when nobody has decided before and the lock is held, by trying (`probe`):

| what is found | environment lock | in-use lock |
|---|---|---|
| flock works | flock | flock, shared |
| shared locks are refused, or exclude each other, or do not keep an exclusive one out | flock | none |
| flock is refused, grants what somebody holds, or is known to stay within the node | lease | none |

Without an in-use lock nobody can tell whether commands run in the environment. So it is never changed any more once
it was current, unless `--busy ignore` says so, and only those are served who can live with that: environments named by
`{digest}`, which need never change, or `--busy ignore`.

The lease needs a library, which is imported only where there is a lease.
"""

from __future__ import annotations

import errno
import time

from envsync.launch import command
from envsync.locks import flock
from envsync.locks.kind import FLOCK, LEASE, SUFFIX, Locking, read, record
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.errors import LockingError
    from envsync.launch import Environment
    from envsync.locks.flock import Flock
    from envsync.locks.lease import Contender, Lease

    EnvironmentLock = Flock | Lease

NO_LOCKS_TRIES = 4
NO_LOCKS_SECONDS = 0.4
"""Between two of them."""


class Locks:
    """One process's way to the lock of an environment. Keeps what it has learnt from try to try.

    :param unseen: an environment will do in which nobody can tell whether commands run
    :ivar locking: what is known; None before anybody knows
    """

    __slots__ = ("_contender", "_local", "_looked", "environment", "locking", "unseen")

    def __init__(self, environment: Environment, *, unseen: bool) -> None:
        self.environment = environment
        self.unseen = unseen
        self.locking: Locking | None = None
        self._contender: Contender | None = None
        self._local: str | None = None
        self._looked: Locking | None = None
        """What a look has found that no try has made use of yet."""

    @property
    def in_use(self) -> bool:
        """Whether commands are known by the in-use lock, as far as is known."""
        return self.locking is None or self.locking.in_use

    def look(self) -> Locking | None:
        """Read the record.

        :raises LockingError: the environment cannot be locked as this request needs it, or not from this host
        """
        recorded = read(self.environment)
        if recorded is not None:
            self._accept(recorded)
        self._looked = recorded
        return recorded

    def acquire_nowait(self) -> EnvironmentLock | None:
        """Try to take the environment lock without waiting. Returns None if somebody holds it.

        :raises LockingError: there is no lock that works, or none that this request can do with
        :raises FilesystemError: a file of the lock cannot be opened or made
        """
        recorded, self._looked = self._looked or self.look(), None
        if recorded is None:
            return self._decide()
        if recorded.kind == LEASE:
            return self._lease_nowait()
        lock = self._flock_nowait()
        if isinstance(lock, str):
            raise _refused_here(self.environment, lock)
        return lock

    def _decide(self) -> EnvironmentLock | None:
        """Take the first lock of an environment, and record of which kind it is before anybody uses it."""
        held = self._flock_nowait()
        if held is None:
            return None  # somebody else may be deciding
        lock: EnvironmentLock | None
        if isinstance(held, str):
            found = Locking(LEASE, in_use=False, reason=held)
            self._accept(found)
            lock = self._lease_nowait()
        else:
            lock = held
        if lock is None:
            return None
        try:
            if not isinstance(held, str):
                found = probe(self.environment)
            if lock.is_in_place():  # else who was refused before us has removed it: what we tried is of another one
                self._accept(found)
                if record(self.environment, found).kind == found.kind:
                    return lock
        except BaseException as error:
            if getattr(error, "errno", 0) != errno.ESTALE:
                lock.release()
                raise
        lock.release()  # it is gone, or a host that locks otherwise was faster: the next try is at what is there then
        return None

    def _accept(self, locking: Locking) -> None:
        if not locking.in_use and not self.unseen:
            raise _unserved(self.environment, locking)
        self.locking = locking

    def _flock_nowait(self) -> Flock | str | None:
        """Try the flock. Returns what is wrong with it if it cannot be trusted."""
        try:
            lock = self._patient_flock()
        except OSError as cause:
            return f"flock is refused ({cause.strerror})"
        if lock is None:
            return None
        try:
            reason = self._fault(lock)
        except BaseException as error:
            lock.release()
            if getattr(error, "errno", 0) != errno.ESTALE:
                raise
            return None  # another node has removed it: the next try is at what is there then
        if reason:
            lock.release()
        return reason or lock

    def _fault(self, lock: Flock) -> str:
        """Say what is wrong with a lock that was granted; empty: nothing. Who has to wait need not ask."""
        if self._local is None:
            self._local = flock.why_local(lock.fd, lock.path)
        if self._local:
            return f"flock stays within the node ({self._local})"
        return "flock grants what somebody holds" if flock.grants_twice(lock) else ""

    def _patient_flock(self) -> Flock | None:
        """Try the flock, a few times if there seem to be no locks left.

        ENOLCK is what a filesystem without locks says for ever, and an NFS server for the moments of its restart:
        that must not decide for a lease.

        :raises OSError: what a filesystem without flock answers
        """
        from envsync.errors import LockingError

        for attempt in range(NO_LOCKS_TRIES):
            try:
                return flock.acquire_nowait(self.environment.lock, shared=False)
            except LockingError as error:
                cause = error.__cause__
                if not isinstance(cause, OSError):
                    raise OSError(errno.ENOSYS, error.message) from error
                if cause.errno != errno.ENOLCK or attempt == NO_LOCKS_TRIES - 1:
                    raise cause from None
                time.sleep(NO_LOCKS_SECONDS)
        raise AssertionError("unreachable")

    def _lease_nowait(self) -> Lease | None:
        if self._contender is None:
            from envsync.launch.libraries import load_site

            load_site()
            from envsync.locks.lease import Contender

            self._contender = Contender(self.environment)
        return self._contender.acquire_nowait()


def probe(environment: Environment) -> Locking:
    """Find out whether shared locks work, too. The environment lock is held, and excludes.

    :raises FilesystemError: a file to try it with cannot be made
    """
    path = f"{environment.locking}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    fds: list[int] = []
    try:
        fds += (flock.open_file(path, shared=shared) for shared in (False, True, True))
        if local := flock.why_local(fds[0], path):  # the lock file may be a link to another filesystem
            return Locking(FLOCK, in_use=False, reason=f"flock stays within the node ({local})")
        return Locking(FLOCK, in_use=not (reason := _fault_of_shared(path, *fds)), reason=reason)
    finally:
        for fd in fds:
            command.close_lock(fd)
        try:
            os.unlink(path)
        except OSError:
            pass  # swept later


def _fault_of_shared(path: str, exclusive: int, first: int, second: int) -> str:
    from envsync.errors import LockingError

    try:
        flock.try_lock(first, path, shared=True)
        if not flock.try_lock(second, path, shared=True):
            return "shared locks exclude each other"
    except LockingError as error:
        cause = error.__cause__
        return f"shared locks are refused ({cause.strerror if isinstance(cause, OSError) else error.message})"
    return "shared locks do not keep out an exclusive one" if flock.try_lock(exclusive, path, shared=False) else ""


# Refusals


def _unserved(environment: Environment, locking: Locking) -> LockingError:
    """Return the error for who cannot be served by an environment without an in-use lock."""
    from envsync.errors import LockingError

    return LockingError(
        f"refusing environment `{environment.path}`: its filesystem has no lock that tells whether commands run in it "
        f"({locking.reason})",
        hint="give each lock file its own environment: `envsync sync --env '.venvs/{digest}'`; or change environments "
        "beneath running commands: `envsync sync --busy ignore`; `envsync doctor` says more",
    )


def _refused_here(environment: Environment, reason: str) -> LockingError:
    from envsync.errors import LockingError

    return LockingError(
        f"refusing environment `{environment.path}`: other hosts lock it by flock, and from this one that does not "
        f"work ({reason})",
        hint="see `envsync doctor`, on this host and on another",
    )


def cannot_be_drained(environment: Environment, locking: Locking) -> LockingError:
    """Return the error for a change of an environment in which commands may run unseen."""
    from envsync.errors import LockingError

    return LockingError(
        f"refusing to change environment `{environment.path}`: commands may run in it, and its filesystem has no lock "
        f"that tells ({locking.reason})",
        hint="change it beneath them with `envsync sync --busy ignore`, or give each lock file its own: "
        "`envsync sync --env '.venvs/{digest}'`",
    )
