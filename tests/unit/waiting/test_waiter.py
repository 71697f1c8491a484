"""Lead or wait: what a waiter does at each look, with a clock that only its sleeping moves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from envsync.errors import (
    DeadLeadersError,
    FilesystemError,
    RefusedError,
    SharedFailureError,
    WaitTimeoutError,
)
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.fast_lane import Entry
from envsync.launch.request import Request
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import atomic, mounts
from envsync.waiting import cycle, failures, narrator, pace, queue, waiter
from envsync.waiting.failures import Arrival
from envsync.waiting.queue import Lookout
from envsync.waiting.waiter import Wait
from tests.unit.scene import (
    SITE,
    START,
    Clock,
    descriptors,
    leave,
    make_request,
    names_of_waiters,
    write_progress,
    write_stamp,
)

LOOK_SECONDS = pace.LOCAL_SECONDS
TRY_SECONDS = pace.LOCKS_APART * pace.LOCAL_SECONDS


def lead_or_wait(request: Request, environment: Environment, arrival: Arrival | None = None) -> Flock | Entry:
    return Wait(Demand(request, environment), arrival).until_over()


def write_failure(environment: Environment, request: Request, **changes: object) -> None:
    """Leave word as a leader on another host would."""
    failure = {
        "id": os.urandom(8).hex(),
        "key": request.key,
        "kind": "fatal",
        "time": START,
        "boot": "another",
        "boottime": START,
        "message": "no space",
        "hint": "make some",
        "exit_code": 125,
        "host": "n1",
        "pid": 7,
    }
    atomic.write(environment.failure, json.dumps({"format": 1, "failures": [{**failure, **changes}]}).encode())


def end_before_second_try(
    leader: Flock, leave_word: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Let the leader leave word and end between a waiter's look and its second try. Returns the tries, as they come."""
    original = flock.acquire_nowait
    tries: list[str] = []

    def acquire(path: str, *, shared: bool, create: bool = True) -> Flock | None:
        tries.append(path)
        if len(tries) == 2:
            leave_word()
            leader.release()
        return original(path, shared=shared, create=create)

    monkeypatch.setattr(flock, "acquire_nowait", acquire)
    return tries


class TestLead:
    """Nobody leads."""

    def test_the_first_leads(self, environment: Environment, request_: Request, clock: Clock) -> None:
        """Who finds the environment lock free holds it then, exclusively, without any waiting."""
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Flock)
        assert not held.shared
        assert held.is_in_place()
        assert clock.naps == []
        held.release()

    def test_a_place_is_made(self, tmp_path: Path, request_: Request) -> None:
        """Where nothing is, the environment's directory and `.envsync` are made, and nothing but locks and the mark."""
        environment = Environment(str(tmp_path / "deep" / "env"))
        leave(lead_or_wait(request_, environment))
        assert sorted(os.listdir(environment.path)) == [".envsync", ".lock"]
        assert sorted(os.listdir(environment.state)) == ["bare", "locking", "wanted"]

    def test_what_a_dead_leader_said_is_handed_on(self, environment: Environment, request_: Request) -> None:
        """Who succeeds a dead leader knows what that one was doing, writes down its death, and is the only one."""
        write_progress(environment, key=request_.key, phase="staging")
        wait = Wait(Demand(request_, environment))
        leave(wait.until_over())
        assert (wait.bid.predecessor["pid"], wait.bid.predecessor["phase"]) == (4711, "staging")
        assert [(each["kind"], each["pid"]) for each in failures.load(environment)] == [("died", 4711)]
        assert not os.path.exists(environment.progress)


