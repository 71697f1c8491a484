"""Prepare everything beside its place: the stage of one sync, inside site-packages so that a rename suffices.

The stage mirrors the environment: `<site-packages>/.envsync/<id>/new/lib/python3.11/site-packages/pkg/...`. Files
come from the store (`envsync.staging.link`). Only what names the environment is made here: entry points,
`#!` lines, direct_url.json, and the RECORDs that list them.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from envsync.errors import FilesystemError, WheelError
from envsync.launch.progress import Report, quiet
from envsync.python.facts import Layout
from envsync.staging import scripts
from envsync.staging.link import AnyJob, Linker, Making, PartJob
from envsync.staging.link_modes import SYMLINK, Said
from envsync.staging.linked_directories import Whole, WholeJob, can_seal, choose
from envsync.staging.made import Copy, Maker, as_it_is, dist_info_of, made_to_fit, origin_of, record_size
from envsync.staging.parts import GUARD, Item, Part, parts, place_of
from envsync.staging.tree import Node
from envsync.store.bytecode import Compiled, Shelf, source_of
from envsync.store.damage import DamagedError
from envsync.store.store import Store
from envsync.system import atomic, paths, processes
from envsync.wheel import record
from envsync.wheel.manifest import Manifest

RESERVED = frozenset({".envsync"})
"""Names in the environment and in site-packages that are envsync's own."""
RESERVED_AT_THE_TOP = RESERVED | {".lock"}
_MAKING = 5
"""How many linked files a file that is made here weighs."""


class Staged(NamedTuple):
    """What the stage holds."""

    tree: Node
    records: dict[str, tuple[int, int]]
    """Distribution → (size, mtime_ns) of its RECORD."""
    whole: dict[str, tuple[Whole, ...]]
    """Distribution → its directories that are links into the store."""
    said: Said
    """What is worth knowing of how the files came."""


