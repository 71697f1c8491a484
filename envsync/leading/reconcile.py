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
from collections.abc import Sequence
from typing import NamedTuple

from envsync import __version__
from envsync.errors import ConflictError, EnvironmentRefusedError, FilesystemError
from envsync.errors.hints import ELSEWHERE
from envsync.installed import leftovers
from envsync.installed.ledger import Ledger, dump_ledger
from envsync.installed.plan import Installed, Plan, Wanted
from envsync.installed.scan import installers, scan
from envsync.launch import Environment
from envsync.launch.stamp import checksum
from envsync.leading.goal import Aim, Goal
from envsync.leading.held import Held
from envsync.leading.in_use import Occupancy
from envsync.leading.notes import Notes
from envsync.leading.planning import make_plan, may_adopt, without
from envsync.leading.session import Session
from envsync.leading.supply import Supply
from envsync.leading.sync_cache import SyncCache
from envsync.python.facts import Layout
from envsync.store.bytecode import Compiled
from envsync.store.damage import DamagedError
from envsync.system import atomic, core, paths, processes
from envsync.transaction import change, journal
from envsync.transaction.change import Change, Changer, Ownership

ATTEMPTS = 5
"""How often a plan is made again because the environment changed beneath it, or the store was damaged."""


class Reconciled(NamedTuple):
    """What came of it.

    :ivar planned: the first plan that was carried out
    :ivar installers: who had installed what was removed, if it was not envsync
    :ivar said: what the user may want to know
    :ivar resumed: a dead leader's stage was of use
    """

    planned: Plan
    installers: dict[str, str]
    said: Notes
    resumed: bool


