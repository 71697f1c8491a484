"""Who of a process's threads runs: those that have something to do at once keep the interpreter's lock from each other.

The lock changes hands at each read of 16 KiB, at each file that is written: with eight threads, that is most of what a
first sync does. So a thread that has data to read, or a wheel to unpack, asks for the floor, and has it for a while.

It only saves time. Who does not get it soon goes on without: its holder may wait for the rest of what it is reading.
Then nobody else waits for that one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 0.1
HAVE_SECONDS = 0.02
"""For how long one has the floor while others ask for it."""


class Floor:
    """Had by one thread at a time, in the order in which they ask."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._had = False
        self._stuck = False
        """Whether somebody has waited in vain for whoever has it."""
        self._asking: deque[threading.Lock] = deque()
        self._since = 0.0

    @contextmanager
    def had(self) -> Iterator[Having]:
        """Have it, or go on without."""
        having = Having(self)
        try:
            yield having
        finally:
            having.end()

    @property
    def is_asked_for(self) -> bool:
        """Whether whoever has it had better give it away: others ask for it, and it was had for a while."""
        return (bool(self._asking) or self._stuck) and time.monotonic() > self._since + HAVE_SECONDS

    def ask(self) -> bool:
        """Wait for it, not for long. Returns whether one has it."""
        with self._mutex:
            if not self._had:
                self._had = True
                self._since = time.monotonic()
                return True
            if self._stuck:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._asking.append(turn)
        if turn.acquire(timeout=PATIENCE):
            return True
        with self._mutex:
            try:
                self._asking.remove(turn)
            except ValueError:
                return True  # it was handed on just now
            self._stuck = True
        return False

    def hand_on(self) -> None:
        """Give it to whoever has asked first."""
        with self._mutex:
            self._since = time.monotonic()
            self._stuck = False
            if self._asking:
                self._asking.popleft().release()
            else:
                self._had = False


class Having:
    """A thread's having of the floor, or its going on without."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._has = floor.ask()

    def give_way(self) -> None:
        """Let others have it for a moment, if they have waited."""
        if self._has and self._floor.is_asked_for:
            self.end()
            self._has = self._floor.ask()

    def end(self) -> None:
        """Have it no more."""
        if self._has:
            self._has = False
            self._floor.hand_on()
