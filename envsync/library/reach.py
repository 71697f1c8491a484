"""The environment is not known to be current: wait for the leader, or be it.

Command line, library, `Coordinator` and repair all go through `wait_or_lead`. It says what comes after what; how one
waits and who leads, a `Way` says. A thread's way is made of plain calls, an event loop's is not: so the loop is a
coroutine, and a thread has it run at once.

Still without `site` and libraries: they are loaded by whoever leads, and by nobody else.
"""

from __future__ import annotations

import errno
import time

from envsync.launch import command, fast_lane
from envsync.launch.demand import Demand
from envsync.system import core

REPLACED_TIMES = 10
"""How often an environment may be replaced beneath us (`rm -rf`, `uv venv --clear`) before we give up."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Protocol, TypeVar

    from envsync.errors import FilesystemError
    from envsync.launch import Environment
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.leading.lead import Aiming, Led
    from envsync.leading.result import SyncResult
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.waiting.bid import Slots
    from envsync.waiting.failures import Arrival
    from envsync.waiting.waiter import Wait

    Show = Callable[[Callable[[Report], Led | None]], Led | None]
    T = TypeVar("T")

    class Way(Protocol):
        """How one who wants an environment goes through the steps."""

        async def wait(self, wait: Wait) -> EnvironmentLock | fast_lane.Entry:
            """Wait until it is over. What is held then is handed out."""

        async def lead(self, wait: Wait, held: EnvironmentLock) -> Led | None:
            """Lead, and release the lock in any case. None: the environment was replaced, ask again."""

        async def accept(self, wait: Wait, error: FilesystemError) -> SyncResult | fast_lane.Entry:
            """Make do with an environment that cannot be locked, or raise the error."""


def reach(
    request: Request,
    environment: Environment | None,
    *,
    launching: bool,
    show: Show,
    distrust: bool = False,
    arrival: Arrival | None = None,
    check: Callable[[], None] | None = None,
    aim: Aiming | None = None,
) -> SyncResult | fast_lane.Entry:
    """Make the environment current, by leading or by waiting for whoever leads.

    :param launching: a command follows: hand out a shared hold on the environment instead of what became of it
    :param show: leads for us, with a report that says how far it is
    :param arrival: since when it is wanted; default: now
    :param check: called now and then while it waits; what it raises ends the wait
    :param aim: what we bring it to, as in `lead`; with one of its own, an environment has to be one that can be locked
    """
    from envsync.waiting.failures import Arrival

    arrival = arrival or Arrival(whole_process=False)
    if environment is None:
        environment = named_by_digest(request)
        entry = None if distrust else fast_lane.enter(request, environment)
        if entry is not None:  # it was current all the while: only its name had to be found out
            return remember(request, current(entry, launching=launching))
    way = _Blocking(request, show, check, aim, launching=launching)
    demand = Demand(request, environment)
    done = _at_once(wait_or_lead(way, demand, arrival, launching=launching, distrust=distrust))
    return remember(request, done)


async def wait_or_lead(
    way: Way,
    demand: Demand,
    arrival: Arrival,
    *,
    launching: bool = False,
    distrust: bool = False,
    slots: Slots | None = None,
) -> SyncResult | fast_lane.Entry:
    """Wait or lead, and do so again if the environment was replaced meanwhile.

    :param slots: see `envsync.waiting.waiter.Wait`
    :raises FilesystemError: it cannot be locked and is not what is asked for, or is replaced again and again
    """
    from envsync.waiting.waiter import Wait

    for _ in range(REPLACED_TIMES):
        wait = Wait(demand, arrival, slots, distrust=distrust)
        try:
            held = await way.wait(wait)
        except _filesystem_error() as error:  # is imported only if there is one
            return await way.accept(wait, error)
        if isinstance(held, fast_lane.Entry):
            if wait.at_once:
                return current(held, launching=launching)
            return followed(held, arrival, launching=launching)
        led = await way.lead(wait, held)
        if led is not None:
            result, entry = led
            return entry or result
    raise _restless(demand.environment)


def _at_once(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose steps are plain calls, so that it never gives way to others."""
    try:
        steps.send(None)
    except StopIteration as over:
        done: T = over.value
        return done
    raise AssertionError("it waits for an event loop")


