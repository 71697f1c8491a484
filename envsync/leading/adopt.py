"""Take over what uv has installed if it is, byte for byte, the wheel that is wanted.

A project's `.venv` that uv has made is met by envsync for the first time. What uv has put there from the same lock file
is compared with the verified wheel in the store: every file that the wheel has, by its hash, and RECORD, which may list
nothing else but what installers make. If all of it is so, `installed.json` says from now on which wheel it is, and no
file is touched. Whatever differs is installed anew, as is everything of which nobody knows what is in it: what pip has
installed, what uv installs later, and what is in an environment whose `installed.json` was lost after envsync had
changed it.

For scripts, which name the environment, RECORD's own word is taken, as `check` takes it (`envsync.checking.expected`);
those that name another environment show that this one was moved.
"""

from __future__ import annotations

import itertools
import json
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from typing import NamedTuple

from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.plan import Installed, Wanted
from envsync.installed.scan import is_bytecode
from envsync.launch import Environment
from envsync.python.facts import Layout
from envsync.staging import scripts, uv_cache
from envsync.system import core, paths
from envsync.system.regular import FLAGS, read_regular
from envsync.transaction.journal import is_within
from envsync.wheel import record
from envsync.wheel.manifest import Manifest

_OF_INSTALLERS = ("INSTALLER", "REQUESTED", record.NAME, "direct_url.json", uv_cache.NAME, "uv_build.json")
WORKERS = 4
"""Threads that hash; most of the time goes into reading."""


class _File(NamedTuple):
    """A file as it ought to be: its path relative to the environment, its hash as RECORD has it, and its bytes."""

    path: str
    hash: str
    size: int


def adopt(  # noqa: PLR0917
    environment: Environment,
    layout: Layout,
    ledger: Ledger,
    installed: Sequence[Installed],
    wanted: Iterable[Wanted],
    manifests: Mapping[str, Manifest],
    env: str,
) -> Ledger:
    """Return what `installed.json` has to say, with whatever could be taken over. Changes nothing.

    Only for those of which `envsync.leading.planning.may_adopt` says so.

    :param manifests: of those that may be taken over, by name
    :param env: the absolute path by which the environment's scripts name it
    :returns: the very same if there was nothing to take over
    """
    strange = _strange(installed)
    pairs = [
        (strange[want.name], want, manifest)
        for want in wanted
        if want.name in strange
        and (manifest := manifests.get(want.name)) is not None
        and manifest.dist_info == posixpath.basename(strange[want.name].dist_info)
    ]
    if not pairs:
        return ledger
    adopter = _Adopter(environment, layout, ledger, env)
    with ThreadPoolExecutor(WORKERS) as workers:
        found = workers.map(adopter.entry, pairs)
    taken = {name: entry for name, entry in found if entry is not None}
    return ledger._replace(entries={**ledger.entries, **taken}) if taken else ledger


def _strange(installed: Sequence[Installed]) -> dict[str, Installed]:
    """Return what others have installed, unless it is there twice: that is what an interrupted installer leaves."""
    count = Counter(item.name for item in installed)
    return {item.name: item for item in installed if item.origin is None and count[item.name] == 1}


