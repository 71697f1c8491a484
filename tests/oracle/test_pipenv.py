"""Pipfile.lock, read as Pipenv reads it: what `pipenv sync` has installed is the oracle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from envsync.lockfile import Choice, read
from envsync.python.facts import Interpreter
from tests.oracle.conftest import Run
from tests.wheels import build_wheel

TOOL = "pipenv"
VARIABLES = {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_NOSPIN": "1", "PIPENV_YES": "1"}

SOURCE = """
[[source]]
name = "fixtures"
url = "{address}/simple"
verify_ssl = false
"""
ALL = [("", Choice()), ("--dev", Choice(groups=("dev",)))]
PROJECTS = {
    "plain": ('[packages]\nmid = "*"\nboth = "*"\n', ALL),
    "development": ('[packages]\nleaf = "*"\n[dev-packages]\nboth = "*"\ntool = "*"\n', ALL),
    "pinned": ('[packages]\nold-pin = "*"\n[dev-packages]\nmid = "==1.0"\n', ALL),
    "extras": ('[packages]\nopt = {version = "*", extras = ["m"]}\n[dev-packages]\ndeep = "*"\n', ALL),
    "markers": (
        """[packages]
marked = "*"
winonly = {version = "*", markers = "sys_platform == 'win32'"}
tool = {version = "*", markers = "python_version > '3.20'"}
[dev-packages]
leaf = {version = "*", markers = "os_name == 'posix'"}
""",
        ALL,
    ),
    "categories": (
        '[packages]\nleaf = "*"\n[docs]\ncpuonly = "*"\n[dev-packages]\n"Odd.Name" = "*"\n',
        [
            *ALL,
            ("--categories docs", Choice(only_groups=("docs",))),
            ("--categories 'packages docs'", Choice(groups=("docs",))),
            ("--categories 'packages docs dev-packages'", Choice(all_groups=True)),
        ],
    ),
    "two sources": (
        """[[source]]
name = "other"
url = "{address}/simple/"
verify_ssl = false
[packages]
leaf = {version = "*", index = "other"}
mid = "*"
""",
        ALL,
    ),
    "a variable": ('[packages]\nboth = "*"\n', ALL),
    "a place": ('[packages]\nbeside = {path = "wheels/beside-1.0-py3-none-any.whl"}\n', ALL),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROJECTS)
def test_the_same_is_selected(
    name: str,
    tmp_path: Path,
    tool: Run,
    address: str,
    python: str,
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names and versions, for every choice of categories."""
    text, cases = PROJECTS[name]
    project = tmp_path / "project"
    (project / "wheels").mkdir()
    build_wheel(project / "wheels", "beside", "1.0", requires=["leaf"])
    monkeypatch.setenv("INDEX", address)
    filled = SOURCE.replace("{address}", "${INDEX}" if name == "a variable" else address)
    (project / "Pipfile").write_text(filled + text.replace("{address}", address))
    tool("lock")
    seen = set()
    for arguments, choice in cases:
        shutil.rmtree(project / ".venv")
        subprocess.run([python, "-m", "venv", "--without-pip", str(project / ".venv")], check=True)
        words = [word.replace("'", "") for word in re.findall(r"'[^']*'|\S+", arguments)]
        tool("sync", *words)
        expected = _installed(project)
        target = read(str(project / "Pipfile.lock")).select(interpreter, choice)
        assert {(each.name, each.version) for each in target.artifacts} == expected, arguments
        seen |= expected
    assert seen, "the oracle speaks another language"


def _installed(project: Path) -> set[tuple[str, str]]:
    found = set()
    for path in (project / ".venv").glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found.add((re.sub(r"[-_.]+", "-", name).lower(), version))
    return found