class _Blocking:
    """The way of a thread: it sleeps while it waits, and leads by itself.

    Its parameters are those of `reach`.
    """

    __slots__ = ("aim", "check", "launching", "request", "show")

    def __init__(
        self, request: Request, show: Show, check: Callable[[], None] | None, aim: Aiming | None, *, launching: bool
    ) -> None:
        self.request = request
        self.show = show
        self.check = check
        self.aim = aim
        self.launching = launching

    async def wait(self, wait: Wait) -> EnvironmentLock | fast_lane.Entry:
        return wait.until_over(self.check)

    async def lead(self, wait: Wait, held: EnvironmentLock) -> Led | None:
        def run(report: Report) -> Led | None:
            session = Session.after(wait, self.request, report)._replace(launching=self.launching)
            return lead(session, held, self.aim or Seeker)

        try:
            _load_libraries()
            from envsync.leading.goal import Seeker
            from envsync.leading.lead import lead
            from envsync.leading.session import Session

            return self.show(run)
        except BaseException:  # an interrupt, say, before the leader could do it
            from envsync.waiting import bare

            bare.leave(wait.environment, held)
            raise

    async def accept(self, wait: Wait, error: FilesystemError) -> SyncResult | fast_lane.Entry:
        if self.aim is not None:
            raise error
        return unchangeable(self.request, wait.environment, error, launching=self.launching)


def _load_libraries() -> None:
    from envsync.launch.libraries import load_site

    load_site()


def _filesystem_error() -> type[FilesystemError]:
    from envsync.errors import FilesystemError

    return FilesystemError


def _restless(environment: Environment) -> FilesystemError:
    """Return the error for an environment whose directory does not stay the same for long enough to lock it."""
    from envsync.errors import FilesystemError

    cause = OSError(errno.EBUSY, "somebody keeps replacing the directory while it is locked")
    return FilesystemError("sync", environment.path, cause)


def current(held: fast_lane.Entry, *, launching: bool) -> SyncResult | fast_lane.Entry:
    """Return what `reach` does to who finds the environment current, and holds it now."""
    return held if launching else _let_go(held, "current", 0.0)


def followed(held: fast_lane.Entry, arrival: Arrival, *, launching: bool) -> SyncResult | fast_lane.Entry:
    """Return what `reach` does to who waited, and holds the environment now."""
    seconds = round(time.monotonic() - arrival.began, 3)
    if core.variable("ENVSYNC_EVENTS"):
        from envsync.launch.events_file import record

        record("waited", env=held.stamp.environment, digest=held.stamp.digest, seconds=seconds)
    return held if launching else _let_go(held, "waited", seconds)


def _let_go(held: fast_lane.Entry, outcome: str, seconds: float) -> SyncResult:
    command.close_lock(held.fd)
    from envsync.leading.result import SyncResult  # who launches, as most do, needs none

    return SyncResult(outcome, held.stamp.environment, held.stamp.digest, seconds=seconds)


def named_by_digest(request: Request) -> Environment:
    """Find out the name of an environment that has `{digest}` in it, where that takes a parser or an interpreter."""
    _load_libraries()
    from envsync.leading.naming import environment_by_digest
    from envsync.leading.sync_cache import cache_directory

    return environment_by_digest(request, cache_directory(request))


def remember(request: Request, done: T) -> T:
    """Leave for the next what `{digest}` stands for, if that had to be found out. The environment is there.

    :param done: what is handed on; a hold on the environment is given back if this is interrupted
    """
    if request.name is None:
        return done
    try:
        from envsync.leading.naming import leave

        leave(request)
    except BaseException:
        if isinstance(done, fast_lane.Entry):
            command.close_lock(done.fd)
        raise
    return done


def unchangeable(
    request: Request, environment: Environment, error: FilesystemError, *, launching: bool
) -> SyncResult | fast_lane.Entry:
    """An environment that cannot be locked cannot be changed, but it may be what is asked for.

    :raises FilesystemError: the error, if it says anything else
    """
    if not error.is_refusal:
        raise error
    _load_libraries()
    from envsync.leading.read_only import compare

    return compare(request, environment, error, launching=launching)
