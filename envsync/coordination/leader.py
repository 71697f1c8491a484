"""The leader: the one process that makes an environment current, from the held lock to the stamp.

    check the lock → look again → recover → read the lock file → fetch → skeleton → plan → stage
    → drain → in-use exclusively → journal → apply → stamp → in-use shared → release → command

Locks are taken in one order only: environment, cache, wheel, in-use. The cache's is released before the leader
waits for anybody: a job of three days that keeps us from committing must not keep anybody from cleaning the cache.

What others see meanwhile. The stamp is there or it is not. While it is there, whatever it vouches for is untouched,
and commands enter by it (`envsync.coordination.occupancy`). Before the journal is in place, whoever comes next
finds the environment as it was; after, the commit is decided, and whoever comes next finishes it.

A plan that is empty needs none of that: nothing of the environment is changed, and the stamp is only renewed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time

from envsync import fastlane, replace, stamp
from envsync.cache.store import Store
from envsync.coordination import flock, waiter
from envsync.coordination.events import record
from envsync.coordination.flock import Flock
from envsync.coordination.goal import Goal, Seeker
from envsync.coordination.occupancy import Occupancy
from envsync.coordination.outcome import Outcome
from envsync.coordination.progress import ProgressFile
from envsync.environment import Environment
from envsync.errors import (
    EnvironmentRefusedError,
    EnvsyncError,
    FilesystemError,
    LockingError,
    RefusedError,
    WaitTimeoutError,
)
from envsync.fastlane import Entry
from envsync.installed import Layout, dump_ledger, load_ledger, scan
from envsync.plan import Installed, Plan, Wanted, plan
from envsync.progress import Report
from envsync.request import Request
from envsync.stamp import Stamp
from envsync.transaction import change, journal, skeleton, stamping
from envsync.transaction.change import Change, Changer, Ownership
from envsync.transaction.linking import PoisonedError

SEEDS = frozenset({"pip"})
SEEDS_BEFORE_3_12 = SEEDS | {"setuptools", "wheel"}
"""What `venv` and uv seed an environment with; an exact sync keeps them."""
OUR_FILES = ("stamp", "clock", "installed", "journal", "progress", "failure", "making")
"""How the names of state files begin."""
ATTEMPTS = 5
"""How often a plan is made again because the environment changed beneath it, or the store was poisoned."""


def lead(
    request: Request,
    environment: Environment,
    lock: Flock,
    *,
    report: Report,
    launching: bool = False,
    distrust: bool = False,
    began: float | None = None,
) -> Outcome | None:
    """Make the environment current. Releases the environment lock in any case.

    :param lock: the held environment lock
    :param launching: a command follows: hand out a shared hold that nobody can have broken in between
    :param distrust: something is wrong that the stamp does not see: count the files
    :param began: when the caller began to wait, by time.monotonic(), for `--timeout`
    :returns: the outcome, or None if the lock turned out to be of an environment that was replaced: ask again
    :raises EnvsyncError: it could not be made current. Before the journal is in place the environment is as it
        was; after, the next leader finishes what was decided. `failure.json` says it to the waiters.
    """
    try:
        if not lock.is_in_place():
            return None
        leader = Leader(request, environment, lock, report, launching=launching, distrust=distrust, began=began)
        try:
            return leader.run()
        except (WaitTimeoutError, RefusedError):
            raise  # ours alone: others may be willing to wait
        except _ReplacedError:
            return None
        except EnvsyncError as error:
            if not lock.is_in_place():
                return None
            leader.record_failure(error)
            raise
        except OSError as error:
            if not lock.is_in_place():
                return None
            wrapped = FilesystemError("use", str(error.filename or environment.path), error)
            leader.record_failure(wrapped)
            raise wrapped from error
        finally:
            leader.close()
    finally:
        lock.release()


def preview(request: Request, environment: Environment, report: Report) -> Outcome:
    """Say what a sync would do. Takes no lock, may ask an index, fetches and changes nothing."""
    began = time.monotonic()
    entry = fastlane.enter(request, environment)
    if entry is not None:
        os.close(entry.fd)
        return Outcome("current", entry.stamp.environment, entry.stamp.digest)
    ledger = load_ledger(environment)
    store = Store(cache_directory(request))
    goal = Seeker(request, environment, store, report).preview(ledger)
    python = goal.python
    installed: list[Installed] = []
    if not python.make:
        installed = scan(environment, skeleton.layout_of(environment, python.interpreter), ledger)
    planned = plan(installed, goal.wanted, exact=not request.flag("inexact"), spare=_spare(goal))
    outcome = Outcome("current" if planned.is_empty and not python.make else "synced", python.env, goal.digest)
    outcome.installed, outcome.removed = _names(planned)
    outcome.seconds = round(time.monotonic() - began, 3)
    return outcome


class _ReplacedError(Exception):
    """The environment's directory is not the one any more whose lock we hold."""


