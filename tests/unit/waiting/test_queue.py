"""The list of those who wait, and whose turn it is: nobody is passed over for ever."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.system import atomic, processes, records
from envsync.waiting import queue
from envsync.waiting.queue import PATIENCE_TRIES, Rank, Turns, call_next, enlist, waiting
from tests.unit.scene import Clock, descriptors, helper, make_environment, names_of_waiters

BETWEEN_TRIES = 0.4
ENLIST = """\
from envsync.waiting import queue
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
place = queue.enlist(Demand(Request({}, "pylock.toml", "0", sys.argv[1]), Environment(sys.argv[1])), ["/a", "/b"])
print("enlisted" if place else "refused", flush=True)
sys.stdin.read()
"""


def request(key: str) -> Request:
    made = Request({}, f"{key}.toml", key, "env")
    made._key = key
    return made


@pytest.fixture
def come(environment: Environment) -> Iterator[Callable[..., Rank]]:
    """Return a function that puts a waiter for a key into the list, each later than the one before."""
    places: list[Rank] = []

    def come(key: str, at: Environment = environment) -> Rank:
        place = enlist(Demand(request(key), at))
        assert place is not None
        places.append(place)
        os.utime(place.path, ns=(0, len(places) * 10**9))
        return place

    yield come
    for place in places:
        place.leave()


def keys(environment: Environment) -> list[str]:
    return [records.text(waiter.said, "key") for waiter in waiting(environment)]


def turn(environment: Environment) -> str:
    return records.text(records.load(environment.turn), "key")


class TestNames:
    """Who is in the list."""

    def test_the_longest_first(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """Those who wait are listed in the order in which they came."""
        for key in ("b", "c", "a", "b"):
            come(key)
        assert keys(environment) == ["b", "c", "a", "b"]

    def test_the_filesystems_clock(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """The order is that of the files' times, whatever the hosts say of themselves."""
        first, second = come("a"), come("b")
        os.utime(first.path, ns=(0, 9 * 10**9))
        assert keys(environment) == ["b", "a"]
        second.leave()
        assert keys(environment) == ["a"]

    def test_what_they_say(self, environment: Environment) -> None:
        """A name says who it is, for what it waits, and within which environments it runs."""
        place = enlist(Demand(request("k"), environment), ("/a", "/b"))
        assert place is not None
        (waiter,) = waiting(environment)
        expected = {
            "host": processes.host(),
            "pid": os.getpid(),
            "place": processes.here(),
            "command": processes.own_command(),
            "key": "k",
            "lock": "k.toml",
            "holds": "/a\n/b",
        }
        assert expected.items() <= waiter.said.items()
        place.leave()
        place.leave()
        assert names_of_waiters(environment) == []

    def test_nobody(self, environment: Environment) -> None:
        """Where nobody has waited yet, there is not even a directory."""
        assert waiting(environment) == []
        assert waiting(environment, tidy=True) == []

    def test_a_killed_one(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """A waiter that was killed is not in the list any more, though its file is, until a leader tidies up."""
        come("ours")
        with helper(ENLIST, environment.path) as process:
            assert process.hear() == "enlisted"
            others = [waiter.said for waiter in waiting(environment) if waiter.said["pid"] == process.pid]
            assert [said["holds"] for said in others] == ["/a\n/b"]
            process.kill()
            assert keys(environment) == ["ours"]
            assert len(names_of_waiters(environment)) == 2
            waiting(environment, tidy=True)
            assert len(names_of_waiters(environment)) == 1
        assert keys(environment) == ["ours"]

    def test_tidying(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """What nobody holds goes, complete or not; who waits stays."""
        come("ours")
        for name in ("n1.7.abc", f"n1.8.abc{queue.SUFFIX}"):
            Path(environment.waiting, name).write_bytes(records.dump({"key": "dead"}))
        with helper(ENLIST, environment.path) as process:
            assert process.hear() == "enlisted"
            assert len(waiting(environment)) == 2
            assert len(names_of_waiters(environment)) == 4
            assert len(waiting(environment, tidy=True)) == 2
            assert len(names_of_waiters(environment)) == 2

    def test_looking_takes_nothing_away(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """Who only looks removes nobody's name, and two may look at once."""
        come("a")
        Path(environment.waiting, "n1.7.abc").touch()
        for _ in range(2):
            assert keys(environment) == ["a"]
        assert len(names_of_waiters(environment)) == 2

    def test_damaged_names(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """A name that is held and says nothing is somebody's all the same."""
        place = come("a")
        os.truncate(place.path, 3)
        assert keys(environment) == [""]
        assert [waiter.said for waiter in waiting(environment)] == [{}]

    @pytest.mark.parametrize("obstacle", ["file", "gone"])
    def test_it_cannot_be_written(self, environment: Environment, obstacle: str) -> None:
        """Where there is no place for a name, one waits without."""
        if obstacle == "file":
            Path(environment.waiting).touch()
        else:
            os.rename(environment.state, environment.state + ".gone")
        assert enlist(Demand(request("a"), environment)) is None
        assert waiting(environment) == []

    def test_it_cannot_be_locked(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor is anything left where names cannot be locked."""
        import fcntl

        def refuse(fd: int, kind: int) -> None:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
        before = descriptors()
        assert enlist(Demand(request("a"), environment)) is None
        assert names_of_waiters(environment) == []
        assert descriptors() == before

    def test_the_directory_goes_meanwhile(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """A leader may remove the empty directory at any moment: whoever comes makes it again."""
        original = os.open
        removed = 0

        def remove_first(path: str, flags: int, mode: int = 0o777) -> int:
            nonlocal removed
            if removed < 3 and path.endswith(queue.SUFFIX):
                os.rmdir(environment.waiting)
                removed += 1
            return original(path, flags, mode)

        monkeypatch.setattr(queue.os, "open", remove_first)
        place = enlist(Demand(request("a"), environment))
        assert place is not None
        assert removed == 3
        assert keys(environment) == ["a"]
        place.leave()


class TestNext:
    """Whom a leader that ends calls."""

    def test_the_longest_waiting_of_others(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """It is the turn of whoever has waited longest for something else than what was just done."""
        for key in ("done", "b", "c", "done", "b"):
            come(key)
        call_next(environment, "done")
        assert turn(environment) == "b"
        call_next(environment, "b")
        assert turn(environment) == "done"

    def test_all_wait_for_the_same(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """Those who wait for what was just done are served with it: nobody's turn."""
        come("done")
        come("done")
        call_next(environment, "done")
        assert not os.path.exists(environment.turn)

    def test_nobody_waits(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """With nobody there, it is nobody's turn, and the directory goes."""
        call_next(environment, "done")
        come("b").leave()
        call_next(environment, "done")
        assert not os.path.exists(environment.turn)
        assert not os.path.exists(environment.waiting)

    def test_the_dead_are_not_called(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """A name that nobody holds is passed over, and removed."""
        with helper(ENLIST, environment.path) as process:
            assert process.hear() == "enlisted"
            process.kill()
        come("b")
        call_next(environment, "done")
        assert turn(environment) == "b"
        assert len(names_of_waiters(environment)) == 1

    def test_who_says_nothing(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """One whose file is damaged, or of a newer format, has its turn all the same: its name tells for what it is."""
        os.truncate(come("b").path, 3)
        call_next(environment, "done")
        assert turn(environment) == "b"
        assert Turns(environment, "ours").is_others(BETWEEN_TRIES)
        assert not Turns(environment, "b").is_others(BETWEEN_TRIES)

    def test_it_cannot_be_written(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """On a full disk chance decides."""
        come("b")
        os.mkdir(environment.turn)
        call_next(environment, "done")
        assert not Turns(environment, "ours").is_others(BETWEEN_TRIES)

    def test_a_turn_that_nobody_waits_for_ends(self, environment: Environment, come: Callable[..., Rank]) -> None:
        """When nobody waits for anything any more, no old turn is left to keep the next comer waiting."""
        place = come("b")
        call_next(environment, "a")
        assert turn(environment) == "b"
        place.leave()
        call_next(environment, "a")
        assert not os.path.exists(environment.turn)


class TestTurns:
    """How the others leave a turn to those whose it is."""

    def test_others_stand_back(self, environment: Environment, clock: Clock, come: Callable[..., Rank]) -> None:
        """While it is the turn of one key, no other takes the lock; that one does."""
        come("b")
        atomic.write(environment.turn, records.dump({"key": "b"}))
        assert Turns(environment, "a").is_others(BETWEEN_TRIES)
        assert not Turns(environment, "b").is_others(BETWEEN_TRIES)

    def test_nobody_left(self, environment: Environment, clock: Clock, come: Callable[..., Rank]) -> None:
        """A turn whose waiters have died or given up counts no more."""
        place = come("b")
        atomic.write(environment.turn, records.dump({"key": "b"}))
        assert Turns(environment, "a").is_others(BETWEEN_TRIES)
        place.leave()
        assert not Turns(environment, "a").is_others(BETWEEN_TRIES)

    def test_patience(self, environment: Environment, clock: Clock, come: Callable[..., Rank]) -> None:
        """After a dozen tries, a turn that nobody took counts no more."""
        come("b")
        atomic.write(environment.turn, records.dump({"key": "b"}))
        turns = Turns(environment, "a")
        tries = 0
        while turns.is_others(BETWEEN_TRIES):
            tries += 1
            clock.now += BETWEEN_TRIES
        assert tries == PATIENCE_TRIES

    def test_a_new_turn(self, environment: Environment, clock: Clock, come: Callable[..., Rank]) -> None:
        """A new turn is waited for anew, be it for the same as the one before."""
        come("b"), come("c")
        turns = Turns(environment, "a")
        for key in ("b", "c", "b", "b"):
            atomic.write(environment.turn, records.dump({"key": key}))
            os.utime(environment.turn, ns=(0, int(clock.now * 1e9)))
            assert turns.is_others(BETWEEN_TRIES)
            clock.now += PATIENCE_TRIES * BETWEEN_TRIES
            assert not turns.is_others(BETWEEN_TRIES)

    @pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"key": 3}', b"\xff", b'{"format": 2, "key": "b"}'])
    def test_a_damaged_one(self, environment: Environment, clock: Clock, content: bytes) -> None:
        """A turn that cannot be read is nobody's."""
        Path(environment.turn).write_bytes(content)
        assert not Turns(environment, "a").is_others(BETWEEN_TRIES)

    def test_none(self, environment: Environment, clock: Clock) -> None:
        """Without a turn, whoever gets the lock has it."""
        turns = Turns(environment, "a")
        assert not turns.is_others(BETWEEN_TRIES)
        queue.end_turn(environment)

    def test_taken(self, environment: Environment, clock: Clock, come: Callable[..., Rank]) -> None:
        """Once taken, it is over for all."""
        come("b")
        atomic.write(environment.turn, records.dump({"key": "b"}))
        others = Turns(environment, "a")
        assert others.is_others(BETWEEN_TRIES)
        queue.end_turn(environment)
        assert not others.is_others(BETWEEN_TRIES)


class Crowd:
    """Waiters at one environment, who gets its lock by an adversary's choice, and how often each was passed over.

    A sync serves all who wait for its key, and takes so long that new waiters come meanwhile.

    :param fair: whether they take turns
    """

    def __init__(self, environment: Environment, clock: Clock, *, fair: bool) -> None:
        self.environment = environment
        self.clock = clock
        self.fair = fair
        self.members: list[Member] = []
        self.served: list[Member] = []
        self.came = 0

    def come(self, key: str) -> None:
        self.came += 1
        before = {member.key for member in self.members if member.key != key}
        self.members.append(Member(self.environment, key, self.came, len(before)))

    def sync(self, choose: Callable[[list[Member]], Member], comers: list[str]) -> None:
        """Let one of those who may take the lock lead, while others come."""
        while not (able := [member for member in self.members if not (self.fair and member.stands_back())]):
            self.clock.now += BETWEEN_TRIES
        leader = choose(able)
        if self.fair:
            queue.end_turn(leader.turns.environment)
        for key in comers:
            self.come(key)
        for member in [member for member in self.members if member.key == leader.key]:
            member.place.leave()
            self.members.remove(member)
            self.served.append(member)
        for member in self.members:
            member.passed_over += 1
        call_next(self.environment, leader.key)
        self.clock.now += BETWEEN_TRIES

    def end(self) -> None:
        for member in self.members:
            member.place.leave()


class Member:
    """One that waits. `longer`: how many other requests had somebody waiting when it came."""

    def __init__(self, environment: Environment, key: str, number: int, longer: int) -> None:
        place = enlist(Demand(request(key), environment))
        assert place is not None
        os.utime(place.path, ns=(0, number * 10**9))
        self.place = place
        self.key = key
        self.number = number
        self.longer = longer
        self.passed_over = 0
        self.turns = Turns(environment, key)

    def stands_back(self) -> bool:
        return self.turns.is_others(BETWEEN_TRIES)


def newest(able: list[Member]) -> Member:
    return max(able, key=lambda member: member.number)


def favourite(able: list[Member]) -> Member:
    return min(able, key=lambda member: (member.key not in "ad", -member.number))


@pytest.mark.parametrize("choose", [newest, favourite])
@pytest.mark.parametrize("seed", range(6))
def test_everybody_is_served(tmp_path: Path, clock: Clock, choose: Callable[[list[Member]], Member], seed: int) -> None:
    """However unlucky, one that waits is served after as many syncs as other requests were waiting when it came.

    And one more, of those who got the lock while nobody had been called yet.
    """
    dice = random.Random(seed)
    crowd = Crowd(make_environment(tmp_path / "env"), clock, fair=True)
    names = "abcdef"[: dice.randint(2, 6)]
    for _ in range(dice.randint(2, 12)):
        crowd.come(dice.choice(names))
    for _ in range(40):
        if crowd.members:
            crowd.sync(choose, [dice.choice(names + "aaa") for _ in range(dice.randint(0, 4))])
    while crowd.members:
        crowd.sync(choose, [])
    assert len(crowd.served) == crowd.came
    assert [(m.number, m.passed_over, m.longer) for m in crowd.served if m.passed_over > m.longer + 1] == []


@pytest.mark.parametrize("choose", [newest, favourite])
@pytest.mark.parametrize("fair", [True, False])
def test_without_turns_it_is_otherwise(
    tmp_path: Path, clock: Clock, choose: Callable[[list[Member]], Member], fair: bool
) -> None:
    """Two requests that always come again, and have all the luck, keep others waiting for ever, but for the turns."""
    crowd = Crowd(make_environment(tmp_path / "env"), clock, fair=fair)
    for key in "bca":
        crowd.come(key)
    for number in range(40):
        crowd.sync(choose, ["d" if number % 2 == 0 else "a"])
    crowd.end()
    passed_over = max(member.passed_over for member in (*crowd.members, *crowd.served))
    assert passed_over == (3 if fair else 40)


def test_those_who_die_cost_their_turn_only(tmp_path: Path, clock: Clock) -> None:
    """If those whose turn it is have died, the others take the lock."""
    environment = make_environment(tmp_path / "env")
    crowd = Crowd(environment, clock, fair=True)
    for key in "abc":
        crowd.come(key)
    crowd.sync(favourite, [])
    called = next(member for member in crowd.members if member.key == turn(environment))
    crowd.members.remove(called)
    called.place.leave()
    before = clock.now
    crowd.sync(newest, [])
    assert clock.now - before < 2 * BETWEEN_TRIES
    assert crowd.members == []
