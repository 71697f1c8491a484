"""`envsync status`: what is said of an environment, and that saying it disturbs nobody."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.system import records
from tests.conftest import envsync_command
from tests.environments import FIXTURES, site_packages

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def status(run_envsync: Run) -> Callable[..., dict[str, object]]:
    """Return a function that returns what `status --json` says of `env`."""

    def ask(*arguments: str, lock: str = LOCK) -> dict[str, object]:
        done = run_envsync("status", "--lock", lock, "--env", "env", "--json", *arguments)
        value = json.loads(done.stdout)
        assert isinstance(value, dict)
        return value

    return ask


Status = Callable[..., dict[str, object]]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run an envsync command beside the test, and end it with the test."""
    process = subprocess.Popen(
        [*envsync_command(), *arguments],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def command_in(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the environment until the end of the block."""
    with running("run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", "echo in; read end", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (shutil.rmtree, "it does not exist"),
        (lambda env: (env / ".envsync/stamp").unlink(), "no sync of it has been completed"),
        (lambda env: (env / ".envsync/stamp").rename(env / ".envsync/stamp.draining"), "it waits to be changed"),
        (lambda env: (env / ".envsync/stamp").write_text("x"), "its stamp is damaged"),
        (lambda env: (env / ".envsync/stamp").write_text("envsync-stamp 3\n"), "a newer envsync keeps it"),
        (lambda env: (env / ".envsync/journal").touch(), "a commit was decided and is not finished"),
        (lambda env: (site_packages(env) / "new").mkdir(), "somebody else has changed it since it was synced"),
        (lambda env: (env / "pyvenv.cfg").write_text("home = /x"), "somebody else has changed it since it was synced"),
        (lambda env: (env / "bin/python").unlink(), "its Python is gone"),
        (lambda env: shutil.copytree(env, env.with_name("new"), symlinks=True), ""),
    ],
)
def test_current_or_not_and_why(
    run_envsync: Run, status: Status, tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    """It says whether a `run` would start at once, and if not, why."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    spoil(tmp_path / "env")
    said = status()
    assert (said["current"], said["reason"]) == (not reason, reason)
    done = run_envsync("status", "--lock", LOCK, "--env", "env", "--exit-code")
    assert done.returncode == (1 if reason else 0)
    assert reason in done.stdout


@pytest.mark.parametrize(
    ("state", "reason"),
    [("leading", "a sync of it is going on"), ("progress.json", "a sync of it did not come to its end")],
)
def test_what_a_sync_changes(run_envsync: Run, status: Status, tmp_path: Path, state: str, reason: str) -> None:
    """What a sync of ours changes, or one that was ended, is not put down to somebody else."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    (site_packages(tmp_path / "env") / "new").mkdir()
    with (tmp_path / "env" / ".envsync" / state).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert status()["reason"] == reason


def test_a_copied_environment(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """A copy is not taken for the original."""
    run_envsync("sync", "--lock", LOCK, "--env", "first", check=True)
    shutil.copytree(tmp_path / "first", tmp_path / "env", symlinks=True)
    assert status()["reason"] == "its directory was copied or made anew since it was synced"


def test_another_lock_file(run_envsync: Run, status: Status) -> None:
    """What is current for one lock file is not for another; without one, nothing is said about that."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    assert status(lock=NEXT)["reason"] == "the lock file or the options are not those that it was synced with"
    done = run_envsync("status", "--env", "env", "--json")
    assert json.loads(done.stdout)["current"] is None
    assert done.returncode == 0


def test_nothing_to_ask_about(run_envsync: Run) -> None:
    """Without a lock file and without an environment there is nothing to say, and that is an error of usage."""
    done = run_envsync("status")
    assert done.returncode == 2
    assert "no lock file" in done.stderr


def test_who_runs_who_leads_and_who_waits(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """The command that runs, the leader that waits for its end, and who waits for that leader, are named."""
    with command_in(tmp_path) as command:
        assert status()["current"] is True
        running_here = {"pid": command.pid, "command": "sh -c echo in; read end", "job": "", "end": ""}
        assert status()["commands"] == [running_here]
        with running("sync", "--lock", NEXT, "--env", "env", cwd=tmp_path) as leader:
            until(lambda: status(lock=NEXT)["reason"] == "it waits to be changed")
            with running("run", "--lock", NEXT, "--env", "env", "--", "true", cwd=tmp_path) as waiter:
                until(lambda: bool(status(lock=NEXT)["waiters"]))
                said = status(lock=NEXT)
                assert said["leader"]["pid"] == leader.pid  # type: ignore[index]
                assert str(command.pid) in said["leader"]["phase"]  # type: ignore[index]
                assert [each["pid"] for each in said["waiters"]] == [waiter.pid]  # type: ignore[attr-defined]
                assert [each["lock"] for each in said["waiters"]] == [NEXT]  # type: ignore[attr-defined]
                assert said["leftovers"] == []
                text = run_envsync("status", "--lock", NEXT, "--env", "env").stdout
                for process in (command, leader, waiter):
                    assert f"pid {process.pid}" in text


def test_a_stopped_leader(status: Status, tmp_path: Path) -> None:
    """A leader that was stopped is said to be."""
    with command_in(tmp_path), running("sync", "--lock", NEXT, "--env", "env", cwd=tmp_path) as leader:
        until(lambda: status(lock=NEXT)["leader"] is not None)
        os.kill(leader.pid, signal.SIGSTOP)
        until(lambda: status(lock=NEXT)["leader"]["stopped"] is True)  # type: ignore[index]


def test_a_dead_leader(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """What a killed leader leaves is named, and gone after the next sync."""
    with command_in(tmp_path):
        with running("sync", "--lock", NEXT, "--env", "env", cwd=tmp_path) as leader:
            until(lambda: status(lock=NEXT)["reason"] == "it waits to be changed")
            leader.kill()
            leader.wait()
        said = status(lock=NEXT)
        assert said["leader"] is None
        assert any(str(path).endswith("progress.json") for path in said["leftovers"])  # type: ignore[attr-defined]
        assert any(str(path).endswith("stamp.draining") for path in said["leftovers"])  # type: ignore[attr-defined]
    run_envsync("sync", "--lock", NEXT, "--env", "env", check=True)
    assert status(lock=NEXT)["leftovers"] == []


def test_the_last_failure(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """How the last attempt failed is said of an environment that stays. A first one that is refused leaves nothing."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    wrong = tmp_path / "pylock.wrong.toml"
    text = Path(LOCK).read_text()
    broken = text.replace('path = "wheels/', f'path = "{FIXTURES}/wheels/')
    start = broken.index("sha256 = ") + len('sha256 = "')
    wrong.write_text(broken[:start] + "0" * 64 + broken[start + 64 :])
    assert run_envsync("sync", "--lock", str(wrong), "--env", "env").returncode == 125
    failure = status(lock=str(wrong))["failure"]
    assert isinstance(failure, dict)
    assert failure["kind"] == "fatal"
    assert "0" * 64 in failure["message"]


def test_another_program_holds_the_lock(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """Whoever holds the environment lock without being of ours is named by pid and command."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    with (tmp_path / "env/.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holders = status()["holders"]
    assert isinstance(holders, list)
    assert [each["pid"] for each in holders] == [os.getpid()]


def test_a_newer_formats_progress_is_not_read(run_envsync: Run, status: Status, tmp_path: Path) -> None:
    """State files of a newer format are as good as absent."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    (tmp_path / "env/.envsync/progress.json").write_bytes(records.dump({"format": 3, "pid": 1}))
    assert status()["leader"] is None


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_it_takes_no_lock_that_disturbs_anybody(run_envsync: Run, tmp_path: Path) -> None:
    """Neither the environment lock nor the in-use lock is opened, and nothing is written."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    trace = tmp_path / "trace"
    words = ["status", "--lock", LOCK, "--env", "env"]
    tracing = ["strace", "-f", "-e", "trace=%file,flock", "-o", str(trace)]
    subprocess.run([*tracing, *envsync_command(), *words], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in trace.read_text().splitlines() if "env/." in line]
    assert lines
    opened = [line for line in lines if "open" in line and (".lock" in line or "in-use" in line)]
    assert opened == []
    assert not [line for line in trace.read_text().splitlines() if "flock(" in line]
    assert not [line for line in lines if "O_WRONLY" in line or "O_RDWR" in line or "rename" in line or "mkdir" in line]
