"""The threads of one process that get what is missing, each of them one artifact at a time.

A thread waits for the turn at a wheel, downloads it, and unpacks it when nobody else here unpacks: two that do keep the
interpreter's lock from each other. What another process is at is put off until all others are done.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from envsync.errors import EnvsyncError
from envsync.fetching.halting import Halt, HaltedError
from envsync.lockfile.target import Artifact
from envsync.locks.wheel_lock import Turn, WheelLock
from envsync.store.store import Store

if TYPE_CHECKING:
    from envsync.fetching.download import Downloader

Kept = TypeVar("Kept")

TURN_SECONDS = 0.05
"""Until the second look whether another process has done with a wheel; then it grows."""
LONGEST_TURN_SECONDS = 1.0
LEAVE_SECONDS = 1.0
"""For how long threads may take to end once they are to: one may hang in a look-up of a name."""

RECEIVED, DOWNLOADED, KEPT, PUT_OFF, FAILED, BROKEN = range(6)
"""What is said of an artifact: bytes came; all did; it is kept; another process is at it; it cannot be had; something
happened that nobody expects."""
Said = tuple[int, int, Any]
"""One of these, the number of the artifact, and how many bytes, what is kept, or the error."""


class Keeper(NamedTuple, Generic[Kept]):
    """What becomes of a file."""

    find: Callable[[Artifact, Store], Kept | None]
    """Looks for what was kept before."""
    add: Callable[[Artifact, str, Callable[[], object]], Kept]
    """Verifies a file and keeps it, calling a checkpoint now and then."""
    pack: Callable[[Kept], object]
    """Makes what is kept into something small that can be pickled."""
    unpack: Callable[[Any], Kept | None]
    """Makes it whole again; None if it is gone."""


class Job(NamedTuple, Generic[Kept]):
    """What is to be got, and how."""

    artifacts: Sequence[Artifact]
    store: Store
    keeper: Keeper[Kept]
    downloader: Downloader | None = None
    """None if nothing has to be downloaded."""


class _Later(NamedTuple):
    """An artifact that was put off."""

    due: float
    pause: float
    number: int
    turn: Turn


class Crew(Generic[Kept]):
    """Some threads that work until nothing is left.

    :param take: returns the number of the next artifact, None if there is none; called by all threads
    :param tell: is told what happens, by all threads, one at a time
    :param threads: how many artifacts are in work at once: as many connections and locks there are at most
    :param unpackers: how many of them are unpacked at once
    :param over: called by the last of the threads
    """

    def __init__(
        self,
        job: Job[Kept],
        take: Callable[[], int | None],
        tell: Callable[[list[Said]], None],
        *,
        threads: int,
        unpackers: int,
        over: Callable[[], object] = lambda: None,
    ) -> None:
        self.halt = Halt()
        self._job = job
        self._take = take
        self._telling = _Telling(tell)
        self._over = over
        self._unpacking = threading.Semaphore(unpackers)
        self._later: deque[_Later] = deque()
        self._mutex = threading.Lock()
        self._left = threads
        self._threads = [threading.Thread(target=self._run, name="envsync fetch", daemon=True) for _ in range(threads)]

    def start(self) -> None:
        """Start the threads.

        :raises RuntimeError: not even one can be
        """
        for started, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError:  # no more threads are allowed
                if not started:
                    raise
                self._threads = self._threads[:started]
                self._leave(self._left - started)
                break

    def stop(self) -> None:
        """End all that they do, and wait for that, though not for long."""
        self.halt.ask()
        deadline = time.monotonic() + LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def join(self) -> None:
        """Wait until they have ended, who have nothing left to do."""
        for thread in self._threads:
            thread.join()

    def flush(self) -> None:
        """Tell how many bytes have come."""
        self._telling.flush()

    def _run(self) -> None:
        try:
            while self._get_next():
                pass
        except HaltedError:
            pass
        except OSError:
            self.halt.ask()  # nobody listens any more
        finally:
            self._leave(1)

    def _leave(self, count: int) -> None:
        with self._mutex:
            self._left -= count
            last = not self._left
        if last:
            self._over()

    def _get_next(self) -> bool:
        """Get one artifact, or put it off. Returns False if nothing is left."""
        self.halt.check()
        number = self._take()
        if number is not None:
            later = _Later(0.0, TURN_SECONDS, number, Turn(self._job.store, self._job.artifacts[number].sha256))
        else:
            try:
                later = self._later.popleft()
            except IndexError:
                return False
            self.halt.wait(later.due - time.monotonic())
        try:
            lock = later.turn.take()
            if lock is None:
                self._put_off(later)
            else:
                self._get(later.number, lock)
        except EnvsyncError as error:
            self._telling.say(FAILED, later.number, error)
        except HaltedError:
            raise
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._telling.say(BROKEN, later.number, error)
        return True

    def _put_off(self, later: _Later) -> None:
        due = time.monotonic() + later.pause * random.uniform(0.5, 1)
        self._later.append(later._replace(due=due, pause=min(1.5 * later.pause, LONGEST_TURN_SECONDS)))
        if later.pause == TURN_SECONDS:
            self._telling.say(PUT_OFF, later.number, None)

    def _get(self, number: int, lock: WheelLock) -> None:
        artifact = self._job.artifacts[number]
        try:
            kept = self._job.keeper.find(artifact, self._job.store)
            downloader = self._job.downloader
            if kept is None and (downloader is None or artifact.path is not None):
                kept = self._add(artifact, artifact.path or "")
            elif kept is None and downloader is not None:
                receive = partial(self._telling.receive, number)
                with downloader.download(artifact, receive, self.halt) as path:
                    self._telling.say(DOWNLOADED, number, None)
                    kept = self._add(artifact, path)
        finally:
            lock.release()
        self._telling.say(KEPT, number, kept)

    def _add(self, artifact: Artifact, path: str) -> Kept:
        def check() -> None:
            self.halt.check()
            having.give_way()

        with self._unpacking, self.halt.floor.had() as having:
            self.halt.check()
            return self._job.keeper.add(artifact, path, check)


class _Telling:
    """Tells what happens, for all threads. Bytes are counted, and told when something else is, or is asked for."""

    def __init__(self, tell: Callable[[list[Said]], None]) -> None:
        self._tell = tell
        self._mutex = threading.Lock()
        self._received: dict[int, int] = {}

    def receive(self, number: int, count: int) -> None:
        with self._mutex:
            self._received[number] = self._received.get(number, 0) + count

    def say(self, what: int, number: int, more: object) -> None:
        with self._mutex:
            self._tell([*self._take_received(), (what, number, more)])

    def flush(self) -> None:
        with self._mutex:
            said = self._take_received()
            if said:
                self._tell(said)

    def _take_received(self) -> list[Said]:
        said = [(RECEIVED, number, count) for number, count in self._received.items()]
        self._received.clear()
        return said
