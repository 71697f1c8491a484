"""One change of an environment, from the plan to the steps that can be journaled.

Reads the environment and fills the stage; the environment itself is not touched before `journal.apply`.
"""

from __future__ import annotations

import errno
import os
import posixpath
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from envsync.errors import ConflictError, EnvironmentRefusedError, FilesystemError
from envsync.errors.hints import ANOTHER_FILESYSTEM
from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.plan import Installed, Plan
from envsync.installed.scan import is_store_link
from envsync.launch import Environment
from envsync.launch.progress import Report
from envsync.python.facts import Layout
from envsync.staging import link_modes
from envsync.staging.link_modes import Said
from envsync.staging.parts import Item, entries_of, parts
from envsync.staging.shared_files import allot
from envsync.staging.stage import Staged, Stager
from envsync.staging.tree import Node, tree
from envsync.store.bytecode import Compiled
from envsync.store.damage import rows_of
from envsync.store.store import Store
from envsync.system import core, native
from envsync.transaction.journal import Identity, Journal, Place, Remove
from envsync.transaction.owned import files_of, is_intact
from envsync.transaction.steps import Folding, covers, decide, find_twins
from envsync.wheel import record, seconds
from envsync.wheel.manifest import Manifest
from envsync.wheel.record import OwnedFile


class Ownership(NamedTuple):
    """Whose files the change concerns."""

    removed: Mapping[str, str]
    """Files of what goes → hash as in RECORD."""
    kept: Mapping[str, tuple[str, str]]
    """Files of what stays, where they could be shared with what goes or comes → (distribution, hash)."""
    barred: frozenset[str] = frozenset()
    """Distributions that stay, and have a directory linked whole in which something is to come."""
    folding: Folding | None = None
    """Which names the filesystem takes for one, if it does: paths above are spelled as what stays is."""

    @property
    def disputed(self) -> frozenset[str]:
        """Distributions that stay but have to be installed anew.

        They have lost a shared file to one that goes, or a link of theirs has to become a real directory.
        """
        return self.barred | frozenset(
            self.kept[path][0]
            for path, hash_ in self.removed.items()
            if path in self.kept and self.kept[path][1] != hash_
        )


class Change(NamedTuple):
    """A change that is staged and decided."""

    journal: Journal
    ledger: Ledger
    differing: Mapping[str, tuple[str, ...]]
    """Files that several distributions have with different contents."""
    said: Said
    """What is worth knowing of how the files came from the store."""
    decide: Callable[[], Journal]
    """Decides the steps anew, by what is there then. Raises as `Changer.prepare`."""


def damaged(
    environment: Environment, installed: Sequence[Installed], checkpoint: Callable[[], object] = lambda: None
) -> frozenset[str]:
    """Name the distributions of which a recorded file is missing or has another size than recorded.

    Of a file that several have, the size is that of the one whose name sorts last (`envsync.staging.shared_files`).
    Bytecode does not count: it is made and thrown away by whoever runs the code.

    :param checkpoint: called before each distribution; what it raises ends the look
    """
    files = {item.name: files_of(environment, item) for item in installed}
    provider: dict[str, str] = {}
    for name, owned in sorted(files.items()):
        provider.update((file.path, name) for file in owned or ())
    found = set()
    for name, owned in files.items():
        checkpoint()
        sources = (file for file in owned or () if not file.path.endswith(".pyc"))
        if owned is None or not all(
            is_intact(environment, file, sized=provider[file.path] == name) for file in sources
        ):
            found.add(name)
    return frozenset(found)


def folding_of(environment: Environment, layout: Layout) -> Folding | None:
    """Ask the filesystem of an environment whether it takes several names for one; None if it tells all apart.

    It is asked by `.ENVSYNC`, where `.envsync` is: one that takes two Unicode forms for one, and tells case apart, does
    not answer to that.
    """
    place = f"{environment.path}/{layout.purelib}/"
    try:
        if not os.path.samestat(os.lstat(place + ".ENVSYNC"), os.lstat(place + ".envsync")):
            return None
    except OSError:
        return None
    from envsync.wheel import twins
    from envsync.wheel.archive import fold

    return Folding(fold, lambda one, other: twins.is_one(one, other, place + ".envsync"), layout.sites)


