"""Locks that can be lost: taken over from the dead, lost by the stopped, never held by two that go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.stamp import seal, unseal
from envsync.leading.held import BATCH_SECONDS
from envsync.library.status import look
from tests.conftest import ROOT
from tests.environments import FIXTURES, leftovers, unverified
from tests.odd.conftest import Mount, start_process

LOCK = str(FIXTURES / "pylock.toml")
LEASE_SECONDS = 1.5


def start(directory: Path, *, env: str = ".venvs/{digest}", **faults: object) -> subprocess.Popen[str]:
    """Start a sync where there is no flock."""
    spec = json.dumps({"below": str(directory), "flock": "ENOSYS", "lease_seconds": LEASE_SECONDS, **faults})
    words = [sys.executable, "-m", "tests.odd.faults", spec, "sync", "--lock", LOCK, "--env", env, "--json"]
    return start_process(words, directory, PYTHONPATH=str(ROOT))


def outcome(process: subprocess.Popen[str], says: str = "") -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert says in err
    return str(json.loads(out)["outcome"])


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    ended = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert ended is not None
    if ended.si_code != os.CLD_STOPPED:
        raise AssertionError(process.communicate(timeout=10))


@pytest.fixture(params=["local", "mounted"])
def place(request: pytest.FixtureRequest, tmp_path: Path, mount: Mount) -> Path:
    """A directory: where two names can be exchanged in one step, and where they cannot."""
    return tmp_path if request.param == "local" else mount("--cache", "1")


@pytest.fixture
def stopped(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A leader that was stopped in the midst of its commit."""
    with start(place, stop_after="site-packages/greet", log=f"{place}/renames") as process:
        wait_until_stopped(process)
        yield process
        process.kill()


def of_elsewhere(text: str) -> str:
    """What the same process would have written on another host."""
    return text.replace(os.uname().nodename, "elsewhere").replace('"place": "', '"place": "other ')


def the_environment(place: Path) -> Path:
    (env,) = (place / ".venvs").iterdir()
    return env


def test_a_leader_that_was_stopped_stops(place: Path, stopped: subprocess.Popen[str]) -> None:
    """Another takes over when the lease has run out. The stopped one, woken, moves nothing more, and joins the rest."""
    env = the_environment(place)
    assert (env / ".envsync" / "journal").exists()
    leader = look(Environment(str(env)), None).leader
    assert leader is not None
    assert (leader.pid, leader.phase, leader.stopped) == (stopped.pid, "committing", True)
    assert outcome(start(place), says="which was stopped while committing") == "current"  # nothing is left to do
    assert unverified(env) == []
    failure = look(Environment(str(env)), None).failure
    assert failure is None or "ended" not in failure.message
    before = {path: path.lstat().st_ino for path in env.rglob("*")}
    os.kill(stopped.pid, signal.SIGCONT)
    assert outcome(stopped) in ("current", "waited")
    renamed = place / "renames"
    assert not renamed.exists(), renamed.read_text()
    assert {path: path.lstat().st_ino for path in env.rglob("*")} == before
    assert leftovers(env) == []


def test_a_leader_that_hung_and_lost_its_flock_stops(tmp_path: Path) -> None:
    """A server gives the flock of a client that hangs to another: the progress that is not ours any more shows it."""
    faults = {"flock": "", "loses": True, "stop_after": "site-packages/greet", "log": f"{tmp_path}/renames"}
    with start(tmp_path, env=".venv", **faults) as hung:
        wait_until_stopped(hung)
        assert outcome(start(tmp_path, env=".venv", flock="")) == "current"
        time.sleep(BATCH_SECONDS)
        os.kill(hung.pid, signal.SIGCONT)
        assert outcome(hung) in ("current", "waited")
    renamed = (tmp_path / "renames").read_text().split()
    assert set(renamed) == {".venv/.envsync/progress.json"}  # it has asked again, and led for as long as a look takes
    assert unverified(tmp_path / ".venv") == []
    assert leftovers(tmp_path / ".venv") == []


def test_a_leader_that_was_killed_is_succeeded(place: Path, stopped: subprocess.Popen[str]) -> None:
    """The next one knows at once that its process is no more, finishes what it has decided, and removes its lease."""
    stopped.kill()
    stopped.communicate()
    assert outcome(start(place, lease_seconds=3600), says="which ended while committing") == "current"
    env = the_environment(place)
    assert unverified(env) == []
    assert leftovers(env) == []


def test_a_leader_on_another_host_that_is_lost_is_succeeded(place: Path, stopped: subprocess.Popen[str]) -> None:
    """Of a host that is not this one nobody knows whether its process lives: its lease runs out."""
    stopped.kill()
    stopped.communicate()
    state = the_environment(place) / ".envsync"
    lease, progress = state / "lease", state / "progress.json"
    lease.write_text(of_elsewhere(lease.read_text()))
    progress.write_bytes(seal(of_elsewhere(unseal(progress.read_bytes()).decode()).encode()))
    assert outcome(start(place), says="on elsewhere, which was not heard of any more while") == "current"
    assert unverified(the_environment(place)) == []


def test_hosts_that_lock_otherwise_are_refused(place: Path) -> None:
    """What is recorded counts: a host without flock does not lead where others use it; one with it takes the lease."""
    assert outcome(start(place)) == "synced"
    locking = the_environment(place) / ".envsync" / "locking"
    assert json.loads(locking.read_text())["kind"] == "lease"
    assert outcome(start(place, flock="")) == "current"
    locking.unlink()
    (the_environment(place) / ".envsync" / "stamp").unlink()
    (the_environment(place) / ".envsync" / "in-use").unlink()
    assert outcome(start(place, flock="")) in ("current", "synced")
    assert json.loads(locking.read_text())["kind"] == "flock"
    (the_environment(place) / ".envsync" / "stamp").unlink()
    refused = start(place)
    _, err = refused.communicate(timeout=100)
    assert refused.returncode == 125, err
    assert "other hosts lock it by flock" in err
