"""Pipfile.lock: for each category, complete and flat, what is pinned to a version and to hashes without file names.

So a file is right that some index has under that name and version with one of those hashes. An entry names its index
among the sources in the file; one that names none comes from the first.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envsync.errors import LockFileError, remedies
from envsync.errors.redact import redacted
from envsync.launch import variables
from envsync.lockfile import hashes, hearing, records, trees
from envsync.lockfile.blockers import Blocker, refusal, unbuilt
from envsync.lockfile.choice import Choice, UndefinedError
from envsync.lockfile.parsed import known_to_nobody, read_input, refuse_members, understanding
from envsync.lockfile.records import Record
from envsync.lockfile.reference import Reference
from envsync.lockfile.resolve import direct, resolve
from envsync.lockfile.sources import (
    MALFORMED_HINT,
    Sources,
    expanded,
    filename_of,
    host_of,
    is_file_url,
    path_of_url,
    well_formed,
)
from envsync.lockfile.target import Artifact, Target
from envsync.lockfile.wheels import Fit, Forms, WheelName
from envsync.python.facts import Interpreter
from envsync.system import paths

META = "_meta"
DEFAULT, DEVELOP = "default", "develop"
ALIASES = {"dev": DEVELOP}
"""What else a category may be called, if none is called so."""
_VCS = ("git", "hg", "svn", "bzr")
_SHORT = re.compile(r"\$([A-Z0-9_]+)")


def read(path: str) -> PipfileFile:
    """Read a Pipfile.lock.

    :raises LockFileError: it cannot be read, or is malformed
    """
    content = read_input(path, path)
    return PipfileFile(path, content, records.of_json(path, content))


class PipfileFile:
    """A parsed Pipfile.lock."""

    def __init__(self, path: str, content: bytes, root: Record) -> None:
        """:raises LockFileError: it is malformed"""
        self.path = path
        self.inputs = (path,)
        self.contents = self.canonical = (content,)
        meta = root.table(META, "_meta: ")
        self._requires = meta.table("requires")
        written = [(source.text("name"), _braced(source.text("url")), source) for source in meta.tables("sources")]
        self._sources = {name: _source(url, source) for name, url, source in written}
        directory = os.path.dirname(paths.abspath(path))
        self._entries = {
            category: _Category(root.table(category), directory, self._sources).entries()
            for category in root
            if category != META
        }
        references = [each.reference for each in self._all() if each.reference is not None]
        trees = [each for each in references if each.source is not None and not each.is_file]
        bare = [each for each in references if not each.hashes and each not in trees]
        self.unhashed = bool(bare)
        deciding = {name for _, url, _ in written for name in variables.deciding(url)} if bare else set()
        self.variables = tuple(sorted(deciding))
        self.values = tuple(variables.describe(self.variables, os.environ))
        self.local_files = tuple(dict.fromkeys(each.path for each in bare if each.path is not None))
        self.placed = bool(self.local_files) or any(not each.is_commit for each in trees)
        self.markers = tuple(str(each.marker) for each in self._all() if each.marker is not None)

    def _all(self) -> Iterator[_Entry]:
        return (each for entries in self._entries.values() for each in entries)

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        with understanding(self.path):
            fit = Fit(interpreter)
            self._warn_of_python(interpreter)
            entries, blockers = self._applicable(interpreter, choice)
            artifacts: list[Artifact] = []
            for source in dict.fromkeys(each.source for each in entries):
                asked = sources.over(self._sources.get(source, Sources()))
                references = [
                    _as_chosen(each.reference, choice)
                    for each in entries
                    if each.source == source and each.reference is not None
                ]
                forms = {
                    each.name: Forms(choice.forbids_wheel(each.name), choice.forbids_build(each.name))
                    for each in references
                }
                pinned = resolve([each for each in references if not each.direct], fit, asked, known, forms)
                referred = [each for each in references if each.direct]
                for found, lacking in (pinned, direct(referred, fit, asked, known, given=sources, lock=self.path)):
                    artifacts += found
                    blockers += lacking
            if blockers:
                raise refusal(self.path, blockers)
        local = tuple(each.path for each in artifacts if each.path and not each.hashes and not each.alternatives)
        return Target(tuple(sorted(artifacts, key=lambda artifact: artifact.name)), local)

    def _warn_of_python(self, interpreter: Interpreter) -> None:
        """Say that it was locked for another Python: Pipenv says so, too, and goes on."""
        wanted = self._requires.text("python_full_version") or self._requires.text("python_version")
        if wanted and not f"{interpreter.version}.".startswith(f"{wanted}."):
            with hearing.about(self.path):
                text = f"it was locked for Python {wanted}, and the target is {interpreter.version}"
                warnings.warn(text, stacklevel=2)

    def _categories(self, choice: Choice) -> frozenset[str]:
        """Return the categories that are chosen.

        :raises LockFileError: something is asked for that a Pipfile.lock does not have
        """
        refuse_members(self.path, choice, remedies.relock(self.path))

        def meant(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name if name in self._entries else ALIASES.get(name, name) for name in names)

        choice = replace(
            choice,
            groups=meant(choice.groups),
            only_groups=meant(choice.only_groups),
            no_groups=meant(choice.no_groups),
        )
        try:
            choice.extras_of(())
            defined = {DEFAULT, DEVELOP, *self._entries}
            defaults = () if choice.only_groups else (DEFAULT,)
            chosen = choice.groups_of(defined, defaults) | set(defaults)
            return frozenset(chosen - set(choice.no_groups))
        except UndefinedError as error:
            hint = f"leave it out, or put it into the Pipfile and {remedies.relock(self.path)}"
            raise LockFileError(self.path, str(error), hint=hint) from None

    def _applicable(self, interpreter: Interpreter, choice: Choice) -> tuple[list[_Entry], list[Blocker]]:
        """Keep what is chosen and applies to the interpreter, each name once; and what of that cannot be installed."""
        chosen: dict[str, _Entry] = {}
        blockers: dict[str, Blocker] = {}
        for category in sorted(self._categories(choice)):
            for entry in self._entries.get(category, []):
                if not self._applies(entry, interpreter) or _is_left_out(entry, choice):
                    continue
                blocker = entry.blocker or _forbidden(entry, choice)
                if blocker is not None:
                    blockers[entry.name] = blocker
                elif chosen.setdefault(entry.name, entry).identity != entry.identity:
                    problem = f"package `{entry.name}`: its categories pin it to different things"
                    blockers[entry.name] = Blocker(problem, remedies.relock(self.path), kind=LockFileError)
        return list(chosen.values()), list(blockers.values())

    def _applies(self, entry: _Entry, interpreter: Interpreter) -> bool:
        try:
            return entry.marker is None or entry.marker.evaluate(dict(interpreter.markers))
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            problem = f"package `{entry.name}`: its marker cannot be evaluated: {error}"
            raise LockFileError(self.path, problem, hint=remedies.relock(self.path)) from None


def _is_left_out(entry: _Entry, choice: Choice) -> bool:
    without_project = choice.no_install_project or choice.no_install_workspace
    return choice.leaves_out(entry.name) or (without_project and entry.is_project)


def _as_chosen(reference: Reference, choice: Choice) -> Reference:
    """Return what is referred to, not as a link if links are not wanted."""
    if reference.source is None or choice.editable:
        return reference
    return replace(reference, source=reference.source._replace(editable=False))


def _forbidden(entry: _Entry, choice: Choice) -> Blocker | None:
    """Say that what has to be built may not be, or that a wheel at a place may not be taken."""
    reference = entry.reference
    if reference is None or not reference.direct:
        return None
    if reference.source is None:
        no_binary = choice.forbids_wheel(entry.name)
        problem = f"package `{entry.name}`: there are only wheels, which {no_binary} forbids"
        leave = f"leave it out with `envsync sync --no-install-package {entry.name}`"
        return Blocker(problem, leave) if no_binary else None
    no_build = choice.forbids_build(entry.name)
    what = "it comes from a git repository" if reference.is_commit else f"it is {reference.shown}"
    project = "project" if entry.is_project else ""
    return unbuilt(entry.name, what, no_build, member_of=project) if no_build else None


class _Entry(NamedTuple):
    """What a category says of one package."""

    name: str
    """Normalized."""
    source: str
    """The name of a source; empty if there is none."""
    marker: Marker | None
    reference: Reference | None = None
    blocker: Blocker | None = None
    """Why it cannot be installed."""
    is_project: bool = False
    """It is the directory of the lock file."""

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two that pin the same."""
        return (self.source, *(self.reference.identity if self.reference is not None else ()))


