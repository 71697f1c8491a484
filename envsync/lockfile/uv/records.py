"""What a uv.lock says, as plain records: read with all that is wrong named, for no interpreter in particular.

Only what decides an installation is kept. Keys that uv's readers pass over are passed over here: `options`,
`required-markers`, `upload-time`, and those that a later revision adds. Each edge leads to one record; where uv writes
`version` and `source`, because there are several of a name, both have to match.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from packaging.utils import canonicalize_name

from envsync.lockfile.choice import DEFAULT_GROUP

SCHEMA = 1
SOURCES = ("registry", "url", "path", "directory", "editable", "virtual", "git")
TREES = frozenset({"directory", "editable", "virtual"})
"""Sources that are directories here."""


T = TypeVar("T")
Defaults = tuple[str, ...] | None
"""The groups that are chosen if nothing is said; None: all of them."""


class MalformedError(Exception):
    """It is not what uv writes; the text says where and how."""


class Source(NamedTuple):
    """Where a package comes from."""

    kind: str
    """One of `SOURCES`."""
    place: str
    """A URL, or a path relative to the lock file. A URL may hold credentials."""
    subdirectory: str = ""


class FileRecord(NamedTuple):
    """A wheel or source distribution; where it is, is relative to its record's source."""

    url: str | None
    path: str | None
    filename: str | None
    hash: tuple[str, str] | None
    """Algorithm and hex digest; None: the index gives none, or it is a file here."""
    size: int | None
    """In bytes."""


class Edge(NamedTuple):
    """What something requires."""

    to: int
    """Which record."""
    extras: tuple[str, ...]
    marker: str
    """Empty: always."""


class ManifestRequirement(NamedTuple):
    """What a script or a workspace without a project requires: its record is found once the environment is known."""

    name: str
    extras: tuple[str, ...]
    marker: str


class BuildConstraint(NamedTuple):
    """What build backends may require at most."""

    requirement: str
    """As in `setuptools<81; python_version < '3.13'`."""
    place: str = ""
    """The kind of source that it is to come from, if that is not an index."""


class Exclusive(NamedTuple):
    """One member of a set that excludes one another."""

    kind: str
    """extra, group or project."""
    package: str
    name: str = ""
    """Of the extra or group."""

    @property
    def variable(self) -> str:
        """The name that stands for it in markers, where it is an extra."""
        return "-".join([self.kind, str(len(self.package.encode())), self.package, *([self.name] if self.name else [])])

    def __str__(self) -> str:
        return f"the {self.kind} `{self.name}` of `{self.package}`" if self.name else f"the project `{self.package}`"


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """One package, in one version."""

    name: str
    version: str | None
    """None if it is dynamic, of a directory."""
    source: Source
    markers: tuple[str, ...] = ()
    """For which environments it was locked; empty: for all."""
    edges: tuple[Edge, ...] = ()
    extras: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    known_extras: frozenset[str] = frozenset()
    """Those that require nothing among them."""
    known_groups: frozenset[str] = frozenset()
    default_groups: Defaults = (DEFAULT_GROUP,)
    wheels: tuple[FileRecord, ...] = ()
    sdist: FileRecord | None = None

    @property
    def directory(self) -> str | None:
        """The directory that it is the project of, relative to the lock file, with forward slashes; None: of none."""
        return posixpath.normpath(self.source.place) if self.source.kind in TREES else None


@dataclass(frozen=True, slots=True)
class Lock:
    """A whole uv.lock."""

    requires_python: str
    revision: int
    supported: tuple[str, ...]
    """Markers of which one has to hold; empty: it is for every environment."""
    conflicts: tuple[tuple[Exclusive, ...], ...]
    members: tuple[str, ...]
    """Of a workspace; empty: it has one project, or none."""
    requirements: tuple[ManifestRequirement, ...]
    groups: Mapping[str, tuple[ManifestRequirement, ...]]
    """Of a workspace whose root is no project."""
    default_groups: Defaults
    """Of the same."""
    build_constraints: tuple[BuildConstraint, ...]
    records: tuple[PackageRecord, ...]
    by_name: Mapping[str, tuple[int, ...]]

    @property
    def root(self) -> int | None:
        """The record of the project in the directory of the lock file; None: it has none."""
        return next((number for number, record in enumerate(self.records) if record.directory == "."), None)

    @property
    def projects(self) -> tuple[str, ...]:
        """The names of what a root may be: the members, or the one project."""
        return self.members or tuple(self.records[number].name for number in [self.root] if number is not None)

    def texts(self) -> Iterator[str]:
        """Yield the texts of all markers."""
        yield from self.supported
        for wishes in (self.requirements, *self.groups.values()):
            yield from (wish.marker for wish in wishes)
        for record in self.records:
            yield from record.markers
            for edges in (record.edges, *record.extras.values(), *record.groups.values()):
                yield from (edge.marker for edge in edges)


