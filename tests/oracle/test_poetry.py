"""poetry.lock, read as Poetry reads it: `poetry sync --dry-run` is the oracle."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from envsync.lockfile import Choice, read
from envsync.python.facts import Interpreter
from tests.oracle.conftest import Run
from tests.wheels import build_wheel

TOOL = "poetry"
VARIABLES = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_VIRTUALENVS_CREATE": "true"}
_INSTALLED = re.compile(r"- Installing ([\w.-]+) \(([^ )]+)[^)]*\)(?!: Skipped)")

SOURCE = """
[[tool.poetry.source]]
name = "fixtures"
url = "{address}/simple"
priority = "primary"
"""
HEAD = """
[project]
name = "sample"
version = "1.0"
requires-python = ">=3.11,<4.0"
"""
ALL = [
    ("", Choice()),
    ("--only main", Choice(no_default_groups=True)),
    ("--all-extras", Choice(all_extras=True)),
    ("--all-groups", Choice(all_groups=True)),
]
X = [("--extras x", Choice(extras=("x",))), ("--extras 'x y'", Choice(extras=("x", "y")))]
PROJECTS = {
    "plain": (HEAD + 'dependencies = ["mid", "both"]\n', ALL),
    "extras": (
        HEAD
        + """dependencies = ["mid"]
[project.optional-dependencies]
x = ["opt[m]", "tool ; python_version < '3.13'"]
y = ["old-pin"]
""",
        [*ALL, *X, ("--only main --extras x", Choice(no_default_groups=True, extras=("x",)))],
    ),
    "groups": (
        HEAD
        + """dependencies = ["leaf"]
[dependency-groups]
dev = ["mid", "tool"]
"Odd.Group" = ["both", { include-group = "dev" }]
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
cpuonly = "*"
""",
        [
            *ALL,
            ("--with docs", Choice(groups=("docs",))),
            ("--without dev", Choice(no_groups=("dev",))),
            ("--only docs", Choice(only_groups=("docs",))),
            ("--only odd-group", Choice(only_groups=("odd.group",))),
            ("--without main", Choice(no_groups=("main",))),
        ],
    ),
    "markers": (
        HEAD
        + """dependencies = ["marked", "winonly ; sys_platform == 'win32'", "tool ; python_version > '3.20'"]
[dependency-groups]
dev = ["winonly ; os_name == 'posix'", "deep"]
""",
        ALL,
    ),
    "versions": (
        HEAD
        + """dependencies = ["leaf == 1.0 ; python_version < '3.12'", "leaf == 2.0 ; python_version >= '3.12'", "mid"]
""",
        ALL,
    ),
    "in Poetry's own words": (
        """
[tool.poetry]
name = "sample"
version = "1.0"
description = ""
authors = []
[tool.poetry.dependencies]
python = "^3.9 || ~4.2"
Mid = "^1.0"
tool = { version = "*", optional = true, python = "<3.13" }
opt = { version = "*", extras = ["m"], optional = true }
[tool.poetry.extras]
x = ["tool"]
y = ["opt", "tool"]
[tool.poetry.dev-dependencies]
both = "*"
""",
        [*ALL, *X],
    ),
    "exclusive extras": (
        HEAD
        + """
[project.optional-dependencies]
x = []
y = []
[tool.poetry.dependencies]
leaf = [
    { version = "1.0", markers = "extra == 'x' and extra != 'y'" },
    { version = "2.0", markers = "extra != 'x' and extra == 'y'" },
]
mid = { version = "*", markers = "extra != 'x'" }
""",
        [*ALL, ("--extras x", Choice(extras=("x",))), ("--extras y", Choice(extras=("y",)))],
    ),
    "places": (
        HEAD
        + """
[tool.poetry.dependencies]
mid = { url = "{address}/files/mid-1.0-py3-none-any.whl" }
beside = { path = "wheels/beside-1.0-py3-none-any.whl" }
""",
        ALL,
    ),
    "no package": (HEAD + 'dependencies = ["Odd.Name", "deep"]\n[tool.poetry]\npackage-mode = false\n', ALL),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "wheels").mkdir(parents=True, exist_ok=True)
    build_wheel(directory / "wheels", "beside", "1.0", requires=["leaf"])
    return directory


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROJECTS)
def test_the_same_is_selected(name: str, project: Path, tool: Run, address: str, interpreter: Interpreter) -> None:
    """Names and versions, for every choice of groups and extras."""
    text, cases = PROJECTS[name]
    (project / "pyproject.toml").write_text((text + SOURCE).replace("{address}", address))
    tool("lock")
    lock = read(str(project / "poetry.lock"))
    seen = set()
    for arguments, choice in cases:
        words = [word.replace("'", "") for word in re.findall(r"'[^']*'|\S+", arguments)]
        printed = tool("sync", "--no-root", "--dry-run", "--no-ansi", *words).stdout
        expected = {(name.lower().replace(".", "-"), version) for name, version in _INSTALLED.findall(printed)}
        target = lock.select(interpreter, replace(choice, no_install_project=True))
        seen |= expected
        assert {(each.name, each.version) for each in target.artifacts} == expected, arguments
        assert all(each.hashes and (each.url or each.path) for each in target.artifacts)
    assert seen, "the oracle speaks another language"
