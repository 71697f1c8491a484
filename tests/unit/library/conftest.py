"""Every test under asyncio and Trio; one cache for all, so that the wheels are unpacked once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.leading.goal import Seeker
from tests import needs
from tests.unit.library.program import Gate


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=needs.TRIO)])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(shared_cache))
    return shared_cache


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ENVSYNC_EVENTS goes, of this process and of those that it starts."""
    monkeypatch.setenv("ENVSYNC_EVENTS", str(tmp_path / "events.jsonl"))
    return tmp_path / "events.jsonl"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def seeking(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before each leader's first step: finding out what the environment is to become."""
    monkeypatch.setattr(Seeker, "seek", gate.before(Seeker.seek))
    return gate
