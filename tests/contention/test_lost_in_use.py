"""The in-use lock is purged while commands hold it: nobody changes the environment beneath them all the same."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import envsync
from envsync.errors import RefusedError
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment
from envsync.leading import lost
from envsync.system import mounts
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


def change_back(run: Run, busy: str) -> subprocess.CompletedProcess[str]:
    """Ask for the lock file that commands were started with."""
    return run("sync", "--lock", LOCK, "--env", "env", "--busy", busy)


def inodes(env: Path) -> list[int]:
    """Return the inodes of in-use locks that `installed.json` keeps."""
    return [*load_ledger(Environment(str(env))).in_use]


@contextmanager
def number_taken(env: Path) -> Iterator[None]:
    """Let no other file get the inode of the in-use lock, without holding it."""
    with (env / ".envsync" / "in-use").open():
        yield


def state(env: Path) -> list[str]:
    return sorted(path.name for path in site_packages(env).iterdir())


@pytest.mark.parametrize("names", PURGES.values(), ids=PURGES)
@pytest.mark.parametrize("busy", ["wait", pytest.param("fail", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("busy", ["wait", pytest.param("fail", marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", PURGES.values(), ids=PURGES)
def test_an_operator_may_go_on(
    env: Path, command: Command, run_envsync: Run, names: tuple[str, ...], busy: str
) -> None:
    """With `--busy ignore` it is changed beneath the command. That is for once: the next sync is refused again."""
    purge(env, names)
    gone_on = change(run_envsync, "ignore")
    assert gone_on.returncode == 0
    assert "while commands run in it" in gone_on.stderr
    before = state(env)
    done = change_back(run_envsync, busy)
    assert (done.returncode, state(env)) == (124, before), done.stderr
    assert f"pid {command.process.pid} " in done.stderr
    end(command)
    assert change_back(run_envsync, busy).returncode == 0
    assert inodes(env) == [(env / ".envsync" / "in-use").stat().st_ino]


@pytest.mark.parametrize("first", [0, 1])
def test_several_operators_may_go_on(env: Path, command: Command, run_envsync: Run, first: int) -> None:
    """Each forgets nobody who runs in it, in whatever order commands end."""
    purge(env, ("in-use",))
    assert change(run_envsync, "ignore").returncode == 0
    assert change_back(run_envsync, "ignore").returncode == 0
    other = Command(run_words(env, *STAY))
    assert other.line() == "there"
    purge(env, ("in-use",))
    assert change(run_envsync, "ignore").returncode == 0
    running = [command, other]
    end(running.pop(first))
    refused = change_back(run_envsync, "fail")
    assert refused.returncode == 124
    assert f"pid {running[0].process.pid} " in refused.stderr
    end(running[0])
    assert change_back(run_envsync, "fail").returncode == 0


def test_an_operator_keeps_no_number_that_nobody_holds(env: Path, command: Command, run_envsync: Run) -> None:
    """It may be another file's soon."""
    end(command)
    purge(env, ("in-use",))
    assert change(run_envsync, "ignore").returncode == 0
    assert inodes(env) == [(env / ".envsync" / "in-use").stat().st_ino]


@pytest.mark.parametrize("names", [(), ("in-use",)], ids=["there", "lost"])
def test_an_operator_may_have_it_remade(env: Path, command: Command, run_envsync: Run, names: tuple[str, ...]) -> None:
    """The command runs in what is no more, but its lock is still known."""
    purge(env, names)
    (env / "pyvenv.cfg").unlink()
    assert change(run_envsync, "ignore").returncode == 0
    purge(env, ("in-use",))
    assert change_back(run_envsync, "fail").returncode == 124
    end(command)
    assert change_back(run_envsync, "fail").returncode == 0


def test_another_name_of_it_does_not_hide_it(env: Path, command: Command, run_envsync: Run) -> None:
    """It is the same environment through a symbolic link."""
    purge(env, ("in-use",))
    (env.parent / "link").symlink_to(env)
    words = ("sync", "--lock", NEXT, "--env", "link", "--busy")
    assert run_envsync(*words, "fail").returncode == 124
    assert run_envsync(*words, "ignore").returncode == 0
    assert change_back(run_envsync, "fail").returncode == 124
    end(command)
    assert change_back(run_envsync, "fail").returncode == 0


def test_who_died_while_waiting_does_not_hide_it(env: Path, command: Command, run_envsync: Run) -> None:
    """Its stamp is aside, and the next sync, which finds nothing to change, writes a new one."""
    end(command)
    with number_taken(env):
        purge(env, ("in-use",))
        running = Command(run_words(env, *STAY))  # only the stamp names its lock
        assert running.line() == "there"
    (env / ".envsync" / "stamp").rename(env / ".envsync" / "stamp.draining")
    purge(env, ("in-use",))
    assert change_back(run_envsync, "fail").returncode == 0
    assert change(run_envsync, "fail").returncode == 124
    end(running)
    assert change(run_envsync, "fail").returncode == 0


def test_many_purges_do_not_hide_it(env: Path, command: Command, run_envsync: Run) -> None:
    """Only so many inodes are kept, and those that nobody holds go first."""
    with ExitStack() as numbers:
        for _ in range(lost.MOST + 2):
            numbers.enter_context(number_taken(env))
            purge(env, ("in-use",))
            assert change_back(run_envsync, "fail").returncode == 0
    assert len(inodes(env)) <= lost.MOST
    assert change(run_envsync, "fail").returncode == 124
    end(command)
    assert change(run_envsync, "fail").returncode == 0


def test_over_a_network_an_operator_has_answered(
    env: Path, command: Command, run_envsync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be seen who holds it, the next sync does not ask again, for that would be for ever."""
    purge(env, ("in-use",))
    monkeypatch.setattr(mounts, "is_network", lambda path: True)
    with pytest.raises(RefusedError, match="cannot be seen from here"):
        envsync.sync(NEXT, env=env, busy="fail")
    envsync.sync(NEXT, env=env, busy="ignore")
    assert envsync.sync(LOCK, env=env, busy="fail").outcome == "synced"
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
