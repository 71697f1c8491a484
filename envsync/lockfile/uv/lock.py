"""uv.lock, as uv writes it: `records` reads it, `roots` and `walk` choose from it, `files` finds the files.

What is selected is what `uv sync --frozen` installs for the same options. Which groups are chosen if nothing is said of
them, and what `no-binary` and `no-build` forbid, stands in pyproject.toml in the directory of the lock file, so that
is an input, too; those of the members of a workspace are read only if the lock file is of before revision 5 and a
member has groups.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envsync.errors import LockFileError, remedies
from envsync.lockfile import conditions, pyproject, wheels
from envsync.lockfile.blockers import BlockedError, Blocker, refusal
from envsync.lockfile.choice import Choice, UndefinedError
from envsync.lockfile.parsed import known_to_nobody, read_input, understanding
from envsync.lockfile.places import Placed, Places, search
from envsync.lockfile.sources import Sources, is_url
from envsync.lockfile.target import Artifact, BuildRules, Target
from envsync.lockfile.uv import project, records, roots
from envsync.lockfile.uv.building import UndoneError, rules_for
from envsync.lockfile.uv.files import Files
from envsync.lockfile.uv.project import Project
from envsync.lockfile.uv.records import FileRecord, Lock, MalformedError, ManifestRequirement, PackageRecord
from envsync.lockfile.uv.walk import ExclusionError, Markers, Roots, walk
from envsync.python.facts import Interpreter
from envsync.system import paths


def read(path: str) -> UvLockFile:
    """Read and parse a uv.lock, and what pyproject.toml says beside it.

    :raises LockFileError: it cannot be read, or is not what uv writes
    """
    content = read_input(path, path)
    relock = remedies.relock(path)
    try:
        table = tomllib.loads(content.decode())
        lock = records.parse(table)
    except UnicodeDecodeError as error:
        raise LockFileError(path, f"it is not UTF-8 (byte {error.start})", hint=relock) from error
    except tomllib.TOMLDecodeError as error:
        raise LockFileError(path, f"it is not TOML: {error}", hint=relock) from error
    except MalformedError as error:
        raise LockFileError(path, str(error), hint=relock) from None
    return UvLockFile(path, content, table, lock)


class UvLockFile:
    """A parsed uv.lock."""

    variables: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    local_files: tuple[str, ...] = ()
    """What is chosen is named by the target: not every wheel of a directory has to be there."""

    def __init__(self, path: str, content: bytes, table: Mapping[str, Any], lock: Lock) -> None:
        self.path = path
        self.table = table
        """As it was parsed: what a megabyte of TOML says takes a tenth of a second to find out."""
        self.lock = lock
        read = {path: content}
        self._projects: dict[str, Project] = {}
        for directory in _directories(lock) if not path.endswith(".py.lock") else ():
            # As it is named from there, so that the lock file's directory may have any name itself.
            place = path[: path.rfind("/") + 1] + paths.normpath(f"{directory}/{project.FILENAME}")
            is_there = os.path.lexists(place)
            read[place] = read_input(place, path) if is_there else b""  # one that comes later is noticed
            if is_there:
                self._projects[directory] = project.parse(place, read[place], path)
        self.inputs = tuple(read)
        self.contents = tuple(read.values())
        self.canonical = (content, *map(pyproject.canonical, self.contents[1:]))
        bare = [record for record in lock.records if any(file.hash is None for file in _files(record))]
        self.unhashed = bool(bare)
        trees = (record for record in lock.records if record.source.kind in ("directory", "editable"))
        self.placed = any(not is_url(record.source.place) for record in (*bare, *trees))

    @property
    def markers(self) -> tuple[str, ...]:
        watched = (*conditions.FULL, *conditions.KERNEL)
        texts = {text for text in self.lock.texts() if any(name in text for name in watched)}
        return (*(str(Marker(text)) for text in sorted(texts)), *conditions.needs(self._requires_python()))

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        records = self.selected(interpreter, choice)
        with understanding(self.path):
            fit = wheels.Fit(interpreter)
            project = self._projects.get(".", Project())
            files = Files(self.path, self.lock, project, choice, fit)
            places = Places(self.path, sources, fit)
            placed: list[Placed] = []
            blockers: list[Blocker] = []
            for record in records:
                try:
                    placed.append(places.of(files.of(record)))
                except BlockedError as error:
                    blockers.append(error.blocker)
            rules = BuildRules()
            try:
                rules = self._rules(project, [each.artifact for each in placed])
            except UndoneError as error:
                blockers.append(Blocker(f"{error} is not done by envsync", _LOOK, kind=LockFileError))
            if blockers:
                raise refusal(self.path, blockers)
            placed = search(placed, known)
        artifacts = sorted((each.artifact for each in placed), key=lambda artifact: artifact.name)
        local = tuple(a.path for a in artifacts if a.path is not None and not a.hashes)
        return Target(tuple(artifacts), local, rules=rules)

    def _rules(self, project: Project, artifacts: list[Artifact]) -> BuildRules:
        """:raises UndoneError: something is asked for that is not done here"""
        built = [artifact.name for artifact in artifacts if artifact.source is not None]
        versions = {artifact.name: artifact.version for artifact in artifacts}
        return rules_for(project.builds, self.lock.build_constraints, versions, built)

    def selected(self, interpreter: Interpreter, choice: Choice) -> list[PackageRecord]:
        """Return the records to install for one interpreter, whatever has to be done for that.

        :raises LockFileError: as for `select`
        """
        with understanding(self.path), self._explaining():
            markers = Markers(interpreter.markers)
            fit = wheels.Fit(interpreter)
            self._check_python(fit, markers)
            target = roots.target_of(self.lock, choice)
            defaults = roots.defaults_of(self.lock, target, self._projects)
            begin = roots.roots_of(self.lock, target, choice, defaults, lambda wish: self._find(wish, markers))
            self._check_groups(begin, fit)
            return self._reached(begin, _left_out(self.lock, target, choice), choice, markers)

    def _requires_python(self) -> SpecifierSet:
        try:
            return SpecifierSet(self.lock.requires_python)
        except InvalidSpecifier as error:
            raise LockFileError(self.path, str(error), hint=remedies.relock(self.path)) from None

    def _check_python(self, fit: wheels.Fit, markers: Markers) -> None:
        """Check that the lock file was made for such a Python and such a system.

        :raises LockFileError: it was not
        """
        needed = str(self._requires_python())
        if not fit.runs(needed):
            problem = f"it needs Python {needed}, and the target is {fit.python}"
            raise LockFileError(self.path, problem, hint=remedies.other_python(needed))
        supported = self.lock.supported
        if supported and not any(markers.hold(text) for text in supported):
            problem = f"it was not made for {fit.description}; its environments are: {'; '.join(supported)}"
            raise LockFileError(self.path, problem, hint=remedies.relock(self.path))

    def _check_groups(self, roots: Roots, fit: wheels.Fit) -> None:
        """Check that the chosen groups are for such a Python: some need a newer one than the project itself.

        :raises LockFileError: one is not
        """
        for number, group in roots.groups:
            project = self._projects.get(self.lock.records[number].directory or "", Project())
            needed = dict(project.groups_python).get(group)
            if needed is not None and not fit.runs(needed):
                problem = f"the group `{group}` needs Python {needed}, and the target is {fit.python}"
                raise LockFileError(self.path, problem, hint=remedies.other_python(needed))

    def _reached(
        self, roots: Roots, left_out: Collection[str], choice: Choice, markers: Markers
    ) -> list[PackageRecord]:
        """Walk, and return what is to be installed of it."""
        records = [self.lock.records[number] for number in walk(self.lock, roots, markers)]
        _refuse_twice(records)
        return [
            record
            for record in records
            if record.source.kind != "virtual" and record.name not in left_out and not choice.leaves_out(record.name)
        ]

    def _find(self, wish: ManifestRequirement, markers: Markers) -> int | None:
        """Return the record of what the manifest names; None if it is not wanted here."""
        if not markers.hold(wish.marker):
            return None
        numbers = self.lock.by_name.get(wish.name, ())
        found = [
            number
            for number in numbers
            if not (texts := self.lock.records[number].markers) or any(map(markers.hold, texts))
        ]
        if len(found) != 1:
            raise MalformedError(f"it asks for `{wish.name}`, and {len(found)} of its packages fit")
        return found[0]

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what a choice or a marker has met, with what helps."""
        relock = remedies.relock(self.path)
        try:
            yield
        except roots.ChoiceError as error:
            raise LockFileError(self.path, str(error), hint=error.hint) from None
        except UndefinedError as error:
            leave = " ".join(f"--{error.kind} {each}" for each in error.names)
            hint = f"{relock}, if the project has it; else leave out {leave}"
            raise LockFileError(self.path, str(error), hint=hint) from None
        except ExclusionError as error:
            raise LockFileError(self.path, str(error), hint=_of_exclusion(error)) from None
        except MalformedError as error:
            raise LockFileError(self.path, str(error), hint=relock) from None
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise LockFileError(self.path, f"a marker cannot be evaluated: {error}", hint=relock) from None


