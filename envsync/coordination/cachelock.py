"""The cache lock: shared by whoever uses the cache, exclusive for whoever removes from it (uv pull request 15888).

    <cache>/.lock   the lock itself; held shared while a sync reads the store, never while it waits for anybody else
    <cache>/.gate   held for an instant by whoever goes for the lock, shared; exclusively by a cleaner that waits

flock(2) is not fair: syncs that overlap would keep a cleaner out for ever. So a cleaner closes the gate: no new sync
gets past it, those that are there come to their end, and the lock falls free. Nor may a cleaner that waits for a
long download keep all new syncs waiting: it opens the gate again after a while, for as long as it was closed, and
then closes it for twice as long. However long the longest sync is, in the end the gate is closed for longer; and
whatever a cleaner waits for, a sync is let in again and again. Neither starves the other.

A cleaner holds the lock for as long as it takes to rename what goes out of sight, which is milliseconds: the removing
itself needs no lock. A cache that cannot be locked, read-only or without flock, is used without; it is not cleaned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from envsync.cache import sharing
from envsync.coordination import flock, processes
from envsync.coordination.flock import Flock
from envsync.errors import FilesystemError, LockingError, WaitTimeoutError

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


def share(root: str, tell: Tell) -> Flock | None:
    """Take the cache lock shared; waits while the cache is cleaned.

    :param root: the cache directory, which exists
    :returns: None if this cache cannot be locked, so that nobody can clean it either
    """
    said = 0.0
    while True:
        try:
            held = _pass_gate(root)
        except (FilesystemError, LockingError):
            return None
        if held is not None:
            return held
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            tell(f"waiting for the cache to be cleaned{_by(gate_path(root), lock_path(root))}")
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
    is_new = not os.path.lexists(path)
    held = flock.acquire_nowait(path, shared=shared)
    if is_new:
        sharing.grant(path, sharing.bits(os.path.dirname(path)))
    return held


@contextmanager
def exclude(root: str, tell: Tell, *, timeout: float | None = None) -> Iterator[None]:
    """Hold the cache lock exclusively, after all who use the cache have come to their end.

    :param timeout: how long to wait for them, in seconds
    :raises WaitTimeoutError: they took longer; names them
    :raises LockingError: this filesystem has no locks, so nobody can be kept out
    :raises FilesystemError: the cache cannot be written
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    closed = CLOSED_SECONDS
    while True:
        gate = _wait_for(gate_path(root), tell, deadline)
        assert gate is not None
        try:
            held = _wait_for(lock_path(root), tell, deadline, until=time.monotonic() + closed)
        finally:
            gate.release()
        if held is not None:
            break
        _rest(closed, deadline)
        closed *= 2
    try:
        yield
    finally:
        held.release()


def _wait_for(path: str, tell: Tell, deadline: float | None, until: float | None = None) -> Flock | None:
    """Take a lock exclusively; None if that took until then."""
    said = time.monotonic()
    while True:
        held = _take(path, shared=False)
        if held is not None:
            return held
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise WaitTimeoutError(f"gave up waiting for whoever uses the cache{_by(path)}")
        if until is not None and now >= until:
            return None
        if now - said >= SAY_SECONDS:
            said = now
            tell(f"waiting for syncs that use the cache{_by(path)}")
        time.sleep(POLL_SECONDS)


def _rest(seconds: float, deadline: float | None) -> None:
    """Let others in."""
    if deadline is not None:
        seconds = max(0.0, min(seconds, deadline - time.monotonic()))
    time.sleep(seconds)


def _by(*paths: str) -> str:
    """Name who holds one of these locks, as far as that can be seen from here."""
    pids = sorted({pid for path in paths for pid in processes.holders(path)} - {os.getpid()})
    return f" by pid {', '.join(map(str, pids[:5]))}" if pids else ""
