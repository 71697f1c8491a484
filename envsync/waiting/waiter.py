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
How often is said in `envsync.waiting.pace`.
"""

from __future__ import annotations

import errno
import sys
import time

if sys.platform == "win32":
    import os
else:
    import posix as os

from envsync.launch import command, fast_lane
from envsync.locks.environment_lock import Locks
from envsync.system import mounts
from envsync.waiting import bare, directory, failures, pace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from envsync.launch import Environment
    from envsync.launch.fast_lane import Entry
    from envsync.launch.request import Request
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.locks.flock import Flock
    from envsync.waiting.failures import Arrival
    from envsync.waiting.narrator import Narrator
    from envsync.waiting.queue import Lookout, Rank, Turns

    class Slots(Protocol):
        """Bounds how many lead at once in one process; a threading.Semaphore."""

        def acquire(self, *, blocking: bool) -> bool: ...
        def release(self) -> None: ...


SOCIAL_SECONDS = 0.8
"""How long a process waits before it says for whom, and puts its name into the list: for less it is not worth it."""
ENLIST_AGAIN_SECONDS = 60.0
"""After which it tries again, if that was not possible."""
FAILURES_APART = 4
"""Looks at the stamp for each look at the failures."""
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
    """

    __slots__ = (
        "arrival",
        "at_once",
        "began",
        "crowded",
        "deadline",
        "distrust",
        "doubted",
        "enlist_at",
        "environment",
        "holds",
        "known",
        "leads",
        "locks",
        "looks",
        "narrator",
        "pace",
        "place",
        "predecessor",
        "request",
        "slots",
        "try_at",
        "turns",
        "unfit",
        "wanted",
    )

    def __init__(
        self,
        request: Request,
        environment: Environment,
        arrival: Arrival | None = None,
        slots: Slots | None = None,
        *,
        distrust: bool = False,
    ) -> None:
        self.request = request
        self.environment = environment
        self.arrival = arrival or failures.Arrival(whole_process=False)
        self.began = self.arrival.began
        self.deadline = None if request.timeout is None else self.began + request.timeout
        self.at_once = False
        """It was current all the while, which the fast lane cannot know where shared locks do not work."""
        self.locks = Locks(environment, request)
        self.narrator: Narrator | None = None
        self.slots = slots
        self.distrust = distrust
        self.crowded = False
        """No slot was free when one was wanted last."""
        self.place: Rank | None = None
        self.predecessor: dict[str, object] = {}
        """What the leader said that died before us, once we hold the environment lock."""
        self.pace = pace.Pace(network=False)
        self.turns: Turns | None = None
        self.enlist_at = self.began + SOCIAL_SECONDS
        self.try_at = 0.0
        self.doubted: float | None = None
        self.looks = 0
        self.holds: tuple[str, ...] | None = None
        self.known: dict[str, Lookout] = {}
        """Of others' environments, who waits for them, as far as `cycle.find` has looked."""
        self.unfit = (0, 0)
        """A stamp, by its identity, that is for another request."""
        self.wanted: Flock | None = None
        """Keeps others from removing an environment that was never synced."""
        self.leads = False
        """The environment lock was taken, and handed out."""

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
        directory.prepare(self.environment)
        self.arrival.look(self.environment)
        if self.locks.look() is not None and not self.locks.in_use and not self.distrust:
            entry = self._enter_unseen()
            if entry is not None:
                self.at_once = True
                return entry
        held = self._try_again()
        if held is not None:
            return held
        if directory.is_inside(self.environment):
            from envsync.errors import RefusedError

            raise RefusedError(
                f"environment `{self.environment.path}` is being changed for others, and this command runs within it: "
                "waiting would be for itself",
                hint="give each its own environment: `envsync sync --env '.venvs/{digest}'`",
            )
        self.pace = pace.Pace(network=mounts.is_network(self.environment.path))
        self.try_at = self.began + self._between_tries()
        return None

    def _enter_unseen(self) -> Entry | None:
        """Enter where shared locks do not work, if there is nothing to mend and nothing that a dead leader left."""
        if failures.identity(self.environment.progress) != (0, 0):
            return None
        entry = fast_lane.enter(self.request, self.environment, share=False)
        if entry is None or os.access(self.environment.python, os.X_OK):
            return entry
        command.close_lock(entry.fd)
        self.distrust = True
        return None

    def look(self) -> EnvironmentLock | Entry | None:
        """Look once whether the wait is over.

        :returns: the held environment lock, a shared hold on the current environment, or None: wait on
        """
        now = time.monotonic()
        entry = self._enter(now)
        if entry is not None:
            return entry
        self.looks += 1
        if self.looks % FAILURES_APART == 0 or now >= self.try_at:
            failures.check(self.environment, self.request.key, self.arrival, leading=False)
        if self.deadline is not None and now >= self.deadline:
            raise self._timeout()
        if now >= self.try_at and not self._is_in_doubt(now):
            self.try_at = now + self._between_tries()
            held = self._try_again()
            if held is not None:
                return held
        if now >= self.began + SOCIAL_SECONDS:
            self._be_known(now)
            self._narrate().look(now)
        return None

    def _enter(self, now: float) -> Entry | None:
        """Enter if there is a stamp for us.

        Looking for it first keeps waiters off the in-use lock, which the leader wants for itself. One for another
        request is looked into again only now and then: a local stamp does not change, but the inputs it names may.
        """
        latest = failures.identity(self.environment.stamp)
        if latest == (0, 0) or (latest == self.unfit and now < self.try_at):
            return None
        entry = fast_lane.enter(self.request, self.environment, accept_racy=True, share=self.locks.in_use)
        is_ours = entry is not None or self.pace.network or fast_lane.is_named(self.request, self.environment)
        self.unfit = (0, 0) if is_ours else latest
        return entry

    def pause(self) -> float:
        """Return how many seconds to sleep until the next look."""
        now = time.monotonic()
        pause = self.pace.pause(now - self.began)
        return pause if self.deadline is None else max(0.0, min(pause, self.deadline - now))

    def describe(self) -> str:
        """Say for whom this process waits."""
        if self.crowded:
            return "waiting for other syncs of this process to end"
        return self._narrate().describe(time.monotonic())

    def end(self) -> None:
        """Take back what others see of us."""
        if self.narrator is not None:
            self.narrator.conclude()
        if self.place is not None:
            self.place.leave()
            self.place = None
        if self.wanted is not None:
            self.wanted.release()
        if not self.leads:
            bare.leave(self.environment)

    def _try_again(self) -> EnvironmentLock | None:
        try:
            return self._try_to_lead()
        except Exception as error:
            if getattr(error, "errno", 0) != errno.ENOENT or _leads_nowhere(error):
                raise
            directory.prepare(self.environment)  # somebody has removed it altogether
            return None

    def _want(self) -> bool:
        """Keep others from removing the environment meanwhile. False: somebody is at it; it will have to be made anew.

        What is there for other reasons is never removed, and where nothing can be made in it or there are no shared
        locks, nobody does so by this lock.
        """
        if self.wanted is not None and self.wanted.is_in_place():
            return True
        if self.wanted is not None:
            self.wanted.release()
        directory.prepare(self.environment)
        if not bare.may_go(self.environment):
            return True
        try:
            self.wanted = bare.want_nowait(self.environment)
        except Exception as error:
            if getattr(error, "errno", errno.ENOLCK) == errno.ENOENT and not _leads_nowhere(error):
                raise
            return True
        return self.wanted is not None or (self.locks.look() is not None and not self.locks.in_use)

    def _try_to_lead(self) -> EnvironmentLock | None:
        if not self._want() or self._is_turn_of_others():
            return None
        self.crowded = self.slots is not None and not self.slots.acquire(blocking=False)
        if self.crowded:
            return None
        lock = None
        try:
            lock = self.locks.acquire_nowait()
        finally:
            if lock is None and self.slots is not None:
                self.slots.release()
        if lock is None:
            return None
        try:
            if not lock.is_in_place():
                self.leads = True
                return lock  # of an environment that was replaced: what is there now is not ours to judge
            if self._is_turn_of_others():  # the leader before us has said so at its end, after our first look
                lock.release()
                if self.slots is not None:
                    self.slots.release()
                return None
            self.predecessor = failures.bury(self.environment) or failures.interrupted(
                self.environment, self.request.key, self.arrival
            )
            failures.check(self.environment, self.request.key, self.arrival, leading=True)
        except BaseException as error:
            self._pass_on(error)
            lock.release()
            if self.slots is not None:
                self.slots.release()
            raise
        if failures.identity(self.environment.turn) != (0, 0):
            from envsync.waiting.queue import end_turn

            end_turn(self.environment)
        self.leads = True
        return lock

    def _is_turn_of_others(self) -> bool:
        if failures.identity(self.environment.turn) == (0, 0):
            return False
        if self.turns is None:
            from envsync.waiting.queue import Turns

            self.turns = Turns(self.environment, self.request.key)
        return self.turns.is_others(self._between_tries())

    def _pass_on(self, error: BaseException) -> None:
        """Tell the rest, if it was we who found out that leader after leader dies."""
        from envsync.errors import DeadLeadersError

        if isinstance(error, DeadLeadersError):
            failures.tell(self.environment, self.request.key, error)

    def _between_tries(self) -> float:
        return pace.LOCKS_APART * self.pace.pause(time.monotonic() - self.began)

    def _is_in_doubt(self, now: float) -> bool:
        """Tell whether a stamp for us is there that does not fit yet: a network filesystem may show old mtimes."""
        if not self.pace.network:
            return False
        if not fast_lane.is_named(self.request, self.environment):
            self.doubted = None
            return False
        self.doubted = self.doubted if self.doubted is not None else now
        return now - self.doubted < DOUBT_SECONDS

    def _be_known(self, now: float) -> None:
        """Put our name into the list, and look whether those we wait for wait for us."""
        if now < self.enlist_at:
            return
        from envsync.waiting import cycle, queue

        if self.holds is None:
            self.holds = cycle.holds()
        self.enlist_at = now + (cycle.EVERY_SECONDS if self.holds else ENLIST_AGAIN_SECONDS)
        if self.place is None:
            self.place = queue.enlist(self.environment, self.request, self.holds)
        through = cycle.find(self.environment, self.holds, self.known)
        if through is not None:
            raise cycle.refusal(self.environment, through)

    def _narrate(self) -> Narrator:
        if self.narrator is None:
            from envsync.waiting.narrator import Narrator

            self.narrator = Narrator(self.environment, self.began, quiet=self.request.flag("quiet"))
        return self.narrator

    def _timeout(self) -> Exception:
        from envsync.errors import WaitTimeoutError
        from envsync.errors.hints import longer

        return WaitTimeoutError(
            f"gave up after {self.request.timeout:g} s: {self.describe()}", hint=longer(self.request.timeout)
        )


def _leads_nowhere(error: Exception) -> bool:
    """Tell whether what is missing is what a link leads to: making the directory anew does not help. Says so, too."""
    path = str(getattr(error, "path", ""))
    try:
        os.readlink(path)
    except OSError:
        return False
    from shlex import quote

    from envsync.errors import EnvsyncError

    if isinstance(error, EnvsyncError):
        error.hint = f"remove the link, which leads nowhere: `rm {quote(path)}`"
    return True
