"""Packages in the form of PEP 751: which of them one interpreter takes, which file of each, and where it is taken from.

Lock files of other tools that know neither more nor less are translated into that form (`poetry`, `pdm`).
`packaging.pylock` selects; here its refusals get a remedy, all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.pylock import Package, Pylock, PylockSelectError
from packaging.utils import NormalizedName

from envsync.errors import LockFileError, remedies
from envsync.lockfile import wheels
from envsync.lockfile.blockers import BlockedError, Blocker, refusal
from envsync.lockfile.choice import Choice
from envsync.lockfile.entries import Entries, File, is_project, no_fit
from envsync.lockfile.places import Placed, Places, search
from envsync.lockfile.sources import Sources
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
) -> Target:
    """Select what to install for one interpreter, and from where.

    :param path: the lock file
    :param choice: what it leaves out by name is left out
    :param extras: those that are chosen, as the lock file spells them; likewise `groups`
    :param project: where the project says that packages come from
    :param narrowed: the same for packages that come from a part of it only
    :raises LockFileError: the lock file does not fit this Python
    :raises NoWheelError: a package has no wheel that fits or can be reached
    :raises FetchError: an index that has to be asked does not answer
    """
    fit = wheels.Fit(interpreter)
    kept = [package for package in lock.packages if not _is_left_out(package, choice)]
    selection = Selection(path, replace(lock, packages=kept), interpreter, fit)
    selection.check_python()
    entries = Entries(path, choice, fit, relock=remedies.relock(path, lock.created_by))
    places = Places(path, sources, fit, project=project, narrowed=narrowed)
    placed: list[Placed] = []
    chosen, blockers = selection.files(sorted(extras), sorted(groups), entries.prefers_sdist)
    for package, file in chosen:
        try:
            placed.append(places.of(entries.of(package, file)))
        except BlockedError as error:
            blockers.append(error.blocker)
    if blockers:
        raise refusal(path, blockers)
    placed = search(placed, known)
    return Target(tuple(sorted((each.artifact for each in placed), key=lambda artifact: artifact.name)))


def _is_left_out(package: Package, choice: Choice) -> bool:
    if is_project(package) and (choice.no_install_project or choice.no_install_workspace):
        return True
    return choice.leaves_out(package.name)


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
        self, extras: list[str], groups: list[str], prefers_sdist: Callable[[str], bool]
    ) -> tuple[list[tuple[Package, File]], list[Blocker]]:
        """Give each package and the file or tree to install; and what keeps others from being installed.

        :param prefers_sdist: tells whether a package is built though it has a wheel
        :raises LockFileError: the lock file does not fit the interpreter
        """

        def select(lock: Pylock) -> list[tuple[Package, File]]:
            return list(
                lock.select(
                    environment=cast("Environment", self._markers),
                    tags=self._fit.tags,
                    extras=extras,
                    dependency_groups=groups,
                    prefer_sdist_predicate=prefers_sdist,
                )
            )

        try:
            return select(self._lock), []
        except PylockSelectError as error:
            blocked = self._blocked(str(error), extras, groups)
            rest = [package for package in self._lock.packages if package.name not in blocked]
            return select(replace(self._lock, packages=rest)), list(blocked.values())
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from None

    def _unevaluated(self, error: Exception) -> LockFileError:
        return LockFileError(self._path, f"a marker cannot be evaluated: {error}", hint=self._relock)

    def _blocked(self, reason: str, extras: list[str], groups: list[str]) -> dict[str, Blocker]:
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
        blocked = {package.name: blocker for package in applying if (blocker := self._blocker(package)) is not None}
        if not blocked:
            hint = f"extras or groups may exclude each other: ask for fewer of them, or {self._relock}"
            raise LockFileError(self._path, reason, hint=hint)
        return {str(name): blocker for name, blocker in blocked.items()}

    def _blocker(self, package: Package) -> Blocker | None:
        """Tell why nothing of a package can be installed; None if something can, or nothing is known."""
        about = f"package `{package.name}`: "
        needed = package.requires_python
        if needed is not None and not self._fit.runs(str(needed)):
            problem = f"{about}it needs Python {needed}, and the target is {self._fit.python}"
            return Blocker(problem, remedies.other_python(str(needed)), kind=LockFileError)
        return no_fit(package, self._fit)
