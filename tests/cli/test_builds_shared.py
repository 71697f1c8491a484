"""Many at once who want the same built: one builds, and nobody is kept waiting by what a build leaves or holds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import pythons
from tests.cli.test_from_source import ALL_BUILT, IMPORT_ALL, Run, Scene
from tests.conftest import envsync_command
from tests.environments import leftovers, unverified
from tests.projects import make_project

Process = subprocess.Popen[str]


def start(scene: Scene, *words: str) -> Process:
    """Start a command line in the project of a scene."""
    command, environ = [*envsync_command(), *words], {**os.environ, **scene.environ}
    return subprocess.Popen(
        command, cwd=scene.directory, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def until(is_so: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def ended(processes: list[Process]) -> list[tuple[int, str, str]]:
    """Wait for processes. Returns exit status, stdout and stderr of each."""
    said = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_runs_at_once(tmp_path: Path, run_envsync: Run) -> None:
    """Nothing cached: one build each, one sync, and all fifty import all of it."""
    scene = Scene(tmp_path, run_envsync)
    outcomes = ended([start(scene, "run", "--", "python", "-c", IMPORT_ALL) for _ in range(50)])
    assert [(status, out) for status, out, _ in outcomes] == [(0, "1.0\n")] * 50, outcomes
    assert scene.hooks == ALL_BUILT
    assert scene.happened("synced") == 1


def test_a_leader_killed_while_ten_wait(tmp_path: Path, run_envsync: Run) -> None:
    """Exactly one of them takes over: the build is begun once more, and there is one sync."""
    scene = Scene(tmp_path, run_envsync, wait_for=tmp_path / "go")
    leader = start(scene, "sync")
    until(lambda: "build_editable app" in scene.hooks, "the leader builds")
    waiters = [start(scene, "run", "--", "python", "-c", IMPORT_ALL) for _ in range(10)]
    until(lambda: _are_waiting(scene, 10), "ten wait")
    leader.kill()
    leader.communicate()
    until(lambda: scene.hooks.count("build_editable app") == 2, "somebody takes over")
    (tmp_path / "go").touch()
    outcomes = ended(waiters)
    assert [(status, out) for status, out, _ in outcomes] == [(0, "1.0\n")] * 10, outcomes
    assert scene.hooks.count("build_editable app") == 2
    assert scene.happened("synced") == 1
    assert unverified(scene.env) == []
    assert set(leftovers(scene.env)) <= {"waiting"}  # empty, if one waited to the end


def _are_waiting(scene: Scene, count: int) -> bool:
    waiting = scene.env / ".envsync" / "waiting"
    return waiting.is_dir() and len(os.listdir(waiting)) >= count


def test_a_failure_is_shared(tmp_path: Path, run_envsync: Run) -> None:
    """Ten environments wait for one wheel that cannot be built: one attempt, the same words for all, and a new one."""
    scene = Scene(tmp_path, run_envsync)
    make_project(scene.lib, "lib", log=scene.log, fails="the compiler is on holiday", wait_for=tmp_path / "go")
    syncs = [start(scene, "sync", "--env", "env0")]
    until(lambda: "build_wheel lib" in scene.hooks, "the first builds")
    syncs += [start(scene, "sync", "--env", f"env{n}") for n in range(1, 10)]
    until(lambda: _tellings(scene) >= 10, "all wait")
    (tmp_path / "go").touch()
    outcomes = ended(syncs)
    (log,) = (scene.cache / "v1/logs").glob("lib-*")
    assert [status for status, _, _ in outcomes] == [125] * 10
    errors = {said[said.index("envsync: error: ") : said.index("hint: ")] for _, _, said in outcomes}
    assert len(errors) == 1, errors  # but for the name of the environment in the command that is hinted at
    error = errors.pop()
    assert "the compiler is on holiday" in error
    assert all(f"`less {log}`" in said for _, _, said in outcomes)
    assert scene.hooks.count("build_wheel lib") == 1
    assert scene.run("sync", "--env", "env0").returncode == 125
    assert scene.hooks.count("build_wheel lib") == 2


def _tellings(scene: Scene) -> int:
    """Count the environments of which a leader is building, or waits for one who does."""
    found = scene.directory.glob("env*/.envsync/progress.json")
    return sum("lib 1.0" in path.read_text() for path in found)


def test_environments_of_one_tree_on_two_pythons(tmp_path: Path, run_envsync: Run) -> None:
    """Twenty link one tree at once: its backend never runs twice at the same time, and all of them work."""
    scene = Scene(tmp_path, run_envsync)
    _refuse_company(scene.directory)
    _sync_twenty(scene)
    assert scene.hooks == sorted([*ALL_BUILT[1:] * 2, *["build_editable app"] * 20])  # once for each Python


@pytest.mark.network
@pytest.mark.timeout(400)
def test_environments_of_one_tree_of_setuptools(tmp_path: Path, run_envsync: Run) -> None:
    """So it is with setuptools, which writes into the tree."""
    scene = Scene(tmp_path, run_envsync)
    project = scene.directory / "pyproject.toml"
    rest = project.read_text().partition("[project]")[2]
    table = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    project.write_text(f"{table}[project]{rest}")
    (scene.directory / "setup.py").write_text(
        "import atexit, os, setuptools\n"
        "alone = os.path.abspath('alone')\n"
        "os.mkdir(alone)  # fails if another one runs here\n"
        "atexit.register(os.rmdir, alone)\n"
        "setuptools.setup()\n"
    )
    _sync_twenty(scene)
    assert scene.hooks == sorted(ALL_BUILT[1:] * 2)


def _sync_twenty(scene: Scene) -> None:
    """Sync twenty environments at once, by turns of one Python and another, and let all import all."""
    found = [pythons.need(version) for version in ("3.11", "3.12")]
    words = [("--env", f"env{n}", "--python", found[n % len(found)], "--timeout", "300") for n in range(20)]
    outcomes = ended([start(scene, "sync", *each) for each in words])
    assert [status for status, _, _ in outcomes] == [0] * 20, [said for status, _, said in outcomes if status]
    for n in range(20):
        command = [f"env{n}/bin/python", "-c", IMPORT_ALL]
        done = subprocess.run(command, cwd=scene.directory, capture_output=True, text=True, check=False)
        assert done.stdout == "1.0\n", done.stderr


def _refuse_company(tree: Path) -> None:
    """Let a backend fail if another one runs in its tree."""
    backend = tree / "backend" / "in_tree_backend.py"
    begin = '        _begin("build_editable", config_settings)\n'
    alone = f'{begin}        os.mkdir("alone")\n        time.sleep(0.1)\n        os.rmdir("alone")\n'
    assert begin in backend.read_text()
    backend.write_text(backend.read_text().replace(begin, alone))


def test_a_daemon_of_a_backend_holds_nothing(tmp_path: Path, run_envsync: Run) -> None:
    """What a backend leaves running is ended, and a build of the same tree begins at once."""
    daemon = tmp_path / "daemon"
    scene = Scene(tmp_path, run_envsync, daemon=daemon)
    for name in ("env1", "env2"):
        scene.run("sync", "--env", name, "--timeout", "20", check=True)
        assert not Path(f"/proc/{daemon.read_text()}").exists()
    assert scene.hooks.count("build_editable app") == 2
    scene.run("cache", "clean", "--timeout", "5", check=True)


def test_a_cache_is_cleaned_when_a_build_has_ended(tmp_path: Path, run_envsync: Run) -> None:
    """While a sync builds, a cleaning waits, says for whom, and can be bounded; the build is not disturbed by it."""
    scene = Scene(tmp_path, run_envsync, wait_for=tmp_path / "go")
    sync = start(scene, "sync")
    until(lambda: "build_editable app" in scene.hooks, "it builds")
    for verb in ("clean", "prune"):
        bounded = scene.run("cache", verb, "--timeout", "1")
        assert bounded.returncode == 124, bounded.stderr
        assert f"pid {sync.pid}" in bounded.stderr
    cleaning = start(scene, "cache", "clean")
    (tmp_path / "go").touch()
    assert [status for status, _, _ in ended([sync, cleaning])] == [0, 0]
    assert unverified(scene.env) == []
    assert scene.hooks == ALL_BUILT
    assert not list((scene.cache / "v1").glob("built/*"))


@pytest.mark.parametrize("again", [False, True], ids=["goes on", "killed"])
def test_a_cache_removed_while_it_builds(tmp_path: Path, run_envsync: Run, again: bool) -> None:
    """What was removed is made again, by the same sync, or by the next if it was killed; no build counts as failed."""
    scene = Scene(tmp_path, run_envsync, wait_for=tmp_path / "go")
    sync = start(scene, "sync")
    until(lambda: "build_editable app" in scene.hooks, "it builds")
    shutil.rmtree(scene.cache, ignore_errors=True)  # the sync makes things in it again
    if again:
        sync.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    ((status, _, said),) = ended([sync])
    assert status == (-signal.SIGKILL if again else 0), said
    scene.run("run", "--", "python", "-c", IMPORT_ALL, check=True)
    assert (unverified(scene.env), leftovers(scene.env)) == ([], [])
    assert not list(scene.cache.glob("v1/built/*.failed"))
