"""`sync_async` and `use_async`: for plug-ins, which have no lifetime of their own to enter a `Coordinator` in.

Callers in any event loops and threads of a process that ask for the same share one flight: a thread that syncs as
`envsync.sync` does. It belongs to no event loop, so one that closes leaves it to the others. The last caller who leaves
before it has landed, being cancelled, ends it: at its next report, at the latest before its commit is decided.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Unpack

import anyio
from anyio import from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token

from envsync.errors import SyncCancelledError
from envsync.library import blocking, syncing, taking
from envsync.library.blocking import Hold, SyncOptions
from envsync.system import paths

if TYPE_CHECKING:
    from envsync.launch.request import Request
    from envsync.leading.result import SyncResult


async def sync_async(lock: str | os.PathLike[str], **options: Unpack[SyncOptions]) -> SyncResult:
    """Make an environment match its lock file, under asyncio or Trio; waits for others who are at it already.

    Concurrent calls for the same share one sync, whichever event loop they come from. A call that is cancelled leaves
    at once; when all have left, the sync ends within a second, but for a commit, which takes a fraction of one. Then
    the packages are as they were.

    :param options: as for `envsync.sync`
    :raises EnvsyncError: as `envsync.sync`; all who share a sync get the same error
    :raises TypeError: an argument is of the wrong type
    """
    return await _board(await to_thread.run_sync(blocking.resolve, lock, options))


@asynccontextmanager
async def use_async(lock: str | os.PathLike[str], **options: Unpack[SyncOptions]) -> AsyncGenerator[Hold]:
    """Make an environment current as `sync_async`, and keep it as it is while the block runs.

    :param options: as for `envsync.sync`
    :raises EnvsyncError: as `envsync.sync`
    """
    asked = await to_thread.run_sync(blocking.resolve, lock, options)
    hold = None
    while hold is None:
        hold = await taking.enter(asked, await _board(asked))  # None: it was somebody else's turn in between
    try:
        yield hold
    finally:
        hold.release()


for _function in (sync_async, use_async):
    _function.__module__ = "envsync"


class _Flights:
    """All flights of this process, by what they are for."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.going: dict[tuple[object, ...], _Flight] = {}


_all = _Flights()
if hasattr(os, "register_at_fork"):
    # The child has none of the threads, and the lock may have been held by one of them.
    os.register_at_fork(after_in_child=_all.__init__)  # type: ignore[misc]


class _Caller:
    """Who waits for a flight, in an event loop."""

    def __init__(self) -> None:
        self.token = current_token()
        self.landed = anyio.Event()


class _Flight:
    """One sync that callers share.

    All but `_work` is done with `_all.mutex` held.
    """

    def __init__(self, key: tuple[object, ...], asked: Request) -> None:
        self.key = key
        self.asked = asked
        self.callers: list[_Caller] = []
        self.is_over = False
        self.stopped = False
        self.result: SyncResult | None = None
        self.error: Exception | None = None

    def start(self) -> None:
        """:raises RuntimeError: no more threads can be started"""
        threading.Thread(target=self._work, name="envsync sync").start()

    def leave(self, caller: _Caller) -> None:
        """Be no caller any more. The last one who leaves before it is over stops it."""
        self.callers.remove(caller)
        if not self.callers and not self.is_over:
            self.stopped = True
            self.forget()

    def forget(self) -> None:
        """Have who asks from now on start anew."""
        if _all.going.get(self.key) is self:
            del _all.going[self.key]

    def outcome(self) -> SyncResult:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def _work(self) -> None:
        try:
            self.result = syncing.run(self.asked, check=self._check)
        except Exception as error:  # noqa: BLE001  # it is the callers'
            self.error = error
        with _all.mutex:
            self.is_over = True
            self.forget()
            callers = list(self.callers)
        loops: dict[int, tuple[EventLoopToken, list[_Caller]]] = {}
        for caller in callers:
            loops.setdefault(id(caller.token.native_token), (caller.token, []))[1].append(caller)
        for (
            token,
            of_loop,
        ) in loops.values():  # each by a thread of its own: a loop that is busy keeps no other one waiting
            threading.Thread(target=_wake, args=(token, of_loop), name="envsync landed", daemon=True).start()

    def _check(self) -> None:
        if self.stopped:
            raise SyncCancelledError("nobody waits for this sync any more")


def _wake(token: EventLoopToken, callers: list[_Caller]) -> None:
    def land() -> None:
        for caller in callers:
            caller.landed.set()

    with suppress(anyio.RunFinishedError):
        from_thread.run_sync(land, token=token)


async def _board(asked: Request) -> SyncResult:
    """Join the flight that does what is asked, or start it."""
    key = (paths.abspath(asked.env_template), asked.key, asked.timeout, asked.text("busy"))
    caller = _Caller()
    with _all.mutex:
        flight = _all.going.get(key)
        if flight is None:
            flight = _Flight(key, asked)
            flight.start()
            _all.going[key] = flight
        flight.callers.append(caller)
    try:
        await caller.landed.wait()
    finally:
        with _all.mutex:
            flight.leave(caller)
    return flight.outcome()