class Reconciler:
    """Brings one environment to one goal. The environment lock is held throughout.

    :ivar doubtful: the environment may not be what our records say: its files are to be counted
    """

    def __init__(
        self,
        held: Held,
        session: Session,
        aim: Aim,
        cache: SyncCache,
        occupancy: Occupancy,
        *,
        doubtful: bool,
    ) -> None:
        self.held = held
        self.session = session
        self.aim = aim
        self.cache = cache
        self.occupancy = occupancy
        self.doubtful = doubtful
        self.said = Notes()
        self.supply = Supply(held, aim, cache.store, self.said)
        self.resumed = False
        self.installers: dict[str, str] = {}

    @property
    def environment(self) -> Environment:
        return self.held.environment

    def reconcile(self, goal: Goal, layout: Layout, *, doubtful: bool = False) -> Reconciled:
        """Carry out plans until none is needed.

        :param doubtful: somebody else has just been at it
        :raises ConflictError: files that nobody owns are in the way; nothing has been touched
        :raises EnvironmentRefusedError: its filesystem takes two of its files for one; nothing has been touched
        :raises EnvsyncError: before the journal is in place the environment is as it was
        """
        self.doubtful |= doubtful
        carried_out: Plan | None = None
        done: Plan | DamagedError | None = None
        attempts = 0
        while attempts < ATTEMPTS:
            known = len(self.supply.replaced)
            done = self._once(goal, layout)
            attempts += len(self.supply.replaced) == known  # one that was not known to be damaged is a step forward
            if isinstance(done, Plan):
                carried_out = carried_out or done
                if not self.doubtful:
                    return Reconciled(carried_out, self.installers, self.said, self.resumed)
        raise self.restless(done if isinstance(done, DamagedError) else None)

    def is_reconciled(self, goal: Goal, layout: Layout) -> bool:
        """Look whether somebody has added or removed a distribution in the meantime."""
        installed = scan(self.environment, layout, self.held.ledger())
        return make_plan(self.session.request, goal, installed, uncompiled=self.supply.uncompiled).is_empty

    def restless(self, damage: DamagedError | None = None) -> FilesystemError:
        """Build the error of what cannot be done since somebody is in the way again and again.

        :param damage: what was found in the cache the last time
        """
        if damage is not None:
            cause = OSError(errno.EBUSY, f"somebody keeps changing its files, like `{damage.path}`")
            hint = "find out who, or name another cache: `envsync sync --cache-dir /var/tmp/envsync`"
            return FilesystemError("use", self.cache.store.root, cause, hint=hint)
        cause = OSError(errno.EBUSY, "somebody else keeps changing it")
        return FilesystemError("change", self.environment.path, cause, hint=f"find out who, or {ELSEWHERE}")

    def _once(self, goal: Goal, layout: Layout) -> Plan | DamagedError | None:
        """Make one plan and carry it out. Returns what was damaged, or None, if it could not be carried out as made."""
        self.held.check_in_place()
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
            if not isinstance(prepared, Change):
                return prepared
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
            reason = f"a symbolic link leads `{path}` out of it, to `{paths.realpath(f'{env}/{path}')}`"
            raise EnvironmentRefusedError(env, reason, hint=ELSEWHERE)

    def _workspace(self, goal: Goal, layout: Layout, planned: Plan, owned: Ownership) -> str:
        """Choose the workspace: a dead leader's stage of the very same, or a new one. Sweeps all others away."""
        name = self._stage_name(goal, planned, owned)
        leftovers.sweep(self.environment, spare={name, os.path.basename(self.cache.store.root)})
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
        parts = [processes.boot() or os.urandom(8).hex(), f"{__version__} {core.user()} {processes.read_umask()}"]
        parts.append(self.session.link_mode)
        parts += [self.cache.store.below or self.cache.store.root, goal.python.env]
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
        reinstall = self.aim.damaged | (self._damaged(installed) if self.doubtful else frozenset())
        unasked: list[Wanted] = []
        while True:
            planned = make_plan(
                self.session.request,
                goal,
                installed,
                unasked=unasked,
                reinstall=reinstall,
                uncompiled=self.supply.uncompiled,
            )
            owned = change.ownership(
                self.environment,
                layout,
                planned,
                self.aim.manifests,
                ledger,
                self.cache.store,
                reclaim=self.aim.reclaim,
            )
            unasked += self._unasked(goal, planned, owned)
            disputed = owned.disputed & {item.name for item in (*goal.wanted, *unasked)}
            if disputed <= reinstall:
                self._refuse_to_lose(owned.barred)
                return planned, owned
            reinstall |= disputed

    def _damaged(self, installed: Sequence[Installed]) -> frozenset[str]:
        """Look at all files. Says how far it is: on a slow filesystem that takes minutes."""
        return change.damaged(self.environment, installed, self.held.taking("looking", len(installed)))

    def _take_over(self, goal: Goal, layout: Layout, installed: Sequence[Installed], ledger: Ledger) -> Ledger:
        """Take over what others have installed from the wheels that are wanted. Returns what is known now."""
        if goal.python.make or not may_adopt(ledger, installed):
            return ledger
        from envsync.leading.adopt import adopt

        manifests = {name: has for name, has in self.aim.manifests.items() if name not in self.aim.damaged}
        taken = adopt(self.environment, layout, ledger, installed, goal.wanted, manifests, goal.python.env)
        if taken is not ledger:
            taken = taken._replace(path=goal.python.env, host=goal.python.host, in_use=self.occupancy.inodes())
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
                manifest = self.cache.store.get(item.origin.sha256)
                if manifest is not None:
                    asked[item.name] = manifest
                    bytecode = goal.python.interpreter.bytecode if item.bytecode else ""
                    unverified = item.name in self.held.ledger().unverified
                    unasked.append(Wanted(item.name, item.version, item.origin, bytecode, unverified))
        return unasked

    def _stage(
        self, goal: Goal, layout: Layout, planned: Plan, owned: Ownership, workspace: str
    ) -> tuple[Plan, Change | DamagedError | None]:
        """Stage a plan. Returns it with what goes without bytecode as that.

        If it has to be made again, there is no change: what was damaged comes instead, or None.
        """
        mode, store = self.session.link_mode, self.cache.store
        for item in planned.install:
            store.touch(item.origin.sha256)
        changer = Changer(self.environment, layout, store, goal.python.env, workspace, mode, goal.python.host)
        ledger = self.held.ledger()
        compiled: dict[str, Compiled] = {}
        try:
            compiled = self.supply.compile(goal, planned)
            planned = planned._replace(install=tuple(without(planned.install, self.supply.uncompiled)))
            self._tell_of_oddities(planned)
            prepared = changer.prepare(planned, self.aim.manifests, compiled, owned, ledger, self.held.progress)
            if prepared.said.timeless and any(item.bytecode for item in planned.install):
                # Bytecode would not fit its sources, whose times cannot be set.
                self.supply.do_without_bytecode(item.origin.sha256 for item in planned.install)
                return planned, None
        except DamagedError as error:
            self.supply.replace(error, planned, compiled)
            return planned, error
        if linked := _linked(ledger) | _linked(prepared.ledger):
            self.supply.refer(linked, goal.python.env)
        return planned, prepared

    def _tell_of_oddities(self, planned: Plan) -> None:
        """Say to those who ask for more what was odd about the wheels that are installed (docs/wheels.md)."""
        for item in planned.install:
            manifest = self.aim.manifests[item.name]
            vouched = (
                f"{line} (the lock file's hash of the whole wheel vouches for it)" for line in manifest.unrecorded
            )
            self.said.detail(*(f"{item.name}=={item.version}: {line}" for line in (*vouched, *manifest.remarks)))

    def _commit(self, prepared: Change) -> None:
        durable = self.session.durable
        checkpoint = self.held.taking("committing", len(prepared.journal.steps))
        ledger = prepared.ledger._replace(in_use=self.occupancy.inodes())
        self.held.check_held()
        atomic.write(journal.ledger_path(self.environment, prepared.journal), dump_ledger(ledger))
        journal.write(self.environment, prepared.journal, durable=durable)
        atomic.discard(self.environment.draining)
        self.aim.mended()
        self.doubtful = bool(journal.finish(self.environment, prepared.journal, durable=durable, checkpoint=checkpoint))
        self.supply.refer(_linked(prepared.ledger), prepared.ledger.path)
        for path, names in sorted(prepared.differing.items()):
            self.said.note(
                f"{' and '.join(names)} have different contents for `{path}`: that of {names[-1]} was installed"
            )
        self.said.lasts(*prepared.said.notes)
        self.said.detail(*prepared.said.details)
        if self.occupancy.ignored or self.occupancy.seen:
            self.said.note("the environment was changed while commands run in it (--busy ignore)")


def _linked(ledger: Ledger) -> set[str]:
    return {entry.origin.sha256 for entry in ledger.entries.values() if entry.linked}
