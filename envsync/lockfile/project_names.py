"""What the project in a directory is called, where a requirement does not say: `-e .`, `./dir`.

Its name is taken from what can be read without running anything: pyproject.toml, or else setup.cfg, or else the text
that setup.py gives to `setup`. What was read is an input of the lock file, for another name is another package. Where
setup.py works the name out, the requirement has to say it: `NAME @ file:///DIRECTORY`.
"""

from __future__ import annotations

import ast
import os
import shlex
import tomllib
from collections.abc import Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from typing import Any

from packaging.utils import InvalidName, canonicalize_name

from envsync.launch.reading import content_of_named
from envsync.lockfile import pyproject
from envsync.lockfile.grammar import GrammarError
from envsync.system import paths

PYPROJECT, SETUP_CFG, SETUP_PY = "pyproject.toml", "setup.cfg", "setup.py"
_TABLES = (("project",), ("tool", "poetry"), ("tool", "flit", "metadata"))
"""Where a name is, in the order of precedence."""


class ProjectNames:
    """Reads the names of the projects in directories.

    :ivar files: what was read, by path; empty for one that was not there
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    @property
    def canonical(self) -> tuple[bytes, ...]:
        """What decides in each of them."""
        return tuple(
            pyproject.canonical(content) if path.endswith(PYPROJECT) else content
            for path, content in self.files.items()
        )

    def of(self, directory: str, editable: bool = False) -> str:
        """Return the normalized name of the project in a directory.

        :param directory: absolute
        :raises GrammarError: there is no project, or nothing says its name
        """
        if not os.path.isdir(directory):
            shown = f"`ls -la {shlex.quote(os.path.dirname(directory))}` shows what is there"
            raise GrammarError(f"there is no directory `{directory}`", shown)
        name = (
            _of_pyproject(self._read(directory, PYPROJECT))
            or _of_setup_cfg(self._read(directory, SETUP_CFG))
            or _of_setup_py(self._read(directory, SETUP_PY))
        )
        try:
            return canonicalize_name(name, validate=True)
        except InvalidName:
            if name:
                raise GrammarError(f"the project in `{directory}` has the name {name[:80]!r}, which is none") from None
        if not is_project(directory):
            raise GrammarError(*no_project(directory))
        flag = "-e " if editable else ""
        plain = f"NAME @ {paths.url_of(directory)}"
        reference = shlex.quote(plain) if editable else plain
        files = "neither `pyproject.toml` nor `setup.cfg` nor `setup.py`"
        problem = f"{files} in `{directory}` says what the project is called"
        raise GrammarError(problem, f"say it in the line: `{flag}{reference}`")

    def _read(self, directory: str, name: str) -> bytes:
        path = paths.join(directory, name)
        if path not in self.files:
            try:
                self.files[path] = content_of_named(path)
            except (FileNotFoundError, NotADirectoryError):
                self.files[path] = b""
            except (OSError, ValueError) as error:
                raise GrammarError(f"`{path}` cannot be read: {error}") from None
        return self.files[path]


def is_project(directory: str) -> bool:
    """Tell whether there is anything in a directory that a wheel can be built of, as pip has it."""
    return any(os.path.isfile(paths.join(directory, name)) for name in (PYPROJECT, SETUP_PY))


def no_project(directory: str) -> tuple[str, str]:
    """Say that there is none, and what can be done."""
    problem = f"there is neither `pyproject.toml` nor `setup.py` in `{directory}`, so there is nothing to build"
    return problem, f"`ls -la {shlex.quote(directory)}` shows what is there"


def _of_pyproject(content: bytes) -> str:
    try:
        root: Mapping[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        return ""
    for path in _TABLES:
        table: Any = root
        for key in path:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict):
            name = table.get("name") or (path[-1] == "metadata" and (table.get("dist-name") or table.get("module")))
            if isinstance(name, str):
                return name
    return ""


def _of_setup_cfg(content: bytes) -> str:
    parser = RawConfigParser()
    try:
        parser.read_string(content.decode())
    except (ConfigError, ValueError):
        return ""
    return parser.get("metadata", "name", fallback="").strip()


def _of_setup_py(content: bytes) -> str:
    """Return the name that is written in the call of `setup`; empty if there is no such call, or more than one."""
    try:
        calls = [node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Call)]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    calls = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) == "setup"]
    values = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "name"]
    names = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return names[0] if len(calls) == len(values) == len(names) == 1 else ""
