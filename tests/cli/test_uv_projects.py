"""Projects of uv's: which member one stands in, which Python they want, and what a launch costs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pythons
from tests.cli.test_fast_lane import Run, _names_project, launcher, traced
from tests.contention.test_secrets import sweep
from tests.environments import FIXTURES
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

__all__ = ["launcher"]

HEAD = 'version = 1\nrevision = 3\nrequires-python = ">=3.9"\n'


def record(name: str, source: str, *requires: str, more: str = "") -> str:
    """A record of a lock file, of which others are required by name."""
    edges = ", ".join(f'{{ name = "{each}" }}' for each in requires)
    return f'\n[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ {source} }}\ndependencies = [{edges}]\n{more}'


def wheel(name: str) -> str:
    """The record of a wheel of the fixtures."""
    path = FIXTURES / "wheels" / f"{name}-1.0-py3-none-any.whl"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    more = f'wheels = [{{ filename = "{path.name}", hash = "sha256:{sha256}" }}]\n'
    return record(name, f'path = "wheels/{path.name}"', more=more)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose root wants nothing, and each of whose two members one package."""
    root = tmp_path / "workspace"
    shutil.copytree(FIXTURES / "wheels", root / "wheels")
    for name in (".", "packages/a", "packages/b"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "pyproject.toml").write_text(f'[project]\nname = "{Path(name).name or "root"}"\nversion = "1"\n')
    (root / "packages/a/src").mkdir()
    members = [
        record("root", 'virtual = "."', "tally"),
        record("a", 'virtual = "packages/a"', "shout"),
        record("b", 'virtual = "packages/b"', "tally"),
    ]
    lock = f'{HEAD}\n[manifest]\nmembers = ["a", "b", "root"]\n{"".join(members)}{wheel("shout")}{wheel("tally")}'
    (root / "uv.lock").write_text(lock)
    return root


def installed(root: Path) -> set[str]:
    """What is in the environment of a workspace."""
    return {path.name.partition("-")[0] for path in root.glob(".venv/lib/*/site-packages/*.dist-info")} - {"pip"}


def test_the_member_one_stands_in(workspace: Path, run_envsync: Run) -> None:
    """Its packages are installed, wherever in it one stands, and however the lock file is named."""
    for below, wanted in (("packages/a/src", {"shout"}), ("packages/b", {"tally"}), ("packages", {"tally"})):
        assert run_envsync("sync", cwd=workspace / below).returncode == 0
        assert installed(workspace) == wanted
        for lock in ((), ("--lock", str(workspace / "uv.lock"))):
            again = run_envsync("sync", "--json", *lock, cwd=workspace / below)
            assert '"outcome": "current"' in again.stdout
        status = run_envsync("status", "--project", str(workspace / below), "--exit-code", cwd=workspace.parent)
        assert status.returncode == 0, status.stdout
    assert run_envsync("sync", "--all-packages", cwd=workspace).returncode == 0
    assert installed(workspace) == {"shout", "tally"}
    assert run_envsync("sync", "--all-packages", "--json", cwd=workspace / "packages/a").stdout.count('"current"') == 1
    assert run_envsync("sync", "--package", "a", cwd=workspace).returncode == 0
    assert installed(workspace) == {"shout"}


@pytest.mark.parametrize("revision", [3, 5])
@pytest.mark.parametrize("words", [("--all-packages",), ("--package", "a", "--package", "b")])
def test_default_groups_of_the_member_one_stands_in(
    workspace: Path, run_envsync: Run, revision: int, words: tuple[str, ...]
) -> None:
    """They are chosen of all members that are meant, as in uv, and a launch in another member is told apart."""
    group = "[package.dev-dependencies]\nextra = [{ name = 'shout' }]\n"
    with (workspace / "packages/b/pyproject.toml").open("a") as file:
        file.write("[dependency-groups]\nextra = ['shout']\n[tool.uv]\ndefault-groups = ['extra']\n")
    lock = f'{HEAD.replace("3", str(revision), 1)}\n[manifest]\nmembers = ["a", "b", "root"]\n'
    lock += record("root", 'virtual = "."') + record("a", 'virtual = "packages/a"', "tally")
    said = 'default-groups = ["extra"]\n' if revision == 5 else ""
    lock += record("b", 'virtual = "packages/b"', more=said + group) + wheel("shout") + wheel("tally")
    (workspace / "uv.lock").write_text(lock)
    for below, wanted in (("packages/b", {"shout", "tally"}), ("packages/a", {"tally"}), (".", {"tally"})) * 2:
        assert run_envsync("run", *words, "--", "true", cwd=workspace / below).returncode == 0
        assert installed(workspace) == wanted, below