def _braced(url: str) -> str:
    """Write all variables with braces: Pipenv takes `$NAME`, too."""
    return _SHORT.sub(r"${\1}", url)


def _source(url: str, record: Record) -> Sources:
    """Say where packages come from as the options do.

    :raises LockFileError: the URL makes no sense
    """
    url = expanded(url)
    if not url or not well_formed(url):
        raise LockFileError(record.path, "_meta: the URL of a source is malformed", hint=MALFORMED_HINT)
    trusted = () if record.flag("verify_ssl", absent=True) else (host_of(url),)
    return Sources(index_urls=(url,), trusted_hosts=trusted)


class _Category:
    """The entries of one category.

    :param sources: the names of all sources
    """

    def __init__(self, record: Record, directory: str, sources: Collection[str]) -> None:
        self._record = record
        self._directory = directory
        self._sources = sources

    def entries(self) -> list[_Entry]:
        """:raises LockFileError: one is malformed"""
        return [self._entry(name, self._record.table(name, f"package `{name}`: ")) for name in self._record]

    def _entry(self, given: str, record: Record) -> _Entry:
        name = record.normalized(given)
        index = record.text("index") or next(iter(self._sources), "")
        if index and index not in self._sources:
            raise record.refusal(f"it comes from the index `{index[:80]}`, which is none of its sources")
        marker = record.marker(record.text("markers")) if record.text("markers") else None
        entry = _Entry(name, index, marker)
        system = next((system for system in _VCS if system in record), None)
        if system is not None:
            return self._commit(system, entry, record)
        place = record.text("path") or record.text("file")
        if place:
            return self._at(place, entry, record)
        return _pinned(entry, record)

    def _at(self, place: str, entry: _Entry, record: Record) -> _Entry:
        """Make the entry of what is at a path or URL."""
        if not well_formed(place):
            raise record.refusal("its URL is malformed")
        is_local = "://" not in place or is_file_url(place)
        path = paths.join(self._directory, path_of_url(place) if is_file_url(place) else place)
        filename = filename_of(path if is_local else place)
        if not filename.endswith(".whl"):
            is_project = is_local and paths.normpath(path) == paths.normpath(self._directory)
            return self._tree(place, path if is_local else "", entry._replace(is_project=is_project), record)
        try:
            wheel = WheelName(filename)
        except ValueError:
            raise record.refusal(f"`{filename}` is not a wheel's file name") from None
        reference = Reference(
            entry.name,
            SpecifierSet(f"=={wheel.version}"),
            record.about.removesuffix(": "),
            hashes=_hashes(record),
            path=paths.abspath(path) if is_local else None,
            url=None if is_local else place,
        )
        return entry._replace(reference=reference)

    def _tree(self, place: str, path: str, entry: _Entry, record: Record) -> _Entry:
        """Make the entry of an archive or a directory.

        :param path: if it is here; else empty
        """
        reference = self._built(entry, record)
        try:
            if trees.is_archive(filename_of(path or place)) and not os.path.isdir(path):
                source = trees.archive(record.text("subdirectory"))
                here = paths.abspath(path) if path else None
                reference = replace(reference, source=source, path=here, url=None if path else place)
            elif path:
                below, editable = record.text("subdirectory"), record.flag("editable")
                source = trees.directory(self._directory, path, editable=editable, subdirectory=below)
                reference = replace(reference, source=source)
            else:
                raise trees.TreeError("what is at its URL is no archive that can be built, by its name")
        except trees.TreeError as error:
            return entry._replace(blocker=_of_tree(record, error))
        return entry._replace(reference=reference)

    def _commit(self, system: str, entry: _Entry, record: Record) -> _Entry:
        """Make the entry of a repository."""
        if system != "git":
            return entry._replace(blocker=_of_repository(record, system))
        try:
            source = trees.repository(
                record.text(system),
                record.text("ref"),
                beside=self._directory,
                subdirectory=record.text("subdirectory"),
            )
        except trees.TreeError as error:
            return entry._replace(blocker=_of_tree(record, error))
        return entry._replace(reference=replace(self._built(entry, record), source=source))

    def _built(self, entry: _Entry, record: Record) -> Reference:
        return Reference(entry.name, SpecifierSet(), record.about.removesuffix(": "), hashes=_hashes(record))


