"""Lead or wait: how a process that found the environment not current goes on.

Whoever gets the environment lock without waiting is the leader. Everybody else is a waiter and follows the stamp:
as soon as it fits, the waiter enters, all waiters at once, none of them ever holding the exclusive lock. A waiter
tries that lock only now and then, to succeed a leader that died; the kernel frees a dead leader's lock. If the
leader fails, it leaves word (`envsync.waiting.failures`), and whoever waited for the same request fails with the
same words: what failed there was tried once, not once a waiter.

Why this ends. Nobody ever waits while holding the environment lock, but for commands that run in the environment
(`envsync.leading.in_use`); a command that would wait for itself, through however many environments, is refused
(`envsync.waiting.cycle`). The lock is free or somebody works; whoever gets it has the stamp in place, at least for
its own command, before it lets go. So each sync serves at least one process for good, and all others of its digest
that are waiting then, since a fresh stamp is left to rest until they have seen it. And nobody is passed over for ever:
those who ask for something else take turns (`envsync.waiting.queue`).

Polling is the only thing that works on every filesystem: flock(2) cannot wait with a time limit, is not fair, and
would wake the waiters one after another; inotify(7) does not see what other clients of a network filesystem do.
How often is said in `envsync.waiting.pace`; and of those on one node, over a network, one looks for all
(`envsync.waiting.neighbours`).
"""

from __future__ import annotations

import time

from envsync.launch import command
from envsync.system import core, mounts
from envsync.waiting import directory, failures
from envsync.waiting.bid import Bid
from envsync.waiting.pace import Pace, Rhythm

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from envsync.launch import Environment
    from envsync.launch.demand import Demand
    from envsync.launch.fast_lane import Entry
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.waiting.bid import Slots
    from envsync.waiting.company import Company
    from envsync.waiting.failures import Arrival
    from envsync.waiting.neighbours import Neighbours

SOCIAL_SECONDS = 0.8
"""How long a process waits before it says for whom, and puts its name into the list: for less it is not worth it."""
DOUBT_SECONDS = 2.0
"""For how long other mtimes than the stamp's may be a network filesystem's cache (nfs(5), attribute caching)."""