def parse(document: Mapping[str, Any]) -> Lock:
    """Make records of what a TOML parser has read.

    :raises MalformedError: it is of another schema, or not what uv writes
    """
    table = TomlTable(document)
    if (schema := document.get("version")) != SCHEMA:
        raise MalformedError(f"its version {schema!r} is not supported, envsync reads {SCHEMA}")
    requires_python = table.text("requires-python")
    if requires_python is None:
        raise MalformedError("it has no `requires-python`")
    manifest = table.table("manifest")
    packages = [each.named("package") for each in table.tables("package", "distribution")]
    records = tuple(_records(packages))
    return Lock(
        requires_python,
        table.number("revision") or 0,
        table.texts("supported-markers"),
        tuple(_excluding(items) for items in table.lists("conflicts")),
        manifest.names("members"),
        _wishes(manifest.tables("requirements")),
        {name: _wishes(tables) for name, tables in manifest.table("dependency-groups").groups()},
        manifest.default_groups(),
        tuple(_build_constraint(each) for each in manifest.tables("build-constraints")),
        records,
        _by_name(record.name for record in records),
    )


class TomlTable:
    """A table of TOML whose values are what they have to be, or it is said what they are not.

    :param where: what it is, for messages, as in "package `a`: "
    """

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self.values = values
        self.where = where

    def named(self, kind: str) -> TomlTable:
        """Return the same, called by its name from here on."""
        return TomlTable(self.values, f"{kind} `{self.name()}`: ")

    def name(self) -> str:
        """Return its name, normalized."""
        name = self.text("name")
        if not name:
            raise MalformedError(f"{self.where}something in it has no name")
        return canonicalize_name(name)

    def text(self, key: str) -> str | None:
        return self._checked(key, self.values.get(key), str, "a text")

    def number(self, key: str) -> int | None:
        return self._checked(key, self.values.get(key), int, "a number")

    def table(self, key: str, other: str = "") -> TomlTable:
        """Return a table below; an empty one if there is none."""
        value = self._checked(key, self.values.get(key, self.values.get(other)), dict, "a table")
        return TomlTable(value or {}, self.where)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._checked(key, self.values.get(key), list, "a list") or []
        return tuple(self._checked(key, value, str, "a list of texts") or "" for value in values)

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of names, normalized."""
        return tuple(map(canonicalize_name, self.texts(key)))

    def default_groups(self) -> Defaults:
        """Return the groups that are chosen if nothing is said."""
        if "default-groups" not in self.values:
            return (DEFAULT_GROUP,)
        return None if self.values["default-groups"] == "all" else self.names("default-groups")

    def tables(self, key: str, other: str = "") -> list[TomlTable]:
        return self._tables(key, self.values.get(key, self.values.get(other)))

    def lists(self, key: str) -> list[list[TomlTable]]:
        """Return lists of tables in a list."""
        values = self._checked(key, self.values.get(key), list, "a list") or []
        return [self._tables(key, value) for value in values]

    def groups(self) -> list[tuple[str, list[TomlTable]]]:
        """Return its lists of tables, by their keys, normalized."""
        return [(canonicalize_name(key), self._tables(key, value)) for key, value in self.values.items()]

    def _tables(self, key: str, value: Any) -> list[TomlTable]:
        values = self._checked(key, value, list, "a list") or []
        return [TomlTable(self._checked(key, each, dict, "a list of tables") or {}, self.where) for each in values]

    def _checked(self, key: str, value: Any, kind: type[T], called: str) -> T | None:
        if value is not None and not isinstance(value, kind):
            raise MalformedError(f"{self.where}`{key}` is not {called}")
        return value


def _records(packages: Sequence[TomlTable]) -> Iterator[PackageRecord]:
    """Yield a record for each package, its edges resolved."""
    named = [_Named(each.name(), each.text("version"), each.values.get("source")) for each in packages]
    targets = _Targets(named)
    for (name, version, _), package in zip(named, packages, strict=True):
        metadata = package.table("metadata")
        groups = package.table("dev-dependencies", "dependency-groups").groups()
        extras = package.table("optional-dependencies").groups()
        known = metadata.table("requires-dev", "dependency-groups").values
        sdist = package.table("sdist")
        yield PackageRecord(
            name,
            version,
            _source(package),
            package.texts("resolution-markers"),
            targets.edges(package.tables("dependencies")),
            {key: targets.edges(tables) for key, tables in extras},
            {key: targets.edges(tables) for key, tables in groups},
            frozenset([*dict(extras), *metadata.names("provides-extras")]),
            frozenset([*dict(groups), *map(canonicalize_name, known)]),
            package.default_groups(),
            tuple(_file(each) for each in package.tables("wheels")),
            _file(sdist) if sdist.values else None,
        )


class _Named(NamedTuple):
    """By what an edge names a record."""

    name: str
    version: str | None
    source: Any


class _Targets:
    """Finds the records that edges lead to."""

    def __init__(self, named: Sequence[_Named]) -> None:
        self._named = named
        self._by_name = _by_name(each.name for each in named)

    def edges(self, tables: Sequence[TomlTable]) -> tuple[Edge, ...]:
        return tuple(self._edge(table) for table in tables)

    def _edge(self, table: TomlTable) -> Edge:
        return Edge(self._find(table), table.names("extra"), table.text("marker") or "")

    def _find(self, table: TomlTable) -> int:
        name, version, source = table.name(), table.text("version"), table.values.get("source")
        found = [
            number
            for number in self._by_name.get(name, ())
            if version in (None, self._named[number].version) and source in (None, self._named[number].source)
        ]
        if len(found) != 1:
            which = f"`{name}` {version}" if version else f"`{name}`"
            there = "there is no such package in it" if not found else f"it has {len(found)} of that name"
            raise MalformedError(f"{table.where}it depends on {which}, and {there}")
        return found[0]


def _by_name(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for number, name in enumerate(names):
        found[name] = (*found.get(name, ()), number)
    return found


def _source(package: TomlTable) -> Source:
    table = package.table("source")
    kind = next((kind for kind in SOURCES if kind in table.values), None)
    if kind is None:
        given = ", ".join(f"`{key}`" for key in table.values) or "none"
        raise MalformedError(f"{package.where}its source is none of {', '.join(SOURCES)}, but {given}")
    place = TomlTable(table.values, package.where).text(kind)
    if not place:
        raise MalformedError(f"{package.where}its source is empty")
    return Source(kind, place, table.text("subdirectory") or "")


def _file(table: TomlTable) -> FileRecord:
    given = table.text("hash")
    algorithm, colon, digest = (given or "").partition(":")
    if given is not None and not colon:
        raise MalformedError(f"{table.where}`hash` is not like sha256:...")
    return FileRecord(
        table.text("url"),
        table.text("path"),
        table.text("filename"),
        (algorithm, digest) if colon else None,
        table.number("size"),
    )


def _wishes(tables: Sequence[TomlTable]) -> tuple[ManifestRequirement, ...]:
    return tuple(ManifestRequirement(each.name(), each.names("extras"), each.text("marker") or "") for each in tables)


def _build_constraint(table: TomlTable) -> BuildConstraint:
    name, extras, marker = table.name(), ",".join(table.names("extras")), table.text("marker")
    requirement = f"{name}[{extras}]" if extras else name
    requirement += table.text("specifier") or ""
    place = next((kind for kind in SOURCES if kind in table.values), "")
    return BuildConstraint(f"{requirement}; {marker}" if marker else requirement, place)


def _excluding(tables: Sequence[TomlTable]) -> tuple[Exclusive, ...]:
    return tuple(_item(table) for table in tables)


def _item(table: TomlTable) -> Exclusive:
    package = canonicalize_name(table.text("package") or "")
    for kind in ("extra", "group"):
        if name := table.text(kind):
            return Exclusive(kind, package, canonicalize_name(name))
    return Exclusive("project", package)
