"""What a project's pyproject.toml says about installing its lock file: default groups, and what may not be taken."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name

from envsync.errors import LockFileError
from envsync.lockfile.choice import DEFAULT_GROUP

FILENAME = "pyproject.toml"
ALL = "all"


class Forbidden(NamedTuple):
    """What is not to be taken: wheels (`no-binary`), or what has to be built (`no-build`)."""

    everything: bool = False
    names: frozenset[str] = frozenset()

    def forbids(self, name: str) -> bool:
        """Tell whether that counts for a package.

        :param name: normalized
        """
        return self.everything or name in self.names


class Project(NamedTuple):
    """What `[tool.uv]` says."""

    default_groups: tuple[str, ...] | None = (DEFAULT_GROUP,)
    """None: all of them."""
    no_binary: Forbidden = Forbidden()
    no_build: Forbidden = Forbidden()


def parse(path: str, content: bytes, lock_file: str) -> Project:
    """Read what a pyproject.toml says.

    :param lock_file: for which it is read
    :raises LockFileError: it is no TOML, or what it says makes no sense
    """
    try:
        document = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = f"`{path}` beside it is not TOML: {error}"
        raise LockFileError(lock_file, problem, hint=_show(path, str(error))) from None
    tool = document.get("tool")
    settings = tool.get("uv") if isinstance(tool, dict) else None
    if not isinstance(settings, dict):
        return Project()
    try:
        return Project(
            _default_groups(settings.get("default-groups", [DEFAULT_GROUP])),
            _forbidden(settings, "no-binary"),
            _forbidden(settings, "no-build"),
        )
    except TypeError as error:
        raise LockFileError(lock_file, f"`{path}` beside it: {error}", hint=_show(path, "")) from None


def _default_groups(value: Any) -> tuple[str, ...] | None:
    return None if value == ALL else _names("default-groups", value)


def _forbidden(settings: Mapping[str, Any], key: str) -> Forbidden:
    names = _names(f"{key}-package", settings.get(f"{key}-package", []))
    return Forbidden(settings.get(key) is True, frozenset(names))


def _names(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"`{key}` in `[tool.uv]` is no list of names")
    return tuple(map(canonicalize_name, value))


def _show(path: str, problem: str) -> str:
    line = re.search(r"at line (\d+)", problem)
    command = ["sed", "-n", f"{line[1]}p", path] if line else ["grep", "-n", "-A99", "tool.uv", path]
    return f"`{shlex.join(command)}` shows it"
