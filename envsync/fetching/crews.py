"""Crews at work as whoever waits for them sees them: the threads of this process, or those of forked children.

Threads of one process keep the interpreter's lock from each other, receiving and unpacking: children make use of all
processors. Each takes the next number from one pipe, and tells by a pipe of its own what becomes of it. A child that
was killed tells nothing more of what it had taken; that is up to whoever waits for it.

Children inherit all descriptors, the environment lock among them (`envsync.system.forking`). None outlives its parent
for longer than it takes to clean up: it watches a pipe that ends with the parent, however that ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from envsync.fetching.crew import BROKEN, KEPT, LEAVE_SECONDS, Crew, Job, Said
from envsync.system import forking, native, processes

Kept = TypeVar("Kept")

LOOK_SECONDS = 0.1
"""Between two looks at how many bytes have come."""
_LENGTH_BYTES = 4


class Work(Protocol):
    """What can be waited for."""

    def hear(self) -> Iterable[Said] | None:
        """Return what has happened; waits for that, not for long. None: all is done that will be."""

    def stop(self) -> None:
        """End it, and wait for that, though not for long. What it says from then on is to be heard still."""

    def stopped(self) -> int:
        """Return a process of it that somebody has stopped (SIGSTOP, a debugger); 0 if there is none."""


class InThreads(Generic[Kept]):
    """Threads of this process."""

    def __init__(self, job: Job[Kept], numbers: Iterable[int], threads: int, unpackers: int) -> None:
        left = deque(numbers)

        def take() -> int | None:
            try:
                return left.popleft()
            except IndexError:
                return None

        self._stopped = False
        self._said: queue.SimpleQueue[list[Said] | None] = queue.SimpleQueue()
        over = self._end
        self._crew = Crew(job, take, self._said.put, threads=threads, unpackers=unpackers, over=over)
        self._crew.start()

    def _end(self) -> None:
        self._said.put(None)

    def hear(self) -> Iterable[Said] | None:
        self._crew.flush()
        try:
            said = self._said.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return ()
        if said is None and not self._stopped:
            self._crew.join()
        return said

    def stop(self) -> None:
        self._stopped = True
        self._crew.stop()
        self._said.put(None)

    def stopped(self) -> int:
        return 0


class InChildren(Generic[Kept]):
    """Forked children. Where none can be had, nothing is done.

    :param children: how many; each unpacks one at a time
    :param threads: how many each has
    """

    def __init__(self, job: Job[Kept], numbers: Iterable[int], children: int, threads: int) -> None:
        self._unpack = job.keeper.unpack
        self._heard: list[Said] = []
        self._children: list[_Child] = []
        self._numbers = forking.pieces(numbers)
        self._lifeline, self._alive = os.pipe()
        try:
            for _ in range(children):
                try:
                    self._fork(job, threads)
                except OSError:
                    break
        except BaseException:
            self.stop()
            raise

    def _fork(self, job: Job[Kept], threads: int) -> None:
        listening, telling = os.pipe()
        running: list[int] = []
        inside = _Inside(job, threads, self._numbers, self._lifeline, telling)

        def body() -> int:
            os.close(self._alive)
            os.close(listening)
            return inside.run()

        try:
            forking.start(body, inside.end, running)
        finally:
            os.close(telling)
            if running:
                self._children.append(_Child(running[0], listening))
            else:
                os.close(listening)

    def hear(self) -> Iterable[Said] | None:
        if not (self._heard or self._children):
            self._close()
            return None
        if not self._heard:
            self._listen()
        heard, self._heard = self._heard, []
        return heard

    def _listen(self) -> None:
        ready = native.readable([child.listening for child in self._children], LOOK_SECONDS)
        for child in [child for child in self._children if child.listening in ready]:
            try:
                self._heard += [self._whole(*said) for said in child.hear()]
            except EOFError:
                self._children.remove(child)
                child.bury()

    def _whole(self, what: int, number: int, more: Any) -> Said:
        return what, number, self._unpack(more) if what == KEPT else more

    def stop(self) -> None:
        for child in self._children:
            child.send(signal.SIGTERM)
            child.send(native.CONTINUE)  # it may be stopped, and would have our locks for as long
        deadline = time.monotonic() + 2 * LEAVE_SECONDS
        while self._children and time.monotonic() < deadline:
            self._listen()
        for child in self._children:  # its disk does not answer, say
            child.send(native.KILL)
            child.bury()
        self._children.clear()
        self._close()

    def stopped(self) -> int:
        return next((child.pid for child in self._children if processes.is_stopped(child.pid)), 0)

    def _close(self) -> None:
        for descriptor in (self._numbers, self._lifeline, self._alive):
            if descriptor >= 0:
                os.close(descriptor)
        self._numbers = self._lifeline = self._alive = -1


class _Child:
    """A child as its parent sees it.

    :ivar pid: its process id
    :ivar listening: where it is heard
    """

    def __init__(self, pid: int, listening: int) -> None:
        self.listening = listening
        self.pid = pid
        self._rest = b""

    def hear(self) -> list[Said]:
        """Return what it has said.

        :raises EOFError: it has ended
        """
        data = os.read(self.listening, 1 << 16)
        if not data:
            raise EOFError
        self._rest += data
        said: list[Said] = []
        while len(self._rest) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._rest[:_LENGTH_BYTES], "big")
            if len(self._rest) < end:
                break
            said += pickle.loads(self._rest[_LENGTH_BYTES:end])
            self._rest = self._rest[end:]
        return said

    def send(self, number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def bury(self) -> None:
        """Wait for its end."""
        os.close(self.listening)
        forking.wait(self.pid)


class _Inside(Generic[Kept]):
    """A child as it sees itself: its main thread only waits, for the others to have done or for a reason to end them.

    :param lifeline: ends when the parent does
    :param telling: where to tell what happens
    """

    def __init__(self, job: Job[Kept], threads: int, numbers: int, lifeline: int, telling: int) -> None:
        self._job = job
        self._threads = threads
        self._numbers = numbers
        self._lifeline = lifeline
        self._telling = telling
        self._waking = -1
        self._ending = False

    def run(self) -> int:
        """Work until nothing is left. Returns the exit status."""
        woken, self._waking = os.pipe()
        take = partial(forking.take, self._numbers)
        crew = Crew(self._job, take, self._tell, threads=self._threads, unpackers=1, over=self._wake)
        crew.start()
        try:
            while not self._ending and not native.readable([self._lifeline, woken], LOOK_SECONDS):
                crew.flush()
        except BrokenPipeError:
            pass  # the parent has ended
        crew.stop()
        return 0

    def end(self) -> None:
        """Be told by a signal that it is enough."""
        self._ending = True
        if self._waking >= 0:
            self._wake()

    def _wake(self) -> None:
        os.write(self._waking, b".")

    def _tell(self, said: list[Said]) -> None:
        data = pickle.dumps([self._plain(*each) for each in said], pickle.HIGHEST_PROTOCOL)
        view = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        while view:
            view = view[os.write(self._telling, view) :]

    def _plain(self, what: int, number: int, more: Any) -> Said:
        """Make it soon pickled. What nobody expects is not told: the parent meets it, too."""
        return what, number, self._job.keeper.pack(more) if what == KEPT else None if what == BROKEN else more
