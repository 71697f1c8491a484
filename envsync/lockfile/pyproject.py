"""What of a pyproject.toml decides what is installed, in one form: an edit of anything else is no change.

Many edits of it are of no consequence for an environment: comments, the settings of a linter, our own table, whose
options are in the digest by themselves. What counts is who the project is and what it depends on, what builds it, and
the tables of the tools that lock it. A build backend and its plugins have tables of their own, and what is in there may
decide what an installed project consists of. They are told by name from `build-system.requires`: `[tool.hatch]` belongs
to hatchling and to hatch-vcs. Where a project brings its own backend (`backend-path`), all tables count.

Not covered: a backend that reads the table of a tool of another name.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

TABLES = ("project", "build-system", "dependency-groups")
LOCKERS = ("uv", "poetry", "pdm")
"""Of `[tool]`: those that lock a project, and say there what they lock."""
OURS = "envsync"
DEFAULT_BACKEND = "setuptools"
"""What builds a project that does not say (PEP 517)."""
ALSO = {"distutils": "setuptools"}
"""A table that a backend reads besides the one of its name."""
_NAME = re.compile(r"\s*([A-Za-z0-9._-]+)")


def canonical(content: bytes) -> bytes:
    """Return what decides in a pyproject.toml; two that differ in nothing that counts give the same.

    The content itself if it cannot be parsed: whoever needs more of it says so.
    """
    try:
        table = tomllib.loads(content.decode())
        return json.dumps(_deciding(table), sort_keys=True, default=_tagged).encode()
    except (ValueError, RecursionError):  # it is no TOML, has a number of thousands of digits, ...
        return content


def _deciding(table: Mapping[str, Any]) -> list[Any]:
    tool = table.get("tool", {})
    tools = {name: tool[name] for name in tool if _decides(name, table)} if isinstance(tool, dict) else tool
    return [{name: table[name] for name in TABLES if name in table}, tools]


def _decides(name: str, table: Mapping[str, Any]) -> bool:
    """Tell whether a table of `[tool]` counts."""
    if name in LOCKERS:
        return True
    system = table.get("build-system", {"requires": [DEFAULT_BACKEND]})
    if name == OURS or not isinstance(system, dict):
        return False
    requires = system.get("requires")
    named = [match[1] for each in requires if (match := _NAME.match(str(each)))] if isinstance(requires, list) else []
    return "backend-path" in system or any(_belongs(name, each) for each in named)


def _belongs(table: str, package: str) -> bool:
    """Tell whether a table's name begins that of a package, whose name may be written in other ways."""
    return _normalized(package).startswith(_normalized(ALSO.get(table, table)))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tagged(value: object) -> object:
    """Write a date or a time as no other value is written: TOML knows no null."""
    return [None, type(value).__name__, str(value)]
