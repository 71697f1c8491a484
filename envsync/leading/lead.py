"""The leader: the one process that makes an environment current, from the held lock to the stamp.

    check the lock → look again → recover → read the lock file → fetch → skeleton → plan → stage
    → drain → in-use exclusively → journal → apply → stamp → in-use shared → release → command

Locks are taken in one order only (`envsync.locks`). The cache's is released before the leader waits for commands to end
so that it can commit: a job of three days that keeps us from that must not keep anybody from cleaning the cache.

What others see meanwhile. The stamp is there or it is not. While it is there, whatever it vouches for is untouched,
and commands enter by it (`envsync.leading.in_use`). Before the journal is in place, whoever comes next
finds the environment as it was; after, the commit is decided, and whoever comes next finishes it.

A plan that is empty needs none of that: nothing of the environment is changed, and the stamp is only renewed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from envsync.errors import (
    EnvsyncError,
    FilesystemError,
    RefusedError,
    SyncCancelledError,
    WaitTimeoutError,
)
from envsync.errors.hints import ANOTHER_FILESYSTEM, OWN_ENVIRONMENTS
from envsync.installed import leftovers
from envsync.installed.ledger import Ledger, dump_ledger
from envsync.installed.plan import Plan, named, told_unverified
from envsync.launch import Environment, command, fast_lane, stamp
from envsync.launch.fast_lane import Entry
from envsync.launch.progress import Report
from envsync.launch.request import Request
from envsync.launch.stamp import Stamp
from envsync.leading import lost, notes, sightings
from envsync.leading.goal import Aim, Goal, Seeker, further_of
from envsync.leading.held import Held, ReplacedError
from envsync.leading.in_use import Occupancy
from envsync.leading.planning import refuse_to_empty, refuse_to_replace
from envsync.leading.progress_file import ProgressFile
from envsync.leading.reconcile import ATTEMPTS, Reconciled, Reconciler
from envsync.leading.result import SyncResult
from envsync.leading.session import Session
from envsync.leading.sync_cache import SyncCache
from envsync.locks import kind
from envsync.locks.flock import Flock
from envsync.python.facts import Layout
from envsync.system import atomic, records
from envsync.transaction import journal, skeleton, stamping
from envsync.waiting import bare, failures, queue
from envsync.waiting.directory import prepare

if TYPE_CHECKING:
    from envsync.locks.environment_lock import EnvironmentLock
    from envsync.store.store import Store

Aiming = Callable[["Request", "Environment", "Store", "Report"], Aim]
"""Makes an aim; the report is told how far it is."""
Led = tuple[SyncResult, Entry | None]
"""What became of a sync, and a shared hold on the environment if a command follows."""
CACHES = 4
"""How often a sync is begun whose cache is removed beneath it; the last time it uses one of its own."""
OURS_ALONE = (WaitTimeoutError, RefusedError, SyncCancelledError)
"""Failures that say nothing about the next attempt: others may be willing to wait."""


def lead(session: Session, lock: EnvironmentLock, aim: Aiming = Seeker) -> Led | None:
    """Make the environment current. Releases the environment lock in any case.

    :param lock: the held environment lock
    :param aim: what to bring it to; default: what the lock file says
    :returns: what became of it, with a hold if a command follows; or None if the lock turned out to be of an
        environment that was replaced: ask again
    :raises EnvsyncError: it could not be made current. Before the journal is in place the environment is as it
        was; after, the next leader finishes what was decided. `failure.json` says it to the waiters.
    """
    environment = session.environment
    try:
        leader = Leader(session, lock, aim)
    except BaseException:
        bare.leave(environment, lock)
        raise
    held = leader.held
    try:
        if not lock.is_in_place() or not held.is_as_recorded():
            return None
        try:
            return leader.run()
        except OURS_ALONE:
            raise
        except ReplacedError:
            return None
        except EnvsyncError as error:
            if not held.is_ours():
                return None
            leader.record_failure(error)
            raise
        except OSError as error:
            if not held.is_ours():
                return None
            wrapped = FilesystemError("use", str(error.filename or environment.path), error)
            leader.record_failure(wrapped)
            raise wrapped from error
        except KeyboardInterrupt:
            leader.record_interruption()
            raise
        finally:
            leader.close()
    except BaseException:
        bare.leave(environment, lock)
        raise
    finally:
        lock.release()


class Leader:
    """One attempt at making an environment current, made by whoever holds the environment lock."""

    def __init__(self, session: Session, lock: EnvironmentLock, aim: Aiming) -> None:
        self.session = session
        self.request = request = session.request
        self.environment = environment = session.environment
        self.began = time.monotonic()
        locking = kind.read(environment) or kind.WORKS
        token = "" if isinstance(lock, Flock) else lock.token
        progress = ProgressFile(environment, request.key, session.report, token=token, limit=session.limit)
        self.held = Held(environment, lock, progress, locking, session.listener)
        self.occupancy = Occupancy(self.held, session)
        self.cache = SyncCache(session, progress)
        self.aim: Aim = aim(request, environment, self.cache.store, progress)
        self.former: Stamp | None = None
        """The stamp that was there, if it could be read."""
        self.notes: list[str] = []

    def run(self) -> Led:
        """Go all the way."""
        prepare(self.environment)  # the directory may be a new one by now
        bare.mark_again(self.environment)
        self.held.be_seen()
        self.held.progress("looking", 0, 0)
        self._succeed(self.session.predecessor)
        if (current := self._look_again()) is not None:
            return current
        doubtful = self._is_doubtful()
        doubtful |= self._recover()
        reconciler = Reconciler(self.held, self.session, self.aim, self.cache, self.occupancy, doubtful=doubtful)
        for attempt in range(CACHES):
            try:
                return self._reach(reconciler)
            except (EnvsyncError, OSError) as error:
                if not self.cache.is_gone(error) or attempt == CACHES - 1:
                    raise
            self.held.check_in_place()
            self.cache.begin_again(elsewhere=attempt == CACHES - 2)
        raise AssertionError("unreachable")

    def _reach(self, reconciler: Reconciler) -> Led:
        """Make the environment current, from the lock file to the stamp. May be done again if it comes to nothing."""
        self.cache.share()
        goal = self._set_goal()
        refuse_to_empty(self.request, self.environment, goal)
        refuse_to_replace(self.request, self.environment, goal, self._other_lock_file())
        self._ask_about_names()
        self._make_skeleton(goal)
        layout = skeleton.layout_of(self.environment, goal.python.interpreter)
        done = reconciler.reconcile(goal, layout)
        vouched = self._observe(goal, layout, done.planned)
        for _ in range(ATTEMPTS):
            if reconciler.is_reconciled(goal, layout):
                break
            done = reconciler.reconcile(goal, layout, doubtful=True)
            vouched = self._observe(goal, layout, done.planned)
        else:
            raise reconciler.restless()
        self.held.check_in_place()
        self._write_stamp(vouched, goal, layout)
        failures.forgive(self.environment, self.request.key)
        leftovers.sweep(self.environment)
        return self._conclude(goal, done, vouched)

    def _conclude(self, goal: Goal, done: Reconciled, vouched: Stamp) -> Led:
        planned, held = done.planned, self.held
        lasting = (*done.said.lasting, *self._lasting_notes(done))
        said = (*self.notes, *self.aim.notes, *done.said.notes, *self._notes_on(goal, done), *lasting)
        told = notes.said_before(self.environment, lasting, saying=getattr(self.session.report, "shows_notes", False))
        seconds = round(time.monotonic() - self.began, 3)
        if not planned.is_empty:
            held.tell("synced", seconds=seconds, installed=len(planned.install), removed=len(planned.remove))
        # The environment lock is still held, so nobody can take in-use while it is made shared.
        entry = Entry(self.occupancy.hand_over(), vouched) if self.session.launching else None
        result = SyncResult(
            "current" if planned.is_empty else "synced",
            held.env,
            held.digest,
            installed=named(planned.install),
            removed=named(planned.remove),
            seconds=seconds,
            notes=said,
            details=(*self._startup_files(planned), *done.said.details),
            installers=(*done.installers.items(),),
            told=told,
        )
        return result, entry

    def _notes_on(self, goal: Goal, done: Reconciled) -> Iterator[str]:
        """Say what the user may want to know of it all, in the end."""
        planned = done.planned
        if not planned.is_empty:  # once, when something is changed
            present = [item.name for item in planned.keep] + [item.name for item in planned.install]
            if lacking := self.aim.incomplete(goal.python, present):
                yield lacking
            unverified = [item.name for item in planned.install if item.unverified]
            if unverified and not all(item.unverified for item in goal.wanted):  # else it is no surprise
                yield told_unverified(unverified)
            if planned.remove and (other := self._other_lock_file()):
                lock = self.request.lock
                yield f"it was synced with `{other}`, and is what `{lock}` asks for now; {OWN_ENVIRONMENTS}"
        if done.resumed:
            predecessor = self.session.predecessor
            who = f"pid {predecessor.get('pid')} on {predecessor.get('host')}" if predecessor else "a dead leader"
            yield f"went on with what {who} had staged"
        if self.cache.note and not self.cache.is_as_ever:
            yield self.cache.note

    def _lasting_notes(self, done: Reconciled) -> Iterator[str]:
        """Say what is likely to be so the next time."""
        if (reason := self.held.locking.reason) and not done.planned.is_empty:
            yield f"{reason}: commands that run in `{self.held.env}` are not seen; `envsync doctor` says more"
        if self.cache.note and self.cache.is_as_ever:
            yield self.cache.note

    def _other_lock_file(self) -> str:
        """Name the lock file that the environment was synced with before, if it was another; empty if not."""
        before = self.former.lock if self.former is not None else ""
        return "" if before == os.path.basename(self.request.lock) else before

    def _startup_files(self, planned: Plan) -> Iterator[str]:
        """Name the .pth files that come: Python reads them at every start, and runs their lines that import."""
        for item in planned.install:
            manifest = self.aim.manifests.get(item.name)
            for directory in manifest.directories if manifest is not None else ():
                if directory.path == "" and directory.scheme in ("purelib", "platlib"):
                    for name, *_ in directory.files:
                        if name.endswith(".pth"):
                            yield (
                                f"{item.name}=={item.version} has `{name}`, which Python reads whenever it starts in "
                                "this environment"
                            )

    def record_failure(self, error: EnvsyncError) -> None:
        """Leave word for those who wait for the same."""
        self.held.tell("failed", message=error.message)
        passes = self.cache.is_gone(error)  # whoever waited may have more luck
        failures.tell(self.environment, self.request.key, error, digest=self.held.digest, passes=passes)

    def record_interruption(self) -> None:
        """Leave word that a signal ended it in the midst of its work: whoever waited goes on with it."""
        if not self.occupancy.waits and self.held.is_ours():
            phase = str(self.held.progress.value.get("phase", ""))
            failures.tell_interruption(self.environment, self.request.key, phase)

    def close(self) -> None:
        """Release what is held besides the environment lock. If one step of it is interrupted, the others are done."""
        with ExitStack() as last_first:
            last_first.callback(self.held.be_unseen)
            last_first.callback(self._withdraw)
            last_first.callback(self.cache.close)

    def _withdraw(self) -> None:
        """Take back what others see of us, if the environment is still ours."""
        with ExitStack() as last_first:
            if not self.held.is_ours():
                last_first.callback(self.occupancy.release)
                return
            last_first.callback(self.held.progress.remove)  # whoever finds it knows that there may be more
            last_first.callback(atomic.discard, self.environment.leading)
            last_first.callback(queue.call_next, self.environment, self.request.key)
            last_first.callback(self.occupancy.close)

    # What was there before

    def _succeed(self, predecessor: Mapping[str, object]) -> None:
        """Say whose sync this goes on with, if a leader died over the same request."""
        if records.text(predecessor, "key") != self.request.key:
            return
        host, phase = (records.text(predecessor, name) for name in ("host", "phase"))
        pid = int(records.number(predecessor, "pid"))
        is_interrupted = predecessor.get("kind") == failures.INTERRUPTED
        ended = "was interrupted" if is_interrupted else records.text(predecessor, "fate") or "ended"
        self.notes.append(f"took over from pid {pid} on {host}, which {ended} while {phase}")
        self.held.tell("took_over", from_host=host, from_pid=pid)

    def _look_again(self) -> Led | None:
        """Somebody may have finished between our look and our lock.

        :raises EnvironmentRefusedError: a newer envsync keeps the environment
        """
        if self.session.distrust:
            self._read_stamp()
            return None
        entry = self._enter() or self._renew()
        if entry is not None:
            leftovers.sweep(self.environment)  # a leader that was killed after its stamp leaves its trash
            if not self.session.launching:
                command.close_lock(entry.fd)
            kept = entry if self.session.launching else None
            return SyncResult("current", entry.stamp.environment, entry.stamp.digest), kept
        return None

    def _enter(self) -> Entry | None:
        return fast_lane.enter(self.request, self.environment, share=self.held.locking.in_use)

    def _renew(self) -> Entry | None:
        """Enter if inputs have changed in nothing that counts: then the stamp has to say so, and no more is done."""
        self.former = self._read_stamp()
        renewed = self.aim.renewed(self.former) if self.former is not None else None
        if renewed is None:
            return None
        self.held.check_in_place()
        atomic.write(self.environment.stamp, stamp.dump(renewed), durable=self.session.durable)
        return self._enter()

    def _read_stamp(self) -> Stamp | None:
        data = atomic.read_if_there(self.environment.stamp)
        hidden = None if data else atomic.read_if_there(self.environment.draining)
        lost.refuse_newer(self.environment, data or hidden or b"")
        return stamp.load(data) if data else None

    def _is_doubtful(self) -> bool:
        """Tell whether the environment may not be what its stamp was for."""
        if self.session.distrust or self.former is None:
            return True
        try:
            return not fast_lane.is_untouched(self.former, self.environment.config)
        except OSError:
            return True

    def _recover(self) -> bool:
        """Finish what a dead leader decided; nobody may run in the environment meanwhile.

        :returns: whether the environment may not be what our records say
        """
        decided = journal.read(self.environment)
        if decided is None:
            # Torn, if it is there: it was never decided. If it makes no sense, nobody knows what became of it.
            is_there = os.path.lexists(self.environment.journal)
            atomic.discard(self.environment.journal)
            return is_there
        checkpoint = self.held.taking("recovering", len(decided.steps))
        atomic.discard(self.environment.draining)  # it vouches for what is no more
        self.occupancy.drain()
        journal.finish(self.environment, decided, durable=self.session.durable, checkpoint=checkpoint)
        self.held.tell("recovered", steps=len(decided.steps))
        return True

    # What is to be

    def _set_goal(self) -> Goal:
        goal = self.aim.seek(self.held.ledger())
        self.held.bring_to(goal.python.env, goal.digest)
        return goal

    def _ask_about_names(self) -> None:
        """Refuse wheels with names that the environment's filesystem does not tell apart, while it is as it was.

        :raises WheelError: there is one
        """
        for manifest in self.aim.manifests.values():
            if manifest.twins:
                from envsync.wheel import twins

                place = f"{self.environment.state}/work"
                os.makedirs(place, exist_ok=True)
                twins.refuse(manifest.filename, manifest.twins, place, "environment", ANOTHER_FILESYSTEM)

    def _make_skeleton(self, goal: Goal) -> None:
        if not goal.python.make:
            return
        self.held.refuse_own()
        self.held.progress("making the environment", 0, 0)
        self.held.check_in_place()
        durable = self.session.durable
        if skeleton.exists(self.environment):
            self.occupancy.drain()
            self.held.check_in_place()
            workspace = f".envsync/work/{_unique()}"
            in_use = self.occupancy.inodes()
            skeleton.take_away(self.environment, workspace, in_use, durable=durable, checkpoint=self.held.check_held)
        notes.forget(self.environment)
        bare.announce_skeleton(self.environment)
        skeleton.make(
            self.environment, goal.python.interpreter, self.held.lock, self.cache.store.memory, durable=durable
        )

    # The change

    def _observe(self, goal: Goal, layout: Layout, planned: Plan) -> Stamp:
        """Put together what the stamp will say. Whoever changes site-packages after this is noticed."""
        self.cache.release()
        lock = self.occupancy.lock or self.occupancy.share()
        vouched = Stamp()
        vouched.digest = goal.digest
        vouched.python = goal.python.description
        vouched.member = self.request.member
        vouched.environment = self.held.env
        vouched.inputs = further_of(self.request, goal.inputs)
        vouched.variables = list(goal.inputs.variables)
        sightings.note(vouched, goal, self.environment, self.cache.store.memory)
        vouched.unhashed = goal.inputs.unhashed
        vouched.placed = goal.inputs.placed
        vouched.local_files = [*goal.inputs.local_files, *goal.found_files]
        vouched.trees = list(goal.trees)
        stamping.observe(vouched, self.environment, layout, lock.inode)
        manifests = self.aim.manifests
        fresh = {item.name: manifests[item.name].mtime for item in planned.install if item.name in manifests}
        ledger = self.held.ledger()
        store = self.cache.store
        stores = [root for root in (store.below, store.root) if root is not None and "/.envsync/" not in root]
        stamping.guard(vouched, self.former, ledger, fresh, stores)
        if planned.is_empty:
            self._remember_lost(ledger, lock.inode)
        return vouched

    def _remember_lost(self, ledger: Ledger, present: int) -> None:
        """Keep the inode of an in-use lock that was lost: commands may hold it, and the stamp will not name it."""
        if ledger.path not in ("", self.held.env):
            return
        in_use = lost.remembered(self.environment, ledger, present)
        if in_use != ledger.in_use:
            kept = ledger._replace(path=self.held.env, in_use=in_use)
            atomic.write(self.environment.installed, dump_ledger(kept))

    def _write_stamp(self, vouched: Stamp, goal: Goal, layout: Layout) -> None:
        if not self.aim.vouch(vouched, goal, layout):
            atomic.discard(self.environment.stamp)
            atomic.discard(self.environment.draining)
            return
        bare.serve(self.environment)
        stamping.write(vouched, self.environment, durable=self.session.durable, checkpoint=self.held.check_held)


def _unique() -> str:
    return os.urandom(8).hex()