class Wait:
    """One process's wait for an environment: lead, or wait until somebody else has made it current.

    Makes the environment's directory and `.envsync` in it if they are missing. Can be interrupted at any time; then
    nothing is held. What it raises:

    - EnvironmentRefusedError: the directory is not one that envsync may fill
    - WaitTimeoutError: `--timeout` is over
    - RefusedError: waiting would be for ourselves
    - SharedFailureError: the process that synced for us failed
    - DeadLeadersError: one leader after the other died
    - LockingError: no lock that works can be had, or none that this request can do with

    Threads call `until_over`. An event loop goes a step at a time: `begin`, then `look` after each `pause`, then `end`
    in any case. Between the steps, nothing is held but the name in the list.

    :param arrival: since when this process wants the environment; default: now
    :param distrust: the stamp fits, and yet what it vouches for does not run; may turn out in `begin`
    :param slots: if given, one is taken before the environment lock is, and kept if that is held then: nobody holds
        the lock and waits for a slot
    :ivar at_once: it was current all the while, which the fast lane cannot know where shared locks do not work
    """

    __slots__ = (
        "_company",
        "_neighbours",
        "_rhythm",
        "arrival",
        "at_once",
        "bid",
        "demand",
        "distrust",
        "sight",
    )

    def __init__(
        self, demand: Demand, arrival: Arrival | None = None, slots: Slots | None = None, *, distrust: bool = False
    ) -> None:
        self.demand = demand
        self.arrival = arrival or failures.Arrival(whole_process=False)
        self.distrust = distrust
        self.at_once = False
        self.bid = Bid(demand, self.arrival, slots)
        self.sight = Sight(demand)
        self._company: Company | None = None
        self._neighbours: Neighbours | None = None
        self._rhythm = Rhythm(self.arrival.began, Pace(network=False))

    @property
    def environment(self) -> Environment:
        return self.demand.environment

    @property
    def deadline(self) -> float | None:
        """When to give up, by time.monotonic(); None: never."""
        return None if self.demand.timeout is None else self.arrival.began + self.demand.timeout

    def until_over(self, check: Callable[[], None] | None = None) -> EnvironmentLock | Entry:
        """Wait, sleeping in between.

        :param check: called between two looks; what it raises ends the wait
        :returns: the held environment lock: we lead; or a shared hold on the current environment
        """
        try:
            held = self.begin()
            while held is None:
                time.sleep(self.pause())
                if check is not None:
                    check()
                held = self.look()
            return held
        finally:
            self.end()

    def begin(self) -> EnvironmentLock | Entry | None:
        """Take the environment lock if it is free. None: we have to wait."""
        start = time.monotonic()
        directory.prepare(self.environment)
        self.arrival.look(self.environment)
        if self.bid.locks.look() is not None and not self.bid.locks.in_use and not self.distrust:
            entry = self._enter_unseen()
            if entry is not None:
                self.at_once = True
                return entry
        held = self.bid.try_nowait(self._rhythm.between_tries(time.monotonic()))
        if held is not None:
            return held
        if directory.is_inside(self.environment):
            from envsync.errors import RefusedError

            raise RefusedError(
                f"environment `{self.environment.path}` is being changed for others, and this command runs within it: "
                "waiting would be for itself",
                hint="give each its own environment: `envsync sync --env '.venvs/{digest}'`",
            )
        self._rhythm.pace = Pace(network=mounts.is_network(self.environment.path))
        if self._rhythm.pace.network:
            from envsync.waiting import neighbours

            # Who has to wait for a slot first cannot try the environment lock for others.
            self._neighbours = neighbours.find(self.demand, time.monotonic(), may_poll=self.bid.slots is None)
        now = time.monotonic()
        self._rhythm.begin(now, now - start)
        return None

    def _enter_unseen(self) -> Entry | None:
        """Enter where shared locks do not work, if there is nothing to mend and nothing that a dead leader left."""
        if failures.identity(self.environment.progress) != (0, 0):
            return None
        entry = self.demand.enter(share=False)
        if entry is None or os.access(self.environment.python, os.X_OK):
            return entry
        command.close_lock(entry.fd)
        self.distrust = True
        return None

    def look(self) -> EnvironmentLock | Entry | None:
        """Look once whether the wait is over, or hear whether somebody else has seen anything new.

        :returns: the held environment lock, a shared hold on the current environment, or None: wait on
        """
        now = time.monotonic()
        if self._neighbours is None:
            held = self._look(now)
            self._rhythm.looked(time.monotonic() - now)
            return held
        is_late = self.deadline is not None and now >= self.deadline
        if self._neighbours.spares(now, self._rhythm.interval(now, for_others=True)) and not is_late:
            self._be_among_others(now)
            return None
        held = None
        try:
            held = self._look(now, self._neighbours)
            return held
        finally:
            self._tell(self._neighbours, now, held)

    def _look(self, now: float, neighbours: Neighbours | None = None) -> EnvironmentLock | Entry | None:
        """Look once ourselves.

        :param neighbours: if given, the failures are looked at each time: it is seldom, or for all
        """
        network, share = self._rhythm.pace.network, self.bid.locks.in_use
        is_ours = neighbours is None or not neighbours.try_for_us(now)
        is_to_try = self._rhythm.is_to_try(now, is_ours=is_ours)
        entry = self.sight.enter(again=is_to_try, network=network, share=share)
        if entry is not None:
            return entry
        self.sight.looks += 1
        if self._rhythm.is_to_heed(tries=is_to_try, among_others=neighbours is not None):
            is_to_try |= self._heed_failures(now) and is_ours
        if self.deadline is not None and now >= self.deadline:
            raise self._timeout()
        if is_to_try and not (network and self.sight.is_in_doubt(now)):
            self._rhythm.tries(now, for_others=self._looks_for_others())
            held = self.bid.try_nowait(self._rhythm.between_tries(now, for_others=self._looks_for_others()))
            if held is not None:
                return held
        self._be_among_others(now)
        return None

    def _heed_failures(self, now: float) -> bool:
        """Look at the failures. True: there is a new one that is not ours, and perhaps nobody leads any more.

        :raises EnvsyncError: one of them is ours, too
        """
        before = self.arrival.seen
        try:
            failures.check(self.environment, self.demand.key, self.arrival, leading=False)
        except Exception as error:
            from envsync.errors import SharedFailureError

            if isinstance(error, SharedFailureError):
                self._among_others().shorten(error, self.arrival.seen, now)
            raise
        return self.arrival.seen not in (before, (0, 0))

    def _tell(self, neighbours: Neighbours, now: float, held: EnvironmentLock | Entry | None) -> None:
        """Say to others on this node what we have seen, or remember that we have looked."""
        self._rhythm.looked(time.monotonic() - now)
        interval = self._rhythm.interval(now, for_others=neighbours.are_there())
        may_be_for_us = held is None and self.sight.latest != (0, 0) and neighbours.hears(now)
        neighbours.looked(
            now,
            (self.sight.latest, self.arrival.seen),
            interval,
            is_for_us=may_be_for_us and self.demand.is_named(),
            entered=held is not None and not self.bid.leads,
        )

    def _be_among_others(self, now: float) -> None:
        if now >= self.arrival.began + SOCIAL_SECONDS:
            self._among_others().look(now, spared=self._neighbours is not None and self._neighbours.rests)

    def pause(self) -> float:
        """Return how many seconds to sleep until the next look."""
        now = time.monotonic()
        rests = self._neighbours is not None and self._neighbours.rests
        for_others = not rests and self._looks_for_others()
        pause = self._rhythm.pause(now, for_others=for_others, rests=rests)
        return pause if self.deadline is None else max(0.0, min(pause, self.deadline - now))

    def describe(self) -> str:
        """Say for whom this process waits."""
        if self.bid.crowded:
            return "waiting for other syncs of this process to end"
        return self._among_others().describe(time.monotonic())

    def end(self) -> None:
        """Take back what others see of us, and let the next look for those on this node."""
        if self._neighbours is not None:
            self._neighbours.leave()
        if self._company is not None:
            self._company.leave()
        self.bid.end()

    def _looks_for_others(self) -> bool:
        return self._neighbours is not None and self._neighbours.are_there()

    def _among_others(self) -> Company:
        if self._company is None:
            from envsync.waiting.company import Company

            self._company = Company(self.demand, self.arrival.began)
        return self._company

    def _timeout(self) -> Exception:
        from envsync.errors import WaitTimeoutError
        from envsync.errors.hints import longer

        timeout = self.demand.timeout
        return WaitTimeoutError(f"gave up after {timeout:g} s: {self.describe()}", hint=longer(timeout))


