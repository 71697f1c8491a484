"""What one waiter asks of the filesystem: counted, not timed. It does not grow with the number of the others."""

from __future__ import annotations

import os
import posix
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.leading import in_use
from envsync.locks.flock import Flock
from envsync.system import atomic, records
from envsync.waiting import cycle, queue
from envsync.waiting.queue import Lookout, Rank, call_next
from envsync.waiting.waiter import Wait
from tests.unit.scene import Clock, make_environment, make_request, occupancy, write_progress, write_stamp

CALLS = [
    (posix, name) for name in ("open", "stat", "read", "listdir", "readlink", "rename", "unlink", "mkdir", "access")
]
SECONDS = 10
FEW, MANY = 5, 100


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls of this process that ask the filesystem something."""
    import fcntl

    counts: Counter[str] = Counter()

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **named)

        return call

    for module, name in [*CALLS, (fcntl, "flock")]:
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counts


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[Rank]]]:
    """Return a function that puts waiters into a list: `among` requests in turn, within environments."""
    places: list[Rank] = []

    def crowd(
        environment: Environment, number: int, *, among: str = "bcde", within: tuple[str, ...] = ()
    ) -> list[Rank]:
        come = []
        for each in range(number):
            request = Request({}, "x.toml", "x", environment.path)
            request._key = among[each % len(among)]
            place = queue.enlist(Demand(request, environment), within)
            assert place is not None
            come.append(place)
        places.extend(come)
        return come

    yield crowd
    for place in places:
        place.leave()


def cost(wait: Wait, clock: Clock, counted: Counter[str]) -> int:
    """Let one wait that has begun to be known go on for some seconds. Returns how many calls it made meanwhile."""
    assert wait.begin() is None
    while clock.passed < 2:
        clock.sleep(wait.pause())
        assert wait.look() is None
    counted.clear()
    while clock.passed < 2 + SECONDS:
        clock.sleep(wait.pause())
        assert wait.look() is None
    calls = counted.total()
    wait.end()
    return calls


@pytest.mark.parametrize("others", [FEW, MANY])
@pytest.mark.parametrize("situation", ["led", "stamped", "called", "nested"])
def test_a_wait_costs_the_same_however_many_wait(
    tmp_path: Path,
    environment: Environment,
    leader: Flock,
    clock: Clock,
    counted: Counter[str],
    crowd: Callable[..., list[Rank]],
    monkeypatch: pytest.MonkeyPatch,
    situation: str,
    others: int,
) -> None:
    """While others lead or are called, and whether it runs within environments: some calls a second, by its pace.

    The stamp is looked for twenty times a second, failures five times; one try at the environment lock takes a dozen.
    """
    request = make_request(tmp_path, b"ours")
    crowd(environment, others)
    write_progress(environment, phase="downloading", key="b")
    if situation == "stamped":
        write_stamp(environment, make_request(tmp_path, b"theirs"))
    if situation == "called":
        monkeypatch.setattr(queue, "PATIENCE_TRIES", 10**6)
        monkeypatch.setattr(queue, "PATIENCE_SECONDS", 1e6)
        call_next(environment, request.key)
        assert os.path.exists(environment.turn)
    if situation == "nested":
        through = make_environment(tmp_path / "through")
        write_progress(through, phase="waiting for commands to end")
        crowd(through, others, within=(str(tmp_path / "elsewhere"),))
        monkeypatch.setattr(cycle, "holds", lambda: (through.path,))
    calls = cost(Wait(Demand(request, environment)), clock, counted)
    assert calls < SECONDS * (20 + 5 + 2.5 * 14 + (8 if situation == "nested" else 0))


def test_those_who_died_are_asked_once(
    environment: Environment, crowd: Callable[..., list[Rank]], counted: Counter[str]
) -> None:
    """The names of those who were killed stay until a leader tidies up, and cost each waiter one question each."""
    for number in range(MANY):
        Path(environment.waiting).mkdir(exist_ok=True)
        Path(environment.waiting, f"b.-.n1.7.{number}").touch()
    last = crowd(environment, 1, among="b")[0]
    lookout = Lookout(environment)

    def find() -> str | None:
        return lookout.find(lambda name: queue.key_of(name) == "b")

    assert find() == os.path.basename(last.path)
    counted.clear()
    assert find() == os.path.basename(last.path)
    assert counted == {"open": 1, "flock": 1}
    last.leave()
    assert find() is None
    counted.clear()
    assert find() is None
    assert counted.total() <= 1 + MANY
    counted.clear()
    assert find() is None
    assert counted == {"listdir": 1}


def test_the_called_one_leaves(environment: Environment, crowd: Callable[..., list[Rank]]) -> None:
    """A turn is left to the request whose it is as long as any of those wait who want it, not only the one called."""
    called, other = crowd(environment, 2, among="b")
    os.utime(called.path, ns=(0, 0))
    call_next(environment, "a")
    assert records.text(records.load(environment.turn), "name") == os.path.basename(called.path)
    turns = queue.Turns(environment, "a")
    assert turns.is_others(0.4)
    called.leave()
    assert turns.is_others(0.4)
    other.leave()
    assert not turns.is_others(0.4)


@pytest.mark.parametrize("name", ["../../outside", "b/../../x", "c.-.n1.7.1", ""])
def test_a_turn_that_names_another_place(environment: Environment, crowd: Callable[..., list[Rank]], name: str) -> None:
    """What a turn names that is no name of that request is never opened; the request has its turn all the same."""
    crowd(environment, 1, among="b")
    atomic.write(environment.turn, records.dump({"key": "b", "name": name}))
    turns = queue.Turns(environment, "a")
    assert turns.is_others(0.4)
    assert [queue.key_of(each) for each in turns.lookout.here] == ["b"]


def test_one_speaks_for_all_who_run_within_the_same(
    tmp_path: Path, environment: Environment, crowd: Callable[..., list[Rank]], counted: Counter[str]
) -> None:
    """A way back is found through a hundred waiters that run within the same as through one; the dead do not count."""
    through = make_environment(tmp_path / "through")
    write_progress(through, phase="waiting for commands to end")
    dead = crowd(through, 1, within=(environment.path, "/b"))[0]
    os.close(dead.fd)
    dead.fd = -1
    known: dict[str, Lookout] = {}
    assert cycle.find(environment, (through.path,), known) is None
    crowd(through, MANY, within=(environment.path,))
    assert cycle.find(environment, (through.path,), known) == through.path
    counted.clear()
    assert cycle.find(environment, (through.path,), known) == through.path
    assert counted.total() < 20


@pytest.mark.parametrize("others", [FEW, MANY])
def test_a_leader_that_lets_a_stamp_rest_asks_one(
    environment: Environment,
    clock: Clock,
    crowd: Callable[..., list[Rank]],
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    others: int,
) -> None:
    """Over a network, whether anybody waits for something else is asked of one waiter, not of all, at each look."""
    request = Request({}, "x", "x", environment.path)
    Path(environment.stamp).touch()
    crowd(environment, others)
    monkeypatch.setattr(in_use.mounts, "is_network", lambda _: True)
    counted.clear()
    hold = occupancy(environment, request, clock.now)
    hold.drain()
    looks = clock.passed / 0.1
    assert looks > 20
    assert counted.total() < 3 * looks + 20
    hold.close()
