"""pylock.toml (PEP 751): `packaging.pylock` validates and selects, here its refusals get a remedy."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)

from envsync.errors import LockFileError, remedies
from envsync.errors.redact import redacted
from envsync.lockfile import conditions, hearing, wheels
from envsync.lockfile.blockers import BlockedError, Blocker, refusal
from envsync.lockfile.choice import Choice, UndefinedError
from envsync.lockfile.parsed import known_to_nobody, read_input, understanding
from envsync.lockfile.places import NOWHERE, Placed, Places, search
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import Target
from envsync.python.facts import Interpreter

if TYPE_CHECKING:
    from packaging.markers import Environment


def read(path: str) -> PylockFile:
    """Read and parse a pylock file.

    :raises LockFileError: it cannot be read, or is not a valid one
    """
    content = read_input(path, path)
    relock = remedies.relock(path)
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise LockFileError(path, f"it is not UTF-8 (byte {error.start})", hint=relock) from error
    except tomllib.TOMLDecodeError as error:
        raise LockFileError(path, f"it is not TOML: {error}", hint=relock) from error
    version = table.get("lock-version")
    if isinstance(version, str) and not re.fullmatch(r"1(\.\d+)?", version):
        problem = f"its lock-version {version} is not supported, envsync reads 1.0"
        raise LockFileError(path, problem, hint=relock)
    _place_nowhere(table)
    try:
        with hearing.about(path):
            return PylockFile(path, content, Pylock.from_dict(table))
    except PylockValidationError as error:
        # Its own text may have a URL with a password.
        raise LockFileError(path, _described(error, table), hint=relock) from None


def _place_nowhere(table: Mapping[str, Any]) -> None:
    """Let files with neither URL nor path pass the validation."""
    packages = table.get("packages")
    for package in packages if isinstance(packages, list) else ():
        if isinstance(package, dict):
            listed = package.get("wheels")
            for file in [*(listed if isinstance(listed, list) else ()), package.get("sdist")]:
                if isinstance(file, dict) and "name" in file and not {"url", "path"} & file.keys():
                    file["url"] = NOWHERE


def _described(error: PylockValidationError, table: Mapping[str, Any]) -> str:
    """Say what is wrong, and in which package."""
    package = ""
    if match := re.match(r"packages\[(\d+)\]", error.context or ""):
        entry = table["packages"][int(match[1])]
        package = f"package `{entry.get('name')}`: " if isinstance(entry, dict) else ""
    message = error.message[:1].lower() + error.message[1:]
    return f"{package}{message}" + (f" in `{error.context}`" if error.context else "")


class PylockFile:
    """A parsed pylock file. All of its references have hashes: PEP 751 demands it, and packaging checks."""

    unhashed = False
    local_files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    placed = False

    def __init__(self, path: str, content: bytes, lock: Pylock) -> None:
        self.path = path
        self.inputs = (path,)
        self.contents = (content,)
        self._lock = lock

    @property
    def markers(self) -> tuple[str, ...]:
        lock = self._lock
        conditional = [*(lock.environments or ()), *(each.marker for each in lock.packages if each.marker)]
        needed = {lock.requires_python, *(each.requires_python for each in lock.packages)}
        return (*map(str, conditional), *(text for each in needed for text in conditions.needs(each)))

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        with understanding(self.path):
            fit = wheels.Fit(interpreter)
            selection = _Selection(self.path, self._lock, interpreter, fit)
            selection.check_python()
            places = Places(self.path, sources, fit)
            placed: list[Placed] = []
            blockers: list[Blocker] = []
            for package, file in selection.files(*self._chosen(choice)):
                if choice.leaves_out(package.name):
                    continue
                try:
                    placed.append(places.of(package, file))
                except BlockedError as error:
                    blockers.append(error.blocker)
            if blockers:
                raise refusal(self.path, blockers)
            placed = search(placed, sources, known)
        return Target(tuple(sorted((each.artifact for each in placed), key=lambda artifact: artifact.name)))

    def _chosen(self, choice: Choice) -> tuple[list[str], list[str]]:
        """Return extras and groups, as the lock file spells them.

        :raises LockFileError: it does not define one of them, or knows nothing of members
        """
        lock = self._lock
        if choice.of_workspace:
            problem = f"it has no workspace members to choose from with `{choice.of_workspace[0]}`"
            raise LockFileError(self.path, problem, hint=f"leave it out, or {remedies.relock(self.path)}")
        defaults = list(lock.default_groups or ())
        try:
            extras = choice.extras_of([str(extra) for extra in lock.extras or ()])
            groups = choice.groups_of([*(lock.dependency_groups or ()), *defaults], defaults)
        except UndefinedError as error:
            asked = choice.extras if error.kind == "extra" else choice.groups
            raise LockFileError(self.path, str(error), hint=self._lock_with(error.kind, error.names, asked)) from None
        return sorted(extras), sorted(groups)

    def _lock_with(self, kind: str, unknown: tuple[str, ...], asked: tuple[str, ...]) -> str:
        """Say how to get into the file what it does not define, by the tool that made it."""
        directory, name = os.path.split(self.path)
        command = remedies.export(directory, self._lock.created_by, name=name, kind=kind, chosen=asked)
        leave = " ".join(f"--{kind} {each}" for each in unknown)
        return f"{command} makes a lock file that always has them; then leave out {leave}"


class _Selection:
    """Selects the packages and files for one interpreter, and says what is wrong if that fails."""

    def __init__(self, path: str, lock: Pylock, interpreter: Interpreter, fit: wheels.Fit) -> None:
        self._path = path
        self._lock = lock
        self._fit = fit
        self._markers = dict(interpreter.markers)
        self._relock = remedies.relock(path, lock.created_by)

    def check_python(self) -> None:
        """Check that the lock file was made for such a Python.

        :raises LockFileError: it was not
        """
        needed = self._lock.requires_python
        if needed is not None and not self._fit.runs(str(needed)):
            problem = f"it needs Python {needed}, and the target is {self._fit.python}"
            raise LockFileError(self._path, problem, hint=remedies.other_python(str(needed)))
        markers = self._lock.environments
        try:
            fits = not markers or any(marker.evaluate(self._markers, context="requirement") for marker in markers)
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from None
        if not fits:
            listed = "; ".join(str(marker) for marker in markers or ())
            problem = f"it was not made for {self._fit.description}; its environments are: {listed}"
            raise LockFileError(self._path, problem, hint=self._relock)

    def files(self, extras: list[str], groups: list[str]) -> Sequence[tuple[Package, PackageWheel | PackageArchive]]:
        """Give each package and the file to install.

        :raises LockFileError: the lock file does not fit the interpreter
        :raises NoWheelError: what it has for some packages is no wheel, or none that fits; all of them are named
        """
        environment = cast("Environment", self._markers)
        chosen: list[tuple[Package, PackageWheel | PackageArchive]] = []
        blocked = False
        try:
            for package, file in self._lock.select(
                environment=environment, tags=self._fit.tags, extras=extras, dependency_groups=groups
            ):
                if isinstance(file, (PackageWheel, PackageArchive)):
                    chosen.append((package, file))
                else:
                    blocked = True
        except PylockSelectError as error:
            raise self._explained(str(error), extras, groups) from None
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from None
        if blocked:
            raise self._explained("", extras, groups)
        return chosen

    def _unevaluated(self, error: Exception) -> LockFileError:
        return LockFileError(self._path, f"a marker cannot be evaluated: {error}", hint=self._relock)

    def _explained(self, reason: str, extras: list[str], groups: list[str]) -> LockFileError:
        """Find the packages that made the selection fail, which the error says of the first, and only in its text."""
        environment: dict[str, str | frozenset[str]] = {**self._markers}
        environment |= {"extras": frozenset(extras), "dependency_groups": frozenset(groups)}
        applying = [
            package
            for package in self._lock.packages
            if not package.marker or package.marker.evaluate(environment, context="lock_file")
        ]
        blockers = [blocker for package in applying if (blocker := self._blocker(package)) is not None]
        if blockers:
            return refusal(self._path, blockers)
        hint = f"extras or groups may exclude each other: ask for fewer of them, or {self._relock}"
        return LockFileError(self._path, reason, hint=hint)

    def _blocker(self, package: Package) -> Blocker | None:
        """Tell why nothing of a package can be installed; None if something can, or nothing is known."""
        about = f"package `{package.name}`: "
        needed = package.requires_python
        if needed is not None and not self._fit.runs(str(needed)):
            problem = f"{about}it needs Python {needed}, and the target is {self._fit.python}"
            return Blocker(problem, remedies.other_python(str(needed)), kind=LockFileError)
        if package.archive is not None:
            return None
        names = [wheel.filename for wheel in package.wheels or ()]
        if names:
            fitting = any(self._fit.fits(wheels.WheelName(name).tags) for name in names)
            return None if fitting else self._no_fit(package, names)
        build = f"{package.name}=={package.version}" if package.version else package.name
        if package.sdist is not None:
            return Blocker(about + wheels.only_source(package.sdist.filename), build=build)
        kind = "a version control repository" if package.vcs else "a directory"
        return Blocker(f"{about}it comes from {kind}, and envsync installs wheels", build=self._place(package))

    def _no_fit(self, package: Package, names: list[str]) -> Blocker:
        problem = f"package `{package.name}`: {wheels.no_fit(names, self._fit)}"
        if package.sdist is not None:
            problem += f", only the source distribution `{package.sdist.filename}`, and envsync installs wheels"
        return Blocker(problem, *wheels.instead(package.name, package.version, names, self._fit))

    def _place(self, package: Package) -> str:
        """Say where a repository or directory is, as pip takes it."""
        directory = os.path.dirname(self._path)
        if package.directory is not None:
            return os.path.join(directory or ".", package.directory.path)
        assert package.vcs is not None
        url = package.vcs.url or "file://" + quote(os.path.abspath(os.path.join(directory, package.vcs.path or "")))
        below = f"#subdirectory={package.vcs.subdirectory}" if package.vcs.subdirectory else ""
        return f"{package.vcs.type}+{redacted(url)}@{package.vcs.commit_id}{below}"