class Leader:
    """One attempt at making an environment current, made by whoever holds the environment lock."""

    def __init__(
        self,
        request: Request,
        environment: Environment,
        lock: Flock,
        report: Report,
        *,
        launching: bool,
        distrust: bool = False,
        began: float | None = None,
    ) -> None:
        self.request = request
        self.environment = environment
        self.lock = lock
        self.launching = launching
        self.began = time.monotonic()
        self.progress = ProgressFile(environment, request.key, report)
        self.distrust = distrust
        self.occupancy = Occupancy(environment, request, self.progress, self.began if began is None else began)
        self.store = Store(cache_directory(request))
        self.seeker = Seeker(request, environment, self.store, self.progress)
        self.cache_lock: Flock | None = None
        self.env = os.path.abspath(environment.path)
        self.digest = ""
        self.doubtful = False
        """The environment may not be what our records say: its files are to be counted."""
        self.notes: list[str] = []

    def run(self) -> Outcome:
        """Go all the way."""
        waiter.prepare(self.environment)  # the directory may be a new one by now
        self.progress("looking", 0, 0)
        if (current := self._look_again()) is not None:
            return current
        self._recover()
        self._sweep()
        self._share_cache()
        goal = self._set_goal()
        self._make_skeleton(goal)
        layout = skeleton.layout_of(self.environment, goal.python.interpreter)
        planned = self._change(goal, layout)
        vouched = self._observe(goal, layout)
        for _ in range(ATTEMPTS):
            if self._is_as_wanted(goal, layout):
                break
            self.doubtful = True
            planned = self._change(goal, layout)
            vouched = self._observe(goal, layout)
        else:
            raise self._restless()
        self._check_in_place()
        stamping.write(vouched, self.environment)
        replace.discard(self.environment.failure)
        self._sweep()
        outcome = Outcome("current" if planned.is_empty else "synced", self.env, self.digest)
        outcome.installed, outcome.removed = _names(planned)
        outcome.seconds = round(time.monotonic() - self.began, 3)
        outcome.notes = tuple(self.notes)
        if not planned.is_empty:
            counts = {"installed": len(planned.install), "removed": len(planned.remove)}
            record("synced", env=self.env, digest=self.digest, seconds=outcome.seconds, **counts)
        if self.launching:
            # The environment lock is still held, so nobody can take in-use while it is made shared.
            outcome.entry = Entry(os.dup(self.occupancy.share().fd), vouched)
        return outcome

    def record_failure(self, error: EnvsyncError) -> None:
        """Leave word for those who wait for the same."""
        record("failed", env=self.env, digest=self.digest, message=error.message)
        value = {
            "format": 1,
            "id": _unique(),
            "key": self.request.key,
            "digest": self.digest,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "time": time.time(),
        }
        try:
            replace.write(self.environment.failure, json.dumps(value).encode())
        except FilesystemError:
            pass  # then every waiter finds out for itself

    def close(self) -> None:
        """Release what is held besides the environment lock."""
        self._release_cache()
        if self.lock.is_in_place():
            self.occupancy.close()
            self.progress.remove()
        else:
            self.occupancy.release()

    # What was there before

    def _look_again(self) -> Outcome | None:
        """Somebody may have finished between our look and our lock."""
        if self.distrust:
            self.doubtful = True
            return None
        entry = fastlane.enter(self.request, self.environment)
        if entry is not None:
            self._sweep()  # a leader that was killed after its stamp leaves its trash
            self.digest = entry.stamp.digest
            if self.launching:
                return Outcome("current", entry.stamp.environment, self.digest, entry=entry)
            os.close(entry.fd)
            return Outcome("current", entry.stamp.environment, self.digest)
        data = replace.read(self.environment.stamp)
        vouched = stamp.load(data) if data else None
        if data and vouched is None and stamp.is_newer(data):
            raise EnvironmentRefusedError(self.env, "a newer envsync keeps it", hint="use that version")
        try:
            self.doubtful = vouched is None or not fastlane.is_untouched(vouched, self.environment.config)
        except OSError:
            self.doubtful = True
        return None

    def _recover(self) -> None:
        """Finish what a dead leader decided; nobody may run in the environment meanwhile."""
        decided = journal.read(self.environment)
        if decided is None:
            replace.discard(self.environment.journal)  # torn, if it is there: it was never decided
            return
        self.progress("recovering", 0, len(decided.steps))
        replace.discard(self.environment.draining)  # it vouches for what is no more
        self.occupancy.drain()
        journal.finish(self.environment, decided)
        self.doubtful = True
        record("recovered", env=self.env, digest=self.digest, steps=len(decided.steps))

    def _sweep(self) -> None:
        """Throw away stages, trash and temporary files, ours and a dead leader's.

        What resists (`.nfs*` files of an open module, say) is left for a later sync.
        """
        for directory in (self.environment.path, self.environment.state):
            for name in os.listdir(directory):
                if name.endswith(replace.SUFFIX) and name.startswith((*OUR_FILES, ".gitignore", "CACHEDIR.TAG")):
                    replace.discard(f"{directory}/{name}")
        parents = [f"{self.environment.state}/work"]
        lib = f"{self.environment.path}/lib"
        try:
            parents += [f"{lib}/{name}/site-packages/.envsync" for name in os.listdir(lib)]
        except OSError:
            pass  # there is no skeleton yet
        for parent in parents:
            try:
                leftovers = [] if os.path.islink(parent) else os.listdir(parent)
            except OSError:
                continue
            for name in leftovers:
                replace.discard_tree(f"{parent}/{name}")

    # What is to be

    def _set_goal(self) -> Goal:
        goal = self.seeker.seek(load_ledger(self.environment))
        self.env, self.digest = goal.python.env, goal.digest
        return goal

    def _make_skeleton(self, goal: Goal) -> None:
        if not goal.python.make:
            return
        self._refuse_own()
        self.progress("making the environment", 0, 0)
        self._check_in_place()
        if skeleton.exists(self.environment):
            self.occupancy.drain()
            self._check_in_place()
            skeleton.take_away(self.environment, f".envsync/work/{_unique()}")
        skeleton.make(self.environment, goal.python.interpreter, self.lock, self.store.root)

    def _refuse_own(self) -> None:
        if skeleton.is_own(self.environment):
            raise EnvironmentRefusedError(
                self.env,
                "envsync itself runs from it",
                hint="install envsync elsewhere, for example with pipx",
            )

    # The change

    def _change(self, goal: Goal, layout: Layout) -> Plan:
        """Bring what is installed to what is wanted, and return the first plan that was carried out."""
        carried_out: Plan | None = None
        for _ in range(ATTEMPTS):
            planned = self._change_once(goal, layout)
            if planned is None:
                continue
            carried_out = carried_out or planned
            if not self.doubtful:
                return carried_out
        raise self._restless()

    def _restless(self) -> FilesystemError:
        cause = OSError(errno.EBUSY, "somebody else keeps changing it")
        return FilesystemError("change", self.env, cause, hint="find out who, or give this job its own environment")

    def _change_once(self, goal: Goal, layout: Layout) -> Plan | None:
        """Make one plan and carry it out. Returns None if it could not be carried out as it was made."""
        self._check_in_place()
        for site in layout.sites:
            os.makedirs(f"{self.environment.path}/{site}/.envsync", exist_ok=True)
        seen = self._look(layout)
        planned, owned = self._plan(goal, layout)
        if planned.is_empty:
            self.doubtful = self._look(layout) != seen
            return None if self.doubtful else planned
        self._refuse_own()
        record("started", env=self.env, digest=self.digest)
        self._share_cache()
        workspace = f"{layout.purelib}/.envsync/{_unique()}"
        committed = False
        try:
            prepared = self._stage(goal, layout, planned, owned, workspace)
            if prepared is None:
                return None
            self._release_cache()
            self.occupancy.drain()
            self._check_in_place()
            if self._look(layout) != seen:
                return None
            self._commit(prepared)
            committed = True
        finally:
            if not committed and not os.path.lexists(self.environment.journal):
                replace.discard_tree(f"{self.environment.path}/{workspace}")
        return planned

    def _check_in_place(self) -> None:
        """Make sure that what we are about to change is what we have locked: `rm -rf` and `mv` do not ask."""
        if not self.lock.is_in_place():
            raise _ReplacedError

    def _plan(self, goal: Goal, layout: Layout) -> tuple[Plan, Ownership]:
        """Plan, and plan again while a distribution that would stay loses a shared file with one that goes."""
        ledger = load_ledger(self.environment)
        installed = scan(self.environment, layout, ledger)
        reinstall = change.damaged(self.environment, installed) if self.doubtful else frozenset()
        wanted = list(goal.wanted)
        while True:
            planned = plan(
                installed,
                wanted,
                exact=not self.request.flag("inexact"),
                spare=_spare(goal),
                reinstall=reinstall,
            )
            owned = change.ownership(self.environment, layout, planned, self.seeker.manifests, ledger, self.store)
            wanted += self._unasked(planned, owned)
            disputed = owned.disputed & {item.name for item in wanted}
            if disputed <= reinstall:
                return planned, owned
            reinstall |= disputed

    def _unasked(self, planned: Plan, owned: Ownership) -> list[Wanted]:
        """Return what is not asked for, but stays, and needs a file of its own back. The store still has the wheel."""
        asked = self.seeker.manifests
        unasked = []
        for item in planned.keep:
            if item.name in owned.disputed and item.name not in asked and item.origin is not None:
                manifest = self.store.get(item.origin.sha256)
                if manifest is not None:
                    asked[item.name] = manifest
                    unasked.append(Wanted(item.name, item.version, item.origin))
        return unasked

    def _stage(self, goal: Goal, layout: Layout, planned: Plan, owned: Ownership, workspace: str) -> Change | None:
        mode = self.request.text("link_mode") or "auto"
        changer = Changer(self.environment, layout, self.store, self.env, workspace, mode, goal.python.host)
        try:
            return changer.prepare(planned, self.seeker.manifests, owned, load_ledger(self.environment), self.progress)
        except PoisonedError as error:
            self.notes.append(f"{error.message}; it was set aside and fetched again")
            self.store.discard(error.sha256)
            self.seeker.fetch()
            return None

    def _commit(self, prepared: Change) -> None:
        self.progress("committing", 0, len(prepared.journal.steps))
        replace.write(journal.ledger_path(self.environment, prepared.journal), dump_ledger(prepared.ledger))
        journal.write(self.environment, prepared.journal)
        replace.discard(self.environment.draining)
        self.doubtful = bool(journal.finish(self.environment, prepared.journal))
        for path, names in sorted(prepared.differing.items()):
            self.notes.append(
                f"{' and '.join(names)} have different contents for `{path}`: that of {names[-1]} was installed"
            )
        if prepared.copied:
            self.notes.append(f"files were copied, since they could not be linked from the cache: {prepared.copied}")
        if self.occupancy.ignored:
            self.notes.append("the environment was changed while commands run in it (--busy ignore)")

    def _look(self, layout: Layout) -> list[tuple[int, int]]:
        """Return what changes when anybody adds or removes a distribution."""
        statuses = [os.stat(f"{self.environment.path}/{site}") for site in layout.sites]
        return [(status.st_ino, status.st_mtime_ns) for status in statuses]

    def _is_as_wanted(self, goal: Goal, layout: Layout) -> bool:
        """Look whether anybody has added or removed a distribution before the stamp's mtimes were taken."""
        installed = scan(self.environment, layout, load_ledger(self.environment))
        return plan(installed, goal.wanted, exact=not self.request.flag("inexact"), spare=_spare(goal)).is_empty

    def _observe(self, goal: Goal, layout: Layout) -> Stamp:
        """Put together what the stamp will say. Whoever changes site-packages after this is noticed."""
        self._release_cache()
        lock = self.occupancy.lock or self.occupancy.share()
        vouched = Stamp()
        vouched.digest = goal.digest
        vouched.python = goal.python.description
        vouched.environment = self.env
        vouched.inputs = [self._relative(path) for path in goal.inputs.further]
        vouched.unhashed = goal.inputs.unhashed
        vouched.local_files = [*goal.inputs.local_files, *goal.found_files]
        stamping.observe(vouched, self.environment, layout, lock.inode)
        return vouched

    def _relative(self, path: str) -> str:
        directory = self.request.directory
        return path[len(directory) :] if directory and path.startswith(directory) else path

    # The cache

    def _share_cache(self) -> None:
        """Share the cache lock, so that nobody cleans the cache while it is read. A read-only cache needs none."""
        self.store.prepare()
        try:
            while self.cache_lock is None:
                self.cache_lock = flock.acquire_nowait(f"{self.store.root}/.lock", shared=True)
                if self.cache_lock is None:
                    self.progress("waiting for the cache to be cleaned", 0, 0)
                    time.sleep(0.05)
        except (LockingError, FilesystemError):
            pass  # nobody can lock it, so nobody can clean it safely: cleaning is what has to refuse

    def _release_cache(self) -> None:
        if self.cache_lock is not None:
            self.cache_lock.release()
            self.cache_lock = None


def cache_directory(request: Request) -> str:
    """Return the cache directory, absolute: as asked for, or the user's own."""
    asked = request.text("cache_dir")
    if asked:
        return os.path.abspath(asked)
    if os.name != "posix" or sys.platform == "darwin":
        from platformdirs import user_cache_dir

        return user_cache_dir("envsync", appauthor=False)
    # As platformdirs says it, without the 25 ms that it takes to import (XDG Base Directory Specification).
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "envsync")


def _spare(goal: Goal) -> frozenset[str]:
    major, minor = goal.python.interpreter.version.split(".")[:2]
    return SEEDS if (int(major), int(minor)) >= (3, 12) else SEEDS_BEFORE_3_12


def _unique() -> str:
    return os.urandom(8).hex()


def _names(planned: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (
        tuple(f"{item.name}=={item.version}" for item in planned.install),
        tuple(f"{item.name}=={item.version}" for item in planned.remove),
    )
