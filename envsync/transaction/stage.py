"""Prepare everything beside its place: the stage of one sync, inside site-packages so that a rename suffices.

The stage mirrors the environment: `<site-packages>/.envsync/<id>/new/lib/python3.11/site-packages/pkg/...`. Files
come from the store (`envsync.transaction.linking`). Only what names the environment is made here: entry points,
`#!` lines, direct_url.json, and the RECORDs that list them.
"""

from __future__ import annotations

import os
import posixpath
import sys
from binascii import b2a_base64
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from envsync import replace
from envsync.cache.bytecode import Compiled, Shelf, source_of
from envsync.cache.manifest import Directory, Manifest
from envsync.cache.store import Store
from envsync.errors import FilesystemError, WheelError
from envsync.installed import Layout
from envsync.plan import Wanted
from envsync.progress import Report, quiet
from envsync.transaction import scripts, sealing
from envsync.transaction.linking import AnyJob, Job, Linker, make_directory, read_umask
from envsync.transaction.linkmodes import SYMLINK, Said
from envsync.transaction.poisoned import PoisonedError
from envsync.transaction.sealing import WholeJob
from envsync.transaction.steps import Node
from envsync.transaction.whole import Whole, choose

RESERVED = frozenset({".envsync"})
"""Names in the environment and in site-packages that are envsync's own."""
RESERVED_AT_THE_TOP = RESERVED | {".lock"}


class Item(NamedTuple):
    """One distribution to be staged."""

    wanted: Wanted
    manifest: Manifest
    skip: frozenset[str] = frozenset()
    """The files of it that another one provides (`envsync.transaction.sharing`)."""
    compiled: Compiled | None = None
    """Its bytecode, if it is to have any."""


class Staged:
    """What the stage holds.

    :ivar records: distribution → (size, mtime_ns) of its RECORD
    :ivar whole: distribution → its directories that are links into the store
    :ivar said: what is worth knowing of how the files came
    """

    __slots__ = ("records", "said", "tree", "whole")

    def __init__(self) -> None:
        self.tree = Node()
        self.records: dict[str, tuple[int, int]] = {}
        self.whole: dict[str, tuple[Whole, ...]] = {}
        self.said = Said((), ())