def test_all_members_share_an_environment_where_none_has_default_groups(workspace: Path, run_envsync: Run) -> None:
    """Then it does not matter where one stands."""
    assert run_envsync("sync", "--all-packages", cwd=workspace / "packages/b").returncode == 0
    for below in (".", "packages/a", "packages/a/src"):
        assert run_envsync("status", "--all-packages", "--exit-code", cwd=workspace / below).returncode == 0


def test_a_project_below_that_was_never_locked(workspace: Path, run_envsync: Run) -> None:
    """It is refused, and not given what the root wants; what is named instead is installed."""
    assert run_envsync("sync", cwd=workspace).returncode == 0
    new = workspace / "packages/new"
    new.mkdir()
    (new / "pyproject.toml").write_text('[project]\nname = "new"\nversion = "1"\n')
    done = run_envsync("run", "--", "true", cwd=new)
    assert done.returncode == 125
    assert "it does not have the project in `packages/new`" in done.stderr
    assert run_envsync("run", "--package", "root", "--", "true", cwd=new).returncode == 0


def test_who_waits_for_another_member_is_told_how_not_to(workspace: Path, run_envsync: Run, tmp_path: Path) -> None:
    """All members share one environment: that is said, with what helps, where one waits for another."""
    run_envsync("sync", cwd=workspace / "packages/a", check=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = ["envsync", "run", "sh", "-c", f"echo begun; read line <{fifo}"]
    with subprocess.Popen(words, cwd=workspace / "packages/a", stdout=subprocess.PIPE) as runs:
        assert runs.stdout is not None
        assert runs.stdout.readline() == b"begun\n"
        done = run_envsync("sync", "--timeout", "1", cwd=workspace / "packages/b")
        busy = run_envsync("sync", "--busy", "fail", cwd=workspace)
        fifo.write_text("go on\n")
    assert done.returncode == busy.returncode == 124
    said = "it is synced for `packages/a` of the workspace, and this is for {}: `--all-packages` for all of them"
    assert said.format("`packages/b`") in done.stderr
    assert said.format("the root") in busy.stderr
    assert "--env '.venvs/{digest}'" in done.stderr


def version(root: Path, below: str, run_envsync: Run, *options: str) -> str:
    """What Python a command in the environment runs on."""
    words = (*options, "--", "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    done = run_envsync("run", *words, cwd=root / below)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("env", [".venv", ".venvs/{digest}"])
def test_a_pin_in_between_counts_where_the_lock_file_is_named(
    workspace: Path, run_envsync: Run, monkeypatch: pytest.MonkeyPatch, env: str
) -> None:
    """One stands below it, or does not: what is current for the one is not for the other, nor once it is gone."""
    one, other = pythons.need("3.11"), pythons.need("3.12")
    monkeypatch.setenv("PATH", f"{Path(one).parent}:{Path(other).parent}:{os.environ['PATH']}")
    named = ("--lock", str(workspace / "uv.lock"), "--env", str(workspace / env))
    below = "packages/a/src"
    (workspace / ".python-version").write_text("3.11\n")
    assert version(workspace, "packages/a", run_envsync, *named) == "3.11"
    pin = workspace / below / ".python-version"
    pin.write_text("3.12\n")
    for _ in range(2):
        assert version(workspace, below, run_envsync, *named) == "3.12"
        assert version(workspace, "packages/a", run_envsync, *named) == "3.11"
    assert version(workspace, below, run_envsync, *named) == "3.12"
    pin.unlink()
    assert version(workspace, below, run_envsync, *named) == "3.11"


def test_the_python_that_is_pinned(workspace: Path, run_envsync: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest `.python-version` says which Python is wanted, unless an option or a variable does.

    The environment is made anew for it, whichever Python it was made for: of some, `venv` makes more than of others.
    """
    one, other = [each for each in ("3.13", "3.12", "3.11", "3.10") if pythons.find(each)][:2]
    monkeypatch.setenv(
        "PATH", f"{Path(pythons.need(one)).parent}:{Path(pythons.need(other)).parent}:{os.environ['PATH']}"
    )
    pin = workspace / ".python-version"
    pin.write_text(f"# of the workspace\n{one}\n")
    named = ("--lock", str(workspace / "uv.lock"))
    assert version(workspace, ".", run_envsync) == one
    assert version(workspace, ".", run_envsync, *named) == one
    pin.write_text(f"cpython@{other}\n")
    assert version(workspace, ".", run_envsync, *named) == other
    assert version(workspace, ".", run_envsync) == other
    for form, wanted in ((f"cp{one.replace('.', '')}", one), (f"cpython-{other}-any", other)):
        pin.write_text(f"{form}\n")
        assert version(workspace, ".", run_envsync) == wanted
    nearer = workspace / "packages/.python-version"
    nearer.write_text(one)
    assert version(workspace, "packages/a/src", run_envsync) == one
    assert version(workspace, "packages/a/src", run_envsync, "--python", other) == other
    monkeypatch.setenv("UV_PYTHON", other)
    assert version(workspace, "packages/a/src", run_envsync) == other
    monkeypatch.delenv("UV_PYTHON")
    assert version(workspace, "packages/a/src", run_envsync, *named) == one
    nearer.unlink()
    assert version(workspace, "packages/a/src", run_envsync) == other
    assert version(workspace, "packages/a/src", run_envsync, "--env", ".venvs/{digest}") == other
    pin.write_text("2.7\n")
    done = run_envsync("run", "true", cwd=workspace)
    assert done.returncode == 125
    assert "2.7" in done.stderr
    pin.write_text("miniconda3-4.7\n")
    done = run_envsync("run", "true", cwd=workspace)
    assert done.returncode == 125
    assert "`miniconda3-4.7` in `.python-version`" in done.stderr


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("explicit", [False, True])
def test_what_a_launch_costs(
    launcher: Path,
    workspace: Path,
    run_envsync: Run,
    tmp_path: Path,
    explicit: bool,
    pinned: bool,
) -> None:
    """In a current project of uv's: eight file operations, seven if the lock file is named; one more for the pin."""
    if pinned:
        (workspace / ".python-version").write_text(".".join(map(str, sys.version_info[:2])))
    run_envsync("sync", cwd=workspace, check=True)
    options = ["--lock", "uv.lock"] if explicit else []
    calls = traced([str(launcher), "run", *options, "--", "true"], workspace, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, workspace, relative=True)]
    operations = [call for call in ours if not any(name in call for name in ("execve", "flock", "fcntl"))]
    assert len(operations) == 8 - explicit + pinned, "\n".join(operations)


DEAD = "http://127.0.0.1:9/simple"


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_an_index_of_uv_redirects_nothing(tmp_path: Path, run_envsync: Run, variable: str) -> None:
    """What is locked to be at a URL is taken from there, as by uv; an index of our own option is asked first."""
    built = Path(build_wheel(tmp_path, "far", "1.0", {"far.py": ""}))
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "1"\n')
    with serving() as server:
        server.files[f"/files/{built.name}"] = File(built.read_bytes())
        file = f'url = "{server.url}/files/{built.name}", hash = "sha256:{sha256_of(str(built))}"'
        far = record("far", f'registry = "{server.url}/simple"', more=f"wheels = [{{ {file} }}]\n")
        (project / "uv.lock").write_text(HEAD + record("p", 'virtual = "."', "far") + far)
        words = ("sync", "--cache-dir", str(tmp_path / "cache"))
        refused = run_envsync(*words, "--index-url", DEAD, cwd=project, env={variable: f"{server.url}/simple"})
        assert refused.returncode == 125
        assert "127.0.0.1:9" in refused.stderr
        server.files["/page/"] = File(b"<html></html>")
        for more in ((), ("--find-links", f"{server.url}/page/", "--cache-dir", "other", "--env", "b")):
            done = run_envsync(*words, *more, cwd=project, env={variable: DEAD})
            assert done.returncode == 0, done.stderr
    assert installed(project) == {"far"}


def test_who_fetches_from_an_index(tmp_path: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """The variables that uv reads for an index by its name let us in; what they say is nowhere."""
    built = Path(build_wheel(tmp_path, "guarded", "1.0", {"guarded.py": ""}))
    project = tmp_path / "project"
    project.mkdir()
    cache = tmp_path / "cache"
    with serving() as server:
        server.files[f"/files/{built.name}"] = File(built.read_bytes(), auth=("user", "hunter2"))
        index = f'[[tool.uv.index]]\nname = "in-house"\nurl = "{server.url}/simple"\n'
        (project / "pyproject.toml").write_text(f'[project]\nname = "p"\nversion = "1"\n{index}')
        file = f'url = "{server.url}/files/{built.name}", hash = "sha256:{sha256_of(str(built))}"'
        guarded = record("guarded", f'registry = "{server.url}/simple"', more=f"wheels = [{{ {file} }}]\n")
        (project / "uv.lock").write_text(HEAD + record("p", 'virtual = "."', "guarded") + guarded)
        words = ("sync", "--cache-dir", str(cache))
        refused = run_envsync(*words, cwd=project)
        assert refused.returncode != 0
        assert "401" in refused.stderr
        environ = {"UV_INDEX_IN_HOUSE_USERNAME": "user", "UV_INDEX_IN_HOUSE_PASSWORD": "hunter2"}
        wrong = run_envsync(*words, cwd=project, env={**environ, "UV_INDEX_IN_HOUSE_PASSWORD": "hunter22"})
        assert wrong.returncode != 0
        done = run_envsync(*words, "-v", cwd=project, env=environ)
    assert done.returncode == 0, done.stderr
    assert installed(project) == {"guarded"}
    assert sweep([project, cache, nobodys_home], done.stdout, done.stderr, wrong.stderr) == []