class Sight:
    """What one who waits makes of the stamps that it sees.

    :ivar doubted: since when a stamp for us is there that does not fit yet, by time.monotonic()
    :ivar latest: the identity of the stamp that was seen last; zeros if there was none
    :ivar looks: how many there were
    """

    __slots__ = ("demand", "doubted", "latest", "looks", "unfit")

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.doubted: float | None = None
        self.latest = (0, 0)
        self.looks = 0
        self.unfit = (0, 0)
        """A stamp, by its identity, that is for another request."""

    def enter(self, *, again: bool, network: bool, share: bool) -> Entry | None:
        """Enter if there is a stamp for us.

        Looking for it first keeps waiters off the in-use lock, which the leader wants for itself. One for another
        request is looked into again only now and then: a local stamp does not change, but the inputs it names may.

        :param again: look into that one, too
        """
        self.latest = latest = failures.identity(self.demand.environment.stamp)
        if latest == (0, 0) or (latest == self.unfit and not again):
            return None
        entry = self.demand.enter(accept_racy=True, share=share)
        is_ours = entry is not None or network or self.demand.is_named()
        self.unfit = (0, 0) if is_ours else latest
        return entry

    def is_in_doubt(self, now: float) -> bool:
        """Tell whether a stamp for us is there that does not fit yet: a network filesystem may show old mtimes."""
        if not self.demand.is_named():
            self.doubted = None
            return False
        self.doubted = self.doubted if self.doubted is not None else now
        return now - self.doubted < DOUBT_SECONDS
