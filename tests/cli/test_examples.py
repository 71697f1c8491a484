"""The examples of the documentation, as a user runs them: in a copy, offline, with warnings as errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.environments import FIXTURES, leftovers, unverified

EXAMPLES = ROOT / "docs" / "examples"
BACKENDS = ("asyncio", "trio")


def run(tmp_path: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example beside copies of the lock files, with settings that allow no network."""
    for path in (EXAMPLES / name, FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"):
        shutil.copy(path, tmp_path)
    if not (tmp_path / "wheels").exists():
        shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    return subprocess.run(
        [sys.executable, "-W", "error", os.path.basename(name), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ENVSYNC_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def test_every_example_is_run_here() -> None:
    """A new one gets a test, too."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"plain_script.py", "anyio_program.py", "task_runner.py"}


def test_the_plain_script(tmp_path: Path) -> None:
    """It runs a program of the environment, again without a sync, and says what is wrong with a lock file."""
    env = tmp_path / "env"
    done = run(tmp_path, "plain_script.py", "pylock.toml", "env", "greet", "script")
    assert (done.returncode, done.stdout) == (0, f"synced: {env}\nHELLO, SCRIPT!\n"), done.stderr
    done = run(tmp_path, "plain_script.py", "pylock.toml", "env", "sh", "-c", "exit 3")
    assert (done.returncode, done.stdout) == (3, f"current: {env}\n"), done.stderr
    done = run(tmp_path, "plain_script.py", "missing.toml", "env", "greet")
    assert done.returncode == 125
    assert "cannot use lock file `missing.toml`" in done.stderr
    assert (unverified(env), leftovers(env)) == ([], [])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_anyio_program(tmp_path: Path, backend: str) -> None:
    """Its three jobs share one environment."""
    done = run(tmp_path, "anyio_program.py", "pylock.toml", "env", "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["HELLO, ADA!", "HELLO, BARBARA!", "HELLO, GRACE!"]
    assert (unverified(tmp_path / "env"), leftovers(tmp_path / "env")) == ([], [])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_task_runner(tmp_path: Path, backend: str) -> None:
    """A hundred tasks, two environments, each synced once; a lock file that is missing fails its tasks only."""
    locks = ("pylock.toml", "pylock.next.toml", "pylock.missing.toml", "pylock.toml")
    done = run(tmp_path, "task_runner.py", "envs", *locks, "--backend", backend)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line for line in lines if "failed" not in line) == sorted(
        f"task {n}" for n in range(100) if n % 4 != 2
    )
    assert sum("failed: cannot use lock file `pylock.missing.toml`" in line for line in lines) == 25
    assert len(lines) == 100
    envs = sorted((tmp_path / "envs").iterdir())
    assert len(envs) == 2
    for env in envs:
        assert (unverified(env), leftovers(env)) == ([], [])
        told = [line for line in done.stderr.splitlines() if line.startswith(f"{env}: ")]
        assert told.count(f"{env}: is being changed") == 1
        assert sum("synced in" in line for line in told) == 1


def test_the_process_pool(tmp_path: Path) -> None:
    """Its processes have the packages of the lock file, and no envsync; a wrong hash is what the program says."""
    done = run(tmp_path, "runners/process_pool.py", "pylock.toml", "env", "Ada", "Grace")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, Ada\nHello, Grace\n", "")
    lock = (tmp_path / "pylock.toml").read_text().replace('sha256 = "2', 'sha256 = "3')
    (tmp_path / "pylock.wrong.toml").write_text(lock)
    done = run(tmp_path, "runners/process_pool.py", "pylock.wrong.toml", "other", "Ada")
    assert (done.returncode, done.stdout) == (1, "")
    assert "greet-1.0-py3-none-any.whl" in done.stderr
    assert "\nhint: " in done.stderr


def test_every_script_for_a_cluster_is_on_its_page() -> None:
    """As it is, and each is run by a test on a cluster."""
    page = (ROOT / "docs/slurm.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests/lab").glob("test_*.py"))
    scripts = list((EXAMPLES / "slurm").iterdir())
    assert len(scripts) > 5
    for script in scripts:
        assert script.read_text().strip() in page
        assert script.stem in tests