class _Adopter:
    """Compares one distribution after the other with its wheel."""

    def __init__(self, environment: Environment, layout: Layout, ledger: Ledger, env: str) -> None:
        self.environment = environment
        self.layout = layout
        self.python = f"{env}/{core.PYTHON}"
        self.roots = {paths.abspath(environment.path), paths.realpath(environment.path), ledger.path} - {""}

    def entry(self, pair: tuple[Installed, Wanted, Manifest]) -> tuple[str, LedgerEntry | None]:
        """Return what `installed.json` has to say of a distribution; None if it is not the wheel that is wanted."""
        item, want, manifest = pair
        try:
            return item.name, self._entry(item, want, manifest)
        except (OSError, ValueError):
            return item.name, None  # what cannot be read is not known to be right

    def _entry(self, item: Installed, want: Wanted, manifest: Manifest) -> LedgerEntry | None:
        path = f"{self.environment.path}/{item.dist_info}/{record.NAME}"
        before = os.lstat(path)
        if read_regular(f"{self.environment.path}/{item.dist_info}/INSTALLER").strip() != b"uv":
            return None
        if want.bytecode or not self._is_from(item, want.origin.direct_url):
            return None
        listed = self._listed(item, read_regular(path).decode("utf-8", "surrogateescape"))
        made = {f"{self.layout.scripts}/{name}" for name in scripts.names(manifest)}
        of_wheel = {file.path: file for file in self._files(item, manifest)}
        free = {f"{item.dist_info}/{name}" for name in _OF_INSTALLERS} | {p for p in listed if is_bytecode(p)}
        if listed.keys() - free != of_wheel.keys() | made:
            return None
        wanted = [*of_wheel.values(), *(listed[path] for path in made)]
        within = all(is_within(self.environment.path, path) for path in {os.path.dirname(file.path) for file in wanted})
        if not within or not all(map(self._has_size, wanted)) or not all(map(self._has_hash, wanted)):
            return None
        if not all(map(self._names_us, made)):
            return None  # the environment was moved or copied
        after = os.lstat(path)
        if (before.st_ino, before.st_mtime_ns, before.st_size) != (after.st_ino, after.st_mtime_ns, after.st_size):
            return None
        entries = {self.layout.entry(path) for path in listed} | {item.dist_info}
        return LedgerEntry(
            item.version,
            want.origin,
            after.st_size,
            after.st_mtime_ns,
            tuple(sorted(entries)),
            scripts=bool(made),
            adopted=True,
            unverified=want.unverified,
        )

    def _is_from(self, item: Installed, wanted: str | None) -> bool:
        """Tell whether its direct_url.json names the place that ours would; not all write hashes into it."""
        try:
            text = read_regular(f"{self.environment.path}/{item.dist_info}/direct_url.json").decode()
        except FileNotFoundError:
            return wanted is None
        return wanted is not None and _place(text) == _place(wanted)

    def _listed(self, item: Installed, text: str) -> dict[str, _File]:
        """Return what RECORD lists, by path relative to the environment.

        :raises ValueError: a line cannot be read or leads out of the environment
        """
        found: dict[str, _File] = {}
        site = item.dist_info.rpartition("/")[0]
        for row in record.rows(text):
            owned = record.owned(row, site, self.roots)
            if owned is None or owned.path in found:
                raise ValueError(f"{row[0]!r} leads out of it, or is there twice")
            found[owned.path] = _File(owned.path, owned.hash, -1 if owned.size is None else owned.size)
        return found

    def _files(self, item: Installed, manifest: Manifest) -> Iterator[_File]:
        """List what the wheel has, but for what each installer writes itself."""
        own = {f"{item.dist_info}/{name}" for name in _OF_INSTALLERS}
        for scheme, text in manifest.record:
            base = self.layout.directory(scheme, manifest.name)
            for name, hash_, size in record.rows(text):
                path = f"{base}/{name}" if base else name
                if path not in own:
                    yield _File(path, hash_, int(size))

    def _has_size(self, file: _File) -> bool:
        status = os.lstat(f"{self.environment.path}/{file.path}")
        return stat.S_ISREG(status.st_mode) and status.st_size == file.size

    def _names_us(self, script: str) -> bool:
        """Tell whether a script is run by the environment's own Python."""
        with open(f"{self.environment.path}/{script}", "rb") as file:
            head = b"".join(
                itertools.islice(file, 2)
            )  # where the path is too long for a first line, it is in the second
        return os.fsencode(self.python) in head

    def _has_hash(self, file: _File) -> bool:
        with open(core.open_file(f"{self.environment.path}/{file.path}", FLAGS), "rb", buffering=0) as opened:
            digest = file_digest(opened, "sha256").digest()
        return record.algorithm_and_digest(file.hash) == ("sha256", record.encode(digest))


def _place(direct_url: str) -> tuple[object, object]:
    """Return what of a direct_url.json says where it came from.

    :raises ValueError: it is damaged
    """
    value: object = json.loads(direct_url)
    if not isinstance(value, Mapping):
        raise ValueError("it is no object")
    return value.get("url"), value.get("subdirectory")
