"""SIGKILL at every file-system change of a sync: never taken for current unless whole, and always repaired."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync import fastlane, library, request
from envsync.__main__ import main
from envsync.environment import Environment
from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified

FIRST = FIXTURES / "pylock.toml"
NEXT = FIXTURES / "pylock.next.toml"
CHANGES = frozenset(
    {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
)


def run_until(is_due: Callable[[int], bool], arguments: list[str], strike: Callable[[], None]) -> int:
    """Run a command line in a child that strikes once, before a change of the file system that is due.

    :param is_due: is asked at each change, with its number
    :returns: the wait status
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    count = 0
    struck = False

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal count, struck
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or writes:
            count += 1
            if not struck and is_due(count):
                struck = True
                strike()

    status = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        sys.addaudithook(audit)
        status = main(arguments)
    finally:
        os._exit(status)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_current(lock: Path, env: Path) -> bool:
    asked = request.resolve({"lock": str(lock), "env": str(env)}, {})
    entry = fastlane.enter(asked, Environment(str(env)))
    if entry is not None:
        os.close(entry.fd)
    return entry is not None


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds all fixture wheels."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(directory))
    for lock in (FIRST, NEXT):
        library.sync(lock, env=tmp_path / "warm")
    return directory


def expected_files(tmp_path: Path, lock: Path) -> set[str]:
    env = tmp_path / "expected"
    library.sync(lock, env=env)
    return files(env)


def check_repaired(lock: Path, env: Path, expected: set[str]) -> None:
    if is_current(lock, env):
        assert unverified(env) == []
        assert files(env) == expected
    assert library.sync(lock, env=env).outcome in ("synced", "current")
    assert unverified(env) == []
    assert unowned(env) == set()
    assert files(env) == expected
    assert leftovers(env) == []
    assert library.sync(lock, env=env).outcome == "current"


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cache")
def test_a_first_install_killed_at_any_change_is_repaired(tmp_path: Path) -> None:
    """Whatever a first sync was doing when it was killed, the next one ends with exactly the target."""
    expected = expected_files(tmp_path, FIRST)
    nth = 0
    while True:
        nth += 1
        env = tmp_path / f"env{nth}"
        status = run_until(nth.__eq__, ["sync", "--lock", str(FIRST), "--env", str(env), "-q"], kill)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        check_repaired(FIRST, env, expected)
    assert nth > 50


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cache")
def test_an_upgrade_killed_at_any_change_is_repaired(tmp_path: Path) -> None:
    """An environment that is being changed is either still the old one, or is finished by the next sync."""
    old, new = expected_files(tmp_path, FIRST), expected_files(tmp_path, NEXT)
    env = tmp_path / "env"
    nth = 0
    while True:
        nth += 1
        library.sync(FIRST, env=env)
        status = run_until(nth.__eq__, ["sync", "--lock", str(NEXT), "--env", str(env), "-q"], kill)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        if is_current(FIRST, env):
            assert unverified(env) == []
            assert files(env) == old
        check_repaired(NEXT, env, new)
    assert nth > 20


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cache")
def test_a_recovery_killed_at_any_change_is_repaired(tmp_path: Path) -> None:
    """A leader that dies while it finishes a dead leader's commit leaves no more than that one did."""
    new = expected_files(tmp_path, NEXT)
    env = tmp_path / "env"
    command = ["sync", "--lock", str(NEXT), "--env", str(env), "-q"]
    nth = 0
    while True:
        nth += 1
        library.sync(FIRST, env=env)
        _kill_inside_commit(env, command)
        status = run_until(nth.__eq__, command, kill)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        check_repaired(NEXT, env, new)
    assert nth > 10


def _kill_inside_commit(env: Path, command: list[str]) -> None:
    """Kill a sync after the first few steps of its journal."""
    journal = env / ".envsync" / "journal"
    seen = 0

    def in_commit(_: int) -> bool:
        nonlocal seen
        seen += journal.exists()
        return seen == 4

    assert os.WTERMSIG(run_until(in_commit, command, kill)) == signal.SIGKILL
    assert journal.exists()


@pytest.mark.usefixtures("cache")
def test_a_remade_environment_killed_at_any_change_is_repaired(tmp_path: Path) -> None:
    """An environment without pyvenv.cfg is remade, whenever that is interrupted; the base Python is not touched."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    nth = 0
    while True:
        nth += 5
        library.sync(FIRST, env=env)
        (env / "pyvenv.cfg").unlink()
        status = run_until(nth.__eq__, ["sync", "--lock", str(FIRST), "--env", str(env), "-q"], kill)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        check_repaired(FIRST, env, expected)
    assert site_packages(env).is_dir()


def test_an_error_at_any_change_leaves_the_environment_whole_or_to_be_finished(tmp_path: Path, cache: Path) -> None:
    """ENOSPC at any change of an upgrade is a clear failure, and the next sync succeeds."""
    new = expected_files(tmp_path, NEXT)
    env = tmp_path / "env"

    def fail() -> None:
        raise OSError(28, "No space left on device")

    nth = 0
    while True:
        nth += 1
        library.sync(FIRST, env=env)
        status = run_until(nth.__eq__, ["sync", "--lock", str(NEXT), "--env", str(env), "-q"], fail)
        assert os.WIFEXITED(status)
        assert os.WEXITSTATUS(status) in (0, 125), nth
        check_repaired(NEXT, env, new)
        if nth > 150:
            break
