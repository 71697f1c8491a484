"""The cache lock: shared by whoever uses the cache, exclusive for whoever removes from it (uv pull request 15888).

    <cache>/.lock   the lock itself; held shared while a sync reads the store, never while it waits for anybody else
    <cache>/.gate   shared for an instant by whoever goes for the lock; exclusive while a cleaner waits with it closed,
                    shared while it waits with it open, so that no other cleaner closes it meanwhile

flock(2) is not fair: syncs that overlap would keep a cleaner out for ever. So a cleaner closes the gate: no new sync
gets past it, those that are there come to their end, and the lock falls free. Nor may a cleaner that waits for a
long download keep all new syncs waiting: it opens the gate again after a while, for as long as it was closed, and
then closes it for twice as long. However long the longest sync is, in the end the gate is closed for longer; and
whatever a cleaner waits for, a sync is let in again and again. Neither starves the other.

A cleaner holds the lock for as long as it takes to rename what goes out of sight, which is milliseconds: the removing
itself needs no lock. A cache that cannot be locked, read-only or without flock, is used without; it is not cleaned.
Nor is one whose mount says that flock stays within the node: who syncs on another one could not be kept out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote

from envsync.errors import FilesystemError, LockingError, WaitTimeoutError
from envsync.launch import signals
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import groups, processes

POLL_SECONDS = 0.05
CLOSED_SECONDS = 5.0
"""For how long a cleaner keeps new syncs out at first."""
SAY_SECONDS = 1.0
"""Between two looks at who is waited for."""

Tell = Callable[[str], object]
"""Is told what is waited for, as in "waiting for the cache to be cleaned"; whatever it raises ends the wait."""


def lock_path(root: str) -> str:
    return f"{root}/.lock"


def gate_path(root: str) -> str:
    return f"{root}/.gate"


def share(root: str, tell: Tell, *, deadline: float | None = None) -> Flock | None:
    """Take the cache lock shared; waits while the cache is cleaned.

    :param root: the cache directory, which exists
    :param deadline: when to give up, by time.monotonic()
    :returns: None if this cache cannot be locked, so that nobody can clean it either
    :raises WaitTimeoutError: it took longer; names who cleans it
    """
    said = -SAY_SECONDS
    while True:
        try:
            held = _pass_gate(root)
        except (FilesystemError, LockingError):
            return None
        if held is not None:
            return held
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            who = _by_cleaner(root)
            raise WaitTimeoutError(
                f"gave up waiting for cache `{root}` to be cleaned{who}",
                hint="wait longer with `envsync sync --timeout 600`",
            )
        if now - said >= SAY_SECONDS:
            said = now
            tell(f"waiting for the cache to be cleaned{_by_cleaner(root)}")
        signals.heed()
        time.sleep(POLL_SECONDS)


def _pass_gate(root: str) -> Flock | None:
    try:
        gate = _take(gate_path(root), shared=True)
    except FilesystemError:
        # A read-only cache that was filled by an older version has no gate; the lock alone keeps us safe.
        return _take(lock_path(root), shared=True)
    if gate is None:
        return None
    try:
        return _take(lock_path(root), shared=True)
    finally:
        gate.release()


def _take(path: str, *, shared: bool) -> Flock | None:
    groups.make_lock_file(os.path.dirname(path), path)
    return flock.acquire_nowait(path, shared=shared)


@contextmanager
def exclude(root: str, tell: Tell, *, timeout: float | None = None) -> Iterator[None]:
    """Hold the cache lock exclusively, after all who use the cache have come to their end.

    :param timeout: how long to wait for them, in seconds
    :raises WaitTimeoutError: they took longer; names them
    :raises LockingError: this filesystem has no locks, or none that reach other nodes, so nobody can be kept out
    :raises FilesystemError: the cache cannot be written
    """
    from envsync.system import mounts

    _refuse_local(root, mounts.mount_of(root).local_flock)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        held = _Cleaner(root, tell, deadline).take()
    except LockingError as error:
        raise _without_locks(root) from error
    try:
        _refuse_local(root, flock.why_local(held.fd, held.path))  # it may have been made, or mounted, since we asked
        if _is_for_everybody(held):
            raise _without_locks(root)
        yield
    finally:
        held.release()


def _is_for_everybody(held: Flock) -> bool:
    try:
        return flock.grants_twice(held)
    except LockingError:
        return True


def _without_locks(root: str) -> LockingError:
    return LockingError(
        f"cache `{root}` cannot be cleaned: its filesystem has no locks, so that nobody can be kept out of it",
        hint=f"remove it yourself while nothing is being synced: `ls -la {quote(root)}` shows it",
    )


def _refuse_local(root: str, local: str) -> None:
    """Refuse a cache that is used from nodes where our lock is not seen.

    :param local: by what that is known; empty if it is not
    :raises LockingError: so it is
    """
    if local:
        raise LockingError(
            f"cache `{root}` cannot be cleaned: on its mount ({local}) flock stays within this node, so that whoever "
            "uses the cache on another one cannot be kept out",
            hint="clean it from a node that mounts it with flock that reaches the others: `envsync cache prune` there; "
            "or remove the directory yourself while nothing is being synced on any of them",
        )


class _Cleaner:
    """The wait of one cleaner. The words change with what is waited for; who that is, is looked up once a second."""

    def __init__(self, root: str, tell: Tell, deadline: float | None) -> None:
        self._gate = gate_path(root)
        self._lock = lock_path(root)
        self._tell = tell
        self._deadline = deadline
        self._said = -SAY_SECONDS

    def take(self) -> Flock:
        closed = CLOSED_SECONDS
        while True:
            while (gate := _take(self._gate, shared=False)) is None:
                self._pause(self._gate)
            try:
                until = time.monotonic() + closed
                while time.monotonic() < until:
                    held = _take(self._lock, shared=False)
                    if held is not None:
                        return held
                    self._pause(self._lock)
                gate.downgrade()
                until = time.monotonic() + closed
                while time.monotonic() < until:
                    self._pause(self._lock)
            finally:
                gate.release()
            closed *= 2

    def _pause(self, path: str) -> None:
        """Wait for a moment, and say for whom.

        :raises WaitTimeoutError: that was the last one
        """
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise WaitTimeoutError(
                f"gave up waiting for whoever uses the cache{_by(self._lock) or _by(self._gate)}; nothing was removed",
                hint="wait longer, as in `envsync cache prune --timeout 600`",
            )
        if now - self._said >= SAY_SECONDS:
            self._said = now
            self._tell(f"waiting for whoever uses the cache{_by(path)}")
        signals.heed()
        time.sleep(POLL_SECONDS)


def _by_cleaner(root: str) -> str:
    """Name who closes the gate; who holds the lock is the same one, or syncs that it waits for."""
    return _by(gate_path(root)) or _by(lock_path(root))


def _by(path: str) -> str:
    """Name who holds a lock, as far as that can be seen from here."""
    pids = [pid for pid in processes.holders(path) if pid != os.getpid()]
    more = f" and {len(pids) - 5} more" if len(pids) > 5 else ""
    return f": pid {', '.join(map(str, pids[:5]))}{more}" if pids else ""
