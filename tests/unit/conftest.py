"""A clock that only sleeping moves, an environment, a request for it, and somebody who leads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.request import Request
from envsync.leading import in_use, progress_file, session
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import processes
from envsync.waiting import failures, narrator, queue, waiter
from tests.unit.scene import Clock, make_environment, make_request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the time of all modules here, and the host's clock."""
    clock = Clock()
    for module in (failures, narrator, in_use, progress_file, queue, session, waiter):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(processes, "clock", clock.monotonic)
    return clock


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment that is current for nothing yet."""
    return make_environment(tmp_path / "env")


@pytest.fixture
def leader(environment: Environment) -> Iterator[Flock]:
    """Somebody who leads."""
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    yield lock
    lock.release()


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return make_request(tmp_path)
