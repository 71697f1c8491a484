"""Which notes are said again: what happened each time, what lasts once for an environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import envsync
from tests.environments import FIXTURES, leftovers
from tests.filesystems import mounted

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"
COPIED = "note: files were copied, since they could not be linked from the cache"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Path]:
    """A node's own disk: another filesystem than the cache's."""
    with mounted("tmpfs", tmp_path) as place:
        yield place


def test_copies_are_told_once(local: Path, run_envsync: Run) -> None:
    """An environment on another disk than the cache says so at its first sync, and once more when it is made anew."""
    env = local / "env"

    def said(lock: Path, *options: str, command: str = "sync") -> int:
        done = run_envsync(command, "--lock", lock, "--env", env, *options, check=True)
        return done.stderr.count(COPIED)

    assert said(LOCK) == 1
    assert [said(NEXT), said(LOCK, command="sync"), said(NEXT, "--json")] == [0, 0, 0]
    assert leftovers(env) == []
    assert said(LOCK, "--verbose") == 1
    shutil.rmtree(env)
    assert said(LOCK) == 1


def test_who_is_told_nothing_has_not_been_told(local: Path, run_envsync: Run) -> None:
    """A quiet sync, or a program's, leaves the note to the first that shows it; a program gets it each time."""
    env = local / "env"
    run_envsync("sync", "--lock", LOCK, "--env", env, "--quiet", check=True)
    for lock in (NEXT, LOCK):
        result = envsync.sync(lock, env=env)
        assert any(COPIED.removeprefix("note: ") in note for note in result.notes)
    done = run_envsync("run", "--lock", NEXT, "--env", env, "--", "greet", check=True)
    assert done.stderr.count(COPIED) == 1


def test_a_new_python(local: Path, run_envsync: Run) -> None:
    """An environment whose skeleton is made anew in its place is another one."""
    env = local / "env"
    sync = ("sync", "--lock", LOCK, "--env", env)
    assert COPIED in run_envsync(*sync, check=True).stderr
    (env / "pyvenv.cfg").unlink()
    assert COPIED in run_envsync(*sync, check=True).stderr
