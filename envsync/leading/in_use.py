"""The in-use lock, as the leader sees it: who runs in the environment, and how to be alone in it.

Every running command holds `<env>/.envsync/in-use` shared. To commit, the leader takes it exclusively:

1. It renames the stamp to `stamp.draining`. Commands enter by the stamp alone, so nobody new gets in. Without
   that, twenty short commands that overlap keep an exclusive taker out for ever: flock(2) is not fair.
2. It tries the lock until the last command has ended, or `--busy` and `--timeout` say otherwise.
3. If it gives up, it renames the stamp back: the environment is as it was.

The lock may be lost, to a purge: then commands hold one that has no name (`envsync.leading.lost`).

A stamp is left in place for two poll intervals first, so that all who waited for it see it. Otherwise, they would
lose to the next digest, and a hundred tasks of two digests would cost two hundred syncs.

A command that asks for another digest in the environment that it runs in would wait for itself: it is refused. So is
one that would wait for itself by way of other environments (`envsync.waiting.cycle`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from envsync.errors import FilesystemError, LockingError, RefusedError, WaitTimeoutError
from envsync.errors.hints import longer
from envsync.launch import command, signals, stamp
from envsync.leading import lost
from envsync.leading.held import Held, ReplacedError
from envsync.leading.session import Session
from envsync.locks import flock, holders, named
from envsync.locks.environment_lock import cannot_be_drained
from envsync.locks.flock import Flock
from envsync.system import atomic, mounts, native
from envsync.waiting import cycle, directory, pace, queue

OPENED = b"opened\n"
"""What is in an in-use lock that is no lock, once commands may enter."""
MAYBE_ITSELF = " (this may be waiting for itself, for it was started from within such a command)"
OTHER_MEMBER = (
    "; it is synced for {} of the workspace, and this is for {}: `--all-packages` for all of them, or an environment "
    "for each with `--env '.venvs/{{digest}}'`, spares the wait"
)
DIGEST_HINT = "give each its own environment: `envsync sync --env '.venvs/{digest}'`"


class Occupancy:
    """The leader's hold on the in-use lock. The environment lock is held throughout."""

    def __init__(self, held: Held, session: Session) -> None:
        self.held = held
        self.environment = held.environment
        self.session = session
        self.lock: Flock | None = None
        self.ignored = False
        """Commands were running, and `--busy ignore` said to go on."""
        self.seen: tuple[int, ...] = ()
        """Inodes of in-use locks that commands were seen to hold, lost ones too, when `--busy ignore` said to go on."""
        self.waits = False
        """It waits for commands to end."""
        self.alone = False
        """No command has ever run in the environment."""

    def drain(self) -> None:
        """Be alone in the environment, or go on regardless with `--busy ignore`. Does nothing if it is so already.

        :raises RefusedError: `--busy fail`, or this process runs in the environment itself
        :raises WaitTimeoutError: the commands run longer than `--timeout` allows
        :raises LockingError: nobody can tell whether commands run in it
        """
        if not self.held.locking.in_use:
            self._drain_unseen()
            return
        if self.ignored or (self.lock is not None and not self.lock.shared):
            return
        self.release()  # our own shared hold would keep us out
        self.lock, self.seen = None, ()
        recorded = lost.former(self.environment, self.held.ledger())
        self._refuse_lost(recorded)
        self._rest_stamp()
        atomic.rename_if_there(self.environment.stamp, self.environment.draining)
        # One descriptor for the whole wait: if the file is replaced meanwhile, its new inode is free, but says nothing
        # of the commands that hold the old one.
        fd = flock.open_file(self.environment.in_use, shared=False)
        try:
            self._take(fd)
            if self.lock is None and self.session.busy != "wait":
                self._take_after_a_glance(fd)
            if self.lock is None:
                self._refuse(fd)
            if self.lock is None and not self.ignored:
                self.waits = True
                with self.session.idle():
                    self._wait(fd)
                self.waits = False
        finally:
            if self.lock is None:
                command.close_lock(fd)
        self._refuse_lost(recorded)  # it may have been lost since then; now nobody new enters
        if self.session.busy == "ignore":
            self.seen = (*lost.held(self.environment, recorded, self._ours()), *self.seen)

    def _refuse_lost(self, recorded: tuple[int, ...]) -> None:
        if self.session.busy != "ignore":
            lost.check(self.environment, recorded, self._ours())

    def _ours(self) -> int:
        return 0 if self.lock is None else self.lock.inode

    def _drain_unseen(self) -> None:
        """Where shared locks do not work, only an environment that never had a stamp is known to be empty."""
        if self.alone or self.ignored:
            return
        if not self._was_open():
            self.alone = True
        elif self.session.busy == "ignore":
            self.ignored = True
            atomic.rename_if_there(self.environment.stamp, self.environment.draining)
        else:
            raise cannot_be_drained(self.environment, self.held.locking)

    def _was_open(self) -> bool:
        """Tell whether commands may ever have entered, which they do by the stamp alone.

        The in-use lock is marked just before the first stamp. That it is there says nothing: it may have been made to
        stand for the environment in the cache, or by `check`.
        """
        try:
            marked = os.stat(self.environment.in_use).st_size > 0
        except FileNotFoundError:
            marked = bool(lost.former(self.environment, self.held.ledger()))
        return marked or any(map(os.path.lexists, (self.environment.stamp, self.environment.draining)))

    def _mark_open(self) -> None:
        fd = flock.open_file(self.environment.in_use, shared=False)
        try:
            native.pwrite(fd, OPENED, 0)
        except OSError as error:
            raise FilesystemError("write", self.environment.in_use, error) from error
        finally:
            command.close_lock(fd)

    def _take(self, fd: int) -> None:
        try:
            is_free = flock.try_lock(fd, self.environment.in_use, shared=False)
        except FilesystemError as error:
            if error.errno == errno.ENOENT:  # of Windows alone: there, it is found by its name to be locked
                raise ReplacedError from error
            raise
        if is_free:
            self.lock = Flock(self.environment.in_use, fd, shared=False)
            if not self.lock.is_in_place():
                raise ReplacedError
            holders.clear(self.environment)

    def _take_after_a_glance(self, fd: int) -> None:
        """Take it if who has it only looks at it, as virus scanners do on Windows."""
        until = time.monotonic() + native.GLANCE_SECONDS
        while self.lock is None and time.monotonic() < until:
            time.sleep(0.02)
            self._take(fd)

    def _refuse(self, fd: int) -> None:
        if self.session.busy == "ignore":
            self.ignored = True
            self.seen = (os.fstat(fd).st_ino,)
        elif directory.is_inside(self.environment, besides=fd):
            raise RefusedError(
                f"environment `{self.environment.path}` has to be changed, and this command runs within it: "
                "waiting would be for itself",
                hint=DIGEST_HINT,
            )
        elif self.session.busy == "fail":
            raise RefusedError(
                f"commands are running in environment `{self.environment.path}` (--busy fail){self._who()}",
                retryable=True,
            )

    def _wait(self, fd: int) -> None:
        pause = 0.005
        held = cycle.holds(besides=fd)
        known: dict[str, queue.Lookout] = {}
        itself = MAYBE_ITSELF if directory.is_marked(self.environment) else ""
        phase, look_at, limit = "", 0.0, self.session.limit
        left = named.names_in(self.environment)
        while self.lock is None:
            now = time.monotonic()
            if limit.is_over:
                raise WaitTimeoutError(
                    f"gave up after {limit.timeout:g} s: commands are still running in environment "
                    f"`{self.environment.path}`{itself}{self._who(left)}",
                    hint=f"{longer(limit.timeout)}, or {DIGEST_HINT}",
                )
            if now >= look_at:
                if not Flock(self.environment.in_use, fd, shared=False).is_in_place():
                    raise ReplacedError  # those commands run in what is no more
                phase = f"waiting for commands that run in the environment to end{itself}{self._who(left)}"
                look_at = now + 1.0
                if (through := cycle.find(self.environment, held, known)) is not None:
                    raise cycle.refusal(self.environment, through)
            self.held.progress(phase, 0, 0)
            signals.heed()
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
            self._take(fd)

    def _who(self, left: Sequence[named.Said] | None = None) -> str:
        """Name the commands: those of this node, and those that have left a name on another.

        :param left: the names, if they have been read
        """
        who = named.told(named.look(self.environment, left))
        return (f": {who}" if who else "") + self._others()

    def _others(self) -> str:
        """Say so if they are those of another member of the workspace, which shares the environment."""
        try:
            data = atomic.read_if_there(self.environment.draining) or atomic.read_if_there(self.environment.stamp)
        except FilesystemError:
            data = None
        theirs = stamp.load(data) if data else None
        if theirs is None or theirs.member == self.session.request.member:
            return ""
        named = [
            "the root" if member == "." else f"`{member}`" for member in (theirs.member, self.session.request.member)
        ]
        return OTHER_MEMBER.format(*named)

    def _rest_stamp(self) -> None:
        try:
            age = time.time() - os.stat(self.environment.stamp).st_mtime
        except OSError:
            return  # there is none, so nobody is about to enter by it
        rest = pace.Pace(network=False).rest
        time.sleep(max(0.0, min(rest - age, rest)))
        if mounts.is_network(self.environment.path):
            self._rest_over_a_network()

    def _rest_over_a_network(self) -> None:
        """Wait for those who look seldom: as long as there are any, or they must have looked."""
        until = time.monotonic() + pace.Pace(network=True).rest
        lookout = queue.Lookout(self.environment)
        while time.monotonic() < until and lookout.find(lambda name: queue.key_of(name) != self.session.request.key):
            time.sleep(pace.NETWORK_LEAST_SECONDS)

    def share(self) -> Flock:
        """Hold the in-use lock shared, as a command does; make it if it is missing.

        :raises LockingError: somebody has it exclusively who does not hold the environment lock
        """
        if self.lock is None and not self.held.locking.in_use:
            self._mark_open()
            fd = flock.open_file(self.environment.in_use, shared=True)  # for its inode, and to be inherited
            self.lock = Flock(self.environment.in_use, fd, shared=True)
        elif self.lock is None:
            self.lock = flock.acquire_nowait(self.environment.in_use, shared=True)
            if self.lock is None:
                raise LockingError(f"somebody holds `{self.environment.in_use}` without the environment lock")
        elif not self.lock.shared:
            self.lock.downgrade()
        return self.lock

    def hand_over(self) -> int:
        """Give the shared lock, and its descriptor, to the command that follows."""
        lock, self.lock = self.share(), None
        return lock.give_away()

    def inodes(self) -> tuple[int, ...]:
        """Return the inodes of the in-use locks that commands may hold, as `installed.json` keeps them."""
        try:
            present = os.stat(self.environment.in_use).st_ino
        except OSError:
            return self.seen
        return (*(inode for inode in self.seen if inode != present), present)

    def close(self) -> None:
        """Release the lock. If nothing was decided, the stamp goes back first: the environment is open again."""
        try:
            if os.path.lexists(self.environment.draining) and not os.path.lexists(self.environment.journal):
                atomic.rename_if_there(self.environment.draining, self.environment.stamp)
        finally:
            self.release()

    def release(self) -> None:
        """Release the lock and touch nothing: the directory of that name is somebody else's by now."""
        if self.lock is not None:
            self.lock.release()
