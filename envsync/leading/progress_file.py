"""`progress.json`: what the leader is doing, for those who wait for it.

It is the first thing that a leader writes and the last that it removes, so whoever gets the environment lock and
finds one knows that its writer died (`failures.bury`).

It also tells a leader whether it leads still. A network filesystem gives the lock of a client that hangs to another,
who writes a file of its own, and removes it in the end. So one that goes on looks before it writes: else it would put
its own file in the place of its successor's, and each of the two would believe the other's to be the later. What it was
just writing when it hung lands where it may: so one that has taken too long for it does not lead either.
"""

from __future__ import annotations

import os
import threading
import time

from envsync.errors import FilesystemError, WaitTimeoutError
from envsync.launch import Environment
from envsync.launch.progress import Report
from envsync.leading.session import UNLIMITED, Limit
from envsync.system import atomic, mounts, processes, records, refusals, schedulers
from envsync.waiting import cycle
from envsync.waiting.narrator import HEARTBEAT_SECONDS

LOCAL_SECONDS = 0.25
NETWORK_SECONDS = 1.0
"""How often the file is replaced at most."""
HUNG_SECONDS = 30.0
"""Whoever was away for so long between its look and its write may have lost the lock meanwhile, and had a successor."""
PHASE_SECONDS, READ_SECONDS = 0.5, 0.05
"""For how long a report, of a new phase or another one, is tried to be written while somebody reads the last one, which
Windows refuses. Whoever keeps it open, as a waiter that is stopped, must not hold up the sync at each report."""
STEP_BYTES = 1_000_000
"""Fewer bytes more are nothing new."""


WAITING = "waiting for "
"""How phases begin in which nothing is done but wait for others."""


class ProgressFile:
    """A report that is also written to the environment, as often as that is cheap. Never fails a sync.

    It bounds whatever waits for others without a look at the time, such as for a wheel that another process fetches.

    :param token: of the lease, if the environment is locked by one
    :ivar lost: somebody else has led since; it stays so
    """

    def __init__(
        self, environment: Environment, key: str, report: Report, *, token: str = "", limit: Limit = UNLIMITED
    ) -> None:
        self.limit = limit
        self.environment = environment
        self.report = report
        self.lock = threading.Lock()
        self.pulse = Pulse(NETWORK_SECONDS if mounts.is_network(environment.path) else LOCAL_SECONDS)
        self.detailed = ""
        self.written = False
        self.lost = False
        self.value: dict[str, object] = {
            "id": os.urandom(8).hex(),
            "host": processes.host(),
            "pid": os.getpid(),
            "place": processes.here(),
            "command": processes.own_command(),
            "since": time.time(),
            "key": key,
            "token": token,
            "holds": "\n".join(cycle.holds()),
            **schedulers.own(),
        }

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        if phase.startswith(WAITING) and self.limit.is_over:
            raise WaitTimeoutError(
                f"gave up after {self.limit.timeout:g} s: {phase}", hint="wait longer with `envsync sync --timeout 600`"
            )
        self.report(phase, done, total, bytes_done, bytes_total)
        self.tell_others(phase, done, total, bytes_done, bytes_total)

    def tell_others(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        """Write a report down, if it is time, and hand it to nobody: what is decided is not ended by who shows it."""
        with self.lock:
            self.detailed = self.detailed if bytes_done else ""
            said = (phase, done, total, bytes_done // STEP_BYTES, self.detailed.partition(" ")[0])
            patience = self._patience(said)
            if not self.pulse.is_due(said):
                return
            self.value.update(phase=phase, done=done, total=total)
            self.value.update(bytes_done=bytes_done, bytes_total=bytes_total, detail=self.detailed)
            self._write(patience)

    def _patience(self, said: tuple[object, ...]) -> float:
        if not self.pulse.said:
            return refusals.SECONDS  # without the first one, nobody is seen to lead
        return READ_SECONDS if self.pulse.is_in(said) else PHASE_SECONDS

    def _write(self, patience: float) -> None:
        begun = time.monotonic()
        if not self.is_ours():
            return
        try:
            atomic.write(self.environment.progress, records.dump(self.value), patience=patience)
            self.written = True
        except FilesystemError:
            self.pulse.repeat()  # a full disk stops the sync where it matters, not here
        self.lost |= time.monotonic() - begun > HUNG_SECONDS

    def detail(self, text: str) -> None:
        """Note what the phase's slowest item is and how far it is, for the next report of bytes."""
        self.detailed = text
        forward = getattr(self.report, "detail", None)
        if forward is not None:
            forward(text)

    def announce(self, text: str) -> None:
        """Hand on what is worth knowing before it is done."""
        forward = getattr(self.report, "announce", None)
        if forward is not None:
            forward(text)

    def is_ours(self) -> bool:
        """Tell whether the file is still what we have written; nobody but a successor replaces or removes it."""
        self.lost = self.lost or not self._is_in_place()
        return not self.lost

    def _is_in_place(self) -> bool:
        if not self.written:
            return True  # it could not be written, and so it tells nothing
        for attempt in range(3):  # a network filesystem may not find it for a moment while it is replaced
            found = records.text(records.load(self.environment.progress), "id")
            if found:
                return found == self.value["id"]
            if attempt < 2:
                time.sleep(0.05)
        return False

    def remove(self) -> None:
        """Remove the file: nobody leads any more."""
        atomic.discard(self.environment.progress)


class Pulse:
    """When to say again how far one is: a new phase at once, what is new soon, and else that one lives.

    :param every: how many seconds pass at least until what is new is said
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.said: tuple[object, ...] = ()
        self.when = -HEARTBEAT_SECONDS

    def is_in(self, said: tuple[object, ...]) -> bool:
        """Tell whether it is of the phase that was said last."""
        return said[:1] == self.said[:1]

    def repeat(self) -> None:
        """What was said last was not heard: whatever there is to say is new."""
        self.said = self.said[:1]

    def is_due(self, said: tuple[object, ...]) -> bool:
        """Tell whether to say something now; then it counts as said.

        :param said: what there is to say, its phase first
        """
        passed = time.monotonic() - self.when
        is_soon = passed < self.every or (said == self.said and passed < HEARTBEAT_SECONDS)
        if is_soon and self.is_in(said):
            return False
        self.said, self.when = said, time.monotonic()
        return True
