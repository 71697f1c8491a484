"""The one loop: who finds that the environment was replaced while it was locked begins again, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import envsync
from envsync.checking import repair
from envsync.errors import FilesystemError
from envsync.launch import Environment
from envsync.launch.progress import quiet
from envsync.leading.lead import Leader, Led
from envsync.library.reach import REPLACED_TIMES
from tests.environments import FIXTURES, unverified

LOCK = FIXTURES / "pylock.toml"


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Move the environment aside beneath so many leaders; returns the list of those that were moved."""
    run, moved = Leader.run, []

    def replacing(times: int) -> list[str]:
        def replace(leader: Leader) -> Led:
            if len(moved) < times:
                moved.append(str(tmp_path / f"aside{len(moved)}"))
                os.rename(leader.environment.path, moved[-1])
            return run(leader)

        monkeypatch.setattr(Leader, "run", replace)
        return moved

    return replacing


class TestAFewTimes:
    """It is synced in the end, as if nothing had been."""

    def test_a_program(self, tmp_path: Path, replaced: Callable[[int], list[str]]) -> None:
        """A thread that syncs."""
        moved = replaced(3)
        assert envsync.sync(LOCK, env=tmp_path / "env").outcome == "synced"
        assert (len(moved), unverified(tmp_path / "env")) == (3, [])

    @pytest.mark.anyio
    async def test_a_task(self, tmp_path: Path, replaced: Callable[[int], list[str]]) -> None:
        """A task of an event loop."""
        moved = replaced(3)
        async with envsync.Coordinator() as coordinator:
            assert (await coordinator.sync(LOCK, env=tmp_path / "env")).outcome == "synced"
        assert (len(moved), unverified(tmp_path / "env")) == (3, [])


class TestAgainAndAgain:
    """It is given up, and said why."""

    def test_a_program(self, tmp_path: Path, replaced: Callable[[int], list[str]]) -> None:
        """A thread that syncs."""
        moved = replaced(1000)
        with pytest.raises(FilesystemError, match="somebody keeps replacing the directory"):
            envsync.sync(LOCK, env=tmp_path / "env")
        assert len(moved) == REPLACED_TIMES

    @pytest.mark.anyio
    async def test_a_task(self, tmp_path: Path, replaced: Callable[[int], list[str]]) -> None:
        """A task of an event loop."""
        moved = replaced(1000)
        async with envsync.Coordinator() as coordinator:
            with pytest.raises(FilesystemError, match="somebody keeps replacing the directory"):
                await coordinator.sync(LOCK, env=tmp_path / "env")
        assert len(moved) == REPLACED_TIMES

    def test_a_repair(self, tmp_path: Path, replaced: Callable[[int], list[str]]) -> None:
        """Whatever is to be restored."""
        env = tmp_path / "env"
        envsync.sync(LOCK, env=env)
        next(env.glob("lib/python*/site-packages/greet/__init__.py")).unlink()
        moved = replaced(1000)
        request = repair.request_of({}, str(env))
        with pytest.raises(FilesystemError, match="somebody keeps replacing the directory"):
            repair.check_and_repair(request, None, Environment(str(env)), quiet)
        assert len(moved) == REPLACED_TIMES
