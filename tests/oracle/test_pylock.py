"""pylock.toml as pip, uv and PDM write it: what the tool itself would install is what is selected here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from envsync.errors import LockFileError
from envsync.lockfile import Choice, read
from envsync.lockfile.stale import comparing
from envsync.lockfile.target import DIRECTORY, Source
from envsync.python.facts import Interpreter
from envsync.python.interpreter import inspect, own_base
from tests.oracle.conftest import Run, running

VARIABLES = {"PDM_CHECK_UPDATE": "0", "PDM_NON_INTERACTIVE": "1"}
_ADDED = re.compile(r"^\s*[+-] ([\w.-]+)(?:==| )(\S+)", re.MULTILINE)
PROJECT = """\
[project]
name = "sample"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["mid", "winonly ; sys_platform == 'win32'"]
[project.optional-dependencies]
x = ["opt[m]", "tool ; python_version < '3.13'"]
[dependency-groups]
dev = ["both"]
docs = ["marked"]
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[[tool.pdm.source]]
name = "pypi"
url = "{address}/simple"
"""
LEFT_OUT = Choice(no_install_project=True)


@pytest.fixture
def project(tmp_path: Path, address: str) -> Path:
    directory = tmp_path / "project"
    directory.mkdir(exist_ok=True)
    (directory / "pyproject.toml").write_text(PROJECT.replace("{address}", address))
    return directory


@pytest.fixture
def make(request: pytest.FixtureRequest, project: Path, python: str) -> Run:
    """Run a tool in the project, which has a `.venv`."""
    return running(request.param, project, python, VARIABLES)


def selected(path: Path, interpreter: Interpreter, choice: Choice) -> set[tuple[str, str]]:
    target = read(str(path)).select(interpreter, choice)
    assert all(each.hashes and (each.url or each.path) for each in target.artifacts)
    return {(each.name, each.version) for each in target.artifacts}


@pytest.mark.oracle
@pytest.mark.parametrize("make", ["uv"], indirect=True)
@pytest.mark.parametrize(
    "options", ["", "--extra x", "--all-extras --all-groups", "--only-group docs", "--no-dev", "--no-default-groups"]
)
def test_what_uv_exports(make: Run, project: Path, address: str, interpreter: Interpreter, options: str) -> None:
    """Extras and groups are chosen when it is exported; the project itself is among it, and may be left out."""
    index = ("--default-index", f"{address}/simple")
    make("lock", *index)
    make("export", "--format", "pylock.toml", "--output-file", "pylock.toml", *index, *options.split())
    done = make("sync", "--frozen", "--dry-run", "--no-install-project", *options.split())
    expected = set(_ADDED.findall(done.stderr))
    assert expected
    path = project / "pylock.toml"
    assert selected(path, interpreter, LEFT_OUT) == expected
    if not options.startswith("--only"):
        itself = [each.source for each in read(str(path)).select(interpreter).artifacts if each.name == "sample"]
        assert itself == [Source(DIRECTORY, str(project), editable=True)]


@pytest.mark.oracle
@pytest.mark.parametrize("make", ["uv"], indirect=True)
def test_the_hint_for_a_file_of_uv_works(make: Run, project: Path, address: str, interpreter: Interpreter) -> None:
    """It names the command that exports the extra, which then is always in it."""
    make("lock", "--default-index", f"{address}/simple")
    make("export", "--format", "pylock.toml", "--output-file", "pylock.toml")
    with pytest.raises(LockFileError) as caught:
        read(str(project / "pylock.toml")).select(interpreter, Choice(extras=("x",)))
    command = re.findall(r"&& uv ([^`]*)`", str(caught.value.hint))[0]
    make(*command.split())
    assert ("opt", "1.0") in selected(project / "pylock.toml", interpreter, LEFT_OUT)


@pytest.mark.oracle
@pytest.mark.parametrize("make", ["pip"], indirect=True)
def test_what_pip_locks(make: Run, project: Path, address: str, tmp_path: Path) -> None:
    """It is for pip's own Python, and its markers are decided already. pip says itself what it would install."""
    interpreter = inspect(own_base(), str(tmp_path / "facts"))
    index = ("--index-url", f"{address}/simple", "--quiet")
    make("lock", *index, "--output", "pylock.toml", "both", "opt[m]", "--group", "docs")
    report = make(
        "install", *index, "--dry-run", "--ignore-installed", "--report", "-", "both", "opt[m]", "--group", "docs"
    )
    metadata = [each["metadata"] for each in json.loads(report.stdout)["install"]]
    expected = {(each["name"].lower(), each["version"]) for each in metadata}
    assert selected(project / "pylock.toml", interpreter, Choice()) == expected


@pytest.mark.oracle
@pytest.mark.parametrize("make", ["pdm"], indirect=True)
def test_what_pdm_keeps(make: Run, project: Path, interpreter: Interpreter) -> None:
    """Its own lock file may be a pylock.toml, with extras and groups, and it tells whether it is stale."""
    make("use", "-f", str(project / ".venv/bin/python"))
    make("config", "--local", "lock.format", "pylock")
    make("lock", "--group", ":all")
    path = project / "pylock.toml"
    for options, choice in (
        ("--prod", Choice()),
        ("--prod -G x", Choice(extras=("x",))),
        ("-G dev -G docs", Choice(groups=("dev", "docs"))),
        ("-G :all", Choice(all_extras=True, all_groups=True)),
    ):
        done = make("sync", "--no-self", "--dry-run", *options.split())
        assert selected(path, interpreter, choice) == set(_ADDED.findall(done.stdout)), options
    assert comparing.compare(read(str(path)), strictly=True).fitting
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace('"mid"', '"mid", "tool"'))
    assert make("lock", "--check", check=False).returncode != 0
    assert comparing.compare(read(str(path)), strictly=False).note.endswith("&& pdm lock` locks that")


@pytest.mark.oracle
@pytest.mark.parametrize("make", ["pdm"], indirect=True)
def test_what_pdm_exports(make: Run, project: Path, interpreter: Interpreter) -> None:
    """An extra that is exported is always in it, once it was locked; the hint sees to that."""
    make("use", "-f", str(project / ".venv/bin/python"))
    make("lock")
    make("export", "--format", "pylock", "--output", "pylock.toml", "--group", "x")
    path = project / "pylock.toml"
    assert ("opt", "1.0") not in selected(path, interpreter, Choice())
    with pytest.raises(LockFileError) as caught:
        read(str(path)).select(interpreter, Choice(extras=("x",)))
    first, second = re.findall(r"pdm ([^`&]*)", str(caught.value.hint))
    for command in (first, second):
        make(*command.split())
    assert ("opt", "1.0") in selected(path, interpreter, Choice())
