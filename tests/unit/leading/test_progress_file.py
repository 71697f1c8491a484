"""What a leader says of itself, how often, and that it never fails a sync."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from envsync.launch import Environment
from envsync.launch.progress import quiet
from envsync.leading.progress_file import (
    HUNG_SECONDS,
    LOCAL_SECONDS,
    NETWORK_SECONDS,
    PHASE_SECONDS,
    READ_SECONDS,
    ProgressFile,
)
from envsync.system import atomic, mounts, native, processes, records, refusals
from envsync.waiting import cycle, failures
from envsync.waiting.narrator import HEARTBEAT_SECONDS
from tests.unit.scene import Clock
from tests.unit.system.test_refusals import refused


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """When the file was written."""
    writes: list[float] = []
    original = atomic.write

    def write(path: str, data: bytes, *, patience: float) -> None:
        writes.append(clock.passed)
        original(path, data, patience=patience)

    monkeypatch.setattr(atomic, "write", write)
    return writes


def said(environment: Environment) -> dict[str, object]:
    return records.load(environment.progress)


def test_what_it_says(environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who it is, where, since when, for which request, within which environments, and how far."""
    monkeypatch.setattr(cycle, "holds", lambda: ("/a", "/b"))
    ProgressFile(environment, "key", quiet)("downloading", 3, 9)
    expected = {
        "format": 2,
        "host": processes.host(),
        "pid": os.getpid(),
        "place": processes.here(),
        "command": processes.own_command(),
        "since": clock.now,
        "key": "key",
        "holds": "/a\n/b",
        "phase": "downloading",
        "done": 3,
        "total": 9,
    }
    assert expected.items() <= said(environment).items()


def test_everything_is_reported_on(environment: Environment, clock: Clock) -> None:
    """Whoever listens in this process hears each word, whether or not it is written."""
    heard: list[tuple[object, ...]] = []
    progress = ProgressFile(environment, "key", lambda *words: heard.append(words))
    for done in range(5):
        progress("staging", done, 5, done * 10, 50)
    assert heard == [("staging", done, 5, done * 10, 50) for done in range(5)]


def test_bytes_and_the_slowest(environment: Environment, clock: Clock, writes: list[float]) -> None:
    """Those who wait see how many bytes have come, of how many, and the slowest download, as who listens here does."""

    class Listener:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def detail(self, text: str) -> None:
            self.heard.append(text)

        def __call__(self, *words: object) -> None:
            self.heard.append(words)

    listener = Listener()
    progress = ProgressFile(environment, "key", listener)
    progress.detail("numpy 1.0 of 2.0 MB")
    progress("downloading", 3, 9, 45_000_000, 310_000_000)
    assert listener.heard == ["numpy 1.0 of 2.0 MB", ("downloading", 3, 9, 45_000_000, 310_000_000)]
    expected = {"bytes_done": 45_000_000, "bytes_total": 310_000_000, "detail": "numpy 1.0 of 2.0 MB"}
    assert expected.items() <= said(environment).items()
    clock.now += 1
    progress("downloading", 3, 9, 45_000_001, 310_000_000)  # nothing that anybody would see
    assert len(writes) == 1
    progress("downloading", 3, 9, 46_000_000, 310_000_000)
    assert len(writes) == 2
    progress("staging", 0, 9)
    assert (said(environment)["bytes_done"], said(environment)["detail"]) == (0, "")


@pytest.mark.parametrize(("network", "every"), [(False, LOCAL_SECONDS), (True, NETWORK_SECONDS)])
def test_not_too_often(
    environment: Environment,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    writes: list[float],
    network: bool,
    every: float,
) -> None:
    """However fast the work goes, the file is replaced four times a second, and once over a network."""
    monkeypatch.setattr(mounts, "is_network", lambda path: network)
    progress = ProgressFile(environment, "key", quiet)
    for done in range(10_000):
        progress("staging", done, 10_000)
        clock.now += 0.001
    assert len(writes) == pytest.approx(10 / every, rel=0.05)


def test_a_new_phase_is_said_at_once(environment: Environment, clock: Clock, writes: list[float]) -> None:
    """Whoever waits learns of each phase, however short."""
    progress = ProgressFile(environment, "key", quiet)
    for phase in ("looking", "downloading", "staging", "committing"):
        progress(phase, 0, 0)
        assert said(environment)["phase"] == phase
    assert len(writes) == 4


def test_a_sign_of_life(environment: Environment, clock: Clock, writes: list[float]) -> None:
    """A leader that has nothing new to say says so every few seconds, and no more often."""
    progress = ProgressFile(environment, "key", quiet)
    for _ in range(600):
        progress("waiting for commands", 0, 0)
        clock.now += 0.1
    gaps = [after - before for before, after in pairwise(writes)]
    assert max(gaps) <= HEARTBEAT_SECONDS + 0.11
    assert len(writes) == pytest.approx(60 / HEARTBEAT_SECONDS, abs=2)


