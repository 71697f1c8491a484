"""Bring what is installed to what is wanted: plan, stage, commit, and again until nothing is left to do.

A plan is made from what is there, and carried out only if that is still so when everything is staged and nobody runs
in the environment any more; others (pip, say) may have changed it meanwhile. After a doubt, too, it is made again: a
recovery, somebody else's change, a store entry that turned out to be damaged.

The workspace is named after what is staged in it. A leader that finds one of that name takes it over from a dead one:
only this boot's kernel can have made it, so nothing in it was lost with a cache, and each file is compared
before it is left in place (`envsync.staging.link`).
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from envsync import __version__
from envsync.errors import ConflictError, EnvironmentRefusedError, FilesystemError, LockFileError
from envsync.errors.hints import ELSEWHERE
from envsync.installed import leftovers
from envsync.installed.ledger import Ledger, dump_ledger
from envsync.installed.plan import Installed, Plan, Wanted, plan
from envsync.installed.scan import installers, normalized, scan
from envsync.launch import Environment, command
from envsync.launch.request import Request
from envsync.launch.stamp import checksum
from envsync.leading.goal import Aim, Goal
from envsync.leading.held import Held
from envsync.leading.in_use import Occupancy
from envsync.leading.sync_cache import SyncCache
from envsync.locks import flock
from envsync.python.facts import Layout
from envsync.store.bytecode import Compiled, Shelf
from envsync.store.damage import DamagedError, find_damaged
from envsync.system import atomic, processes
from envsync.system.groups import read_umask
from envsync.transaction import change, journal
from envsync.transaction.change import Change, Changer, Ownership
from envsync.wheel import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envsync.installed.plan import Installed
    from envsync.wheel.manifest import Manifest

SEEDS = frozenset({"pip"})
SEEDS_BEFORE_3_12 = SEEDS | {"setuptools", "wheel"}
"""What `venv` and uv seed an environment with; an exact sync keeps them."""
ATTEMPTS = 5
"""How often a plan is made again because the environment changed beneath it, or the store was damaged."""


class Reconciled(NamedTuple):
    """What came of it.

    :ivar planned: the first plan that was carried out
    :ivar installers: who had installed what was removed, if it was not envsync
    :ivar notes: what the user may want to know, a sentence each
    :ivar details: what only those want to know who ask for more
    :ivar resumed: a dead leader's stage was of use
    """

    planned: Plan
    installers: dict[str, str]
    notes: tuple[str, ...]
    details: tuple[str, ...]
    resumed: bool


class Reconciler:
    """Brings one environment to one goal. The environment lock is held throughout.

    :ivar doubtful: the environment may not be what our records say: its files are to be counted
    :ivar uncompiled: wheels that go without bytecode this time, by sha256
    """

    def __init__(
        self,
        held: Held,
        request: Request,
        aim: Aim,
        cache: SyncCache,
        occupancy: Occupancy,
        *,
        doubtful: bool,
    ) -> None:
        self.held = held
        self.environment = held.environment
        self.request = request
        self.aim = aim
        self.cache = cache
        self.store = cache.store
        self.occupancy = occupancy
        self.doubtful = doubtful
        self.damage: DamagedError | None = None
        self.replaced: set[str] = set()
        """Wheels that were damaged, in themselves or in their bytecode."""
        self.resumed = False
        self.uncompiled: frozenset[str] = frozenset()
        self.notes: list[str] = []
        self.details: list[str] = []
        self.installers: dict[str, str] = {}

    def reconcile(self, goal: Goal, layout: Layout, *, doubtful: bool = False) -> Reconciled:
        """Carry out plans until none is needed.

        :param doubtful: somebody else has just been at it
        :raises ConflictError: files that nobody owns are in the way; nothing has been touched
        :raises EnvsyncError: before the journal is in place the environment is as it was
        """
        self.doubtful |= doubtful
        carried_out: Plan | None = None
        attempts = 0
        while attempts < ATTEMPTS:
            known = len(self.replaced)
            planned = self._once(goal, layout)
            attempts += len(self.replaced) == known  # a wheel that was not known to be damaged is a step forward
            if planned is None:
                continue
            carried_out = carried_out or planned
            if not self.doubtful:
                said = tuple(self.notes), tuple(self.details)
                return Reconciled(carried_out, self.installers, *said, self.resumed)
        raise self.restless()

    def is_reconciled(self, goal: Goal, layout: Layout) -> bool:
        """Look whether somebody has added or removed a distribution in the meantime."""
        installed = scan(self.environment, layout, self.held.ledger())
        return make_plan(self.request, goal, installed, uncompiled=self.uncompiled).is_empty

    def restless(self) -> FilesystemError:
        """Build the error of what cannot be done since somebody is in the way again and again."""
        if self.damage is not None:
            cause = OSError(errno.EBUSY, f"somebody keeps changing its files, like `{self.damage.path}`")
            hint = "find out who, or name another cache: `envsync sync --cache-dir /var/tmp/envsync`"
            return FilesystemError("use", self.store.root, cause, hint=hint)
        cause = OSError(errno.EBUSY, "somebody else keeps changing it")
        return FilesystemError("change", self.environment.path, cause, hint=f"find out who, or {ELSEWHERE}")

    def _once(self, goal: Goal, layout: Layout) -> Plan | None:
        """Make one plan and carry it out. Returns None if it could not be carried out as it was made."""
        self.held.check_in_place()
        self.damage = None
        for site in layout.sites:
            self._refuse_to_leave(f"{site}/.envsync")
            os.makedirs(f"{self.environment.path}/{site}/.envsync", exist_ok=True)
        seen = self._look(layout)
        planned, owned = self._plan(goal, layout)
        if planned.is_empty:
            self.doubtful = self._look(layout) != seen
            return None if self.doubtful else planned
        self.held.refuse_own()
        self.held.tell("started")
        self.cache.share()
        workspace = self._workspace(goal, layout, planned, owned)
        committed = False
        try:
            planned, prepared = self._stage(goal, layout, planned, owned, workspace)
            if prepared is None:
                return None
            self.cache.release()
            self.occupancy.drain()
            self.held.check_in_place()
            if self._look(layout) != seen:
                return None
            try:
                # Commands that have ended meanwhile may have written bytecode into directories that go.
                prepared = prepared._replace(journal=prepared.decide())
            except ConflictError:
                return None  # it is planned again, and said if it stays so
            self.installers |= installers(self.environment, planned.remove)
            self._commit(prepared)
            committed = True
        finally:
            if not committed and not os.path.lexists(self.environment.journal):
                atomic.discard_tree(f"{self.environment.path}/{workspace}")
        return planned

    def _refuse_to_leave(self, path: str) -> None:
        """Refuse to follow a symbolic link out of the environment.

        :raises EnvironmentRefusedError: there is one
        """
        if not journal.is_within(self.environment.path, path):
            env = self.environment.path
            reason = f"a symbolic link leads `{path}` out of it, to `{os.path.realpath(f'{env}/{path}')}`"
            raise EnvironmentRefusedError(env, reason, hint=ELSEWHERE)

    def _workspace(self, goal: Goal, layout: Layout, planned: Plan, owned: Ownership) -> str:
        """Choose the workspace: a dead leader's stage of the very same, or a new one. Sweeps all others away."""
        name = self._stage_name(goal, planned, owned)
        leftovers.sweep(self.environment, spare={name, os.path.basename(self.store.root)})
        workspace = f"{layout.purelib}/.envsync/{name}"
        full = f"{self.environment.path}/{workspace}"
        if not os.path.lexists(full):
            return workspace
        links = any(map(os.path.islink, (full, f"{full}/new")))  # never followed: they may lead out
        if not links and os.listdir(full) == ["new"]:
            self.resumed = True
            return workspace
        atomic.discard_tree(full)  # a commit had begun with it: its trash must not be taken for this one's
        return f"{workspace}-{os.urandom(4).hex()}" if os.path.lexists(full) else workspace

    def _stage_name(self, goal: Goal, planned: Plan, owned: Ownership) -> str:
        """Name a stage after what will be in it, on this boot of this host, for this user."""
        mode = self.request.text("link_mode") or "auto"
        parts = [processes.boot() or os.urandom(8).hex(), f"{__version__} {os.getuid()} {read_umask()}", mode]
        parts += [self.store.below or self.store.root, goal.python.env]
        parts += [repr(item) for group in planned for item in group]
        parts += [f"{path} {kept}" for path, kept in sorted(owned.kept.items())]
        return checksum("\n".join(parts).encode("utf-8", "surrogateescape"))[:16]

    def _look(self, layout: Layout) -> list[tuple[int, int]]:
        """Return what changes when anybody adds or removes a distribution."""
        statuses = [os.stat(f"{self.environment.path}/{site}") for site in layout.sites]
        return [(status.st_ino, status.st_mtime_ns) for status in statuses]

    def _plan(self, goal: Goal, layout: Layout) -> tuple[Plan, Ownership]:
        """Plan, and plan again while a distribution that would stay loses a shared file with one that goes."""
        ledger = self.held.ledger()
        installed = scan(self.environment, layout, ledger)
        if (taken := self._take_over(goal, layout, installed, ledger)) is not ledger:
            ledger, installed = taken, scan(self.environment, layout, taken)
        reinstall = self.aim.damaged | (change.damaged(self.environment, installed) if self.doubtful else frozenset())
        unasked: list[Wanted] = []
        while True:
            planned = make_plan(
                self.request, goal, installed, unasked=unasked, reinstall=reinstall, uncompiled=self.uncompiled
            )
            owned = change.ownership(
                self.environment, layout, planned, self.aim.manifests, ledger, self.store, reclaim=self.aim.reclaim
            )
            unasked += self._unasked(goal, planned, owned)
            disputed = owned.disputed & {item.name for item in (*goal.wanted, *unasked)}
            if disputed <= reinstall:
                self._refuse_to_lose(owned.barred)
                return planned, owned
            reinstall |= disputed

    def _take_over(self, goal: Goal, layout: Layout, installed: Sequence[Installed], ledger: Ledger) -> Ledger:
        """Take over what others have installed from the wheels that are wanted. Returns what is known now."""
        count = Counter(item.name for item in installed)
        strange = {item.name: item for item in installed if item.origin is None and count[item.name] == 1}
        pairs = [
            (strange[want.name], want, manifest)
            for want in goal.wanted
            if want.name in strange.keys() - self.aim.damaged
            and (manifest := self.aim.manifests.get(want.name)) is not None
            and manifest.dist_info == posixpath.basename(strange[want.name].dist_info)
        ]
        if not pairs:
            return ledger
        from envsync.leading.adopt import adopt

        taken = adopt(self.environment, layout, ledger, pairs)
        if taken is not ledger:
            path, host = ledger.path or goal.python.env, ledger.host or goal.python.host
            taken = taken._replace(path=path, host=host, in_use=self.occupancy.inodes())
            atomic.write(self.environment.installed, dump_ledger(taken))
        return taken

    def _refuse_to_lose(self, barred: frozenset[str]) -> None:
        """Refuse to take a linked directory away from who stays and cannot be installed anew.

        :raises EnvironmentRefusedError: there is one
        """
        if barred:
            names = ", ".join(sorted(barred)[:5])
            reason = f"a directory of {names} is linked to a cache, has to become a real one, and this cache lacks it"
            hint = f"use the cache that it was made with, or {ELSEWHERE}"
            raise EnvironmentRefusedError(self.environment.path, reason, hint=hint)

    def _unasked(self, goal: Goal, planned: Plan, owned: Ownership) -> list[Wanted]:
        """Return what is not asked for, but stays, and needs a file of its own back. The store still has the wheel."""
        asked = self.aim.manifests
        unasked = []
        for item in planned.keep:
            if item.name in owned.disputed and item.name not in asked and item.origin is not None:
                manifest = self.store.get(item.origin.sha256)
                if manifest is not None:
                    asked[item.name] = manifest
                    bytecode = goal.python.interpreter.bytecode if item.bytecode else ""
                    unasked.append(Wanted(item.name, item.version, item.origin, bytecode))
        return unasked

    def _stage(
        self, goal: Goal, layout: Layout, planned: Plan, owned: Ownership, workspace: str
    ) -> tuple[Plan, Change | None]:
        """Stage a plan. Returns it with what goes without bytecode as that, and None if it has to be made again."""
        mode = self.request.text("link_mode") or "auto"
        for item in planned.install:
            self.store.touch(item.origin.sha256)
        changer = Changer(self.environment, layout, self.store, goal.python.env, workspace, mode, goal.python.host)
        ledger = self.held.ledger()
        compiled: dict[str, Compiled] = {}
        try:
            compiled = self._compile(goal, planned)
            planned = planned._replace(install=tuple(without(planned.install, self.uncompiled)))
            self._tell_of_oddities(planned)
            prepared = changer.prepare(planned, self.aim.manifests, compiled, owned, ledger, self.held.progress)
            if prepared.said.timeless and any(item.bytecode for item in planned.install):
                # Bytecode would not fit its sources, whose times cannot be set.
                self.uncompiled |= {item.origin.sha256 for item in planned.install}
                return planned, None
        except DamagedError as error:
            self._replace_damaged(error, planned, compiled)
            return planned, None
        if linked := _linked(ledger) | _linked(prepared.ledger):
            self._refer(linked, goal.python.env)
        return planned, prepared

    def _tell_of_oddities(self, planned: Plan) -> None:
        """Say to those who ask for more what was odd about the wheels that are installed (docs/wheels.md)."""
        for item in planned.install:
            manifest = self.aim.manifests[item.name]
            lines = [
                *(f"{line} (the lock file's hash of the whole wheel vouches for it)" for line in manifest.unrecorded),
                *manifest.remarks,
            ]
            self.details += [f"{item.name}=={item.version}: {line}" for line in lines]
        self.details = [*dict.fromkeys(self.details)]  # a plan may be made again

    def _replace_damaged(self, error: DamagedError, planned: Plan, compiled: Mapping[str, Compiled]) -> None:
        """Set aside and get again what is damaged of all that a plan installs."""
        self.damage = error
        wheels, bytecode = self._find_damaged(error, planned, compiled)
        self.replaced.update(wheels, bytecode)
        for one in bytecode.values():
            Shelf(self.store, one.bytecode).discard(one.sha256)
        if bytecode:
            self.notes.append(f"{_in_short(bytecode)} set aside and compiled again")
        # One that is not there any more was cleaned away while we waited for commands.
        there = {sha256: one for sha256, one in wheels.items() if os.path.lexists(self.store.path(sha256))}
        if there:
            self.notes.append(f"{_in_short(there)} set aside and fetched again")
        if wheels:
            with self.store.replacing(wheels):
                self.aim.refetch(wheels)

    def _find_damaged(
        self, error: DamagedError, planned: Plan, compiled: Mapping[str, Compiled]
    ) -> tuple[dict[str, DamagedError], dict[str, DamagedError]]:
        """Find what is damaged: (wheels, bytecode of wheels), each by the wheel's sha256."""
        wheels: dict[str, DamagedError] = {}
        bytecode: dict[str, DamagedError] = {}
        found: list[DamagedError | None] = [error]
        for item in planned.install:
            manifest, other = self.aim.manifests[item.name], compiled.get(item.origin.sha256)
            found.append(find_damaged(self.store.path(manifest.sha256), manifest))
            if other is not None:
                found.append(find_damaged(Shelf(self.store, other.tag).path(other.sha256, other.mtime), other))
        for one in found:
            if one is not None:
                (bytecode if one.bytecode else wheels).setdefault(one.sha256, one)
        return wheels, bytecode

    def _compile(self, goal: Goal, planned: Plan) -> dict[str, Compiled]:
        """Bring the bytecode that a plan wants into the store, and return it by the wheel's sha256."""
        wanted = {item.origin.sha256: item for item in planned.install if item.bytecode}
        manifests = self.aim.manifests
        timeless = {sha256 for sha256, item in wanted.items() if manifests[item.name].mtime == seconds.TIMELESS}
        self.uncompiled |= timeless
        wanted = {sha256: item for sha256, item in wanted.items() if sha256 not in timeless}
        if not wanted:
            return {}
        shelf = Shelf(self.store, goal.python.interpreter.bytecode)
        compiled, missing = shelf.find(self.aim.manifests[item.name] for item in wanted.values())
        if missing:
            compiled |= self._compile_missing(goal, shelf, missing)
        for sha256, item in compiled.items():
            name = f"{wanted[sha256].name}=={wanted[sha256].version}"
            lines = [f"{name} has `{path}`, which does not compile: {problem}" for path, problem in item.failures]
            lines += [
                f"{name} has `{path}`, which has no bytecode until it is compiled again: {problem}"
                for _, path, problem in item.died
            ]
            self.details += [line for line in lines if line not in self.details]
        return compiled

    def _compile_missing(self, goal: Goal, shelf: Shelf, missing: Sequence[Manifest]) -> dict[str, Compiled]:
        """Compile. What a store lacks that is read-only is done without."""
        from envsync.fetching.compile_work import ChangedSourceError
        from envsync.fetching.compiling import compile_wheels

        python, fd = goal.python.interpreter, self.held.fd
        inherited = (fd,) if fd >= 0 else ()  # a lease is no descriptor
        try:
            return compile_wheels(missing, python, self.store, inherited=inherited, report=self.held.progress)
        except ChangedSourceError as error:
            raise DamagedError(error.manifest, error.path, error.reason) from error
        except FilesystemError as error:
            if not error.is_refusal:
                raise
            compiled, lacking = shelf.find(missing, again=False)
            self.uncompiled |= {manifest.sha256 for manifest in lacking}
            names = sorted(manifest.name for manifest in lacking)
            more = " ..." if len(names) > 5 else ""
            self.notes.append(f"without bytecode came {', '.join(names[:5])}{more}: {error.message}")
            return compiled

    def _refer(self, shas: set[str], env: str) -> None:
        """Tell the cache which entries this environment links, so that nobody prunes them."""
        for root in (self.store.below, self.store.root):
            if root is None or "/.envsync/" in root:
                continue  # none, or a cache for this sync alone
            if not shas and not os.path.isdir(f"{root}/v1/users"):
                continue  # nobody has ever linked anything
            from envsync.store import users

            try:
                if shas:
                    # It stands for the environment.
                    command.close_lock(flock.open_file(self.environment.in_use, shared=False))
                users.record(root, env, shas)
            except FilesystemError as error:
                note = f"the cache was not told that it is linked to, and may be pruned: {error.message}"
                self.notes += [note] if note not in self.notes else []

    def _commit(self, prepared: Change) -> None:
        durable = self.request.flag("durable")
        self.held.progress("committing", 0, len(prepared.journal.steps))
        ledger = prepared.ledger._replace(in_use=self.occupancy.inodes())
        atomic.write(journal.ledger_path(self.environment, prepared.journal), dump_ledger(ledger))
        journal.write(self.environment, prepared.journal, durable=durable)
        atomic.discard(self.environment.draining)
        self.aim.mended()
        self.doubtful = bool(
            journal.finish(self.environment, prepared.journal, durable=durable, checkpoint=self.held.check_held)
        )
        self._refer(_linked(prepared.ledger), prepared.ledger.path)
        for path, names in sorted(prepared.differing.items()):
            self.notes.append(
                f"{' and '.join(names)} have different contents for `{path}`: that of {names[-1]} was installed"
            )
        self.notes += prepared.said.notes
        self.details += prepared.said.details
        if self.occupancy.ignored or self.occupancy.seen:
            self.notes.append("the environment was changed while commands run in it (--busy ignore)")


