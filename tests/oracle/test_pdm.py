"""pdm.lock, read as PDM reads it: `pdm sync --dry-run` is the oracle."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from envsync.errors import LockFileError
from envsync.lockfile import Choice, read
from envsync.python.facts import Interpreter
from tests.oracle.conftest import Run
from tests.wheels import build_wheel

TOOL = "pdm"
VARIABLES = {"PDM_CHECK_UPDATE": "0", "PDM_NON_INTERACTIVE": "1"}
_ADDED = re.compile(r"^\s+- ([\w.-]+) (\S+)", re.MULTILINE)

SOURCE = """
[[tool.pdm.source]]
name = "pypi"
url = "{address}/simple"
"""
HEAD = """
[project]
name = "sample"
version = "1.0"
requires-python = ">=3.11"
"""
ALL = [("", Choice()), ("--prod", Choice(no_default_groups=True))]
EXTRAS = """
[project.optional-dependencies]
x = ["opt[m]", "tool ; python_version < '3.13'"]
y = ["marked"]
"""
PROJECTS = {
    "plain": (HEAD + 'dependencies = ["mid", "both"]\n', "-G :all", ALL),
    "extras": (
        HEAD + 'dependencies = ["mid"]\n' + EXTRAS + '[dependency-groups]\ndev = ["both"]\n',
        "-G :all",
        [
            *ALL,
            ("-G x", Choice(extras=("x",))),
            ("-G x -G y --prod", Choice(extras=("x", "y"), no_default_groups=True)),
            ("-G :all", Choice(all_extras=True)),
            ("--without y", Choice(no_extras=("y",))),
            ("--without dev", Choice(no_groups=("dev",))),
        ],
    ),
    "extras that were not locked": (
        HEAD + 'dependencies = ["leaf"]\n' + EXTRAS + '[dependency-groups]\ndev = ["both"]\n',
        "",
        ALL,
    ),
    "groups": (
        HEAD
        + """dependencies = ["leaf"]
[dependency-groups]
dev = ["mid", "tool"]
"Odd.Group" = ["both", { include-group = "dev" }, "cpuonly"]
[tool.pdm.dev-dependencies]
docs = ["opt[all]"]
""",
        "-G :all",
        [
            *ALL,
            ("-G odd-group", Choice(groups=("odd.group",))),
            ("--prod -G docs", None),
            ("-G docs -G dev", Choice(groups=("docs", "dev"))),
            ("--without docs", Choice(no_groups=("docs",))),
            ("--without dev --without docs", Choice(no_groups=("dev", "docs"))),
            ("--no-default", Choice(no_groups=("default",))),
        ],
    ),
    "markers": (
        HEAD
        + """dependencies = ["marked", "winonly ; sys_platform == 'win32'", "tool ; python_version > '3.20'"]
[dependency-groups]
dev = ["winonly ; os_name == 'posix'", "deep"]
""",
        "-G :all",
        ALL,
    ),
    "versions": (
        HEAD
        + """dependencies = [
    "leaf == 1.0 ; python_version < '3.12'",
    "leaf == 2.0 ; python_version >= '3.12'",
    "mid",
]
""",
        "--python <3.12,>=3.11; --append --python >=3.12",
        ALL,
    ),
    "static URLs": (HEAD + 'dependencies = ["mid", "cpuonly"]\n', "-S static_urls", ALL),
    "places": (
        HEAD + 'dependencies = ["mid @ {address}/files/mid-1.0-py3-none-any.whl", "beside @ {beside}"]\n',
        "",
        ALL,
    ),
    "targets": (
        HEAD + 'dependencies = ["deep"]\n',
        "--platform linux --python >=3.11",
        ALL,
    ),
    "exclusions": (
        HEAD + 'dependencies = ["both", "tool"]\n[tool.pdm]\ndistribution = false\n[tool.pdm.resolution]\n'
        'excludes = ["mid"]\n',
        "",
        ALL,
    ),
}


@pytest.fixture
def beside(tmp_path: Path) -> str:
    directory = tmp_path / "project" / "wheels"
    directory.mkdir(parents=True, exist_ok=True)
    build_wheel(directory, "beside", "1.0", requires=["leaf"])
    return "file:///${PROJECT_ROOT}/wheels/beside-1.0-py3-none-any.whl"


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROJECTS)
def test_the_same_is_selected(
    name: str, tmp_path: Path, tool: Run, address: str, beside: str, interpreter: Interpreter
) -> None:
    """Names and versions, for every choice of groups and extras."""
    text, locking, cases = PROJECTS[name]
    project = tmp_path / "project"
    filled = (text + SOURCE).replace("{address}", address).replace("{beside}", beside)
    (project / "pyproject.toml").write_text(filled)
    tool("use", "-f", str(project / ".venv/bin/python"))
    for command in locking.split(";"):
        tool("lock", *command.split())
    lock = read(str(project / "pdm.lock"))
    seen = set()
    for arguments, choice in cases:
        done = tool("sync", "--no-self", "--dry-run", *arguments.split(), check=choice is not None)
        if choice is None:
            assert done.returncode != 0
            continue
        expected = set(_ADDED.findall(done.stdout))
        target = lock.select(interpreter, replace(choice, no_install_project=True))
        assert {(each.name, each.version) for each in target.artifacts} == expected, arguments
        assert all(each.hashes and (each.url or each.path) for each in target.artifacts)
        seen |= expected
    assert seen, "the oracle speaks another language"


@pytest.mark.oracle
def test_a_lock_for_another_platform_is_refused(
    tmp_path: Path, tool: Run, address: str, interpreter: Interpreter
) -> None:
    """By both."""
    project = tmp_path / "project"
    (project / "pyproject.toml").write_text((HEAD + 'dependencies = ["leaf"]\n' + SOURCE).replace("{address}", address))
    tool("use", "-f", str(project / ".venv/bin/python"))
    tool("lock", "--platform", "windows_amd64")
    assert "No compatible lock target" in tool("sync", "--no-self", "--dry-run", check=False).stderr
    with pytest.raises(LockFileError, match="was not made for"):
        read(str(project / "pdm.lock")).select(interpreter, Choice(no_install_project=True))
