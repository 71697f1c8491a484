"""Packages in the form of PEP 751: which of them one interpreter takes, which file of each, and where it is taken from.

Lock files of other tools that know neither more nor less are translated into that form (`poetry`, `pdm`).
`packaging.pylock` selects; here its refusals get a remedy, all of them at once.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.pylock import Package, PackageArchive, PackageWheel, Pylock, PylockSelectError
from packaging.utils import NormalizedName

from envsync.errors import LockFileError, remedies
from envsync.errors.redact import redacted
from envsync.lockfile import trees, wheels
from envsync.lockfile.blockers import BlockedError, Blocker, of_project, refusal
from envsync.lockfile.choice import Choice
from envsync.lockfile.places import NOWHERE, LockedFile, Placed, Places, search
from envsync.lockfile.sources import Sources, filename_of
from envsync.lockfile.target import Target
from envsync.python.facts import Interpreter

if TYPE_CHECKING:
    from packaging.markers import Environment


def selected(
    path: str,
    lock: Pylock,
    interpreter: Interpreter,
    choice: Choice,
    *,
    extras: Collection[str],
    groups: Collection[str],
    sources: Sources,
    known: Callable[[str], str | None],
    project: Sources = Sources(),  # noqa: B008
    narrowed: Mapping[NormalizedName, Sources] = MappingProxyType({}),
    blockers: Sequence[Blocker] = (),
) -> Target:
    """Select what to install for one interpreter, and from where.

    :param path: the lock file
    :param choice: what it leaves out by name is left out
    :param extras: those that are chosen, as the lock file spells them; likewise `groups`
    :param project: where the project says that packages come from
    :param narrowed: the same for packages that come from a part of it only
    :param blockers: what is known to be wrong besides
    :raises LockFileError: the lock file does not fit this Python
    :raises NoWheelError: a package has no wheel that fits or can be reached
    :raises FetchError: an index that has to be asked does not answer
    """
    fit = wheels.Fit(interpreter)
    kept = [package for package in lock.packages if not _is_left_out(package, choice)]
    selection = Selection(path, replace(lock, packages=kept), interpreter, fit)
    selection.check_python()
    places = Places(path, sources, fit, project=project, narrowed=narrowed)
    placed: list[Placed] = []
    chosen, found = selection.files(sorted(extras), sorted(groups))
    found = [*blockers, *found]
    for package, file in chosen:
        try:
            placed.append(places.of(_locked(package, file)))
        except BlockedError as error:
            found.append(error.blocker)
        except trees.TreeError as error:
            found.append(Blocker(f"package `{package.name}`: {error}", error.hint, kind=LockFileError))
    if found:
        raise refusal(path, found)
    placed = search(placed, known)
    return Target(tuple(sorted((each.artifact for each in placed), key=lambda artifact: artifact.name)))


def _is_project(package: Package) -> bool:
    """Tell whether it is the project itself: the directory that the lock file is in."""
    return package.directory is not None and posixpath.normpath(package.directory.path) == "."


def _is_left_out(package: Package, choice: Choice) -> bool:
    if _is_project(package) and (choice.no_install_project or choice.no_install_workspace):
        return True
    return choice.leaves_out(package.name)


def _locked(package: Package, file: PackageWheel | PackageArchive) -> LockedFile:
    is_archive = isinstance(file, PackageArchive)
    filename = filename_of(file.path or file.url or "") if isinstance(file, PackageArchive) else file.filename
    is_tree = isinstance(file, PackageArchive) and not filename.endswith(".whl")
    return LockedFile(
        package.name,
        package.version,
        filename,
        None if file.url == NOWHERE else file.url,
        file.path,
        file.hashes,
        file.size,
        direct=is_archive,
        index=package.index,
        source=trees.archive(getattr(file, "subdirectory", "") or "") if is_tree else None,
    )


class Selection:
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

    def files(
        self, extras: list[str], groups: list[str]
    ) -> tuple[list[tuple[Package, PackageWheel | PackageArchive]], list[Blocker]]:
        """Give each package and the file to install; and what keeps others from being installed.

        :raises LockFileError: the lock file does not fit the interpreter
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
            return [], self._blockers(str(error), extras, groups)
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from None
        return chosen, self._blockers("", extras, groups) if blocked else []

    def _unevaluated(self, error: Exception) -> LockFileError:
        return LockFileError(self._path, f"a marker cannot be evaluated: {error}", hint=self._relock)

    def _blockers(self, reason: str, extras: list[str], groups: list[str]) -> list[Blocker]:
        """Find the packages that made the selection fail, which the error says of the first, and only in its text.

        :raises LockFileError: it failed for another reason
        """
        environment: dict[str, str | frozenset[str]] = {**self._markers}
        environment |= {"extras": frozenset(extras), "dependency_groups": frozenset(groups)}
        applying = [
            package
            for package in self._lock.packages
            if not package.marker or package.marker.evaluate(environment, context="lock_file")
        ]
        blockers = [blocker for package in applying if (blocker := self._blocker(package)) is not None]
        if not blockers:
            hint = f"extras or groups may exclude each other: ask for fewer of them, or {self._relock}"
            raise LockFileError(self._path, reason, hint=hint)
        return blockers

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
        if _is_project(package):
            return of_project(package.name)
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
            return os.path.normpath(os.path.join(directory, package.directory.path))
        assert package.vcs is not None
        url = package.vcs.url or "file://" + quote(os.path.abspath(os.path.join(directory, package.vcs.path or "")))
        below = f"#subdirectory={package.vcs.subdirectory}" if package.vcs.subdirectory else ""
        return f"{package.vcs.type}+{redacted(url)}@{package.vcs.commit_id}{below}"
