"""Other tools' lock files in the form of PEP 751 (`selection`): what poetry.lock and pdm.lock have in common.

Both list, flat and complete, packages with the groups and the marker under which each is wanted, and files with names
and hashes but without a place: these are looked for on the index that the project names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from packaging.pylock import Package, PackageDirectory, PackageSdist, PackageWheel, Pylock
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies
from envsync.lockfile import conditions, hashes, pyproject
from envsync.lockfile.choice import Choice, UndefinedError
from envsync.lockfile.parsed import known_to_nobody, refuse_members, understanding
from envsync.lockfile.places import NOWHERE
from envsync.lockfile.records import Record
from envsync.lockfile.selection import selected
from envsync.lockfile.sources import Sources, filename_of
from envsync.lockfile.target import Target
from envsync.lockfile.wheels import WheelName, build_order
from envsync.python.facts import Interpreter

SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar")
_EXTRA = re.compile(r'\bextra (==|!=) ("[^"]*")|("[^"]*") (==|!=) extra\b')
"""A comparison with an extra, in the form that `packaging` gives a marker's text."""


class Chosen(NamedTuple):
    """What of a lock file was chosen."""

    extras: frozenset[str]
    groups: frozenset[str]
    project: str
    """The name of the project that is to be installed, too; empty if there is none."""
    version: str = ""
    """Of the project; empty if only a build can tell."""


class TranslatedFile:
    """A parsed lock file of another tool. All of its files have hashes.

    :param contents: what was read of the lock file, and of the pyproject.toml beside it
    :param choosing: finds out what is chosen, or raises an UndefinedError
    :param sources: where the project says that its packages come from
    :param narrowed: the same for packages that come from a part of it only
    """

    unhashed = False
    local_files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    placed = True
    """The project itself is installed as a link to the lock file's directory."""

    def __init__(
        self,
        contents: Mapping[str, bytes],
        lock: Pylock,
        choosing: Callable[[Choice], Chosen],
        sources: Sources = Sources(),  # noqa: B008
        narrowed: Mapping[NormalizedName, Sources] = MappingProxyType({}),
    ) -> None:
        self.inputs = tuple(contents)
        self.contents = tuple(contents.values())
        self.canonical = (self.contents[0], *map(pyproject.canonical, self.contents[1:]))
        self.path = self.inputs[0]
        self._lock = lock
        self._choosing = choosing
        self._sources = sources
        self._narrowed = narrowed

    @property
    def markers(self) -> tuple[str, ...]:
        return conditions.of_pylock(self._lock)

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        with understanding(self.path):
            chosen = self._chosen(choice)
            return selected(
                self.path,
                _with_project(self._lock, chosen),
                interpreter,
                choice,
                extras=chosen.extras,
                groups=chosen.groups,
                sources=sources,
                project=self._sources,
                narrowed=self._narrowed,
                known=known,
            )

    def _chosen(self, choice: Choice) -> Chosen:
        """Find out what is chosen.

        :raises LockFileError: an extra, a group or a member is asked for that the lock file does not have
        """
        refuse_members(self.path, choice, remedies.relock(self.path))
        try:
            return self._choosing(choice)
        except UndefinedError as error:
            problem = f"leave it out, or define it in pyproject.toml and {remedies.relock(self.path)}"
            raise LockFileError(self.path, str(error), hint=problem) from None


def _with_project(lock: Pylock, chosen: Chosen) -> Pylock:
    """Add the project itself, which both tools install as a link to its directory."""
    if not chosen.project:
        return lock
    try:
        version = Version(chosen.version) if chosen.version else None
    except InvalidVersion:
        version = None
    itself = Package(
        name=canonicalize_name(chosen.project), version=version, directory=PackageDirectory(path=".", editable=True)
    )
    return replace(lock, packages=[itself, *lock.packages])


def condition(record: Record, groups: Iterable[tuple[str, str]]) -> str:
    """Write as a marker of PEP 751 when a package is wanted.

    :param groups: each group that wants it, with the marker under which it does; empty: always
    """
    texts = [_wanted_by(group) + (f" and ({text})" if text else "") for group, text in groups]
    return _with_extras(str(record.marker(" or ".join(texts))))


def _wanted_by(group: str) -> str:
    return f'"{group}" in dependency_groups'


def _with_extras(text: str) -> str:
    """Compare with the set of all extras that are chosen instead of with a single one."""
    return _EXTRA.sub(lambda match: f"{match[2] or match[3]} {_WITHIN[match[1] or match[4]]} extras", text)


_WITHIN = {"==": "in", "!=": "not in"}


class File(NamedTuple):
    """A file of a package."""

    name: str
    hashes: Mapping[str, str]
    url: str | None = None


def files_of(record: Record) -> list[File]:
    """Read `files` of a package.

    :raises LockFileError: one has no name or no hash
    """
    found = []
    for each in record.tables("files"):
        url = each.text("url")
        name = each.text("file") or filename_of(url)
        algorithm, colon, digest = each.text("hash").partition(":")
        if not name or not colon:
            raise record.refusal(f"file `{name[:80]}` has no {'hash' if name else 'name'}")
        found.append(File(name, {algorithm: digest}, url or None))
    return found


def of_index(record: Record, files: Iterable[File], *, index: str | None, marker: str) -> Package:
    """Make a package of files that are on an index.

    :param index: None: those that are asked by default
    :raises LockFileError: there is none that could be installed
    """
    package = Package(name=record.name(), version=record.version(), marker=record.marker(marker), index=index)
    named = [(file, name) for file in files if (name := _wheel_name(file.name)) is not None]
    named.sort(key=lambda pair: build_order(pair[1].build), reverse=True)
    wheels = [PackageWheel(name=file.name, url=file.url or NOWHERE, hashes=file.hashes) for file, _ in named]
    sdists = [
        PackageSdist(name=file.name, url=file.url or NOWHERE, hashes=file.hashes)
        for file in files
        if file.name.endswith(SDIST)
    ]
    if not wheels and not sdists:
        raise record.refusal("it lists neither a wheel nor a source distribution")
    return replace(package, wheels=wheels or None, sdist=sdists[0] if sdists else None)


def _wheel_name(filename: str) -> WheelName | None:
    """Take a wheel's file name apart; None if it is none, or one of old that nobody can read."""
    try:
        return WheelName(filename) if filename.endswith(".whl") else None
    except ValueError:
        return None


def hashes_of_archive(record: Record, files: Sequence[File]) -> Mapping[str, str]:
    """Return the hashes of a package that is one file at a URL or path.

    :raises LockFileError: it has none that mean something
    """
    if not files:
        raise record.refusal("its file has no hash")
    try:
        return dict(hashes.check(files[0].hashes.items()))
    except hashes.HashError as error:
        raise record.refusal(str(error)) from None
