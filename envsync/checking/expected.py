"""Find out what every file of an environment ought to be, and which distribution says so.

Who is believed:

- What envsync installed and nobody has reinstalled since is what its wheel has: the store's manifest says that, as long
  as the store has the entry. The environment's own RECORD could have been edited along with a file; it has to be the
  manifest's lines and those of the files that were made for this environment, as large and as old as `installed.json`
  says. Only for scripts, which depend on the environment, RECORD's word is taken.
- Everything else is what its RECORD says, what was taken over from others included (`envsync.leading.adopt`). Lines
  that lead out of the environment are named and not followed.
- Of a file that several have, the distribution whose name sorts last decides (`envsync.staging.shared_files`). Where
  others than envsync installed one of them, whoever came last won: each one's content will do.

A RECORD that is not as we left it was written by whoever reinstalled the distribution, who says so in INSTALLER. If
that still says envsync, or nothing, the RECORD was damaged.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from envsync.checking.compare import Expectation, Ground
from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.plan import Installed
from envsync.installed.scan import is_skeleton, is_store_link, scan
from envsync.launch import Environment
from envsync.python.facts import Layout
from envsync.staging import scripts, uv_cache
from envsync.store.bytecode import Shelf, source_of
from envsync.store.store import Store
from envsync.system import paths
from envsync.system.regular import read_regular
from envsync.wheel import record
from envsync.wheel.manifest import Manifest

WHEEL = "the wheel"
BYTECODE = "the cache"
RECORD = "RECORD"
EVERY = "every distribution"
OUTSIDE = "a symbolic link leads out of the environment"
LISTED_OUTSIDE = "RECORD lists it, outside of the environment"
_OURS = b"envsync"
"""What INSTALLER says (`envsync.wheel.layout`)."""


class Finding(NamedTuple):
    """Something that is not as it should be."""

    kind: str
    """"missing", "changed", "unowned" or "left over"."""
    path: str
    """Relative to the environment."""
    distribution: str
    """Its normalized name; empty if it belongs to none."""
    detail: str


class Bytecode(NamedTuple):
    """What envsync installed beside a source."""

    expected: Expectation
    source: str
    mtime: int
    """Of the source, in seconds since the epoch. If it has another, Python has compiled it anew, or will."""


class Claims:
    """Who has which files.

    :ivar bytecode: path → what the distribution expects that provides the source
    :ivar files: path → what each distribution that has it expects, the one that decides first
    :ivar trees: paths that belong, with all below, to a distribution of which nobody knows the files any more
    :ivar directories: those that somebody has though nothing need be in them
    :ivar findings: what is wrong with the lists themselves
    :ivar names: all distributions
    """

    def __init__(self) -> None:
        self.files: dict[str, list[Expectation]] = {}
        self.bytecode: dict[str, list[Bytecode]] = {}
        self.trees: set[str] = set()
        self.directories: set[str] = set()
        self.findings: list[Finding] = []
        self.names: set[str] = set()

    def add(self, path: str, expected: Expectation) -> None:
        self.files.setdefault(path, []).append(expected)

    def complain(self, kind: str, path: str, distribution: str, detail: str) -> None:
        self.findings.append(Finding(kind, path, distribution, detail))

    def decide(self) -> None:
        """Put the decisive expectation of each file first, and leave only that if nobody else may have a say."""
        for path, expected in self.files.items():
            if len(expected) > 1:
                expected.sort(key=_name, reverse=True)
                if all(item.ours for item in expected):
                    self.files[path] = expected[:1]
        for path, several in list(self.bytecode.items()):
            provided = [item for item in several if self._provider(item.source) == item.expected.distribution]
            if provided:
                self.bytecode[path] = provided
            else:
                del self.bytecode[path]

    def _provider(self, path: str) -> str | None:
        """Return who provides a file; None if that is not certain."""
        expected = self.files.get(path, ())
        return expected[0].distribution if len(expected) == 1 else None


def _name(expected: Expectation) -> str:
    return expected.distribution


def gather(environment: Environment, layout: Layout, ledger: Ledger, store: Store | None, ground: Ground) -> Claims:
    """Find out whose files an environment should have. Never raises for anything that is wrong in it."""
    return _Gatherer(environment, layout, ledger, store, ground).gather()


class _Gatherer:
    def __init__(
        self, environment: Environment, layout: Layout, ledger: Ledger, store: Store | None, ground: Ground
    ) -> None:
        self.environment = environment
        self.layout = layout
        self.ledger = ledger
        self.store = store
        self.ground = ground
        self.claims = Claims()
        self.roots = {paths.abspath(environment.path), ground.real, ledger.path} - {""}

    def gather(self) -> Claims:
        installed = self._scan()
        by_name: dict[str, list[Installed]] = {}
        for item in installed:
            by_name.setdefault(item.name, []).append(item)
        for name, items in sorted(by_name.items()):
            self.claims.names.add(name)
            for item in items:
                if len(items) > 1:
                    self.claims.complain("changed", item.dist_info, name, _rivals(item, items))
                self._add(item)
        # Only now it is known what the others have.
        for name in sorted(self.ledger.entries.keys() - by_name.keys()):
            self.claims.names.add(name)
            self._add_gone(name, self.ledger.entries[name])
        self.claims.decide()
        return self.claims

    def _scan(self) -> list[Installed]:
        found = []
        for site in self.layout.sites:
            try:
                found += scan(self.environment, self.layout._replace(purelib=site, platlib=site), self.ledger)
            except OSError as error:
                self.claims.complain("changed", site, "", f"it cannot be listed: {error.strerror or error}")
        # What begins with a tilde was moved aside by pip, which was killed while it uninstalled it.
        return [item for item in found if not posixpath.basename(item.dist_info).startswith("~")]

    # One distribution

    def _add(self, item: Installed) -> None:
        """Claim the files of a distribution that is there."""
        text = self._read_record(item)
        entry = self._our_entry(item)
        manifest = self._manifest(item.name, entry, item.dist_info)
        if entry is not None and manifest is not None:
            self._add_wheel(item, entry, manifest, text)
        elif text is not None:
            self._add_record(item, text, ours=entry is not None)
        self.claims.trees.add(f"{item.dist_info}/RECORD")
        if text is not None and entry is not None:
            self._check_age(item, entry)
        metadata = f"{item.dist_info}/METADATA"
        if not any(expected.distribution == item.name for expected in self.claims.files.get(metadata, ())):
            if text is not None:
                self.claims.complain("changed", f"{item.dist_info}/RECORD", item.name, "it does not list METADATA")
            self.claims.add(metadata, Expectation(item.name, "", None, EVERY, ours=entry is not None))
            self.claims.trees.add(item.dist_info)
            self.claims.trees.update(entry.entries if entry is not None else ())

    def _read_record(self, item: Installed) -> str | None:
        """Read a RECORD. If it cannot be read, say what is wrong and return None."""
        path = f"{item.dist_info}/RECORD"
        place = self.ground.place_of_file(path)
        if place is None:
            self.claims.complain("changed", path, item.name, OUTSIDE)
            return None
        try:
            return read_regular(f"{self.environment.path}/{place}").decode("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            self.claims.complain("missing", path, item.name, f"{EVERY} has it")
        except OSError as error:
            self.claims.complain("changed", path, item.name, error.strerror or str(error))
        return None

    def _our_entry(self, item: Installed) -> LedgerEntry | None:
        """Return what `installed.json` says of a distribution, unless somebody has reinstalled it since."""
        entry = self.ledger.entries.get(item.name)
        if entry is None or entry.version != item.version or entry.adopted:
            return None
        if item.origin is not None:
            return entry
        place = self.ground.place_of_file(f"{item.dist_info}/INSTALLER")
        try:
            installer = read_regular(f"{self.environment.path}/{place}") if place is not None else b""
        except OSError:
            return entry
        return entry if installer.strip() in (_OURS, b"") else None

    def _manifest(self, name: str, entry: LedgerEntry | None, dist_info: str) -> Manifest | None:
        if entry is None or self.store is None:
            return None
        manifest = self.store.get(entry.origin.sha256)
        if manifest is None or manifest.name != name or manifest.dist_info != posixpath.basename(dist_info):
            return None
        return manifest

    def _check_age(self, item: Installed, entry: LedgerEntry) -> None:
        path = f"{item.dist_info}/RECORD"
        if item.origin is not None or any(finding.path == path for finding in self.claims.findings):
            return
        try:
            size = os.lstat(f"{self.environment.path}/{path}").st_size
        except OSError:
            return  # it is being changed right now
        what = f"size {size} instead of {entry.record_size}" if size != entry.record_size else "another time"
        self.claims.complain("changed", path, item.name, f"{what}: somebody has written it since envsync did")

    # As the wheel has it

    def _add_wheel(self, item: Installed, entry: LedgerEntry, manifest: Manifest, text: str | None) -> None:
        """Claim what a wheel has, and compare RECORD with it."""
        for path, expected in self._files(manifest):
            self.claims.add(path, expected)
        self._add_bytecode(entry, manifest)
        lines = self._lines(manifest)
        site = posixpath.dirname(item.dist_info)
        if entry.origin.direct_url is not None:
            path = f"{item.dist_info}/direct_url.json"
            content = entry.origin.direct_url.encode()
            digest = record.digest_of(content)
            self.claims.add(path, Expectation(item.name, record.hash_of(digest), len(content), WHEEL, ours=True))
            lines.append(record.line(record.relative(path, site), digest, len(content)))
        lines.append(record.bare_line(record.relative(f"{item.dist_info}/RECORD", site)))
        made = self._scripts(manifest)
        optional = {f"{item.dist_info}/{uv_cache.NAME}"} if entry.origin.direct_url is not None else set()
        listed = {line.rstrip("\n") for line in lines}
        rows = self._made(item, text, listed, made, optional) if text is not None else {}
        for path in made | (optional & rows.keys()):
            hash_, size = rows.get(path, ("", None))
            self.claims.add(path, Expectation(item.name, hash_, size, RECORD, executable=path in made, ours=True))

    def _files(self, manifest: Manifest) -> Iterator[tuple[str, Expectation]]:
        """List what a wheel has, without what is made for this environment."""
        executable = {
            (directory.scheme, f"{directory.path}/{file[0]}" if directory.path else file[0])
            for directory in manifest.directories
            for file in directory.files
            if file[2]
        }
        for scheme, text in manifest.record:
            base = self.layout.directory(scheme, manifest.name)
            for name, hash_, size in record.rows(text):
                path = f"{base}/{name}" if base else name
                yield path, Expectation(manifest.name, hash_, int(size), WHEEL, (scheme, name) in executable, ours=True)

    def _add_bytecode(self, entry: LedgerEntry, manifest: Manifest) -> None:
        """Claim the bytecode that was installed with a wheel, as long as the cache knows what it was."""
        assert self.store is not None
        compiled = Shelf(self.store, entry.bytecode).get(manifest.sha256, manifest.mtime) if entry.bytecode else None
        for scheme, text in compiled.record if compiled is not None else ():
            base = self.layout.directory(scheme, manifest.name)
            for name, hash_, size in record.rows(text):
                if compiled is not None and source_of(name, entry.bytecode) in compiled.late:
                    continue  # an environment that is older than that lacks it, or has what Python has compiled itself
                path = f"{base}/{name}"
                expected = Expectation(manifest.name, hash_, int(size), BYTECODE, ours=True)
                item = Bytecode(expected, source_of(path, entry.bytecode), manifest.mtime)
                self.claims.bytecode.setdefault(path, []).append(item)

    def _lines(self, manifest: Manifest) -> list[str]:
        """List the lines for these files as an installed RECORD has them (`envsync.staging.stage`)."""
        site = self.layout.directory(manifest.root, manifest.name)
        lines: list[str] = []
        for scheme, text in manifest.record:
            lines += record.installed_lines(text, self.layout.directory(scheme, manifest.name), site)
        return lines

    def _scripts(self, manifest: Manifest) -> set[str]:
        """Name the scripts that are made for this environment."""
        return {f"{self.layout.scripts}/{name}" for name in scripts.names(manifest)}

    def _made(
        self, item: Installed, text: str, expected: set[str], made: set[str], optional: set[str]
    ) -> Mapping[str, tuple[str, int | None]]:
        """Compare RECORD with the wheel's lines; return what it says of the files made for this environment."""
        present = text.removesuffix("\n").split("\n")
        lacking = len(expected.difference(present))
        strange = links = 0
        rows: dict[str, tuple[str, int | None]] = {}
        for row in _rows("\n".join(line for line in present if line not in expected)):
            found = self._row(row, posixpath.dirname(item.dist_info))
            if found is None:
                self.claims.complain("changed", row[0], item.name, LISTED_OUTSIDE)
            elif not isinstance(found, str) and found.path in made | optional and found.path not in rows and found.hash:
                rows[found.path] = found.hash, found.size
                continue
            elif not isinstance(found, str) and not found.hash and self._is_store_link(found.path):
                links += 1
                continue
            strange += 1
        lacking += len(made - rows.keys())
        if lacking or strange or len(present) != len(expected) + len(rows) + links:
            what = f"{lacking} lines of the wheel are not in it, {strange} that are not the wheel's are"
            self.claims.complain("changed", f"{item.dist_info}/RECORD", item.name, what)
        return rows

    # As RECORD has it

    def _add_record(self, item: Installed, text: str, *, ours: bool) -> None:
        """Claim what a RECORD lists."""
        problem = ""
        for row in _rows(text):
            found = self._row(row, posixpath.dirname(item.dist_info))
            if isinstance(found, str):
                problem = problem or found
            elif found is None:
                self.claims.complain("changed", row[0], item.name, LISTED_OUTSIDE)
            elif not row[1] and (row[0].endswith("/") or self._is_store_link(found.path)):
                self.claims.directories.add(found.path)  # some wheels list them, and uv leaves that as it is
            elif not is_skeleton(found.path):
                self.claims.add(found.path, Expectation(item.name, found.hash, found.size, RECORD, ours=ours))
        if problem:
            self.claims.complain("changed", f"{item.dist_info}/RECORD", item.name, problem)

    def _row(self, row: list[str], site: str) -> record.OwnedFile | str | None:
        """Read a line of RECORD.

        :returns: None if it leads out of the environment, or what is wrong with it
        """
        try:
            return record.owned(row, site, self.roots)
        except ValueError as error:
            return str(error)

    def _is_store_link(self, path: str) -> bool:
        """Tell whether a directory is linked whole: RECORD lists the link, and what is in it."""
        return is_store_link(f"{self.environment.path}/{path}")

    # What is gone

    def _add_gone(self, name: str, entry: LedgerEntry) -> None:
        """Name a distribution that has no .dist-info any more, and claim its files if any of them are left."""
        dist_info = next(
            (path for path in entry.entries if path.endswith(".dist-info")),
            f"{self.layout.purelib}/{name}-{entry.version}.dist-info",
        )
        self.claims.complain("missing", dist_info, name, "envsync installed it, and its .dist-info is gone")
        manifest = self._manifest(name, entry, dist_info)
        if manifest is None:
            self.claims.trees.update(entry.entries)
            return
        files = {path: item for path, item in self._files(manifest) if not path.startswith(dist_info + "/")}
        for path in self._scripts(manifest):
            files[path] = Expectation(name, "", None, WHEEL, executable=True, ours=True)
        if any(self._is_there(path) for path in files if path not in self.claims.files):
            for path, item in files.items():
                self.claims.add(path, item)

    def _is_there(self, path: str) -> bool:
        place = self.ground.place_of_file(path)
        return place is not None and os.path.lexists(f"{self.environment.path}/{place}")


def _rivals(item: Installed, items: Iterable[Installed]) -> str:
    others = ", ".join(f"`{posixpath.basename(other.dist_info)}`" for other in items if other != item)
    return f"its distribution also has {others}"


def _rows(text: str) -> Iterator[list[str]]:
    """Read the lines of a RECORD as far as they can be read; the one that ends it has one field."""
    try:
        yield from filter(None, record.rows(text))
    except ValueError as error:
        yield [str(error)]