_LOOK = "`grep -n build pyproject.toml` shows where"


def _files(record: PackageRecord) -> tuple[FileRecord, ...]:
    return (*record.wheels, *([record.sdist] if record.sdist is not None else []))


def _directories(lock: Lock) -> list[str]:
    """Return the directories whose pyproject.toml is an input."""
    members = (lock.records[number] for name in lock.members for number in lock.by_name.get(name, ()))
    needed = {record.directory for record in members if roots.needs_project(lock, record)}
    return [".", *sorted(directory for directory in needed if directory not in (None, "."))]


def _left_out(lock: Lock, target: roots.Projects, choice: Choice) -> frozenset[str]:
    """Return the names of projects that are left out themselves."""
    if choice.no_install_workspace:
        return frozenset(lock.projects)
    alone = target.alone if choice.no_install_project else None
    return frozenset() if alone is None else frozenset([lock.records[alone].name])


def _refuse_twice(records: list[PackageRecord]) -> None:
    """One environment has one version of a name."""
    seen: dict[str, PackageRecord] = {}
    for record in records:
        other = seen.setdefault(record.name, record)
        if other is not record:
            versions = " and ".join(str(each.version or each.source.place) for each in (other, record))
            raise MalformedError(f"package `{record.name}`: two of it are selected, {versions}")


def _of_exclusion(error: ExclusionError) -> str:
    options = [f"`--no-{item.kind} {item.name}`" for item in error.items if item.kind != "project"]
    if options:
        return f"leave one of them out; with all of them chosen, {' or '.join(options)} does"
    return f"choose one of them: `envsync sync --package {error.items[0].package}`"