class Stager:
    """Stages distributions for one environment.

    :param env: absolute path of the environment, as scripts name it
    :param root: the directory of the stage, which exists; what is in it is a part of this very stage
    :param link_mode: one of `linkmodes.MODES`
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
        self.env = env
        self.layout = layout
        self.store = store
        self.root = root
        self.link_mode = link_mode
        self.kept = kept
        self.is_free = is_free
        self.linker = Linker(link_mode, umask=read_umask())
        self.staged = Staged()

    def stage(self, items: Sequence[Item], report: Report = quiet) -> Staged:
        """Bring all files of the items into the stage.

        :raises WheelError: a wheel wants to write where it must not
        :raises PoisonedError: a store entry has been changed
        :raises FilesystemError: no space, no permission, ...; the stage holds a part
        """
        groups: dict[str, list[AnyJob]] = {}
        if self.link_mode == SYMLINK:
            self.staged.whole = choose(items, self.layout, self.kept, self._fits)
        for item in items:
            entry = self.store.path(item.manifest.sha256)
            whole = self.staged.whole.get(item.wanted.name, ())
            jobs = {one: self._link_whole(one, item.manifest, groups) for one in whole}
            for directory in item.manifest.directories:
                one = next((one for one in whole if _is_in(directory, one)), None)
                if one is None:
                    self._assign(item, item.manifest, entry, directory, groups)
                else:
                    jobs[one].append((directory.path[len(one.below) + 1 :], directory.files))
            if item.compiled is not None:
                entry = Shelf(self.store, item.compiled.tag).path(item.compiled.sha256)
                for directory in item.compiled.directories:
                    self._assign(item, item.compiled, entry, directory, groups)
        _clear(self.root, self.staged.tree)
        self.linker.run(list(groups.values()), report)
        for item in items:
            self._generate(item)
        self.staged.said = self.linker.said
        return self.staged

    def _fits(self, manifest: Manifest, whole: Whole) -> bool:
        reserved = whole.below.partition("/")[0] in RESERVED
        source = self._source(manifest, whole)
        passing = "/.envsync/" in source  # in a cache for this sync alone: what is linked must stay
        return not reserved and not passing and self.is_free(whole.path) and sealing.can_seal(source)

    def _source(self, manifest: Manifest, whole: Whole) -> str:
        return f"{self.store.path(manifest.sha256)}/{whole.scheme}/{whole.below}"

    def _link_whole(
        self, whole: Whole, manifest: Manifest, groups: dict[str, list[AnyJob]]
    ) -> list[tuple[str, Sequence[Sequence[Any]]]]:
        """Have a directory linked; returns the list for the directories in it."""
        directories: list[tuple[str, Sequence[Sequence[Any]]]] = []
        self.staged.tree.add(whole.path)
        job = WholeJob(self._source(manifest, whole), f"{self.root}/{whole.path}", directories, manifest)
        groups.setdefault(self.layout.entry(whole.path), []).append(job)
        return directories

    def _assign(
        self, item: Item, has: Manifest | Compiled, entry: str, directory: Directory, groups: dict[str, list[AnyJob]]
    ) -> None:
        """Assign a directory to the group of its top-level entry.

        :param has: the manifest that lists it, of what is at `entry`
        """
        manifest = item.manifest
        base = self.layout.directory(directory.scheme, manifest.name)
        names = RESERVED if base else RESERVED_AT_THE_TOP
        files = self._chosen(directory, base, item, has)
        if not files:
            return
        source = f"{entry}/{directory.scheme}"
        if directory.path:
            first = directory.path.partition("/")[0]
            reserved = first in names
            group = f"{base}/{first}"
            path = f"{base}/{directory.path}" if base else directory.path
            source += f"/{directory.path}"
        else:
            reserved = any(name in names for name, _, _ in files)
            group = f"{base} {manifest.name}"
            path = base
        if reserved and (directory.scheme == "data" or base in self.layout.sites):
            raise WheelError(manifest.filename, f"it wants to write to `{path}`, which is reserved")
        self.staged.tree.directory(path).files.update([name for name, _, _ in files])
        groups.setdefault(group, []).append(Job(source, f"{self.root}/{path}", files, has))

    def _chosen(self, directory: Directory, base: str, item: Item, has: Manifest | Compiled) -> Sequence[Sequence[Any]]:
        """Leave out what another distribution provides, with its bytecode, and what is rewritten."""
        rewrite = item.manifest.rewrite if directory.scheme == "scripts" else ()
        if not rewrite and not item.skip:
            return directory.files
        left_out = item.skip.union(f"{base}/{name}" for name in rewrite)
        path = posixpath.join(base, directory.path)
        if isinstance(has, Compiled):
            return [file for file in directory.files if source_of(f"{path}/{file[0]}", has.tag) not in left_out]
        return [file for file in directory.files if posixpath.join(path, file[0]) not in left_out]

    def _generate(self, item: Item) -> None:
        """Make what depends on the environment: scripts, direct_url.json and RECORD."""
        manifest = item.manifest
        dist_info = f"{self.layout.directory(manifest.root, manifest.name)}/{manifest.dist_info}"
        record = f"{dist_info}/RECORD"
        whole = self.staged.whole.get(item.wanted.name, ())
        if manifest.complete and item.wanted.origin.direct_url is None and not whole:
            self.staged.records[item.wanted.name] = (_record_size(manifest), manifest.mtime * 1_000_000_000)
            return
        written: list[tuple[str, bytes]] = []
        for name, content in self._scripts(manifest):
            path = f"{self.layout.scripts}/{name}"
            written.append((path, content))
            if path not in item.skip:
                self._write(path, content, 0o777)
        if item.wanted.origin.direct_url is not None:
            path = f"{dist_info}/direct_url.json"
            content = item.wanted.origin.direct_url.encode()
            written.append((path, content))
            self._write(path, content, 0o666)
        self._write(record, self._record(manifest, record, written, whole), 0o666)
        status = os.lstat(f"{self.root}/{record}")
        self.staged.records[item.wanted.name] = (status.st_size, status.st_mtime_ns)

    def _scripts(self, manifest: Manifest) -> Iterable[tuple[str, bytes]]:
        python = f"{self.env}/{self.layout.scripts}/python"
        for script in manifest.scripts:
            yield script.name, scripts.entry_point(script, python)
        for name in manifest.rewrite:
            path = f"{self.store.path(manifest.sha256)}/scripts/{name}"
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise PoisonedError(manifest, path, error.strerror) from error
            yield name, scripts.rewrite(content, python)

    def _record(
        self, manifest: Manifest, record: str, written: Iterable[tuple[str, bytes]], whole: Iterable[Whole]
    ) -> bytes:
        site = self.layout.directory(manifest.root, manifest.name)
        lines: list[str] = []
        for scheme, text in manifest.record:
            rows = text.splitlines()
            if scheme == manifest.root:
                lines += rows
            else:
                prefix = posixpath.relpath(self.layout.directory(scheme, manifest.name) or ".", site)
                lines += rows if prefix == "." else [_prefixed(row, prefix) for row in rows]
        for path, content in written:
            digest = b2a_base64(_sha256(content), newline=False).rstrip(b"=").translate(_URL_SAFE).decode()
            lines.append(f"{_quoted(posixpath.relpath(path, site))},sha256={digest},{len(content)}")
        lines.append(f"{posixpath.relpath(record, site)},,")
        # A link comes before all that is in it (`envsync.transaction.sealing`).
        links = sorted(f"{_quoted(posixpath.relpath(one.path, site))},," for one in whole)
        return ("\n".join([*links, *sorted(set(lines))]) + "\n").encode()

    def _write(self, path: str, content: bytes, mode: int) -> None:
        directory, _, name = path.rpartition("/")
        self.staged.tree.directory(directory).files.add(name)
        full = f"{self.root}/{path}"
        make_directory(f"{self.root}/{directory}")
        try:
            # A link to the store's file of that name must not be written through.
            try:
                os.unlink(full)
            except FileNotFoundError:
                pass
            fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise FilesystemError("write", full, error) from error


def _is_in(directory: Directory, whole: Whole) -> bool:
    return directory.scheme == whole.scheme and f"{directory.path}/".startswith(f"{whole.below}/")


def _sha256(content: bytes) -> bytes:
    # What hashlib falls back to without OpenSSL, which takes 5 ms to load: these are a few short files.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
    return bytes(sha256(content).digest())


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""RECORD writes hashes in the URL-safe alphabet (PEP 376)."""


def _record_size(manifest: Manifest) -> int:
    for directory in manifest.directories:
        if directory.scheme == manifest.root and directory.path == manifest.dist_info:
            for name, size, _ in directory.files:
                if name == "RECORD":
                    return int(size)
    raise PoisonedError(manifest, manifest.dist_info, "it has no RECORD")


def _prefixed(row: str, prefix: str) -> str:
    return f'"{prefix}/{row[1:]}' if row.startswith('"') else f"{prefix}/{row}"


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if any(c in path for c in ',"\n\r') else path


def _clear(path: str, wanted: Node) -> None:
    """Take away what a stage that a dead leader left holds besides what is wanted: whole directories are placed."""
    with os.scandir(path) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
    for name, is_directory, is_link in found:
        below = wanted.children.get(name)
        if is_directory and below is not None:
            _clear(f"{path}/{name}", below)
        elif is_directory or is_link or name not in wanted.files:
            replace.discard_tree(f"{path}/{name}")