def ownership(  # noqa: PLR0917
    environment: Environment,
    layout: Layout,
    plan: Plan,
    manifests: Mapping[str, Manifest],
    ledger: Ledger,
    store: Store,
    *,
    reclaim: bool = False,
) -> Ownership:
    """Find out whose files a plan concerns.

    Reads the RECORDs of what goes, and of what stays only those that have a top-level entry in common.

    :param reclaim: what is where envsync installed a file goes with it, even if no RECORD says so any more
    """
    folding = folding_of(environment, layout)
    removed: dict[str, str] = {}
    for item in plan.remove:
        files = files_of(environment, item)
        if files is None or item.origin is None:  # RECORD may be emptied, cut or damaged
            removed.update((file.path, file.hash) for file in _from_store(layout, item, ledger, store))
            removed.update((path, "") for path in _links(environment, item, ledger))
        removed.update((file.path, file.hash) for file in files or ())
        removed.setdefault(f"{item.dist_info}/RECORD", "")
    if reclaim:
        for wanted in plan.install:
            if wanted.name in ledger.entries:
                removed.update((path, "") for path, _ in files_of_manifest(layout, manifests[wanted.name]))
    if not plan.keep:
        return Ownership(removed, {}, folding=folding)
    seen = folding.path if folding is not None else str
    touched = {seen(layout.entry(path)) for path in removed}
    for wanted in plan.install:
        manifest = manifests[wanted.name]
        touched |= set(map(seen, entries_of(layout, manifest, parts(layout, manifest.name, manifest))))
    kept: dict[str, tuple[str, str]] = {}
    for item in plan.keep:
        entry = ledger.entries.get(item.name)
        if item.origin is not None and entry is not None and touched.isdisjoint(map(seen, entry.entries)):
            continue
        for file in files_of(environment, item) or ():
            if seen(layout.entry(file.path)) in touched and not (file.path in kept and kept[file.path][0] > item.name):
                kept[file.path] = (item.name, file.hash)
    if folding is not None:  # what goes is called as what stays is, where it is the same
        named = {folding.path(path): path for path in kept}
        removed = {named.get(folding.path(path), path): hash_ for path, hash_ in removed.items()}
    return Ownership(removed, kept, _barred(environment, layout, plan, manifests, kept), folding)


def _barred(
    environment: Environment,
    layout: Layout,
    plan: Plan,
    manifests: Mapping[str, Manifest],
    kept: Mapping[str, tuple[str, str]],
) -> frozenset[str]:
    links = {
        path: name for path, (name, hash_) in kept.items() if not hash_ and is_store_link(f"{environment.path}/{path}")
    }
    if not links:
        return frozenset()
    barred: set[str] = set()
    for wanted in plan.install:
        for path, _ in files_of_manifest(layout, manifests[wanted.name]):
            barred.update(links[above] for above in _above(path) if above in links)
    return frozenset(barred)


def _from_store(layout: Layout, item: Installed, ledger: Ledger, store: Store) -> list[OwnedFile]:
    """List the files of a distribution whose RECORD is not ours any more, as the wheel that we installed has them."""
    entry = ledger.entries.get(item.name)
    manifest = store.get(entry.origin.sha256) if entry is not None and entry.version == item.version else None
    if manifest is None:
        return []
    files = [OwnedFile(path, "", size) for path, size in files_of_manifest(layout, manifest)]
    files += [OwnedFile(f"{layout.scripts}/{script.filename}", "", None) for script in manifest.scripts]
    return files


def _links(environment: Environment, item: Installed, ledger: Ledger) -> list[str]:
    """List the links into the store among the top-level entries of what we installed."""
    entry = ledger.entries.get(item.name)
    entries = entry.entries if entry is not None and entry.linked else ()
    return [path for path in entries if is_store_link(f"{environment.path}/{path}")]


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def files_of_manifest(layout: Layout, manifest: Manifest) -> list[tuple[str, int]]:
    """List the files of a wheel as (path relative to the environment, size), without generated ones."""
    files = []
    for directory in manifest.directories:
        base = layout.directory(directory.scheme, manifest.name)
        path = "/".join(part for part in (base, directory.path) if part)
        files += [(f"{path}/{name}" if path else name, size) for name, size, _ in directory.files]
    return files


def _is_same_wheel(item: Item, ledger: Ledger) -> bool:
    before = ledger.entries.get(item.wanted.name)
    return before is not None and before.origin.sha256 == item.wanted.origin.sha256


class _Rows:
    """The hashes of a wheel's files, read when the first of them is asked for."""

    def __init__(self, layout: Layout, manifest: Manifest) -> None:
        self.layout = layout
        self.manifest = manifest
        self.known: set[tuple[str, str]] | None = None

    def has(self, path: str, hash_: str) -> bool:
        """Tell whether the wheel has a file of that very content there."""
        if not hash_:
            return False
        if self.known is None:
            self.known = set()
            for scheme, text in rows_of(self.manifest):
                base = self.layout.directory(scheme, self.manifest.name)
                self.known.update((posixpath.join(base, path), hash_) for path, hash_, _ in record.rows(text))
        return (path, hash_) in self.known


