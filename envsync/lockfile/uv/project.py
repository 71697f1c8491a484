"""What a project's pyproject.toml says on installing its lock file: default groups, what may not be taken, builds."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from packaging.utils import canonicalize_name

from envsync.errors import LockFileError
from envsync.lockfile.choice import DEFAULT_GROUP
from envsync.lockfile.uv.building import Settings, settings_of
from envsync.lockfile.uv.records import Defaults, MalformedError, TomlTable

FILENAME = "pyproject.toml"


class Forbidden(NamedTuple):
    """What is not to be taken: wheels (`no-binary`), or what has to be built (`no-build`)."""

    everything: bool = False
    names: tuple[str, ...] = ()

    def forbids(self, name: str) -> bool:
        """Tell whether that counts for a package.

        :param name: normalized
        """
        return self.everything or name in self.names


class Project(NamedTuple):
    """What `[tool.uv]` says."""

    default_groups: Defaults = (DEFAULT_GROUP,)
    no_binary: Forbidden = Forbidden()
    no_build: Forbidden = Forbidden()
    groups_python: tuple[tuple[str, str], ...] = ()
    """Groups that need another Python than the project does, and which."""
    builds: Settings = Settings()


def parse(path: str, content: bytes, lock_file: str) -> Project:
    """Read what a pyproject.toml says.

    :param lock_file: for which it is read
    :raises LockFileError: it is no TOML, or what it says makes no sense
    """
    try:
        settings = TomlTable(tomllib.loads(content.decode())).table("tool").table("uv")
        return Project(
            settings.default_groups(),
            _forbidden(settings, "no-binary"),
            _forbidden(settings, "no-build"),
            tuple(_groups_python(settings.table("dependency-groups"))),
            settings_of(settings),
        )
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, MalformedError) as error:
        raise LockFileError(lock_file, f"`{path}`: {error}", hint=_show(path, str(error))) from None


def _forbidden(settings: TomlTable, key: str) -> Forbidden:
    return Forbidden(settings.values.get(key) is True, settings.names(f"{key}-package"))


def _groups_python(groups: TomlTable) -> Iterator[tuple[str, str]]:
    for key in groups.values:
        needed = groups.table(key).text("requires-python")
        if needed is not None:
            yield canonicalize_name(key), needed


def _show(path: str, problem: str) -> str:
    line = re.search(r"at line (\d+)", problem)
    command = ["sed", "-n", f"{line[1]}p", path] if line else ["grep", "-n", "tool.uv", path]
    return f"`{shlex.join(command)}` shows it"
