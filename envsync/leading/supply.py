"""What a plan takes from the store: bytecode is compiled if it is missing, what is damaged is got again.

The store is told which of its entries this environment links to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError
from envsync.launch import command
from envsync.locks import flock
from envsync.store.bytecode import Compiled, Shelf
from envsync.store.damage import DamagedError, find_damaged
from envsync.wheel import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envsync.installed.plan import Plan
    from envsync.leading.goal import Aim, Goal
    from envsync.leading.held import Held
    from envsync.leading.notes import Notes
    from envsync.store.store import Store
    from envsync.wheel.manifest import Manifest


class Supply:
    """What one sync takes from the store, whichever plans it carries out.

    :ivar uncompiled: wheels that go without bytecode this time, by sha256
    :ivar replaced: wheels that were damaged, in themselves or in their bytecode
    """

    def __init__(self, held: Held, aim: Aim, store: Store, said: Notes) -> None:
        self.held = held
        self.aim = aim
        self.store = store
        self.said = said
        self.uncompiled: frozenset[str] = frozenset()
        self.replaced: set[str] = set()

    def do_without_bytecode(self, shas: Iterable[str]) -> None:
        """Install these wheels without bytecode."""
        self.uncompiled |= {*shas}

    def replace(self, error: DamagedError, planned: Plan, compiled: Mapping[str, Compiled]) -> None:
        """Set aside and get again what is damaged of all that a plan installs."""
        wheels, bytecode = self._find_damaged(error, planned, compiled)
        self.replaced.update(wheels, bytecode)
        for one in bytecode.values():
            Shelf(self.store, one.bytecode).discard(one.sha256)
        if bytecode:
            self.said.note(f"{_in_short(bytecode)} set aside and compiled again")
        # One that is not there any more was cleaned away while we waited for commands.
        there = {sha256: one for sha256, one in wheels.items() if os.path.lexists(self.store.path(sha256))}
        if there:
            self.said.note(f"{_in_short(there)} set aside and fetched again")
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

    def compile(self, goal: Goal, planned: Plan) -> dict[str, Compiled]:
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
            for path, problem in item.failures:
                self.said.detail(f"{name} has `{path}`, which does not compile: {problem}")
            for _, path, problem in item.died:
                self.said.detail(f"{name} has `{path}`, which has no bytecode until it is compiled again: {problem}")
        return compiled

    def _compile_missing(self, goal: Goal, shelf: Shelf, missing: Sequence[Manifest]) -> dict[str, Compiled]:
        """Take from a bundle what it has, compile the rest. What a store lacks that is read-only is done without."""
        from envsync.fetching.compile_work import ChangedSourceError
        from envsync.fetching.compiling import compile_wheels
        from envsync.leading import bundled_bytecode

        python, fd = goal.python.interpreter, self.held.fd
        inherited = (fd,) if fd >= 0 else ()  # a lease is no descriptor
        try:
            if self.aim.asked is not None:
                self.said.note(*bundled_bytecode.take(self.aim.asked, missing, shelf, self.held.progress))
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
            self.said.note(f"without bytecode came {', '.join(names[:5])}{more}: {error.message}")
            return compiled

    def refer(self, shas: set[str], env: str) -> None:
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
                    command.close_lock(flock.open_file(self.held.environment.in_use, shared=False))
                users.record(root, env, shas)
            except FilesystemError as error:
                if error.is_refusal and users.has_strangers(root):
                    continue  # who prunes it knows that others link to it
                self.said.note(f"the cache was not told that it is linked to, and may be pruned: {error.message}")


def _in_short(damaged: Mapping[str, DamagedError]) -> str:
    """Say what is wrong with one, and how many others there are, up to what is done with them."""
    message = next(iter(damaged.values())).message
    if len(damaged) == 1:
        return f"{message}; it was"
    if len(damaged) == 2:
        return f"{message}, and so have those of one other wheel; they were"
    return f"{message}, and so have those of {len(damaged) - 1} other wheels; they were"