class Changer(NamedTuple):
    """What it takes to prepare a change.

    :ivar env: absolute path of the environment, as scripts will name it
    :ivar workspace: where the stage and the trash of this sync are, relative to the environment; a part of this very
        change may be staged in it already
    """

    environment: Environment
    layout: Layout
    store: Store
    env: str
    workspace: str
    link_mode: str
    host: str

    def prepare(  # noqa: PLR0917
        self,
        plan: Plan,
        manifests: Mapping[str, Manifest],
        compiled: Mapping[str, Compiled],
        owned: Ownership,
        ledger: Ledger,
        report: Report,
    ) -> Change:
        """Stage what comes and decide the steps.

        :param compiled: the bytecode of wheels, by their sha256
        :raises ConflictError: files that nobody owns are in the way; nothing has been touched
        :raises EnvironmentRefusedError: its filesystem takes two files for one; nothing has been touched
        :raises EnvsyncError: staging failed; the stage is to be thrown away
        """
        now = int(time.time())
        items = [
            Item(
                wanted,
                (manifest := manifests[wanted.name]),
                tuple(parts(self.layout, manifest.name, manifest)),
                compiled=compiled.get(wanted.origin.sha256) if wanted.bytecode else None,
                fresh=now if self._is_stale(manifest, now) and not wanted.bytecode else 0,
            )
            for wanted in plan.install
        ]
        allotment = allot(items, self.layout, owned.kept)
        replaced = owned.removed.keys() | allotment.give_way
        staging = [
            # What is installed anew has the same sources, or damaged ones, whose time was kept by whoever wrote them.
            item if _is_same_wheel(item, ledger) else item._replace(later=self._later(item, replaced, owned.removed))
            for item in allotment.items
        ]
        root = f"{self.environment.path}/{self.workspace}/new"
        try:
            os.makedirs(root, exist_ok=True)
        except OSError as error:
            raise FilesystemError("make directory", root, error) from error
        gone = tree([*(path for path in owned.removed if path not in owned.kept), *allotment.give_way])
        dist_infos = frozenset(item.dist_info for item in plan.remove)
        folding = owned.folding

        def is_free(path: str) -> bool:
            full = f"{self.environment.path}/{path}"
            if not os.path.isdir(full) or os.path.islink(full):
                return True  # it is not there, or what it is decides itself
            if any(is_store_link(f"{self.environment.path}/{above}") for above in _above(path)):
                return True  # that link goes, or this would not come
            return covers(self.listing, gone, path, protected=self._protected(), whole=dist_infos, folding=folding)

        stager = Stager(self.env, self.layout, self.store, root, self.link_mode, owned.kept, is_free)
        if folding is not None:
            protected = self._protected()
            stager.look = lambda coming: self._refuse_twins(
                find_twins(coming, folding, protected=protected), "both are wanted"
            )
        staged = stager.stage(staging, report)

        def decide_steps() -> Journal:
            return self._decide(gone, dist_infos, staged, folding)

        new = self._ledger(plan, items, staged, ledger)
        return Change(decide_steps(), new, allotment.differing, staged.said, decide_steps)

    def _is_stale(self, manifest: Manifest, now: int) -> bool:
        """Tell whether copies of a wheel get a time of their own: the cache's is old, and none has to be kept.

        Some filesystems are purged by mtime alone. Links have the cache's, and so has what has its bytecode.
        """
        is_own = self.link_mode in (link_modes.COPY, link_modes.CLONE)
        return is_own and bool(manifest.mtime) and now - manifest.mtime > seconds.DAY_NS // 1_000_000_000

    def _later(self, item: Item, replaced: Collection[str], hashes: Mapping[str, str]) -> frozenset[str]:
        """Name the sources of a distribution that replace other ones of the same size and second.

        Within one store and project there are none (`envsync.wheel.seconds`), but what is there may come from another
        cache, or belong to another project. Bytecode that was compiled of it would be valid for what comes: where
        PYTHONPYCACHEPREFIX says, it is out of our reach.

        :param replaced: paths that go
        :param hashes: of what goes, as far as they are known
        """
        found = []
        own = _Rows(self.layout, item.manifest)
        for scheme, below, files in item.manifest.directories if replaced else ():
            base = posixpath.join(self.layout.directory(scheme, item.manifest.name), below)
            for name, size, _ in files:
                path = posixpath.join(base, name)
                if name.endswith(".py") and path in replaced and not own.has(path, hashes.get(path, "")):
                    with suppress(OSError):  # then there is nothing to be replaced
                        status = os.stat(f"{self.environment.path}/{path}")
                        if status.st_size == size and int(status.st_mtime) in (item.manifest.mtime, item.fresh):
                            found.append(path)
        return frozenset(found)

    def _decide(self, removed: Node, dist_infos: frozenset[str], staged: Staged, folding: Folding | None) -> Journal:
        decision = decide(
            self.listing,
            removed,
            staged.tree,
            protected=self._protected(),
            whole=dist_infos,
            is_same=self._is_same,
            folding=folding,
        )
        self._refuse_twins(
            decision.twins, "the latter stays", "move away what `envsync check` says that nobody has installed, or "
        )
        if decision.conflicts:
            raise ConflictError(self.environment.path, decision.conflicts)
        steps: list[Remove | Place] = []
        for number, path in enumerate(decision.remove):
            try:
                identity = Identity.of(f"{self.environment.path}/{path}")
            except FileNotFoundError:
                continue  # gone since it was listed, and that is all that is wanted of it
            self._check_movable(path)
            steps.append(Remove(path, identity, f"{self.workspace}/old/{number}"))
        steps += [Place(f"{self.workspace}/new/{path}", path) for path in decision.place]
        return Journal(self.workspace, tuple(steps))

    def _refuse_twins(self, twins: Sequence[tuple[str, str]], reason: str, besides: str = "") -> None:
        if twins:
            one, other = twins[0]
            raise EnvironmentRefusedError(
                self.environment.path,
                f"its filesystem takes `{one}` and `{other}` for one, and {reason}",
                hint=besides + ANOTHER_FILESYSTEM,
            )

    def _check_movable(self, path: str) -> None:
        """Refuse before anything is decided what rename(2) would refuse after.

        To move a directory somewhere else one has to be allowed to write to it, for its `..` changes.
        """
        full = f"{self.environment.path}/{path}"
        for directory in (os.path.dirname(full), full):
            if os.path.isdir(directory) and not os.path.islink(directory) and not os.access(directory, os.W_OK):
                raise FilesystemError("move", full, OSError(errno.EACCES, f"`{directory}` must not be written to"))
        try:
            native.check_movable(full)
        except FileNotFoundError:
            pass  # gone just now, and that is all that is wanted of it
        except OSError as error:
            raise FilesystemError("move", core.slashed(error.filename or full), error) from error

    def listing(self, path: str) -> Mapping[str, bool] | None:
        """List a directory of the environment; links to directories count as files."""
        try:
            with os.scandir(f"{self.environment.path}/{path}") as entries:
                return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FilesystemError("list", f"{self.environment.path}/{path}", error) from error

    def _is_same(self, path: str) -> bool:
        """Tell whether a file in the way has the content that is to come: an interrupted installer left it.

        A link into the store is nobody's but ours: whoever uninstalled its distribution left it.
        """
        there, staged = (
            f"{self.environment.path}/{path}",
            f"{self.environment.path}/{self.workspace}/new/{path}",
        )
        if is_store_link(there):
            return True
        try:
            if os.path.islink(there) or os.stat(there).st_size != os.stat(staged).st_size:
                return False
            with open(there, "rb") as left, open(staged, "rb") as right:
                while chunk := left.read(1 << 20):
                    if chunk != right.read(1 << 20):
                        return False
        except OSError:
            return False
        return True

    def _protected(self) -> set[str]:
        protected = {""}
        for base in (*self.layout.sites, self.layout.scripts, self.layout.headers):
            parts = base.split("/")
            protected.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        return protected

    def _ledger(self, plan: Plan, items: Sequence[Item], staged: Staged, old: Ledger) -> Ledger:
        # One that stays without being asked for stays known, also if its RECORD is lost: its files are still ours.
        entries = {
            item.name: old.entries[item.name]
            for item in plan.keep
            if item.name in old.entries and old.entries[item.name].version == item.version
        }
        for item in items:
            entries[item.wanted.name] = self._entry(item, staged)
        return Ledger(self.env, self.host, entries)

    def _entry(self, item: Item, staged: Staged) -> LedgerEntry:
        wanted, manifest = item.wanted, item.manifest
        size, mtime_ns = staged.records[wanted.name]
        return LedgerEntry(
            # As the .dist-info directory spells it, by which `scan` will know it.
            version=manifest.dist_info.removesuffix(".dist-info").partition("-")[2],
            origin=wanted.origin,
            record_size=size,
            record_mtime_ns=mtime_ns,
            entries=tuple(sorted(entries_of(self.layout, manifest, item.parts))),
            scripts=bool(manifest.scripts or manifest.rewrite),
            bytecode=wanted.bytecode,
            linked=bool(staged.whole.get(wanted.name)),
            unverified=wanted.unverified,
        )
