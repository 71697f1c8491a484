"""The in-use lock, as the leader sees it: who runs in the environment, and how to be alone in it.

Every running command holds `<env>/.envsync/in-use` shared. To commit, the leader takes it exclusively:

1. It renames the stamp to `stamp.draining`. Commands enter by the stamp alone, so nobody new gets in. Without
   that, twenty short commands that overlap keep an exclusive taker out for ever: flock(2) is not fair.
2. It tries the lock until the last command has ended, or `--busy` and `--timeout` say otherwise.
3. If it gives up, it renames the stamp back: the environment is as it was.

A stamp is left in place for two poll intervals first, so that all who waited for it see it. Otherwise, they would
lose to the next digest, and a hundred tasks of two digests would cost two hundred syncs.

A command that asks for another digest in the environment that it runs in would wait for itself: it is refused.
"""

from __future__ import annotations

import os
import time

from envsync import replace
from envsync.coordination import flock, waiter
from envsync.coordination.flock import Flock
from envsync.environment import Environment
from envsync.errors import LockingError, RefusedError, WaitTimeoutError
from envsync.progress import Report
from envsync.request import Request

DIGEST_HINT = "give each its own environment: --env '.venvs/{digest}'"


class Occupancy:
    """The leader's hold on the in-use lock. The environment lock is held throughout.

    :param began: when the caller began to wait, by time.monotonic()
    """

    def __init__(self, environment: Environment, request: Request, report: Report, began: float) -> None:
        self.environment = environment
        self.request = request
        self.report = report
        self.deadline = None if request.timeout is None else began + request.timeout
        self.lock: Flock | None = None
        self.ignored = False
        """Commands were running, and `--busy ignore` said to go on."""

    def drain(self) -> None:
        """Be alone in the environment, or go on regardless with `--busy ignore`. Does nothing if it is so already.

        :raises RefusedError: `--busy fail`, or this process runs in the environment itself
        :raises WaitTimeoutError: the commands run longer than `--timeout` allows
        """
        if self.ignored or (self.lock is not None and not self.lock.shared):
            return
        self._rest_stamp()
        replace.rename_if_there(self.environment.stamp, self.environment.draining)
        self.lock = flock.acquire_nowait(self.environment.in_use, shared=False)
        if self.lock is None:
            self._refuse()
        if not self.ignored:
            self._wait()

    def _refuse(self) -> None:
        busy = self.request.text("busy") or "wait"
        if busy == "ignore":
            self.ignored = True
        elif waiter.is_inside(self.environment):
            raise RefusedError(
                f"environment `{self.environment.path}` has to be changed, and this command runs within it: "
                "waiting would be for itself",
                hint=DIGEST_HINT,
            )
        elif busy == "fail":
            raise RefusedError(f"commands are running in environment `{self.environment.path}` (--busy fail)")

    def _wait(self) -> None:
        pause = 0.005
        while self.lock is None:
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise WaitTimeoutError(
                    f"gave up after {self.request.timeout:g} s: commands are still running in environment "
                    f"`{self.environment.path}`",
                    hint=f"allow more with --timeout SECONDS, or {DIGEST_HINT}",
                )
            self.report("waiting for the commands that run in the environment", 0, 0)
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
            self.lock = flock.acquire_nowait(self.environment.in_use, shared=False)

    def _rest_stamp(self) -> None:
        try:
            age = time.time() - os.stat(self.environment.stamp).st_mtime
        except OSError:
            return  # there is none, so nobody is about to enter by it
        rest = 2 * waiter.POLL_SECONDS
        time.sleep(max(0.0, min(rest - age, rest)))

    def share(self) -> Flock:
        """Hold the in-use lock shared, as a command does; make it if it is missing.

        :raises LockingError: somebody has it exclusively who does not hold the environment lock
        """
        if self.lock is None:
            self.lock = flock.acquire_nowait(self.environment.in_use, shared=True)
            if self.lock is None:
                raise LockingError(f"somebody holds `{self.environment.in_use}` without the environment lock")
        elif not self.lock.shared:
            self.lock.downgrade()
        return self.lock

    def close(self) -> None:
        """Release the lock. If nothing was decided, the stamp goes back first: the environment is open again."""
        if os.path.lexists(self.environment.draining) and not os.path.lexists(self.environment.journal):
            replace.rename_if_there(self.environment.draining, self.environment.stamp)
        self.release()

    def release(self) -> None:
        """Release the lock and touch nothing: the directory of that name is somebody else's by now."""
        if self.lock is not None:
            self.lock.release()