def test_it_is_removed(environment: Environment, clock: Clock) -> None:
    """When nobody leads any more, nobody is found dead."""
    progress = ProgressFile(environment, "key", quiet)
    progress("staging", 0, 1)
    progress.remove()
    progress.remove()
    assert failures.bury(environment) == {}


def test_a_full_disk(environment: Environment, clock: Clock) -> None:
    """A sync does not fail because it cannot say how far it is."""
    os.rename(environment.state, environment.state + ".gone")
    progress = ProgressFile(environment, "key", quiet)
    progress("staging", 0, 1)
    progress.remove()


def test_who_keeps_it_open_holds_up_nobody(
    environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows has it: the first report is insisted on, no later one; once it is closed, the next one is written."""
    is_open = True

    def replace(source: str, destination: str) -> None:
        if is_open:
            raise refused(refusals.SHARING_VIOLATION, source, destination)
        os.replace(source, destination)

    monkeypatch.setattr(native, "replace", replace)
    for module in (atomic, refusals):
        monkeypatch.setattr(module, "time", clock)
    asked: list[OSError] = []
    monkeypatch.setattr(refusals, "holders", lambda error: asked.append(error) or ())
    progress = ProgressFile(environment, "key", quiet)
    progress("looking", 0, 0)
    assert clock.passed >= refusals.SECONDS
    asked.clear()
    before = clock.passed
    for number in range(100):
        progress("staging", number, 100)
        clock.now += LOCAL_SECONDS
    assert clock.passed - before < 2 * PHASE_SECONDS + 100 * (LOCAL_SECONDS + 2 * READ_SECONDS)
    assert asked == []
    assert os.listdir(environment.state) == ["in-use"]
    is_open = False
    progress("staging", 99, 100)  # it was said before, and not heard
    assert said(environment)["phase"] == "staging"


def test_a_new_phase_is_insisted_on_a_little(
    environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be reported once only, and those who wait go by it. Windows refuses while one of them reads."""
    progress = ProgressFile(environment, "key", quiet)
    progress("looking", 0, 0)
    closed = clock.now + 0.3

    def replace(source: str, destination: str) -> None:
        if clock.now < closed:
            raise refused(refusals.ACCESS_DENIED, source, destination)
        os.replace(source, destination)

    monkeypatch.setattr(native, "replace", replace)
    for module in (atomic, refusals):
        monkeypatch.setattr(module, "time", clock)
    progress("making the environment", 0, 0)
    assert said(environment)["phase"] == "making the environment"


def test_from_many_threads(environment: Environment) -> None:
    """Any thread may say it, and what is read is always whole."""
    progress = ProgressFile(environment, "key", quiet)

    def work(number: int) -> None:
        for done in range(50):
            progress(f"phase {number}", done, 50)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(said(environment))
    for thread in threads:
        thread.join()
    assert {value.get("pid", os.getpid()) for value in seen} <= {os.getpid()}
    assert all(not value or "phase" in value for value in seen)
    assert [path.name for path in Path(environment.state).glob(f"*{atomic.SUFFIX}")] == []


@pytest.mark.parametrize("is_done", [False, True])
def test_a_successor_is_not_written_over(environment: Environment, clock: Clock, is_done: bool) -> None:
    """Who hung and goes on finds that somebody else leads, or has led, and leads no more, whatever it does next."""
    hung, successor = (ProgressFile(environment, "key", quiet) for _ in range(2))
    hung("unpacking", 0, 9)
    successor("staging", 0, 9)
    if is_done:
        successor.remove()
    clock.now += HUNG_SECONDS
    hung("unpacking", 5, 9)
    assert said(environment).get("id") == (None if is_done else successor.value["id"])
    assert not hung.is_ours()
    successor.remove()
    hung("committing", 0, 9)
    assert not os.path.exists(environment.progress)
    assert not hung.is_ours()


def test_what_was_just_written_when_it_hung(
    environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have landed on the file of a successor: so who wrote it does not lead any more, and says no more."""
    progress = ProgressFile(environment, "key", quiet)
    progress("unpacking", 0, 9)
    write = atomic.write

    def hangs(*words: Any, **options: Any) -> None:
        clock.now += HUNG_SECONDS + 1
        write(*words, **options)

    monkeypatch.setattr(atomic, "write", hangs)
    progress("staging", 0, 9)
    assert said(environment)["phase"] == "staging"
    assert not progress.is_ours()
    progress("committing", 0, 9)
    assert said(environment)["phase"] == "staging"
