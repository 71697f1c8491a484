"""Leading with a lock that is not the one by which the environment is locked by now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.progress import quiet
from envsync.launch.request import Request
from envsync.leading.lead import lead
from envsync.leading.session import Session
from envsync.locks import flock
from envsync.locks.kind import LEASE, Locking, record
from envsync.locks.lease import Contender
from tests import needs


def made(tmp_path: Path) -> Environment:
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    return Environment(f"{tmp_path}/env")


def asked(environment: Environment) -> Request:
    return Request({"quiet": True}, "", "", environment.path)


def test_a_lease_of_an_environment_that_nobody_has_decided_on(tmp_path: Path) -> None:
    """It was replaced after the look at its record: nothing is done, and the caller asks again."""
    environment = made(tmp_path)
    held = Contender(environment).acquire_nowait()
    assert held is not None
    assert lead(Session(asked(environment), environment, quiet), held) is None
    assert os.listdir(environment.state) == []


def test_a_flock_of_an_environment_that_is_leased(tmp_path: Path) -> None:
    """The same, and others with the lease may be at work."""
    environment = made(tmp_path)
    held = flock.acquire_nowait(environment.lock, shared=False)
    assert held is not None
    record(environment, Locking(LEASE, in_use=False))
    assert lead(Session(asked(environment), environment, quiet), held) is None
    assert os.listdir(environment.state) == ["locking"]


@needs.GONE_AT_ONCE
def test_what_it_cannot_even_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is released, whoever asks: a program with a `Coordinator` goes on."""
    environment = made(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    held = flock.acquire_nowait(environment.lock, shared=False)
    assert held is not None
    request = Request({"cache_fallback": "relative"}, "", "", environment.path)
    with pytest.raises(FileNotFoundError):
        lead(Session(request, environment, quiet), held)
    assert held.fd == -1