def _of_tree(record: Record, error: trees.TreeError) -> Blocker:
    return Blocker(f"{record.about}{error}", error.hint or remedies.relock(record.path), kind=LockFileError)


def _pinned(entry: _Entry, record: Record) -> _Entry:
    """Make the entry of a version; one that is not pinned is no entry, unless its marker holds."""
    try:
        specifier = SpecifierSet("" if record.text("version") == "*" else record.text("version"))
    except InvalidSpecifier:
        raise record.refusal(f"`{record.text('version')[:80]}` is no version") from None
    reference = Reference(entry.name, specifier, record.about.removesuffix(": "), hashes=_hashes(record))
    if reference.pinned is None:
        problem = f"{record.about}it is not pinned to one version"
        return entry._replace(blocker=Blocker(problem, remedies.relock(record.path), kind=LockFileError))
    return entry._replace(reference=reference)


def _hashes(record: Record) -> tuple[tuple[str, str], ...]:
    pairs = [text.partition(":") for text in record.texts("hashes")]
    try:
        return hashes.check((algorithm, digest) for algorithm, _, digest in pairs)
    except hashes.HashError as error:
        raise record.refusal(str(error)) from None


def _of_repository(record: Record, system: str) -> Blocker:
    below = record.text("subdirectory")
    url = redacted(f"{system}+{record.text(system)}@{record.text('ref') or 'HEAD'}")
    build = url + (f"#subdirectory={below}" if below else "")
    return Blocker(f"{record.about}it comes from a repository of `{system}`, and envsync knows git", build=build)
