"""The held environment: whether it is still ours, and what is known of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.installed.ledger import Ledger, dump_ledger
from envsync.launch import Environment
from envsync.launch.progress import quiet
from envsync.leading.held import BATCH_SECONDS, Held, ReplacedError
from envsync.leading.progress_file import ProgressFile
from envsync.locks import flock, kind
from envsync.system import atomic, records
from envsync.waiting.narrator import SILENCE_SECONDS
from tests.unit.scene import Clock


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    environment = Environment(str(tmp_path / "env"))
    os.makedirs(environment.state)
    return environment


@pytest.fixture
def held(environment: Environment) -> Iterator[Held]:
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    yield Held(environment, lock, ProgressFile(environment, "key", quiet), kind.WORKS)
    lock.release()


def record(environment: Environment, host: str) -> None:
    atomic.write(environment.installed, dump_ledger(Ledger(environment.path, host, {})))


def test_what_is_installed_is_read_once(environment: Environment, held: Held) -> None:
    """Whoever asks gets what was read before, as long as the file is the same."""
    record(environment, "x86_64 glibc")
    assert held.ledger().host == "x86_64 glibc"
    assert held.ledger() is held.ledger()


def test_what_is_installed_is_read_again_if_it_is_replaced(environment: Environment, held: Held) -> None:
    """By a commit of ours or by a purge: it is never older than the file."""
    assert held.ledger() == Ledger("", "", {})
    for host in ("x86_64 glibc", "aarch64 musl"):
        record(environment, host)
        assert held.ledger().host == host
    os.unlink(environment.installed)
    assert held.ledger() == Ledger("", "", {})


def test_an_environment_that_was_replaced_is_not_ours(tmp_path: Path, environment: Environment, held: Held) -> None:
    """Its lock says nothing of what is there now."""
    held.check_in_place()
    os.rename(environment.path, tmp_path / "aside")
    os.makedirs(environment.state)
    held.check_held()  # it was looked at just now
    with pytest.raises(ReplacedError):
        held.check_in_place()


def test_an_environment_that_another_leads_is_not_ours(environment: Environment, held: Held) -> None:
    """A network filesystem may have given the lock to somebody else, who says so in the progress file."""
    held.progress("staging", 0, 1)
    held.check_in_place()
    ProgressFile(environment, "key", quiet)("staging", 0, 1)
    with pytest.raises(ReplacedError):
        held.check_in_place()


def test_who_hung_is_not_sure_of_its_look(
    environment: Environment, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for which a look counts begins before it: what it found may be old by the time that it returns."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ask = ProgressFile.is_ours

    def hangs(progress: ProgressFile) -> bool:
        found = ask(progress)
        now[0] += 80
        return found

    held.progress("staging", 0, 1)
    monkeypatch.setattr(ProgressFile, "is_ours", hangs)
    held.check_in_place()
    ProgressFile(environment, "key", quiet)("staging", 0, 1)
    with pytest.raises(ReplacedError):
        held.check_held()


def test_steps_that_take_long(environment: Environment, held: Held, clock: Clock) -> None:
    """Who waits reads how far it is, and nothing is written for steps that take no time."""
    step = held.taking("committing", 9)
    seen = [records.load(environment.progress)]
    for seconds in (0.0, 0.0, SILENCE_SECONDS / 2, 0.0, SILENCE_SECONDS / 2):
        clock.now += seconds
        step()
        seen.append(records.load(environment.progress))
    assert [(each["phase"], each["done"], each["total"]) for each in seen] == [
        ("committing", done, 9) for done in (0, 0, 0, 2, 2, 4)
    ]


def test_steps_of_an_environment_that_another_leads(environment: Environment, held: Held, clock: Clock) -> None:
    """They end where it is found, and what the other says stays."""
    step = held.taking("committing", 9)
    step()
    other = ProgressFile(environment, "key", quiet)
    other("staging", 0, 1)
    clock.now += BATCH_SECONDS
    with pytest.raises(ReplacedError):
        step()
    assert records.load(environment.progress)["id"] == other.value["id"]