def refuse_to_empty(request: Request, environment: Environment, goal: Goal) -> None:
    """Refuse to remove all that is installed because a lock file asks for nothing: hardly anybody means that.

    A file that is being written begins empty, and one that was named by mistake has nothing that is understood, or
    nothing for this Python. What the environment was seeded with does not count, nor does a new environment.

    :raises LockFileError: the environment would be emptied
    """
    if goal.wanted or request.flag("inexact") or request.flag("allow_empty"):
        return
    names = sorted(_names_in(environment) - spare_of(goal))
    if names:
        some = f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        raise LockFileError(
            request.lock,
            f"it asks for no package, for this Python and these options, and all {len(names)} of environment "
            f"`{environment.path}` would be removed: {some}",
            hint="is it the right file, and written to its end? If all are to go: `envsync sync --allow-empty`",
        )


def _names_in(environment: Environment) -> set[str]:
    """Name the distributions of an environment, whichever Python it was made for."""
    found: set[str] = set()
    for version in _listed(f"{environment.path}/lib"):
        for name in _listed(f"{environment.path}/lib/{version}/site-packages"):
            if name.endswith(".dist-info") and not name.startswith("~"):
                found.add(normalized(name.partition("-")[0]))
    return found


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []  # it is not there, or no directory


def _in_short(damaged: Mapping[str, DamagedError]) -> str:
    """Say what is wrong with one, and how many others there are, up to what is done with them."""
    message = next(iter(damaged.values())).message
    if len(damaged) == 1:
        return f"{message}; it was"
    if len(damaged) == 2:
        return f"{message}, and so have those of one other wheel; they were"
    return f"{message}, and so have those of {len(damaged) - 1} other wheels; they were"


def _linked(ledger: Ledger) -> set[str]:
    return {entry.origin.sha256 for entry in ledger.entries.values() if entry.linked}


def make_plan(
    request: Request,
    goal: Goal,
    installed: Sequence[Installed],
    *,
    unasked: Sequence[Wanted] = (),
    reinstall: frozenset[str] = frozenset(),
    uncompiled: frozenset[str] = frozenset(),
) -> Plan:
    """Plan how what is installed becomes what is wanted, as the request's options say."""
    return plan(
        installed,
        without([*goal.wanted, *unasked], uncompiled),
        exact=not request.flag("inexact"),
        spare=spare_of(goal),
        reinstall=reinstall,
    )


def without(wanted: Iterable[Wanted], uncompiled: frozenset[str]) -> Iterable[Wanted]:
    """Do without bytecode where there is none to be had."""
    return (item._replace(bytecode="") if item.origin.sha256 in uncompiled else item for item in wanted)


def spare_of(goal: Goal) -> frozenset[str]:
    """Name what an exact sync keeps though nobody asks for it: what the environment was seeded with."""
    major, minor = goal.python.interpreter.version.split(".")[:2]
    return SEEDS if (int(major), int(minor)) >= (3, 12) else SEEDS_BEFORE_3_12
