"""The lock of a bundle: shared by who adds to it, exclusive for who removes from it. Readers take none.

It only keeps a prune from what somebody is about to name. Where flock does not work, writers do without, for a prune
refuses to remove anything there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote

from envsync.bundling.directory import Bundle
from envsync.errors import LockingError, WaitTimeoutError
from envsync.launch import signals
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import groups, mounts, processes

POLL_SECONDS = 0.05
SAY_SECONDS = 1.0

Tell = Callable[[str], object]
"""Is told what is waited for; whatever it raises ends the wait."""


@contextmanager
def adding(bundle: Bundle, tell: Tell, *, timeout: float | None = None) -> Iterator[None]:
    """Share the lock, so that nothing is removed meanwhile. The directory of the bundle is there.

    :param timeout: for how long to wait while it is pruned, in seconds
    :raises WaitTimeoutError: it took longer
    """
    try:
        held = _take(bundle, tell, timeout, shared=True)
    except LockingError:
        held = None
    try:
        yield
    finally:
        if held is not None:
            held.release()


@contextmanager
def removing(bundle: Bundle, tell: Tell, *, timeout: float | None = None) -> Iterator[None]:
    """Hold the lock exclusively: nobody adds meanwhile.

    :param timeout: for how long to wait for who does, in seconds
    :raises WaitTimeoutError: it took longer
    :raises LockingError: here, nobody can be kept out
    """
    _refuse_local(bundle, mounts.mount_of(bundle.root).local_flock)
    held = _take(bundle, tell, timeout, shared=False)
    try:
        _refuse_local(bundle, flock.why_local(held.fd, held.path))  # it may have been mounted since we asked
        if flock.grants_twice(held):
            raise LockingError(f"bundle `{bundle.root}` cannot be pruned: its lock is granted to everybody")
        yield
    finally:
        held.release()


def _refuse_local(bundle: Bundle, local: str) -> None:
    if local:
        raise LockingError(f"bundle `{bundle.root}` cannot be pruned: on its mount ({local}) flock stays on this node")


def _take(bundle: Bundle, tell: Tell, timeout: float | None, *, shared: bool) -> Flock:
    deadline = None if timeout is None else time.monotonic() + timeout
    said = -SAY_SECONDS
    while True:
        groups.make_lock_file(bundle.root, bundle.lock)
        held = flock.acquire_nowait(bundle.lock, shared=shared)
        if held is not None:
            return held
        now = time.monotonic()
        what = "to be pruned" if shared else "by whoever adds to it"
        if deadline is not None and now >= deadline:
            longer = f"wait longer: `envsync bundle prune {quote(bundle.root)} --timeout 600`"
            raise WaitTimeoutError(
                f"gave up waiting for bundle `{bundle.root}`, which is used {what}{_by(bundle.lock)}",
                hint="wait longer: `envsync bundle --timeout 600`" if shared else longer,
            )
        if now - said >= SAY_SECONDS:
            said = now
            tell(f"waiting for the bundle, which is used {what}{_by(bundle.lock)}")
        signals.heed()
        time.sleep(POLL_SECONDS)


def _by(path: str) -> str:
    """Name who holds the lock, as far as that can be seen from here."""
    pids = [pid for pid in processes.holders(path) if pid != os.getpid()]
    return f": pid {', '.join(map(str, pids[:5]))}" if pids else ""
