"""A sync of the fixtures' wheels, and whether it is whole: what test_resumed.py strikes in ways of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from envsync.launch import Environment, fast_lane, request
from envsync.library import blocking
from tests.environments import FIXTURES, files, leftovers, unowned, unverified

FIRST = FIXTURES / "pylock.toml"
NEXT = FIXTURES / "pylock.next.toml"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds all fixture wheels."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(directory))
    for lock in (FIRST, NEXT):
        blocking.sync(lock, env=tmp_path / "warm")
    return directory


def kill() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_current(lock: Path, env: Path) -> bool:
    """Tell whether an environment is taken for current."""
    asked = request.resolve({"lock": str(lock), "env": str(env)}, {})
    entry = fast_lane.enter(asked, Environment(str(env)))
    if entry is not None:
        os.close(entry.fd)
    return entry is not None


def expected_files(tmp_path: Path, lock: Path) -> set[str]:
    """List the files that an environment has to have."""
    env = tmp_path / "expected"
    blocking.sync(lock, env=env)
    return files(env)


def check_repaired(lock: Path, env: Path, expected: set[str]) -> None:
    """Assert that the next sync repairs an environment, and the one after has nothing to do."""
    if is_current(lock, env):
        assert unverified(env) == []
        assert files(env) == expected
    assert blocking.sync(lock, env=env).outcome in ("synced", "current")
    assert unverified(env) == []
    assert unowned(env) == set()
    assert files(env) == expected
    assert leftovers(env) == []
    assert blocking.sync(lock, env=env).outcome == "current"
