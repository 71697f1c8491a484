"""A project of uv: many tasks at once with nothing but its uv.lock, and uv itself before and after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contention.test_many_processes import Barrier, finish
from tests.environments import FIXTURES, unverified

UV = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))
with_uv = pytest.mark.skipif(UV is None, reason="uv is neither beside this Python nor on PATH")
Run = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""
ALL = {"almanac-days", "almanac-words", "greet", "shout", "tally"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone of a project of uv: pyproject.toml, uv.lock, and the wheels that it names beside it."""
    shutil.copytree(FIXTURES / "project", tmp_path / "project")
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    return tmp_path / "project"


@pytest.fixture
def uv(project: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run uv in the project, offline and as if nobody had set it up."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        common = ["--offline", "--no-config", "--no-cache"]
        line = [str(UV), words[0], *common, "--python", sys.executable, *words[1:]]
        return subprocess.run(line, cwd=project, capture_output=True, text=True, check=check, timeout=SECONDS)

    return run


def names(env: Path) -> set[str]:
    """Return what is installed, as the directories say it."""
    found = {path.name.partition("-")[0] for path in env.glob("lib/python*/site-packages/*.dist-info")}
    return {name.replace("_", "-") for name in found}


def files(env: Path) -> dict[str, tuple[int, int]]:
    """Return inode and mtime of every file that belongs to packages, or makes the environment one."""
    found = {path: path.lstat() for path in env.rglob("*") if ".envsync" not in path.parts and path.name != ".lock"}
    return {str(path): (status.st_ino, status.st_mtime_ns) for path, status in found.items() if not path.is_dir()}


def test_fifty_at_once_in_a_clean_clone(project: Path) -> None:
    """Nothing is there but the lock file: one of them syncs, all of them run."""
    barrier = Barrier()
    log = project / "events.jsonl"
    processes = [barrier.start("run", "--", "greet", cwd=project, env={"ENVSYNC_EVENTS": str(log)}) for _ in range(50)]
    barrier.lift()
    assert {finish(process)[:2] for process in processes} == {(0, "HELLO, WORLD!\n")}
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("synced") == 1
    assert names(project / ".venv") == ALL
    assert unverified(project / ".venv") == []


@with_uv
@pytest.mark.parametrize("kind", ["--package", "--no-package"])
def test_fifty_at_once_in_a_project_made_just_now(tmp_path: Path, kind: str) -> None:
    """`uv init`, `uv add`, and all tasks at once in a clone with uv.lock alone, as in astral-sh/uv#12751."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    made = tmp_path / "made"
    common = ["--offline", "--no-cache", "-q", "--python", sys.executable]
    subprocess.run([str(UV), "init", *common, "--no-config", "--vcs", "none", kind, made], check=True)
    with open(made / "pyproject.toml", "a", encoding="utf-8") as file:
        file.write('\n[tool.uv]\nno-index = true\nfind-links = ["../wheels"]\n')
    subprocess.run([str(UV), "add", *common, "--no-sync", "greet<2"], cwd=made, check=True)
    project = tmp_path / "clone"
    project.mkdir()
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(made / name, project)
    options = ["--no-install-project"] if kind == "--package" else []
    barrier = Barrier()
    log = project / "events.jsonl"
    words = ["run", *options, "--", "greet"]
    processes = [barrier.start(*words, cwd=project, env={"ENVSYNC_EVENTS": str(log)}) for _ in range(50)]
    barrier.lift()
    assert {finish(process)[:2] for process in processes} == {(0, "HELLO, WORLD!\n")}
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("synced") == 1


@with_uv
def test_the_fixture_is_as_uv_locks_it(uv: Run) -> None:
    """So what is tested here is what uv writes."""
    uv("lock", "--check")


@with_uv
@pytest.mark.parametrize("options", [(), ("--no-dev",), ("--only-group", "dev")])
def test_uv_finds_nothing_to_do(project: Path, uv: Run, run_envsync: Run, options: tuple[str, ...]) -> None:
    """In an environment that envsync has made: not for a sync, and not before a command."""
    run_envsync("sync", *options, cwd=project, check=True)
    before = files(project / ".venv")
    done = uv("sync", "--frozen", *options)
    assert "nstalled" not in done.stderr, done.stderr
    assert uv("run", "--frozen", *options, "--", "python", "-c", "print('here')").stdout == "here\n"
    assert files(project / ".venv") == before
    assert "Would make no changes" in uv("sync", "--frozen", "--dry-run", *options).stderr


@with_uv
@pytest.mark.parametrize("options", [(), ("--no-dev",), ("--only-group", "dev")])
def test_envsync_finds_nothing_to_do(project: Path, uv: Run, run_envsync: Run, options: tuple[str, ...]) -> None:
    """In an environment that uv has made it changes no file of it, though it is exact."""
    uv("sync", "--frozen", *options)
    before = files(project / ".venv")
    done = json.loads(run_envsync("sync", "--json", *options, cwd=project, check=True).stdout)
    assert (done["installed"], done["removed"]) == ([], [])
    assert files(project / ".venv") == before
    assert "nstalled" not in uv("sync", "--frozen", *options).stderr


@with_uv
def test_both_by_turns(project: Path, uv: Run, run_envsync: Run) -> None:
    """What the one adds or removes, the other puts right."""
    run_envsync("sync", cwd=project, check=True)
    uv("sync", "--frozen", "--no-dev")
    assert names(project / ".venv") == ALL
    uv("sync", "--frozen", "--only-group", "dev")
    assert names(project / ".venv") == {"almanac-days"}
    assert run_envsync("run", "--", "greet", cwd=project, check=True).stdout == "HELLO, WORLD!\n"
    assert names(project / ".venv") == ALL
    assert "nstalled" not in uv("sync", "--frozen").stderr
