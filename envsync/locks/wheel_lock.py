"""One lock per wheel, so that each is downloaded and unpacked once, however many ask for it at once.

It only avoids doing the work twice: who cannot have one (a read-only directory, no flock) goes on without, and so does
who waited for long and saw nothing move. The store is safe without it (`envsync.store.store`).

Held from before a wheel is looked for in the store until it is there. Taken without blocking, and never while waiting
for another one, so that nobody can wait in a circle. A lock file stays until the cache is cleaned, which nobody can do
who shares it with us.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

from envsync.errors import FilesystemError, LockingError
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import groups, processes
from envsync.wheel.manifest import is_sha256

PATIENCE = 60.0
"""Seconds without a sign of progress after which the work is rather done twice: its holder may be stopped."""


class Cache(Protocol):
    """Where a cache keeps what has to do with turns (`envsync.store.directories`)."""

    @property
    def root(self) -> str: ...

    @property
    def tmp(self) -> str: ...

    @property
    def locks(self) -> str: ...


class WheelLock:
    """A held wheel lock, or the decision to go on without."""

    def __init__(self, held: Flock | None) -> None:
        self._held = held

    def release(self) -> None:
        if self._held is not None:
            self._held.release()


class Turn:
    """One process's wait for its turn at one wheel.

    :param sha256: of the wheel; None if it is not known before it was read, so that there is nothing to lock. So with
        what is no sha256: it would name a file elsewhere
    """

    def __init__(self, store: Cache, sha256: str | None) -> None:
        self._store = store
        key = sha256.lower() if sha256 is not None and is_sha256(sha256) else None
        self._path = None if key is None else f"{store.locks}/{key}"
        self._part = f"{store.tmp}/{key}.part"
        self._seen = -1
        self._since = time.monotonic()

    def take(self) -> WheelLock | None:
        """Try to take the lock; None if somebody else has it and is getting on."""
        if self._path is None:
            return WheelLock(None)
        groups.make_lock_file(self._store.root, self._path)
        try:
            held = flock.acquire_nowait(self._path, shared=False)
        except (LockingError, FilesystemError):
            return WheelLock(None)
        if held is not None:
            return WheelLock(held)
        return None if self._moves() else WheelLock(None)

    def holder(self) -> str:
        """Name who has it, as far as that can be seen from here."""
        pids = [] if self._path is None else processes.holders(self._path)
        return f"pid {processes.who_forked(pids[0])}" if pids else "another process"

    def _moves(self) -> bool:
        """Tell whether what is being downloaded has grown lately."""
        try:
            size = os.stat(self._part).st_size
        except OSError:
            size = -1  # it is being unpacked, or a local wheel
        now = time.monotonic()
        if size != self._seen:
            self._seen, self._since = size, now
        return now - self._since < PATIENCE