class Stager:
    """Stages distributions for one environment.

    :param env: absolute path of the environment, as scripts name it
    :param root: the directory of the stage, which exists; what is in it is a part of this very stage
    :param link_mode: one of `link_modes.MODES`
    :param kept: files of distributions that stay, as far as they could share a directory with what is staged
    :param is_free: tells of a directory of the environment whether a link can take its place
    """

    def __init__(  # noqa: PLR0917
        self,
        env: str,
        layout: Layout,
        store: Store,
        root: str,
        link_mode: str,
        kept: Collection[str] = (),
        is_free: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.layout = layout
        self.store = store
        self.root = root
        self.kept = kept
        umask = processes.read_umask()
        self.linker = Linker(link_mode, umask=umask)
        self.linkable = Linkable(store, is_free, umask)
        self.maker = Maker(env, layout, store, root)
        self.tree = Node()
        self.whole: dict[str, tuple[Whole, ...]] = {}
        self.look: Callable[[Node], object] = lambda _: None
        """Is shown all that is to be staged before any of it is, and may refuse it by what it raises."""

    def stage(self, items: Sequence[Item], report: Report = quiet) -> Staged:
        """Bring all files of the items into the stage.

        :raises WheelError: a wheel wants to write where it must not
        :raises DamagedError: a store entry has been changed
        :raises FilesystemError: no space, no permission, ...; the stage holds a part
        """
        groups: dict[str, list[AnyJob]] = {}
        if self.linker.mode == SYMLINK:
            self.whole = choose(items, self.layout, self.kept, self.linkable.fits)
        for item in items:
            self._check_twins(item.manifest)
            self._assign(item, groups)
        self.look(self.tree)
        _clear(self.root, self.tree)
        self.linker.run(list(groups.values()), report)
        records = {item.wanted.name: self._look_at_record(item) for item in items}
        return Staged(self.tree, records, self.whole, self.linker.said)

    def _check_twins(self, manifest: Manifest) -> None:
        """See that the store still tells its names apart; of the environment that was seen before.

        :raises DamagedError: the entry was copied to where they are one
        """
        if manifest.twins:
            from envsync.wheel import twins

            gone = twins.lost(manifest, self.store.path(manifest.sha256))
            if gone is not None:
                raise DamagedError(manifest, gone, "the filesystem does not tell its name from another")

    def _assign(self, item: Item, groups: dict[str, list[AnyJob]]) -> None:
        """Assign the parts of a distribution to the groups of their entries."""
        manifest = item.manifest
        entry = self.store.path(manifest.sha256)
        found: Iterable[Part] = item.parts
        if whole := self.whole.get(item.wanted.name, ()):
            found = self._link_whole(whole, item, groups)
        left_out = {*item.skip, *item.later, *(f"{self.layout.scripts}/{name}" for name in manifest.rewrite)}
        requested = f"{dist_info_of(self.layout, manifest)}/{GUARD}"
        if item.has_guard:
            left_out.add(requested)
        if not self._is_complete(item):
            left_out.add(f"{dist_info_of(self.layout, manifest)}/{record.NAME}")
        places = {place_of(self.layout, path) for path in left_out}
        for part in found:
            self._check_reserved(manifest, part)
            if part.place in places:
                part = _without(part, left_out)  # noqa: PLW2901
            self._bring(item, part, manifest, entry, groups)
        if item.has_guard:
            self.tree.add(requested)
            groups.setdefault(dist_info_of(self.layout, manifest), []).append(
                Making(lambda: self._make_guard(item, requested), 1)
            )
        self._plan_later(item, groups)
        if item.compiled is not None:
            entry = Shelf(self.store, item.compiled.tag).path(item.compiled.sha256, item.compiled.mtime)
            for part in parts(self.layout, manifest.name, item.compiled):
                left = _without(part, left_out, item.compiled.tag) if item.skip or item.later else part
                self._bring(item, left, item.compiled, entry, groups)
        self._plan_generated(item, groups)

    def _link_whole(self, whole: Iterable[Whole], item: Item, groups: dict[str, list[AnyJob]]) -> Iterator[Part]:
        """Have directories linked; returns the parts with what is left of them."""
        jobs: dict[tuple[str, str], WholeJob] = {}
        for one in whole:
            self.tree.add(one.path)
            job = WholeJob(source_in(self.store, item.manifest, one), f"{self.root}/{one.path}", [], item.manifest)
            groups.setdefault(self.layout.entry(one.path), []).append(job)
            jobs[one.scheme, one.below] = job
        for part in item.parts:
            left = []
            tops = {below: below for scheme, below in jobs if scheme == part.scheme}
            """Directory → the linked one that it is, or is in; the empty string for none."""
            for directory in part.directories:
                path = directory.path
                while path and path not in tops:
                    path = path.rpartition("/")[0]
                below = tops[directory.path] = tops.get(path, "")
                if below:
                    inside = directory.path[len(below) + 1 :]
                    jobs[part.scheme, below].directories.append((inside, directory.files))
                else:
                    left.append(directory)
            if left:
                yield part._replace(directories=left)

    def _bring(
        self, item: Item, part: Part, has: Manifest | Compiled, entry: str, groups: dict[str, list[AnyJob]]
    ) -> None:
        """Have a part brought from the store.

        :param has: the manifest that lists it, of what is at `entry`
        """
        if not part.directories:
            return
        # Of what is loose, nobody else's files are in the same group: two distributions never have the same file.
        group = f"{part.place} {item.wanted.name}" if part.is_loose else part.place
        job = PartJob(f"{entry}/{part.scheme}", paths.join(self.root, part.base), part.directories, has, item.fresh)
        groups.setdefault(group, []).append(job)
        below = len(part.place) + 1 if part.place else 0

        def fill(node: Node) -> None:
            for directory in part.directories:
                path = posixpath.join(part.base, directory.path)
                node.directory(path[below:]).files.update([name for name, _, _ in directory.files])

        self.tree.directory(part.place).later(fill)

    def _check_reserved(self, manifest: Manifest, part: Part) -> None:
        """Refuse what is envsync's own. No wheel that was unpacked here has it (`envsync.wheel.layout`).

        :raises WheelError: the part has it
        """
        if part.base not in ("", *self.layout.sites):
            return
        names = RESERVED if part.base else RESERVED_AT_THE_TOP
        for directory in part.directories if part.scheme == "data" else part.directories[:1]:
            first = directory.path.partition("/")[0]
            # Of files, those in the scheme's own directory: the data scheme has loose ones elsewhere, too.
            if first in names or (not directory.path and any(name in names for name, _, _ in directory.files)):
                raise WheelError(manifest.filename, f"it wants to write to `{part.place}`, which is reserved")

    def _plan_generated(self, item: Item, groups: dict[str, list[AnyJob]]) -> None:
        """Have made what depends on the environment: scripts, direct_url.json and RECORD."""
        manifest = item.manifest
        if self._is_complete(item):
            return
        dist_info = dist_info_of(self.layout, manifest)
        names = {f"{self.layout.scripts}/{name}" for name in scripts.names(manifest)} - item.skip
        for path in (*names, f"{dist_info}/{record.NAME}"):
            self.tree.add(path)
        origin = [(f"{dist_info}/{name}", content) for name, content in origin_of(item.wanted.origin.direct_url)]
        for path, _ in origin:
            self.tree.add(path)
        make = partial(self.maker.generate, item, origin, self.whole.get(item.wanted.name, ()))
        groups.setdefault(dist_info, []).append(Making(make, _MAKING + _MAKING * len(names)))

    def _is_complete(self, item: Item) -> bool:
        """Tell whether nothing of a distribution depends on the environment."""
        whole = self.whole.get(item.wanted.name)
        return item.manifest.complete and item.wanted.origin.direct_url is None and not whole

    def _make_guard(self, item: Item, path: str) -> None:
        second = 0 if self.linker.ways.timeless else item.fresh or item.manifest.mtime
        self.maker.make_guard(second, path)

    def _look_at_record(self, item: Item) -> tuple[int, int]:
        """Return the size and the mtime in nanoseconds of a distribution's RECORD."""
        manifest = item.manifest
        if self._is_complete(item) and manifest.mtime and not item.fresh and not self.linker.said.timeless:
            return record_size(manifest), manifest.mtime * 1_000_000_000
        path = f"{self.root}/{dist_info_of(self.layout, manifest)}/{record.NAME}"
        try:
            status = os.lstat(path)
        except OSError as error:
            raise FilesystemError("look at", path, error) from error
        return status.st_size, status.st_mtime_ns

    def _plan_later(self, item: Item, groups: dict[str, list[AnyJob]]) -> None:
        """Have sources copied that get another second than the rest (`Item.later`), and their bytecode made to fit."""
        if not item.later:
            return
        second = (item.fresh or item.manifest.mtime) + 1
        entry, name = self.store.path(item.manifest.sha256), item.manifest.name
        for source, path, executable in self._files(item.manifest, entry, name):
            if path in item.later and path not in item.skip:
                self._plan_copy(item, groups, source, path, partial(as_it_is, second, executable=executable))
        tag = item.compiled.tag if item.compiled is not None else ""
        if item.compiled is not None:
            entry = Shelf(self.store, tag).path(item.compiled.sha256, item.compiled.mtime)
            for source, path, _ in self._files(item.compiled, entry, name):
                if source_of(path, tag) in item.later and source_of(path, tag) not in item.skip:
                    self._plan_copy(item, groups, source, path, partial(made_to_fit, second))

    def _files(self, has: Manifest | Compiled, entry: str, name: str) -> Iterator[tuple[str, str, bool]]:
        """List files as (path in the store, path in the environment, executable)."""
        for scheme, below, files in has.directories:
            base = posixpath.join(self.layout.directory(scheme, name), below)
            for file, _, executable in files:
                yield posixpath.join(entry, scheme, below, file), posixpath.join(base, file), executable

    def _plan_copy(
        self, item: Item, groups: dict[str, list[AnyJob]], source: str, path: str, made: Callable[[bytes], Copy]
    ) -> None:
        self.tree.add(path)
        make = partial(self.maker.copy, item.manifest, source, path, made)
        groups.setdefault(place_of(self.layout, path), []).append(Making(make, _MAKING))


class Linkable:
    """Tells which directories may come as one link, as far as their places and the store are concerned.

    :param is_free: as for `Stager`
    """

    def __init__(self, store: Store, is_free: Callable[[str], bool], umask: int) -> None:
        self.store = store
        self.is_free = is_free
        self.umask = umask
        self.entered: dict[str, bool] = {}
        """Entry of the store → whether everybody may enter it whom the umask lets enter the environment."""

    def fits(self, manifest: Manifest, whole: Whole) -> bool:
        """Tell it of one directory."""
        reserved = whole.below.partition("/")[0] in RESERVED
        source = source_in(self.store, manifest, whole)
        passing = "/.envsync/" in source  # in a cache for this sync alone: what is linked must stay
        return not reserved and not passing and self.is_free(whole.path) and self._can_seal(manifest, source)

    def _can_seal(self, manifest: Manifest, source: str) -> bool:
        entry = self.store.path(manifest.sha256)
        if entry not in self.entered:
            with suppress(OSError):  # what is wrong shows itself when it is linked
                self.entered[entry] = not 0o555 & ~self.umask & ~os.stat(entry).st_mode
        return self.entered.get(entry, True) and can_seal(source, self.umask)


def source_in(store: Store, manifest: Manifest, whole: Whole) -> str:
    """Return where the directory is in the store."""
    return f"{store.path(manifest.sha256)}/{whole.scheme}/{whole.below}"


def _without(part: Part, left_out: Collection[str], tag: str = "") -> Part:
    """Leave out of a part what others provide, with its bytecode, and what is made for the environment.

    :param tag: of the bytecode that the part is of; empty for files of the wheel
    """
    directories = []
    for directory in part.directories:
        above = posixpath.join(part.base, directory.path, "")
        full = (f"{above}{name}" for name, _, _ in directory.files)
        names = (source_of(one, tag) for one in full) if tag else full
        files = [file for file, name in zip(directory.files, names, strict=True) if name not in left_out]
        if files:
            directories.append(directory._replace(files=files))
    return part._replace(directories=directories)


def _clear(path: str, wanted: Node) -> None:
    """Take away what a stage that a dead leader left holds besides what is wanted: whole directories are placed."""
    with os.scandir(path) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
    for name, is_directory, is_link in found:
        below = wanted.children.get(name)
        if is_directory and below is not None:
            _clear(f"{path}/{name}", below)
        elif is_directory or is_link or name not in wanted.files:
            atomic.discard_tree(f"{path}/{name}")
