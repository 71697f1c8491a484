"""pylock.toml (PEP 751): `packaging.pylock` validates and selects, here its refusals get a remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from packaging.pylock import Pylock, PylockValidationError

from envsync.errors import LockFileError, remedies
from envsync.lockfile import conditions, hearing, records
from envsync.lockfile.choice import Choice, UndefinedError
from envsync.lockfile.parsed import known_to_nobody, read_input, refuse_members, understanding
from envsync.lockfile.places import NOWHERE
from envsync.lockfile.selection import selected
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import Target
from envsync.python.facts import Interpreter


def read(path: str, content: bytes | None = None) -> PylockFile:
    """Read and parse a pylock file.

    :param content: what was read of it before, if anything was
    :raises LockFileError: it cannot be read, or is not a valid one
    """
    content = read_input(path, path) if content is None else content
    table = records.toml(path, content)
    relock = remedies.relock(path)
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

    def __init__(self, path: str, content: bytes, lock: Pylock) -> None:
        self.path = path
        self.placed = any(package.directory is not None for package in lock.packages)
        self.inputs = (path,)
        self.contents = self.canonical = (content,)
        self._lock = lock

    @property
    def _is_kept_by_pdm(self) -> bool:
        """It is the lock file that PDM keeps for a project, and not one that it exported."""
        own = (self._lock.tool or {}).get("pdm")
        return self._lock.created_by == "pdm" and isinstance(own, dict) and "strategy" in own

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
            extras, groups = self._chosen(choice)
            return selected(
                self.path,
                self._lock,
                interpreter,
                choice,
                extras=extras,
                groups=groups,
                sources=sources,
                known=known,
            )

    def _chosen(self, choice: Choice) -> tuple[frozenset[str], frozenset[str]]:
        """Return extras and groups, as the lock file spells them.

        :raises LockFileError: it does not define one of them, or knows nothing of members
        """
        lock = self._lock
        refuse_members(self.path, choice, remedies.relock(self.path))
        defaults = list(lock.default_groups or ())
        try:
            extras = choice.extras_of([str(extra) for extra in lock.extras or ()])
            groups = choice.groups_of([*(lock.dependency_groups or ()), *defaults], defaults)
        except UndefinedError as error:
            asked = choice.extras if error.kind == "extra" else choice.groups
            raise LockFileError(self.path, str(error), hint=self._lock_with(error.kind, error.names, asked)) from None
        return extras, groups

    def _lock_with(self, kind: str, unknown: tuple[str, ...], asked: tuple[str, ...]) -> str:
        """Say how to get into the file what it does not define, by the tool that made it."""
        directory, name = os.path.split(self.path)
        if self._is_kept_by_pdm:
            return f"{remedies.lock(self.path, 'pdm', '--group :all')} makes a lock file that has all extras and groups"
        command = remedies.export(directory, self._lock.created_by, name=name, kind=kind, chosen=asked)
        leave = " ".join(f"--{kind} {each}" for each in unknown)
        return f"{command} makes a lock file that always has them; then leave out {leave}"
