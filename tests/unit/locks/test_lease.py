"""The lease: one holder, and none for ever, also where filelock does not take over from the dead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import SoftFileLease

from envsync.errors import FilesystemError, LockingError
from envsync.launch import Environment
from envsync.locks import lease
from envsync.locks.lease import Contender, Lease
from envsync.system import atomic, processes, records
from tests import needs


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    return Environment(f"{tmp_path}/env")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the clock by which a contender counts."""
    monkeypatch.setattr(lease.time, "monotonic", lambda: 0.0)
    return lambda seconds: monkeypatch.setattr(lease.time, "monotonic", lambda: seconds)


@pytest.fixture(autouse=True)
def _no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: filelock leaves a lease that is there alone, dead or not."""
    monkeypatch.setattr(SoftFileLease, "_try_break_stale_lock", lambda _: None)


def left_by_another_host(environment: Environment, token: str = "t") -> None:
    Path(environment.lease).write_text(
        f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken={token}\nduration={lease.SECONDS!r}\n"
    )


def take(environment: Environment) -> Lease:
    held = Contender(environment).acquire_nowait()
    assert held is not None
    return held


def test_one_holder(environment: Environment) -> None:
    """While one has it, nobody else gets it; released, it leaves nothing, and releasing again is harmless."""
    held = take(environment)
    assert held.is_in_place()
    assert Contender(environment).acquire_nowait() is None
    held.release()
    held.release()
    assert os.listdir(environment.state) == []
    assert not held.is_in_place()


def test_it_runs_out(environment: Environment, now: Callable[[float], None]) -> None:
    """One that is not refreshed for long enough, by the contender's own clock, is taken."""
    left_by_another_host(environment)
    contender = Contender(environment)
    assert contender.acquire_nowait() is None
    now(lease.SECONDS - 1)
    assert contender.acquire_nowait() is None
    now(lease.SECONDS)
    held = contender.acquire_nowait()
    assert held is not None
    assert held.is_in_place()
    held.release()
    assert os.listdir(environment.state) == []


def test_it_does_not_run_out_while_it_is_refreshed(environment: Environment, now: Callable[[float], None]) -> None:
    """Whatever its times are: that they change is the sign of life."""
    left_by_another_host(environment)
    contender = Contender(environment)
    for number in range(1, 5):
        assert contender.acquire_nowait() is None
        now(number * (lease.SECONDS - 1))
        os.utime(environment.lease, (number, number))
    assert contender.acquire_nowait() is None


def test_what_was_never_written_runs_out(environment: Environment, now: Callable[[float], None]) -> None:
    """A process that dies between making and writing it leaves it empty."""
    Path(environment.lease).write_bytes(b"")
    contender = Contender(environment)
    assert contender.acquire_nowait() is None
    now(lease.SECONDS)
    assert contender.acquire_nowait() is not None


@needs.PROC
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_process_of_this_place_is_known_to_be_dead(environment: Environment, place: str) -> None:
    """Its progress says which process it was: here, that is asked at once; elsewhere, time decides."""
    left_by_another_host(environment, "t")
    said = {"pid": 2**22 + 1, "token": "t", "place": processes.here() if place == "here" else "other"}
    atomic.write(environment.progress, records.dump(said))
    held = Contender(environment).acquire_nowait()
    assert (held is not None) == (place == "here")
    if held is not None:
        held.release()


def test_the_progress_of_another_holder_says_nothing(environment: Environment) -> None:
    """What a leader before the holder has left does not make the holder dead."""
    left_by_another_host(environment, "t")
    atomic.write(environment.progress, records.dump({"pid": 2**22 + 1, "token": "old", "place": processes.here()}))
    assert Contender(environment).acquire_nowait() is None


@pytest.mark.skipif(sys.platform == "win32", reason="filelock keeps it open: nobody else can take it while it is held")
def test_a_holder_notices_that_it_was_taken(environment: Environment) -> None:
    """Whether somebody else's is in its place or nothing is; what is somebody else's is not removed."""
    held = take(environment)
    os.unlink(environment.lease)
    assert not held.is_in_place()
    left_by_another_host(environment)
    assert not held.is_in_place()
    held.release()
    assert "elsewhere" in Path(environment.lease).read_text()


def test_what_changed_hands_is_put_back(
    environment: Environment, now: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that somebody else has taken between the look and the rename is not broken."""
    left_by_another_host(environment, "dead")
    contender = Contender(environment)
    assert contender.acquire_nowait() is None
    now(lease.SECONDS)
    original = os.rename

    def late(source: str, target: str) -> None:
        left_by_another_host(environment, "live")
        original(source, target)

    monkeypatch.setattr(os, "replace", late)
    assert contender.acquire_nowait() is None
    assert "token=live" in Path(environment.lease).read_text()
    assert os.listdir(environment.state) == ["lease"]


def test_what_cannot_be_had_is_an_error(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else is in its place, or it is kept for another time."""
    os.mkdir(environment.lease)
    with pytest.raises(FilesystemError, match="cannot take the lease"):
        Contender(environment).acquire_nowait()
    monkeypatch.undo()
    os.rmdir(environment.lease)
    left_by_another_host(environment)
    text = Path(environment.lease).read_text().replace(repr(lease.SECONDS), "7.0")
    Path(environment.lease).write_text(text)
    with pytest.raises(LockingError, match="must agree"):
        Contender(environment).acquire_nowait()
