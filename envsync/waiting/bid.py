"""A try at the environment lock: whether it is ours to try, and what those before us have left for who gets it."""

from __future__ import annotations

import errno

from envsync.locks.environment_lock import Locks
from envsync.system import core
from envsync.waiting import bare, directory, failures

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from envsync.launch.demand import Demand
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.locks.flock import Flock
    from envsync.waiting.failures import Arrival
    from envsync.waiting.queue import Turns

    class Slots(Protocol):
        """Bounds how many lead at once in one process; a threading.Semaphore."""

        def acquire(self, *, blocking: bool) -> bool: ...
        def release(self) -> None: ...


class Bid:
    """One process's bid for the environment lock, from its first try to the last.

    :param slots: as for `envsync.waiting.waiter.Wait`
    :ivar crowded: no slot was free when one was wanted last
    :ivar leads: the environment lock was taken, and handed out
    :ivar predecessor: what the leader said that died before us, once we lead
    """

    __slots__ = ("_turns", "arrival", "crowded", "demand", "leads", "locks", "predecessor", "slots", "wanted")

    def __init__(self, demand: Demand, arrival: Arrival, slots: Slots | None) -> None:
        self.demand = demand
        self.arrival = arrival
        self.slots = slots
        self.locks = Locks(demand.environment, unseen=demand.unseen)
        self.crowded = False
        self.leads = False
        self.predecessor: dict[str, object] = {}
        self.wanted: Flock | None = None
        """Keeps others from removing an environment that was never synced."""
        self._turns: Turns | None = None

    def try_nowait(self, between_tries: float) -> EnvironmentLock | None:
        """Take the environment lock if it is free, and nobody's turn.

        :param between_tries: how many seconds pass between two tries
        """
        try:
            return self._try(between_tries)
        except Exception as error:
            if not _is_removed(error):
                raise
            directory.prepare(self.demand.environment)  # somebody has removed it altogether
            return None

    def end(self) -> None:
        """Let go what keeps others off. Who leaves in vain removes an environment in which nobody was ever served."""
        if self.wanted is not None:
            self.wanted.release()
        if not self.leads:
            bare.leave(self.demand.environment)

    def _try(self, between_tries: float) -> EnvironmentLock | None:
        if not self._want() or self._is_turn_of_others(between_tries):
            return None
        self.crowded = self.slots is not None and not self.slots.acquire(blocking=False)
        if self.crowded:
            return None
        lock: EnvironmentLock | None = None
        try:
            lock = self.locks.acquire_nowait()
            self.leads = lock is not None and self._succeed(lock, between_tries)
        finally:
            if not self.leads:
                self._give_back(lock)
        return lock if self.leads else None

    def _give_back(self, lock: EnvironmentLock | None) -> None:
        if lock is not None:
            lock.release()
        if self.slots is not None:
            self.slots.release()

    def _want(self) -> bool:
        """Keep others from removing the environment meanwhile. False: somebody is at it; it will have to be made anew.

        What is there for other reasons is never removed, and where nothing can be made in it or there are no shared
        locks, nobody does so by this lock.
        """
        if self.wanted is not None and self.wanted.is_in_place():
            return True
        if self.wanted is not None:
            self.wanted.release()
        environment = self.demand.environment
        directory.prepare(environment)
        if not bare.may_go(environment):
            return True
        try:
            self.wanted = bare.want_nowait(environment)
        except Exception as error:
            if _is_removed(error):
                raise
            return True
        return self.wanted is not None or (self.locks.look() is not None and not self.locks.in_use)

    def _is_turn_of_others(self, between_tries: float) -> bool:
        environment = self.demand.environment
        if failures.identity(environment.turn) == (0, 0):
            return False
        if self._turns is None:
            from envsync.waiting.queue import Turns

            self._turns = Turns(environment, self.demand.key)
        return self._turns.is_others(between_tries)

    def _succeed(self, lock: EnvironmentLock, between_tries: float) -> bool:
        """Take up what those before us have left, now that we hold the lock. False: it is the turn of others.

        :raises EnvsyncError: they have failed for us, too
        """
        environment, key = self.demand.environment, self.demand.key
        if not lock.is_in_place():
            return True  # of an environment that was replaced: what is there now is not ours to judge
        if self._is_turn_of_others(between_tries):
            return False  # the leader before us has said so at its end, after our first look
        self.predecessor = failures.bury(environment) or failures.interrupted(environment, key, self.arrival)
        try:
            failures.check(environment, key, self.arrival, leading=True)
        except Exception as error:
            from envsync.errors import DeadLeadersError

            if isinstance(error, DeadLeadersError):  # it was we who found out: the rest hear it from us
                failures.tell(environment, key, error)
            raise
        if failures.identity(environment.turn) != (0, 0):
            from envsync.waiting.queue import end_turn

            end_turn(environment)
        return True


def _is_removed(error: Exception) -> bool:
    """Tell whether something is missing that helps to be made anew: not what a link leads to. Says so, too."""
    if getattr(error, "errno", 0) != errno.ENOENT:
        return False
    path = str(getattr(error, "path", ""))
    try:
        os.readlink(path)
    except OSError:
        return True
    from envsync.errors import EnvsyncError
    from envsync.errors.hints import of_link

    if isinstance(error, EnvsyncError):
        error.hint = of_link(path)
    return False
