"""`Coordinator`: many syncs in one event loop, asyncio's or Trio's.

Callers that ask for the same share one flight: one task that waits, or leads in a worker thread. Different
environments are flights of their own; how many of them may work at once is bounded by slots, how many may wait is not.
A slot is taken before the environment lock and given back while a leader waits for commands to end, so nobody who
holds a lock waits for a slot that only others' waiting could free.

    call → flight → wait, a step at a time (`envsync.waiting.waiter`) → lead, in a thread → result for all callers

Cancelling. A caller that is cancelled leaves its flight at once. When the last one has left, the flight is stopped:
a wait between two looks, a sync at its next report of progress, at the latest before its commit is decided; then the
environment is as it was. A commit is never stopped, it takes a fraction of a second. The flight's task lives in the
coordinator, so leaving the `async with` block waits until everything has come to rest.

Between processes, hosts and coordinators it is the environment lock that decides, as for the command line.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import IO, TYPE_CHECKING, Any, Self, Unpack

import anyio
import anyio.abc
from anyio import to_thread

from envsync.errors import EnvsyncError, FilesystemError, SyncCancelledError, WaitTimeoutError
from envsync.launch import fast_lane, request
from envsync.launch.demand import Demand
from envsync.launch.progress import Report
from envsync.leading import lead
from envsync.leading.lead import Led
from envsync.leading.result import SyncResult
from envsync.leading.session import Session
from envsync.library import blocking, events, reach, syncing, taking
from envsync.library.blocking import Hold, SyncOptions
from envsync.system import native, paths, processes
from envsync.waiting import failures
from envsync.waiting.cancelling import UNSTOPPABLE
from envsync.waiting.waiter import Wait

if TYPE_CHECKING:
    from envsync.locks.environment_lock import EnvironmentLock

TELL_SECONDS = 0.1
"""How often events are handed on while there is something to tell."""
PROGRESS_SECONDS = 0.2
MOST_AT_ONCE = 4
WAITING_SECONDS = 1.0
CROWDED = "waiting for other syncs of this process to end"


class Coordinator:
    """Makes environments current for the tasks of one program. Use it as an async context manager.

    :param jobs: how many environments this process may sync at once; default: as there are processors, 4 at most
    :param on_event: called in the event loop with each `envsync.events.Event`, soon after it happened; must
        return at once. What it raises ends the coordinator, as an error of any task of a task group does
    """

    def __init__(self, *, jobs: int | None = None, on_event: Callable[[events.Event], object] | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError("jobs has to be 1 or more")
        self._slots = threading.Semaphore(jobs or min(MOST_AT_ONCE, processes.processors()))
        self._on_event = on_event
        self._told: deque[events.Event] = deque()
        self._flights: dict[tuple[object, ...], _Flight] = {}
        self._looks = anyio.CapacityLimiter(8)
        self._leads = anyio.CapacityLimiter(1_000_000)  # slots are what bounds them
        self._group: anyio.abc.TaskGroup | None = None
        self._ticker: anyio.CancelScope | None = None

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        if self._on_event is not None:
            self._ticker = anyio.CancelScope()
            self._group.start_soon(self._tick, self._ticker)
        return self

    async def __aexit__(self, *exception: Any) -> bool | None:
        """Stop all syncs, and wait until all is at rest. Who still waits in another task gets SyncCancelledError.

        An error of the block leaves it as it is: that there is a task group is nobody else's business.
        """
        group, self._group = self._entered(), None
        for flight in list(self._flights.values()):
            flight.stop()
        if self._ticker is not None:
            self._ticker.cancel()
        try:
            return await group.__aexit__(*exception)
        except BaseExceptionGroup as grouped:
            if list(map(id, _leaves(grouped))) == list(map(id, _leaves(exception[1]))):
                return False  # it goes on by itself; of a group, Trio has made a copy
            raise

    async def sync(self, lock: str | os.PathLike[str], **options: Unpack[SyncOptions]) -> SyncResult:
        """Make an environment match its lock file; waits for others who are at it already.

        Concurrent calls for the same share one sync. A call that is cancelled only stops waiting; see the module for
        when the sync itself is stopped.

        :param options: as for `envsync.sync`
        :raises EnvsyncError: it could not be made current; every caller that shares the sync gets the same error
        :raises RuntimeError: the coordinator is not entered
        """
        asked = await self._resolve(lock, options)
        return await self._board(asked)

    @asynccontextmanager
    async def use(self, lock: str | os.PathLike[str], **options: Unpack[SyncOptions]) -> AsyncGenerator[Hold]:
        """Make an environment current, and keep it as it is while the block runs: nobody changes it meanwhile.

        The hold is this process's; pass `hold.fd` to a child that may outlive the block (`pass_fds`).
        Do not sync another lock file to the same environment within the block: it would wait for the block's end.

        :raises EnvsyncError: as `sync`
        """
        asked = await self._resolve(lock, options)
        hold = None
        while hold is None:
            result = await self._board(asked)
            hold = await taking.enter(asked, result, self._looks)  # None: it was somebody else's turn in between
        try:
            yield hold
        finally:
            hold.release()

    async def run_process(
        self,
        lock: str | os.PathLike[str],
        command: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        input: bytes | None = None,  # noqa: A002  # as anyio calls it
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        check: bool = True,
        cwd: str | os.PathLike[str] | None = None,
        variables: Mapping[str, str] | None = None,
        **options: Unpack[SyncOptions],
    ) -> subprocess.CompletedProcess[bytes]:
        """Make an environment current, run a command in it, and wait for its end; nobody changes it meanwhile.

        If this is cancelled, the command is killed.

        :param command: a text is given to a shell; of a list, the first is looked up in the environment first
        :param variables: the command's without the environment; default: `os.environ`
        :param options: as for `envsync.sync`; the others are those of `anyio.run_process`
        :raises EnvsyncError: as `sync`
        :raises subprocess.CalledProcessError: the command has failed, and `check` is true
        :raises OSError: there is no such command
        """
        async with self.use(lock, **options) as hold:
            shared = hold.share()
            try:
                return await anyio.run_process(
                    command,
                    input=input,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    check=check,
                    cwd=cwd,
                    env=hold.variables(variables),
                    **native.inherit([shared] if shared >= 0 else []),
                )
            finally:
                if shared >= 0:
                    os.close(shared)

    def _entered(self) -> anyio.abc.TaskGroup:
        if self._group is None:
            raise RuntimeError("use the coordinator as an async context manager: `async with envsync.Coordinator()`")
        return self._group

    async def _resolve(self, lock: str | os.PathLike[str], options: SyncOptions) -> request.Request:
        self._entered()
        return await to_thread.run_sync(blocking.resolve, lock, options, limiter=self._looks)

    async def _board(self, asked: request.Request) -> SyncResult:
        """Join the flight that does what is asked, or start it."""
        group = self._entered()  # it may have been left meanwhile
        env = paths.abspath(asked.env_template)
        key = (env, asked.key, asked.timeout, asked.text("busy"))
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(env)
            group.start_soon(self._fly, key, flight, asked)
        try:
            return await flight.join()
        finally:
            if flight.stopped and self._flights.get(key) is flight:
                del self._flights[key]  # who asks now starts anew

    async def _fly(self, key: tuple[object, ...], flight: _Flight, asked: request.Request) -> None:
        result: SyncResult | None = None
        error: EnvsyncError | None = None
        try:
            with flight.scope:
                result = await self._reach(flight, asked)
        except EnvsyncError as caught:
            error = caught
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if result is not None:
                self._tell(events.Finished(result.env, result))
            elif error is None or isinstance(error, SyncCancelledError):
                error = _cancelled(flight.env)
                self._tell(events.Cancelled(flight.env))
            else:
                self._tell(events.Failed(flight.env, error))
            flight.land(result, error)  # first, for what the user's function raises must not keep anybody waiting
            self._hand_on()

    async def _reach(self, flight: _Flight, asked: request.Request) -> SyncResult:
        arrival = failures.Arrival(whole_process=False)
        result, environment, distrust = await to_thread.run_sync(syncing.glance, asked, limiter=self._looks)
        if result is not None:
            return result
        flight.bind_for(paths.abspath(environment.path))
        way = _Way(self, flight, asked)
        demand = Demand(asked, environment)
        steps = reach.wait_or_lead(way, demand, arrival, distrust=distrust, slots=self._slots)
        done = await steps
        assert isinstance(done, SyncResult)
        with anyio.CancelScope(shield=True):  # it has been synced: that is what its callers are told
            await to_thread.run_sync(reach.remember, asked, done, limiter=self._looks)
        return done

    # Events

    def _tell(self, event: events.Event) -> None:
        """Note an event, from any thread; `_hand_on` calls the user's function in the event loop."""
        if self._on_event is not None:
            self._told.append(event)

    def _hand_on(self) -> None:
        while self._told and self._on_event is not None:
            try:
                self._on_event(self._told.popleft())
            except BaseException:
                self._on_event = None  # it has ended the coordinator, once
                raise

    async def _tick(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                await anyio.sleep(TELL_SECONDS)
                self._hand_on()


class _Flight:
    """One sync that callers share.

    :ivar env: the environment, absolute; with `{digest}` in it until that is known
    :ivar callers: how many wait for it
    :ivar landed: set when there is a result or an error
    """

    __slots__ = ("callers", "env", "error", "landed", "result", "scope", "stopped")

    def __init__(self, env: str) -> None:
        self.env = env
        self.callers = 0
        self.landed = anyio.Event()
        self.scope = anyio.CancelScope()
        self.stopped = False
        self.result: SyncResult | None = None
        self.error: EnvsyncError | None = None

    def bind_for(self, env: str) -> None:
        """Say which environment it is for, now that its name is known."""
        self.env = env

    async def join(self) -> SyncResult:
        """Wait for the result, as one of those who share it. The last who leaves before that stops it."""
        self.callers += 1
        try:
            await self.landed.wait()
        finally:
            self.callers -= 1
            if self.callers == 0 and not self.landed.is_set():
                self.stop()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def land(self, result: SyncResult | None, error: EnvsyncError | None) -> None:
        """Hand all who wait the result, or the error."""
        self.result, self.error = result, error
        self.landed.set()

    def stop(self) -> None:
        """Stop waiting at once, and leading at the next report."""
        self.stopped = True
        self.scope.cancel()


class _Way:
    """The way of a flight: a wait gives way to others between two looks, and a sync is led in a thread."""

    def __init__(self, coordinator: Coordinator, flight: _Flight, asked: request.Request) -> None:
        self.coordinator = coordinator
        self.flight = flight
        self.asked = asked

    async def wait(self, wait: Wait) -> EnvironmentLock | fast_lane.Entry:
        coordinator, looks, tell_at = self.coordinator, self.coordinator._looks, 0.0
        try:
            held = await to_thread.run_sync(wait.begin, limiter=looks)
            while held is None:
                now = anyio.current_time()
                if coordinator._on_event is not None and now >= tell_at:
                    tell_at = now + WAITING_SECONDS
                    message = await to_thread.run_sync(wait.describe, limiter=looks)
                    coordinator._tell(events.Waiting(self.flight.env, message))
                await anyio.sleep(wait.pause())
                held = await to_thread.run_sync(wait.look, limiter=looks)
            return held
        finally:
            wait.end()

    async def lead(self, wait: Wait, held: EnvironmentLock) -> Led | None:
        """Lead in a thread, holding a slot. The thread is never abandoned: it ends at its next report if it has to."""
        report = _Reporter(self.coordinator, self.flight)
        slot = _Slot(self.coordinator._slots, wait, report)

        def work() -> Led | None:
            try:
                session = Session.after(wait, self.asked, report)._replace(idle=slot.idle, listener=report.listen)
                return lead.lead(session, held)
            finally:
                slot.release()

        try:
            with anyio.CancelScope(shield=True):  # the lock that is held is the thread's to release
                return await to_thread.run_sync(work, limiter=self.coordinator._leads)
        except RuntimeError:  # no more threads can be started, so there is none that releases it
            held.release()
            slot.release()
            raise
        raise AssertionError("unreachable: nothing cancels this scope")

    async def accept(self, wait: Wait, error: FilesystemError) -> SyncResult | fast_lane.Entry:
        def accept() -> SyncResult | fast_lane.Entry:
            return reach.unchangeable(self.asked, wait.environment, error, launching=False)

        return await to_thread.run_sync(accept, limiter=self.coordinator._leads)


class _Slot:
    """The slot of one leader, given to others while it waits for commands to end.

    :param wait: says until when it may wait for others
    :param report: raises if nobody waits for it any more
    """

    def __init__(self, slots: threading.Semaphore, wait: Wait, report: Report) -> None:
        self.slots = slots
        self.wait = wait
        self.report = report
        self.held = True

    @contextmanager
    def idle(self) -> Iterator[None]:
        self.release()
        yield  # who fails here does no more work, and needs no slot for that
        while not self.slots.acquire(timeout=TELL_SECONDS):
            self.report(CROWDED, 0, 0)
            if self.wait.deadline is not None and time.monotonic() >= self.wait.deadline:
                raise WaitTimeoutError(
                    f"gave up after {self.wait.demand.timeout:g} s: {CROWDED}",
                    hint="allow more time or more jobs; `envsync status` says who syncs",
                )
        self.held = True

    def release(self) -> None:
        """Give the slot back. Releasing twice is harmless."""
        if self.held:
            self.held = False
            self.slots.release()


class _Reporter:
    """Is told by the leader's threads how far it is, and stops it if nobody waits any more."""

    def __init__(self, coordinator: Coordinator, flight: _Flight) -> None:
        self.coordinator = coordinator
        self.flight = flight
        self.env = flight.env
        self.said: tuple[str, float] = ("", 0.0)

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        if self.flight.stopped and phase not in UNSTOPPABLE:
            raise _cancelled(self.env)
        now = time.monotonic()
        said, when = self.said
        if phase != said or now >= when + PROGRESS_SECONDS:
            self.said = (phase, now)
            self.coordinator._tell(events.Progress(self.env, phase, done, total, bytes_done, bytes_total))

    def listen(self, event: str, details: Any) -> None:
        """Turn what a leader says into events. What becomes of it in the end, the flight says."""
        if event == "started":
            self.coordinator._tell(events.Started(self.env, details["digest"]))
        elif event == "took_over":
            self.coordinator._tell(events.TookOver(self.env, str(details["from_host"]), int(details["from_pid"])))
        elif event == "recovered":
            self.coordinator._tell(events.Recovered(self.env, details["steps"]))


def _leaves(error: BaseException | None) -> list[BaseException]:
    """Return what is in a group, and in the groups within it; of an error that is none, itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [] if error is None else [error]


def _cancelled(env: str) -> SyncCancelledError:
    return SyncCancelledError(f"the sync of environment `{env}` was cancelled")
