"""The environment lock where flock does not work: a lease, filelock's `SoftFileLease` at `<env>/.envsync/lease`.

A lease is a file that exists while somebody leads. Its holder refreshes it from a thread; whoever has seen it
unchanged for `SECONDS` by its own clock may take it. So it is weaker than a lock that the kernel keeps:

- A holder that was stopped for longer than that may find it taken. Therefore a leader looks before each batch of
  renames whether it is still its own (`Lease.is_in_place`), and stops if it is not. What it has done by then is what
  a leader that was killed has done: the next one finishes it.
- Between that look and the renames that it covers (a second at most), nothing protects the environment from a holder
  that is stopped at exactly that point and goes on after `SECONDS`.
- Children do not inherit it, so what a killed leader has started may go on for a moment.

filelock takes over a dead lease by exchanging two names in one step, which only local filesystems can do
(renameat2(2)): on NFS, gluster, MooseFS and most of FUSE it leaves a dead one for ever. There, it is done here: the
file is renamed away, and put back if it turns out not to be the one that was judged. A live holder that this hits
finds its file missing and stops.

Requires `site` to be loaded. Nothing of this is imported where flock works.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from envsync.errors import FilesystemError, LockingError
from envsync.system import atomic, processes, records

if TYPE_CHECKING:
    from envsync.launch import Environment

SECONDS = 30.0
"""After which an unrefreshed lease may be taken. The same for everybody: filelock refuses to mix."""
LOOKS = 4
PAUSE_SECONDS = 0.05
"""A holder that does not find its file looks again: others move it for an instant, and network filesystems lag."""


class Lease:
    """A held lease. Has what a leader needs of a `Flock`, but no descriptor that a child could inherit."""

    fd = -1
    shared = False

    def __init__(self, path: str, soft: SoftFileLease) -> None:
        self.path = path
        self.soft = soft
        self.token = soft.token or ""

    def is_in_place(self) -> bool:
        """Tell whether the lease is still ours, and refresh it: then it stays so for `SECONDS`."""
        for attempt in range(LOOKS):
            if self.soft.token is None or self.soft.compromise is not None:
                return False
            try:
                os.utime(self.path)  # first, so that nobody takes it between our look and what we do then
            except OSError:
                pass  # the look tells
            owner = self.soft.owner
            if owner is not None:
                return owner.token == self.token
            if attempt < LOOKS - 1:
                time.sleep(PAUSE_SECONDS)
        return False

    def release(self) -> None:
        """Remove the file if it is still ours. Releasing twice is harmless."""
        try:
            self.soft.release(force=True)
        except OSError:
            pass  # it cannot be removed: others take it when it has not been refreshed for long enough


class Contender:
    """One process's tries at a lease. To be kept from try to try: it counts how long the lease has not changed."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.path = environment.lease
        self.soft = self._lease(self.path)
        self.seen: object = None
        self.since = 0.0

    def acquire_nowait(self) -> Lease | None:
        """Try to take the lease without waiting. Returns None if somebody holds it.

        :raises LockingError: it is held by a version of envsync that keeps it for another time
        :raises FilesystemError: it cannot be made
        """
        try:
            if self._take() or (self._break() and self._take()):
                return Lease(self.path, self.soft)
        except LeaseSettingsMismatch as error:
            raise LockingError(f"cannot take the lease `{self.path}`: {error}") from error
        except OSError as error:
            raise FilesystemError("take the lease", self.path, error) from error
        return None

    def _lease(self, path: str) -> SoftFileLease:
        return SoftFileLease(path, lease_duration=SECONDS, thread_local=False, mode=0o666)

    def _take(self) -> bool:
        try:
            self.soft.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _break(self) -> bool:
        """Remove a lease whose holder is dead, or has not refreshed it for long enough. True if it is gone."""
        judged = self.soft.owner
        token = judged.token if judged is not None else None
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return True
        state = (token, status.st_ino, status.st_mtime_ns)
        now = time.monotonic()
        if state != self.seen:
            self.seen, self.since = state, now
        if now - self.since < SECONDS and not self._is_known_dead(token):
            return False
        aside = f"{self.path}.{os.urandom(8).hex()}{atomic.SUFFIX}"
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return True
        moved = self._lease(aside).owner
        if moved is not None and moved.token != token:
            self._put_back(aside)
            return False
        atomic.discard(aside)
        return True

    def _put_back(self, aside: str) -> None:
        """Somebody else has broken and taken it between our look and our rename."""
        try:
            os.link(aside, self.path)
        except OSError:
            pass  # no links, or taken again: the holder finds its file missing and stops
        atomic.discard(aside)

    def _is_known_dead(self, token: str | None) -> bool:
        """Tell whether the holder was a process of this very place that has ended, as its progress says."""
        said = records.load(self.environment.progress)
        here = processes.here()
        return (
            bool(token)
            and records.text(said, "token") == token
            and records.text(said, "place") == here != ""
            and not processes.is_alive(int(records.number(said, "pid")))
        )
