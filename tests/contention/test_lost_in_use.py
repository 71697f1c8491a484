"""The in-use lock is purged while commands hold it: nobody changes the environment beneath them all the same."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contention.test_in_use import LOCK, NEXT, Command, run_words
from tests.environments import site_packages

Run = Callable[..., subprocess.CompletedProcess[str]]
DAY = 86400
STAY = ("python", "-c", "import sys; print('there', flush=True); sys.stdin.read()")
LEAVE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], close_fds=False)"
PURGES: dict[str, tuple[str, ...]] = {
    "in-use": ("in-use",),
    "in-use and stamp": ("in-use", "stamp"),
    "in-use and record": ("in-use", "installed.json"),
    "locks": ("in-use", "locking", "leading", "../.lock"),
}


@pytest.fixture
def env(tmp_path: Path, run_envsync: Run) -> Path:
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    return tmp_path / "env"


@pytest.fixture
def command(env: Path) -> Iterator[Command]:
    """A command that runs in the environment until it is told to end."""
    running = Command(run_words(env, *STAY))
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == "there\n"
    yield running
    end(running)


def end(command: Command) -> None:
    command.process.communicate("", timeout=60)


def purge(env: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (env / ".envsync" / name).unlink(missing_ok=True)


def change(run: Run, busy: str) -> subprocess.CompletedProcess[str]:
    return run("sync", "--lock", NEXT, "--env", "env", "--busy", busy)


def state(env: Path) -> list[str]:
    return sorted(path.name for path in site_packages(env).iterdir())


@pytest.mark.parametrize("names", PURGES.values(), ids=PURGES)
@pytest.mark.parametrize("busy", ["wait", "fail"])
def test_who_holds_the_one_before_is_not_disturbed(
    env: Path, command: Command, run_envsync: Run, names: tuple[str, ...], busy: str
) -> None:
    """A change is refused, which names the purge and the command; once that has ended, it is made."""
    purge(env, names)
    before = state(env)
    done = change(run_envsync, busy)
    assert (done.returncode, state(env)) == (124, before), done.stderr
    assert "purged or replaced" in done.stderr
    assert f"pid {command.process.pid} " in done.stderr
    assert "--busy ignore" in done.stderr
    end(command)
    assert change(run_envsync, busy).returncode == 0
    assert state(env) != before


def test_an_operator_may_go_on(env: Path, command: Command, run_envsync: Run) -> None:
    """With `--busy ignore` it is changed beneath the command, and what was lost is forgotten."""
    purge(env, ("in-use",))
    assert change(run_envsync, "ignore").returncode == 0
    assert run_envsync("sync", "--lock", LOCK, "--env", "env", "--busy", "fail").returncode == 0
    assert command.process.poll() is None


def test_launches_since_do_not_hide_it(env: Path, command: Command, run_envsync: Run) -> None:
    """They are let in, by a new lock and a new stamp; twice over, and the one before the last is not forgotten."""
    for _ in range(2):
        purge(env, ("in-use",))
        assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "true").returncode == 0
    assert change(run_envsync, "wait").returncode == 124
    end(command)
    assert change(run_envsync, "wait").returncode == 0


def test_what_the_command_has_started_holds_it_too(env: Path, run_envsync: Run) -> None:
    """Though who took the lock has ended."""
    program = "import sys; print('there', flush=True); sys.stdin.read()"
    running = Command(run_words(env, "python", "-c", LEAVE, program))
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == "there\n"
    running.process.wait(timeout=60)
    purge(env, ("in-use",))
    assert change(run_envsync, "wait").returncode == 124
    end(running)
    limit = time.monotonic() + 60
    while change(run_envsync, "fail").returncode:
        assert time.monotonic() < limit


def test_a_copy_has_nobody(env: Path, command: Command, run_envsync: Run, tmp_path: Path) -> None:
    """Whoever runs in the environment that it was copied from is no concern of it."""
    subprocess.run(["cp", "-a", env, tmp_path / "copy"], check=True)
    assert run_envsync("sync", "--lock", NEXT, "--env", "copy", "--busy", "fail").returncode == 0
    assert command.process.poll() is None


@pytest.mark.parametrize(("age", "is_new"), [(2 * DAY, True), (DAY // 2, False)])
def test_a_launch_lets_it_look_new_once_a_day(env: Path, run_envsync: Run, age: int, *, is_new: bool) -> None:
    """So a purge does not take it while commands start; and its time is that of the last use, to a day."""
    in_use = env / ".envsync" / "in-use"
    then = time.time() - age
    os.utime(in_use, (then, then))
    run_envsync("run", "--lock", LOCK, "--env", "env", "--", "true", check=True)
    status = in_use.stat()
    assert (min(status.st_mtime, status.st_atime) > then + 60) == is_new


def test_a_sync_lets_its_locks_look_new(env: Path, run_envsync: Run, tmp_path: Path) -> None:
    """Those of the environment and of the cache: a purge must not take them from under who waits or holds."""
    cache = tmp_path / "cache"
    words = ("sync", "--cache-dir", cache, "--env", "env", "--lock")
    run_envsync(*words, NEXT, check=True)
    locks = [env / ".lock", env / ".envsync" / "in-use", cache / ".lock"]
    for path in locks:
        os.utime(path, (time.time() - 8 * DAY, time.time() - 8 * DAY))
    run_envsync(*words, LOCK, check=True)
    assert all(path.stat().st_mtime > time.time() - DAY for path in locks)