class TestWait:
    """Somebody leads."""

    def test_enters_when_the_stamp_fits(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """As soon as the stamp is there the waiter is in, with a shared hold, while the lock is still held."""
        clock.after(0.3, lambda: write_stamp(environment, request_))
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Entry)
        assert held.stamp.environment == environment.path
        assert clock.passed <= 0.3 + 2 * LOOK_SECONDS
        assert flock.acquire_nowait(environment.in_use, shared=False) is None
        leave(held)

    def test_a_racy_stamp_will_do(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """Who waited for this very sync may use a stamp that proves nothing to others."""
        clock.after(0.1, lambda: write_stamp(environment, request_, racy=True))
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Entry)
        leave(held)

    def test_another_requests_stamp_does_not_fit(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """A stamp for another request is waited past; when its leader is done, the waiter leads."""
        other, ours = make_request(tmp_path, b"other"), make_request(tmp_path, b"ours")
        clock.after(0.1, lambda: write_stamp(environment, other))
        clock.after(0.2, leader.release)
        held = lead_or_wait(ours, environment)
        assert isinstance(held, Flock)
        leave(held)

    def test_succeeds_a_dead_leader(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """When the leader is gone without a word, the waiter leads, within a fraction of a second."""
        clock.after(5, leader.release)
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Flock)
        assert clock.passed <= 5 + TRY_SECONDS + 2 * LOOK_SECONDS
        leave(held)

    def test_the_lock_is_tried_seldom(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The stamp is looked at often, the lock tried seldom, and the in-use lock left alone without a stamp."""
        tried: list[str] = []
        original = flock.acquire_nowait

        def counting(path: str, *, shared: bool, create: bool = True) -> Flock | None:
            tried.append(path)
            return original(path, shared=shared, create=create)

        monkeypatch.setattr(flock, "acquire_nowait", counting)
        clock.after(10, leader.release)
        leave(lead_or_wait(request_, environment))
        assert set(tried) == {environment.lock}
        assert len(tried) <= 10 / TRY_SECONDS + 3
        assert len(clock.naps) >= 10 / 0.1

    def test_an_interrupt_leaves_nothing_held(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """Ctrl-C ends the wait at once, and nothing is held, open or in the list then."""

        def interrupt() -> None:
            assert len(names_of_waiters(environment)) == 1
            raise KeyboardInterrupt

        clock.after(1.5, interrupt)
        before = descriptors()
        with pytest.raises(KeyboardInterrupt):
            lead_or_wait(request_, environment)
        assert descriptors() == before
        assert names_of_waiters(environment) == []

    def test_inside_a_command_of_ours(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command that runs in the environment and wants it changed would wait for itself: it is refused at once."""
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino}:abc")
        inherited = os.open(environment.in_use, os.O_RDONLY)
        try:
            with pytest.raises(RefusedError, match="waiting would be for itself") as caught:
                lead_or_wait(request_, environment)
        finally:
            os.close(inherited)
        assert caught.value.exit_code == 124
        assert "{digest}" in str(caught.value.hint)
        assert clock.naps == []

    @pytest.mark.parametrize("token", ["", "1:abc", "garbage", ":"])
    def test_inside_another_environment(
        self,
        environment: Environment,
        request_: Request,
        leader: Flock,
        clock: Clock,
        token: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Running in another environment is no reason not to wait for this one."""
        monkeypatch.setenv("ENVSYNC_IN", token)
        clock.after(0.1, leader.release)
        leave(lead_or_wait(request_, environment))

    def test_a_way_back_found_later(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever runs within an environment looks every second whether the wait has come to be for itself."""
        monkeypatch.setattr(cycle, "holds", lambda: ("/other",))
        looks: list[float] = []

        def find(_: Environment, held: tuple[str, ...], known: dict[str, Lookout]) -> str | None:
            assert held == ("/other",)
            looks.append(clock.passed)
            return "/other" if clock.passed > 5 else None

        monkeypatch.setattr(cycle, "find", find)
        with pytest.raises(RefusedError, match="`/other`, in which this command runs"):
            lead_or_wait(request_, environment)
        assert 5 < clock.passed < 5 + cycle.EVERY_SECONDS + 2 * LOOK_SECONDS
        assert len(looks) == pytest.approx(5 / cycle.EVERY_SECONDS, abs=1)
        assert names_of_waiters(environment) == []


class TestNetwork:
    """Over a network, the attributes of files may be seconds old."""

    @pytest.fixture(autouse=True)
    def network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounts, "is_network", lambda path: True)

    def test_a_stamp_in_doubt(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stamp for us that does not fit yet is looked at for two seconds more before the lock is tried."""
        leader.release()
        acquire = flock.acquire_nowait
        monkeypatch.setattr(flock, "acquire_nowait", lambda path, **options: None)
        wait = Wait(Demand(request_, environment))
        assert wait.begin() is None
        write_stamp(environment, request_)
        fresh = os.stat(environment.stamp)
        os.utime(f"{environment.path}/{SITE}", ns=(fresh.st_atime_ns, fresh.st_mtime_ns + 1_000_000_000))
        monkeypatch.setattr(flock, "acquire_nowait", acquire)
        held = None
        doubted_at = None
        while held is None:
            clock.sleep(wait.pause())
            held = wait.look()
            doubted_at = doubted_at or (wait.sight.doubted and clock.passed)
        wait.end()
        assert isinstance(held, Flock)
        assert doubted_at is not None
        assert clock.passed - doubted_at >= waiter.DOUBT_SECONDS
        leave(held)

    def test_a_stamp_for_others_is_not_in_doubt(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """A stamp for somebody else is no reason to hesitate."""
        other, ours = make_request(tmp_path, b"other"), make_request(tmp_path, b"ours")
        wait = Wait(Demand(ours, environment))
        assert wait.begin() is None
        write_stamp(environment, other)
        leader.release()
        while wait.look() is None:
            clock.sleep(wait.pause())
            assert wait.sight.doubted is None
        wait.end()

    def test_looks_are_spared(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """In the first minute a waiter looks some ninety times, for a thousand of them ask one server."""
        clock.after(60, lambda: write_stamp(environment, request_))
        leave(lead_or_wait(request_, environment))
        assert 50 <= len(clock.naps) <= 110


class TestTimeout:
    """`--timeout`."""

    @pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0])
    def test_the_wait_ends(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock, seconds: float
    ) -> None:
        """After that long the wait is over, 124, and for whom it was is said."""
        write_progress(environment)
        with pytest.raises(WaitTimeoutError, match=r"gave up after .* pid 4711 on n7") as caught:
            lead_or_wait(make_request(tmp_path, timeout=seconds), environment)
        assert caught.value.exit_code == 124
        assert "--timeout" in str(caught.value.hint)
        assert seconds <= clock.passed <= seconds + 0.02
        assert names_of_waiters(environment) == []

    def test_a_stamp_in_time(self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock) -> None:
        """A sync that ends within the limit is waited for."""
        request = make_request(tmp_path, timeout=2.0)
        clock.after(1.9, lambda: write_stamp(environment, request))
        leave(lead_or_wait(request, environment))

    def test_nothing_to_wait_for(self, environment: Environment, tmp_path: Path, clock: Clock) -> None:
        """No time at all is enough if nobody is in the way."""
        leave(lead_or_wait(make_request(tmp_path, timeout=0.0), environment))

    def test_what_was_spent_before_counts(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """A wait that begins anew, because the environment was replaced, gets no time anew."""
        arrival = Arrival(whole_process=False)
        clock.now += 4
        with pytest.raises(WaitTimeoutError):
            lead_or_wait(make_request(tmp_path, timeout=5.0), environment, arrival)
        assert clock.passed <= 5.02


class TestFailure:
    """What the leader leaves for its waiters."""

    def test_is_shared(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """The waiters for the same fail with the leader's words, hint and exit status, and say whose they are."""
        clock.after(0.2, lambda: write_failure(environment, request_, exit_code=126))
        with pytest.raises(SharedFailureError, match=r"^no space \(.*pid 7 on n1") as caught:
            lead_or_wait(request_, environment)
        assert (caught.value.hint, caught.value.exit_code) == ("make some", 126)
        assert clock.passed <= 0.2 + 2 * LOOK_SECONDS

    def test_of_before_is_not(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """What failed before the wait began is tried again."""
        write_failure(environment, request_)
        clock.after(0.2, leader.release)
        leave(lead_or_wait(request_, environment))

    def test_of_another_request_is_not(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """What failed for others may succeed for us."""
        other, ours = make_request(tmp_path, b"other"), make_request(tmp_path, b"ours")
        clock.after(0.2, lambda: write_failure(environment, other))
        clock.after(0.3, leader.release)
        leave(lead_or_wait(ours, environment))

    def test_is_shared_by_who_gets_the_lock(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who gets the lock just after the leader failed does not repeat it, but shares the failure, too."""
        original = flock.acquire_nowait
        end_before_second_try(leader, lambda: write_failure(environment, request_), monkeypatch)
        before = len(descriptors())
        with pytest.raises(SharedFailureError):
            lead_or_wait(request_, environment)
        assert len(descriptors()) < before  # the leader's is gone, and none of ours is left
        lock = original(environment.lock, shared=False)
        assert lock is not None
        lock.release()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'{"key": 3}',
            b"\xff",
            b"[" * 100_000,
            b'{"format": 1, "failures": 3}',
            b'{"format": 1, "failures": [3, null, {}]}',
            b'{"format": 2, "failures": []}',
        ],
    )
    def test_a_damaged_one_is_none(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, content: bytes
    ) -> None:
        """A failure that cannot be read is none."""
        clock.after(0.2, lambda: atomic.write(environment.failure, content))
        clock.after(0.3, leader.release)
        leave(lead_or_wait(request_, environment))

    @pytest.mark.parametrize("changes", [{"exit_code": None}, {"hint": None}, {"message": None}])
    def test_a_strange_one_is_shared_all_the_same(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, changes: dict[str, object]
    ) -> None:
        """What is odd about a failure does not become another failure."""
        clock.after(0.2, lambda: write_failure(environment, request_, **changes))
        with pytest.raises(SharedFailureError):
            lead_or_wait(request_, environment)

    def test_the_third_death_is_told(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """Who finds that three leaders have died fails with their names, tells the rest, and lets go of the lock."""
        waits = [Wait(Demand(request_, environment)) for _ in range(3)]
        assert [wait.begin() for wait in waits] == [None] * 3
        leader.release()
        for pid in (1, 2):
            write_progress(environment, key=request_.key, pid=pid)
            assert failures.bury(environment)["pid"] == pid
        write_progress(environment, key=request_.key, pid=3)
        clock.now += TRY_SECONDS
        with pytest.raises(DeadLeadersError) as caught:
            waits[0].look()
        assert caught.value.leaders == ("pid 1 on n7", "pid 2 on n7", "pid 3 on n7")
        for wait in waits[1:]:
            with pytest.raises(SharedFailureError, match="pid 1 on n7, pid 2 on n7, pid 3 on n7") as shared:
                wait.look()
            assert shared.value.exit_code == caught.value.exit_code == 125
            assert shared.value.hint == caught.value.hint
        for wait in waits:
            wait.end()
        leave(lead_or_wait(request_, environment))  # who asks later tries afresh


class TestList:
    """Whoever waits for longer can be seen."""

    def test_within_a_second(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """After a second the name of a waiter is in the list, and it is off the list when the wait is over."""
        seen: list[list[queue.Queued]] = []
        clock.after(1.0, lambda: seen.append(queue.waiting(environment)))
        clock.after(2.0, lambda: write_stamp(environment, request_))
        leave(lead_or_wait(request_, environment))
        assert [waiter.said["pid"] for waiter in seen[0]] == [os.getpid()]
        assert seen[0][0].said["key"] == request_.key
        assert names_of_waiters(environment) == []

    def test_not_for_less(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """For half a second nobody writes a name, and no directory is made for it."""
        clock.after(0.5, lambda: write_stamp(environment, request_))
        leave(lead_or_wait(request_, environment))
        assert not os.path.exists(environment.waiting)

    def test_it_cannot_be_written(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no name can be written, one waits all the same, and tries it again once a minute."""
        tries: list[float] = []
        monkeypatch.setattr(queue, "enlist", lambda *_: tries.append(clock.passed))
        clock.after(130, leader.release)
        leave(lead_or_wait(request_, environment))
        assert [round(when / 60) for when in tries] == [0, 1, 2]


class TestTurn:
    """The environment lock is left to those whose turn it is."""

    def test_of_others(self, environment: Environment, tmp_path: Path, clock: Clock) -> None:
        """Nobody takes a free lock in the turn of others, until their patience is over."""
        write_turn(environment, "theirs")
        leave(lead_or_wait(make_request(tmp_path), environment))
        assert clock.passed == pytest.approx(queue.PATIENCE_TRIES * TRY_SECONDS, abs=TRY_SECONDS + 2 * LOOK_SECONDS)
        assert not os.path.exists(environment.turn)

    def test_of_ours(self, environment: Environment, request_: Request, clock: Clock) -> None:
        """Who asks for what the turn is for takes it at once, and it is over."""
        write_turn(environment, request_.key)
        leave(lead_or_wait(request_, environment))
        assert clock.naps == []
        assert not os.path.exists(environment.turn)

    def test_a_stamp_is_entered_in_anybodys_turn(
        self, environment: Environment, request_: Request, clock: Clock
    ) -> None:
        """A turn is about the lock: whoever finds the environment current enters."""
        write_turn(environment, "theirs")
        clock.after(0.2, lambda: write_stamp(environment, request_))
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Entry)
        leave(held)

    def test_given_at_the_last_moment(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A leader that ends writes down whose turn it is, then lets go: who looked just before does not slip in."""
        tries = end_before_second_try(leader, lambda: write_turn(environment, "theirs"), monkeypatch)
        wait = Wait(Demand(request_, environment))
        assert wait.begin() is None
        clock.now += 2 * TRY_SECONDS
        assert wait.look() is None
        assert len(tries) == 2
        wait.end()

    def test_over_a_network(
        self, environment: Environment, request_: Request, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A turn that is not taken keeps nobody waiting for minutes, over a network neither."""
        monkeypatch.setattr(mounts, "is_network", lambda path: True)
        write_turn(environment, "theirs")
        leave(lead_or_wait(request_, environment))
        assert clock.passed <= 60

    def test_of_nobody(self, environment: Environment, request_: Request, clock: Clock) -> None:
        """A turn of those who do not wait any more keeps nobody waiting."""
        write_turn(environment, "theirs", waiting=False)
        leave(lead_or_wait(request_, environment))
        assert clock.naps == []
        assert not os.path.exists(environment.turn)

    def test_patience_does_not_outlast_the_limit(self, environment: Environment, tmp_path: Path, clock: Clock) -> None:
        """`--timeout` bounds this wait like any other."""
        write_turn(environment, "theirs")
        with pytest.raises(WaitTimeoutError):
            lead_or_wait(make_request(tmp_path, timeout=1.0), environment)
        assert clock.passed <= 1.02


def write_turn(environment: Environment, key: str, *, waiting: bool = True) -> None:
    """Give the turn to a key, for which somebody waits to the end of the test."""
    if waiting:
        assert queue.enlist(SimpleNamespace(environment=environment, key=key, lock="")) is not None  # type: ignore[arg-type]
    atomic.write(environment.turn, json.dumps({"format": 1, "key": key}).encode())


class TestMessages:
    """No silent wait."""

    def test_says_within_a_second_for_whom(
        self,
        environment: Environment,
        request_: Request,
        leader: Flock,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Within a second it is said for whom one waits, since when, and how far that one is; and then every minute."""
        said: list[tuple[float, str]] = []
        monkeypatch.setattr(narrator, "say", lambda text: said.append((clock.passed, text)))
        write_progress(environment, phase="downloading", done=3, total=9, command="envsync run x")
        clock.after(130, leader.release)
        leave(lead_or_wait(request_, environment))
        assert said[0][0] < 1
        assert said[0][1] == ("waiting for pid 4711 on n7, syncing for 11 s: downloading 3 of 9 (`envsync run x`)")
        assert [round(when / 60) for when, _ in said] == [0, 1, 2]
        assert [text.partition("; ")[2] for _, text in said[1:]] == [
            "no sign of life for 60 s",
            "no sign of life for 120 s",
        ]

    def test_quiet(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With --quiet nothing is said."""
        monkeypatch.setattr(narrator, "say", pytest.fail)
        clock.after(130, leader.release)
        leave(lead_or_wait(make_request(tmp_path, quiet=True), environment))

    def test_a_short_wait_is_not_worth_a_word(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sync that takes half a second is waited for without a word."""
        monkeypatch.setattr(narrator, "say", pytest.fail)
        clock.after(0.5, lambda: write_stamp(environment, request_))
        leave(lead_or_wait(request_, environment))


def test_a_read_only_place(tmp_path: Path, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be made, that is a refusal by the system, with the path: the environment may still be right."""

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(FilesystemError, match=f"{tmp_path}/env") as caught:
        lead_or_wait(request_, Environment(str(tmp_path / "env")))
    assert caught.value.is_refusal
