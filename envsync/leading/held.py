"""The held environment: what we have locked, the lock, and how others see what we do with it.

Whatever changes an environment is given this, and asks it just before whether the environment is still ours. `rm -rf`
and `mv` do not ask. And a network filesystem gives the lock of a client that hangs to another: the client, once it
goes on, still believes to have it.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

from envsync.errors import EnvironmentRefusedError
from envsync.installed.ledger import load_ledger
from envsync.launch.events_file import record
from envsync.locks import flock, kind
from envsync.locks.flock import Flock
from envsync.system import paths
from envsync.transaction import skeleton
from envsync.waiting import failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from envsync.installed.ledger import Ledger
    from envsync.launch import Environment
    from envsync.launch.events_file import Listener
    from envsync.leading.progress_file import ProgressFile
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.locks.kind import Locking

BATCH_SECONDS = 1.0
"""For how long renames go on without a look at the lock."""


class ReplacedError(Exception):
    """The environment's directory is not the one any more whose lock we hold."""


class Held:
    """An environment whose lock we hold.

    :param progress: the report that others read, too
    :param locking: how the environment is locked, by its own record
    :param listener: is told each event, besides the events file
    :ivar env: its absolute path, and `digest` what it is brought to, once these are known
    """

    __slots__ = (
        "_leading",
        "_ledger",
        "_listener",
        "_sure_until",
        "digest",
        "env",
        "environment",
        "lock",
        "locking",
        "progress",
    )

    def __init__(
        self,
        environment: Environment,
        lock: EnvironmentLock,
        progress: ProgressFile,
        locking: Locking,
        listener: Listener | None = None,
    ) -> None:
        self.environment = environment
        self.lock = lock
        self.progress = progress
        self.locking = locking
        self.env = paths.abspath(environment.path)
        self.digest = ""
        self._listener = listener
        self._leading: Flock | None = None
        self._ledger: tuple[tuple[int, int], Ledger] | None = None
        """What was read last, and of which file."""
        self._sure_until = 0.0
        """Until then, by time.monotonic(), the lock need not be looked at again."""

    def bring_to(self, env: str, digest: str) -> None:
        """Say what it is brought to, now that this is known."""
        self.env, self.digest = env, digest

    @property
    def fd(self) -> int:
        """The descriptor of the lock, for a child to hold as well; -1 if it has none."""
        return self.lock.fd

    def is_as_recorded(self) -> bool:
        """Tell whether the lock is of the kind that the environment is locked by.

        It is not if the environment was replaced between the look at the record and the lock.
        """
        return (self.locking.kind == kind.FLOCK) == isinstance(self.lock, Flock)

    def is_ours(self) -> bool:
        """Tell whether the environment is the one that we have locked, and nobody has led since we do."""
        return self.lock.is_in_place() and self.progress.is_ours()

    def check_in_place(self) -> None:
        """Make sure that what we are about to change is what we have locked.

        :raises ReplacedError: it is not
        """
        begun = time.monotonic()  # what is found may be old by the time that it is told
        if not self.is_ours():
            raise ReplacedError
        self._sure_until = begun + BATCH_SECONDS

    def check_held(self) -> None:
        """Look at the lock again unless that was done just now: a process that was stopped may have lost it.

        :raises ReplacedError: it is not ours any more
        """
        if time.monotonic() >= self._sure_until:
            self.check_in_place()

    def taking(self, phase: str, total: int) -> Callable[[], None]:
        """Say that a number of steps begins. Returns what to call before each of them.

        It tells those who wait how far it is: on a slow filesystem a commit takes minutes, and whoever says nothing for
        so long is taken to hang. Then, last before the step, it looks at the lock as `check_held` does. It calls no
        report: a commit that is decided does not end by that (`envsync.launch.progress`).
        """
        self.progress(phase, 0, total)
        taken = count()

        def step() -> None:
            self.progress.tell_others(phase, next(taken), total)
            self.check_held()

        return step

    def refuse_own(self) -> None:
        """Refuse to change the environment that this very process runs from.

        :raises EnvironmentRefusedError: it is that
        """
        if skeleton.is_own(self.environment):
            raise EnvironmentRefusedError(
                self.env,
                "envsync itself runs from it",
                hint="install envsync elsewhere, for example with `pipx install envsync`",
            )

    def ledger(self) -> Ledger:
        """Return what `installed.json` says. It is read again only if it was replaced since, by us or by a purge."""
        latest = failures.identity(self.environment.installed)
        if self._ledger is None or self._ledger[0] != latest:
            self._ledger = latest, load_ledger(self.environment)
        return self._ledger[1]

    def be_seen(self) -> None:
        """Let others ask whether somebody leads without touching the environment lock."""
        if self.locking.kind == kind.LEASE:
            return  # the lease tells
        for _ in range(10):
            self._leading = flock.acquire_nowait(self.environment.leading, shared=False)
            if self._leading is not None:
                return
            time.sleep(0.001)  # somebody is just asking

    def be_unseen(self) -> None:
        """Let go what `be_seen` took."""
        if self._leading is not None:
            self._leading.release()

    def tell(self, event: str, **details: object) -> None:
        """Say what happens, in the events file and to who listens."""
        record(event, env=self.env, digest=self.digest, **details)
        if self._listener is not None:
            self._listener(event, {"digest": self.digest, **details})
