"""What a dead leader leaves behind is found and swept away, and nothing else is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from envsync.installed import leftovers
from envsync.launch import Environment
from envsync.locks.lease import Contender
from tests.unit.scene import LIVENESS_SECONDS, SITE, helper

DEAD = (
    ".envsync/stamp.4711.new",
    ".envsync/progress.json.4711.a1b2c3d4.new",
    ".envsync/failure.json.4711.new",
    ".envsync/journal.4711.new",
    ".envsync/installed.json.4711.new",
    ".envsync/turn.4711.new",
    ".envsync/clock.4711.new",
    ".envsync/making.4711.new",
    ".gitignore.4711.new",
    "CACHEDIR.TAG.4711.new",
    ".envsync/work/0123",
    f"{SITE}/.envsync/abc",
    f"{SITE}/.envsync/def-1",
)
OTHERS = (
    "my.new",
    "stamp.new.txt",
    "new",
    ".envsync/my.new",
    ".envsync/stamp",
    ".envsync/journal",
    ".envsync/waiting/n7.4711.abc.new",
    f"{SITE}/stamp.4711.new",
    f"{SITE}/package/module.py",
    "bin/stamp.4711.new",
)


@pytest.fixture
def littered(environment: Environment) -> Environment:
    """An environment with the leftovers of every kind, and other files."""
    for name in (*DEAD, *OTHERS):
        path = Path(environment.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if "/.envsync/" in name or "/work/" in name:
            (path / "new" / "x").mkdir(parents=True)
            (path / "new" / "x" / "y.py").touch()
        else:
            path.touch()
    return environment


def there(environment: Environment, names: tuple[str, ...]) -> set[str]:
    return {name for name in names if os.path.lexists(f"{environment.path}/{name}")}


def test_found(littered: Environment) -> None:
    """All of them are named, each once, and nothing else."""
    found = list(leftovers.find(littered))
    assert sorted(found) == sorted(f"{littered.path}/{name}" for name in DEAD)
    assert there(littered, DEAD) == set(DEAD)


def test_swept(littered: Environment) -> None:
    """All of them go, directories with all that is in them; what is not a leftover stays."""
    leftovers.sweep(littered)
    assert there(littered, DEAD) == set()
    assert there(littered, OTHERS) == set(OTHERS)
    assert list(leftovers.find(littered)) == []
    assert os.path.isdir(f"{littered.path}/{SITE}/.envsync")


def test_spared(littered: Environment) -> None:
    """A workspace that is still of use stays as it is, the others go."""
    leftovers.sweep(littered, spare={"abc"})
    assert there(littered, DEAD) == {f"{SITE}/.envsync/abc"}
    assert os.path.exists(f"{littered.path}/{SITE}/.envsync/abc/new/x/y.py")


def test_nothing_there(tmp_path: Path) -> None:
    """Where there is no environment, there are no leftovers."""
    environment = Environment(str(tmp_path / "env"))
    assert list(leftovers.find(environment)) == []
    leftovers.sweep(environment)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", [f"{SITE}/.envsync", ".envsync/work"])
def test_a_place_that_leads_elsewhere(environment: Environment, tmp_path: Path, place: str) -> None:
    """If where stages are is a symbolic link, nothing is looked for behind it, and nothing removed."""
    (tmp_path / "mine" / "dear").mkdir(parents=True)
    Path(environment.path, place).symlink_to(tmp_path / "mine")
    assert list(leftovers.find(environment)) == []
    leftovers.sweep(environment)
    assert os.listdir(tmp_path / "mine") == ["dear"]
    assert os.path.islink(f"{environment.path}/{place}")


@pytest.mark.parametrize("place", [f"{SITE}/.envsync", ".envsync/work"])
def test_a_stage_that_leads_elsewhere(environment: Environment, tmp_path: Path, place: str) -> None:
    """If a stage, or a directory in it, is a symbolic link, the link goes, and what is behind it stays."""
    (tmp_path / "mine" / "dear").mkdir(parents=True)
    work = Path(environment.path, place)
    (work / "real").mkdir(parents=True)
    (work / "stage").symlink_to(tmp_path / "mine")
    (work / "real" / "below").symlink_to(tmp_path / "mine")
    leftovers.sweep(environment)
    assert os.listdir(work) == []
    assert os.listdir(tmp_path / "mine") == ["dear"]


def test_what_resists(littered: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is left, and stays a leftover for a later sync."""
    original = os.unlink

    def resist(path: str) -> None:
        if path.endswith("y.py"):
            raise OSError(16, "Device or resource busy")
        original(path)

    monkeypatch.setattr(os, "unlink", resist)
    leftovers.sweep(littered)
    assert there(littered, DEAD) == {name for name in DEAD if "/work/" in name or "site-packages" in name}
    monkeypatch.undo()
    leftovers.sweep(littered)
    assert there(littered, DEAD) == set()


LEAD = """\
from envsync.locks.lease import Contender
from envsync.launch import Environment
held = Contender(Environment(sys.argv[1])).acquire_nowait()
print("held" if held else "not held", flush=True)
sys.stdin.read()
"""
"""A helper that takes a lease."""
DIE_TAKING = (
    """\
import glob, os, signal
def die(*_event):
    if "busy" not in globals():
        globals()["busy"] = True
        if glob.glob(sys.argv[1] + "/.envsync/lease.break.*"):
            os.kill(os.getpid(), signal.SIGKILL)
        del globals()["busy"]
sys.addaudithook(die)
"""
    + LEAD
)
"""A helper that dies as soon as it has made the file to take a dead lease with."""


def test_what_died_while_it_took_a_lease(environment: Environment) -> None:
    """Its file stays for as long as it might be of a taker that lives; then the next leader's sweep removes it."""
    with helper(LEAD, environment.path) as leader:
        assert leader.hear() == "held"
        leader.kill()
    with helper(DIE_TAKING, environment.path) as taker:
        assert taker.hear() == ""
        assert taker.process.wait(LIVENESS_SECONDS) == -signal.SIGKILL
    (left,) = Path(environment.state).glob("lease.break.*")
    held = Contender(environment).acquire_nowait()
    assert held is not None
    leftovers.sweep(environment)
    assert left.exists()
    then = left.stat().st_mtime - leftovers.TAKER_SECONDS - 1
    os.utime(left, (then, then))
    assert list(leftovers.find(environment)) == [str(left)]
    leftovers.sweep(environment)
    assert not left.exists()
    assert held.is_in_place()
    held.release()


@pytest.mark.parametrize("name", ["lease.break.4711.a1b2", "lease.restore.4711.a1b2", "lease.a1b2c3d4.new"])
def test_a_lease_that_is_moved_for_an_instant(environment: Environment, name: str) -> None:
    """What a living holder refreshes is spared, under whatever name, and however old all else is."""
    moved = Path(environment.state, name)
    moved.touch()
    for path in Path(environment.state).iterdir():
        os.utime(path, (1e9, 1e9))
    os.utime(moved, (1e9 - leftovers.TAKER_SECONDS, 1e9 - leftovers.TAKER_SECONDS))
    leftovers.sweep(environment)
    assert moved.exists()
    os.utime(moved, (1e9 - leftovers.TAKER_SECONDS - 1, 1e9 - leftovers.TAKER_SECONDS - 1))
    leftovers.sweep(environment)
    assert not moved.exists()
