"""Eight syncs at once on each odd filesystem: one sync, or a clear refusal; never a write without a lock.

Each row of the table is tried with its errors injected into real processes, wherever that is possible; and on a real
filesystem that behaves so, with the lab's `oddfs-up` (it takes root and FUSE):

    LAB_SCRIPTS=DIR python -m pytest tests/odd
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES, leftovers, unverified
from tests.odd.conftest import Mount
from tests.odd.rows import ROWS, Row

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
AT_ONCE = 8
Started = subprocess.Popen[str]


class Ground:
    """A directory that behaves as a row says, and envsync on it."""

    def __init__(self, directory: Path, words: list[str]) -> None:
        self.directory = directory
        self.words = words
        self.events = directory.parent / f"events-{os.urandom(4).hex()}"

    def start(self, *arguments: str) -> Started:
        variables: dict[str, str] = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "ENVSYNC_EVENTS": str(self.events),
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.words, *arguments],
            cwd=self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        return finish(self.start(*arguments))

    def counted(self, event: str) -> int:
        if not self.events.exists():
            return 0
        return sum(json.loads(line)["event"] == event for line in self.events.read_text().splitlines())


def finish(process: Started) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.fixture(params=["injected", "mounted"])
def make_ground(request: pytest.FixtureRequest, tmp_path: Path, mount: Mount) -> Callable[[Row], Ground]:
    """Return a function that makes the ground of a row."""

    def injected(row: Row) -> Ground:
        if row.faults is None:
            pytest.skip("only a filesystem can do this: it is tried with LAB_SCRIPTS")
        directory = tmp_path / "ground"
        directory.mkdir()
        faults = json.dumps({"below": str(directory), **row.faults})
        return Ground(directory, [sys.executable, "-m", "tests.odd.faults", faults])

    def mounted(row: Row) -> Ground:
        if row.faults and not row.mount:
            pytest.skip("the lab's filesystem does not know this error")
        directory = mount(*row.mount, *([] if "--cache" in row.mount else ["--cache", "1"])) / "ground"
        directory.mkdir()
        return Ground(directory, envsync_command())

    return injected if request.param == "injected" else mounted


def start_at_once(ground: Ground, env: str) -> list[tuple[int, str, str]]:
    command = ["run", "--lock", LOCK, "--env", env, "--", "greet"]
    return [finish(process) for process in [ground.start(*command) for _ in range(AT_ONCE)]]


def check_that_one_synced(ground: Ground, ended: list[tuple[int, str, str]], env: Path, row: Row) -> None:
    assert [(status, out) for status, out, _ in ended] == [(0, "HELLO, WORLD!\n")] * AT_ONCE, ended
    assert ground.counted("synced") == 1
    assert unverified(env) == []
    assert set(leftovers(env)) <= {"waiting"}  # the last waiters leave after the leader has looked
    said = json.loads((env / ".envsync" / "locking").read_text())
    assert (said["kind"], said["in_use"]) == (row.kind, row.in_use)


def check_that_it_is_refused(outcome: tuple[int, str, str], row: Row) -> None:
    status, out, err = outcome
    assert (status, out) == (125, "")
    assert re.search(row.reason, err), err
    assert "hint: " in err
    assert re.search(r"`envsync doctor [^`]*--env .venv[ `]", err), err


def rows(*, in_use: bool, most: int = 99) -> pytest.MarkDecorator:
    """:param most: so many are not slow"""
    chosen = [row for row in ROWS if row.in_use == in_use]
    marks = [() if number < most else (pytest.mark.slow,) for number in range(len(chosen))]
    parameters = [pytest.param(row, id=row.name, marks=mark) for row, mark in zip(chosen, marks, strict=True)]
    return pytest.mark.parametrize("row", parameters)


@rows(in_use=True)
def test_eight_at_once(make_ground: Callable[[Row], Ground], row: Row) -> None:
    """One of them syncs and all run; another lock file is synced to, whole, as well."""
    ground = make_ground(row)
    env = ground.directory / ".venv"
    check_that_one_synced(ground, start_at_once(ground, ".venv"), env, row)
    status, _, err = ground.run("sync", "--lock", NEXT, "--env", ".venv")
    assert status == 0, err
    assert unverified(env) == []
    assert ground.counted("synced") == 2


@rows(in_use=False)
def test_eight_at_once_with_an_environment_for_each_lock_file(make_ground: Callable[[Row], Ground], row: Row) -> None:
    """Where commands are not seen, an environment that need never change is served: one syncs, all run."""
    ground = make_ground(row)
    ended = start_at_once(ground, ".venvs/{digest}")
    (env,) = (ground.directory / ".venvs").iterdir()
    check_that_one_synced(ground, ended, env, row)
    assert sum(bool(re.search(row.reason, err)) for _, _, err in ended) == 1  # it is said once, by whoever syncs
    status, out, _ = ground.run("sync", "--lock", LOCK, "--env", ".venvs/{digest}", "--json")
    assert (status, json.loads(out)["outcome"]) == (0, "current")
    shutil.rmtree(next(env.glob("lib/python*/site-packages/*.dist-info")))
    status, _, err = ground.run("sync", "--lock", LOCK, "--env", ".venvs/{digest}")
    assert status == 125
    assert "commands may run in it" in err


@rows(in_use=False)
def test_eight_at_once_are_refused(make_ground: Callable[[Row], Ground], row: Row) -> None:
    """In an environment that may have to change all are refused, told why and what to do, and nothing is installed."""
    ground = make_ground(row)
    for outcome in start_at_once(ground, ".venv"):
        check_that_it_is_refused(outcome, row)
    assert ground.counted("started") == 0
    assert {path.name for path in (ground.directory / ".venv").glob("*")} <= {".envsync", ".lock"}  # or there is none


@rows(in_use=False, most=2)
def test_an_operator_may_change_it_all_the_same(make_ground: Callable[[Row], Ground], row: Row) -> None:
    """`--busy ignore` changes it under the lock that there is; without that word it is refused again."""
    ground = make_ground(row)
    for lock in (LOCK, NEXT):
        status, _, err = ground.run("sync", "--lock", lock, "--env", ".venv", "--busy", "ignore")
        assert status == 0, err
        assert unverified(ground.directory / ".venv") == []
    assert ground.counted("synced") == 2
    check_that_it_is_refused(ground.run("sync", "--lock", LOCK, "--env", ".venv"), row)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
@pytest.mark.parametrize("make_ground", ["mounted"], indirect=True)  # the processes that it asks must misbehave, too
def test_doctor_says_it(make_ground: Callable[[Row], Ground], row: Row) -> None:
    """`envsync doctor` finds it out, says what follows, and leaves nothing behind."""
    ground = make_ground(row)
    before = sorted(ground.directory.parent.rglob("*"))
    status, out, err = ground.run("doctor", "--env", ".venv", "--json")
    said = json.loads(out)
    found = [(each["level"], each["text"]) for each in said["findings"]]
    level, words = row.shortfall
    assert any(each == level and words in text for each, text in found), found
    assert (status, said["safe"]) == ((0, True) if row.in_use else (1, False)), (found, err)
    assert sorted(ground.directory.parent.rglob("*")) == before
