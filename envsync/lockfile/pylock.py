"""pylock.toml (PEP 751): `packaging.pylock` validates and selects, here its refusals get a remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.utils import canonicalize_name

from envsync.errors import LockFileError, NoWheelError
from envsync.lockfile import wheels
from envsync.lockfile.formats import known_to_nobody, read_input
from envsync.lockfile.places import NOWHERE, Places, search
from envsync.lockfile.sources import Sources
from envsync.target import Interpreter, Target

if TYPE_CHECKING:
    from packaging.markers import Environment

_RELOCK = "lock again: uv export --format pylock.toml --output-file pylock.toml"
_OTHER_PYTHON = "choose another Python with --python, or lock again for this one"


def read(path: str) -> PylockFile:
    """Read and parse a pylock file.

    :raises LockFileError: it cannot be read, or is not a valid one
    """
    content = read_input(path, path)
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise LockFileError(path, f"it is not UTF-8 (byte {error.start})", hint=_RELOCK) from error
    except tomllib.TOMLDecodeError as error:
        raise LockFileError(path, f"it is not TOML: {error}", hint=_RELOCK) from error
    version = table.get("lock-version")
    if isinstance(version, str) and not re.fullmatch(r"1(\.\d+)?", version):
        problem = f"its lock-version {version} is not supported, envsync reads 1.0"
        raise LockFileError(path, problem, hint=_RELOCK)
    _place_nowhere(table)
    try:
        return PylockFile(path, content, Pylock.from_dict(table))
    except PylockValidationError as error:
        raise LockFileError(path, _described(error, table), hint=_RELOCK) from error


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

    def __init__(self, path: str, content: bytes, lock: Pylock) -> None:
        self.path = path
        self.inputs = (path,)
        self.contents = (content,)
        self._lock = lock

    def select(
        self,
        interpreter: Interpreter,
        *,
        extras: tuple[str, ...] = (),
        groups: tuple[str, ...] | None = None,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        fit = wheels.Fit(interpreter)
        selection = _Selection(self.path, self._lock, interpreter, fit)
        selection.check_python()
        places = Places(self.path, sources, fit)
        selected = selection.files(self._extras(extras), self._groups(groups))
        placed = search([places.of(package, file) for package, file in selected], sources, known)
        return Target(tuple(sorted((each.artifact for each in placed), key=lambda artifact: artifact.name)))

    def _extras(self, asked: tuple[str, ...]) -> list[str]:
        return self._defined("extra", asked, [str(extra) for extra in self._lock.extras or ()])

    def _groups(self, asked: tuple[str, ...] | None) -> list[str]:
        defaults = self._lock.default_groups or ()
        if asked is None:
            return list(defaults)
        return self._defined("group", asked, [*(self._lock.dependency_groups or ()), *defaults])

    def _defined(self, kind: str, asked: tuple[str, ...], defined: list[str]) -> list[str]:
        """Give the names as the lock file spells them."""
        spelled = {canonicalize_name(name): name for name in defined}
        unknown = [name for name in asked if canonicalize_name(name) not in spelled]
        if unknown:
            there_are = ", ".join(sorted(spelled.values())) or "none"
            problem = f"it does not define the {kind} `{unknown[0]}`; the {kind}s that it defines: {there_are}"
            hint = f"leave out --{kind} {unknown[0]}, or lock again with it"
            raise LockFileError(self.path, problem, hint=hint)
        return [spelled[canonicalize_name(name)] for name in asked]


class _Selection:
    """Selects the packages and files for one interpreter, and says what is wrong if that fails."""

    def __init__(self, path: str, lock: Pylock, interpreter: Interpreter, fit: wheels.Fit) -> None:
        self._path = path
        self._lock = lock
        self._fit = fit
        self._markers = dict(interpreter.markers)

    def check_python(self) -> None:
        """Check that the lock file was made for such a Python.

        :raises LockFileError: it was not
        """
        needed = self._lock.requires_python
        if needed is not None and not self._fit.runs(str(needed)):
            problem = f"it needs Python {needed}, and the target is {self._fit.python}"
            raise LockFileError(self._path, problem, hint=_OTHER_PYTHON)
        markers = self._lock.environments
        try:
            fits = not markers or any(marker.evaluate(self._markers, context="requirement") for marker in markers)
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from error
        if not fits:
            listed = "; ".join(str(marker) for marker in markers or ())
            problem = f"it was not made for {self._fit.description}; its environments are: {listed}"
            raise LockFileError(self._path, problem, hint=_OTHER_PYTHON)

    def files(self, extras: list[str], groups: list[str]) -> Iterator[tuple[Package, PackageWheel | PackageArchive]]:
        """Yield each package and the file to install.

        :raises LockFileError: the lock file does not fit the interpreter
        :raises NoWheelError: what it has for a package is no wheel, or none that fits
        """
        environment = cast("Environment", self._markers)
        try:
            for package, file in self._lock.select(
                environment=environment, tags=self._fit.tags, extras=extras, dependency_groups=groups
            ):
                if not isinstance(file, (PackageWheel, PackageArchive)):
                    raise self._no_wheel(package, is_sdist=isinstance(file, PackageSdist))
                yield package, file
        except PylockSelectError as error:
            raise self._explained(error, extras, groups) from error
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise self._unevaluated(error) from error

    def _unevaluated(self, error: Exception) -> LockFileError:
        return LockFileError(self._path, f"a marker cannot be evaluated: {error}", hint=_RELOCK)

    def _no_wheel(self, package: Package, *, is_sdist: bool) -> NoWheelError:
        about = f"package `{package.name}`: "
        if is_sdist and package.wheels:
            return self._no_fit(package)
        if package.sdist is not None:
            hint = wheels.how_to_build(package.name, package.version)
            return NoWheelError(self._path, about + wheels.only_source(package.sdist.filename), hint=hint)
        kind = "a version control repository" if package.vcs else "a directory"
        hint = "build a wheel of it with `pip wheel --no-deps --wheel-dir wheels`, and lock that wheel"
        return NoWheelError(self._path, f"{about}it comes from {kind}, and envsync installs wheels", hint=hint)

    def _no_fit(self, package: Package) -> NoWheelError:
        problem = wheels.no_fit([wheel.filename for wheel in package.wheels or ()], self._fit)
        if package.sdist is not None:
            problem += f", only the source distribution `{package.sdist.filename}`, and envsync installs wheels"
        hint = wheels.how_to_build(package.name, package.version)
        return NoWheelError(self._path, f"package `{package.name}`: {problem}", hint=hint)

    def _explained(self, error: PylockSelectError, extras: list[str], groups: list[str]) -> LockFileError:
        """Find the package that made the selection fail, which the error says only in its text."""
        environment: dict[str, str | frozenset[str]] = {**self._markers}
        environment |= {"extras": frozenset(extras), "dependency_groups": frozenset(groups)}
        for package in self._lock.packages:
            if package.marker and not package.marker.evaluate(environment, context="lock_file"):
                continue
            needed = package.requires_python
            if needed is not None and not self._fit.runs(str(needed)):
                problem = f"it needs Python {needed}, and the target is {self._fit.python}"
                return LockFileError(self._path, f"package `{package.name}`: {problem}", hint=_OTHER_PYTHON)
            tags = [wheels.WheelName(wheel.filename).tags for wheel in package.wheels or ()]
            if tags and package.sdist is None and not any(map(self._fit.fits, tags)):
                return self._no_fit(package)
        hint = "extras or groups may exclude each other: ask for fewer of them, or lock again"
        return LockFileError(self._path, str(error), hint=hint)
