"""Being alone in the environment: draining, waiting, giving up, and leaving it as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync import replace
from envsync.coordination import flock, occupancy, waiter
from envsync.coordination.flock import Flock
from envsync.coordination.occupancy import Occupancy
from envsync.environment import Environment
from envsync.errors import LockingError, RefusedError, WaitTimeoutError
from envsync.progress import quiet
from envsync.request import Request


class Clock:
    """Time that passes by sleeping alone, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0
        self.naps: list[float] = []
        self.events: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        assert len(self.naps) < 10_000, "it waits for ever"
        self.naps.append(seconds)
        self.now += seconds
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen while the leader sleeps."""
        self.events.append((self.now + seconds, event))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(occupancy, "time", clock)
    return clock


@pytest.fixture
def environment(tmp_path: Path, clock: Clock) -> Environment:
    """An environment with a stamp of an hour ago."""
    environment = Environment(str(tmp_path / "env"))
    os.makedirs(environment.state)
    Path(environment.stamp).write_bytes(b"stamp")
    os.utime(environment.stamp, (clock.now - 3600, clock.now - 3600))
    return environment


@pytest.fixture
def occupy(environment: Environment, clock: Clock) -> Iterator[Callable[..., Occupancy]]:
    """Make the leader's hold for a request with the given options; released in the end."""
    made: list[Occupancy] = []

    def make(**settings: object) -> Occupancy:
        request = Request(dict(settings), "pylock.toml", "0", environment.path)
        made.append(Occupancy(environment, request, quiet, clock.now))
        return made[-1]

    yield make
    for each in made:
        if each.lock is not None:
            each.lock.release()


@pytest.fixture
def command(environment: Environment) -> Iterator[Flock]:
    """A command that runs in the environment."""
    lock = flock.acquire_nowait(environment.in_use, shared=True)
    assert lock is not None
    yield lock
    lock.release()


def is_free(environment: Environment) -> bool:
    lock = flock.acquire_nowait(environment.in_use, shared=False)
    if lock is not None:
        lock.release()
    return lock is not None


def stamps(environment: Environment) -> list[str]:
    return sorted(name for name in os.listdir(environment.state) if name.startswith("stamp"))


class TestDrain:
    """Getting alone."""

    def test_nobody_there(self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock) -> None:
        """Where no command runs, the lock is taken at once, and no new command of others can enter."""
        hold = occupy()
        hold.drain()
        assert hold.lock is not None
        assert not hold.lock.shared
        assert stamps(environment) == ["stamp.draining"]
        assert not is_free(environment)
        assert sum(clock.naps) == 0
        hold.close()

    def test_twice(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """Draining again changes nothing."""
        hold = occupy()
        hold.drain()
        lock = hold.lock
        hold.drain()
        assert hold.lock is lock
        assert stamps(environment) == ["stamp.draining"]

    def test_waits_for_the_last_command(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """It waits until the last command has ended, and has the lock within a tenth of a second then."""
        other = flock.acquire_nowait(environment.in_use, shared=True)
        assert other is not None
        clock.after(5, other.release)
        clock.after(60, command.release)
        hold = occupy()
        hold.drain()
        assert hold.lock is not None
        assert clock.now == pytest.approx(2_000_000_000 + 60, abs=0.2)
        assert max(clock.naps) <= 0.1

    def test_new_commands_do_not_enter(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """From the first moment of the wait the stamp by which commands enter is gone."""
        seen: list[list[str]] = []
        clock.after(0.01, lambda: seen.append(stamps(environment)))
        clock.after(1, command.release)
        occupy().drain()
        assert seen == [["stamp.draining"]]

    def test_without_a_stamp(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """Where there is no stamp, nothing is put aside, nor brought back."""
        os.unlink(environment.stamp)
        hold = occupy()
        hold.drain()
        assert stamps(environment) == []
        hold.close()
        assert stamps(environment) == []

    @pytest.mark.parametrize("age", [0.0, 0.03, 0.09, 0.11, 10.0])
    def test_a_fresh_stamp_rests(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, age: float
    ) -> None:
        """A stamp stays for two poll intervals, so that all who waited for it see it; an older one is not kept."""
        os.utime(environment.stamp, (clock.now - age, clock.now - age))
        occupy().drain()
        assert sum(clock.naps) == pytest.approx(max(0.0, 2 * waiter.POLL_SECONDS - age), abs=0.001)

    def test_a_stamp_from_the_future(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock
    ) -> None:
        """The server's clock may be ahead of ours: nobody waits for hours because of that."""
        os.utime(environment.stamp, (clock.now + 7200, clock.now + 7200))
        occupy().drain()
        assert sum(clock.naps) <= 2 * waiter.POLL_SECONDS


class TestBusy:
    """`--busy`."""

    def test_fail(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """Nobody is waited for; the refusal is 124, and the environment is open again."""
        hold = occupy(busy="fail")
        with pytest.raises(RefusedError, match="commands are running") as caught:
            hold.drain()
        assert caught.value.exit_code == 124
        assert sum(clock.naps) == 0
        hold.close()
        assert stamps(environment) == ["stamp"]

    def test_fail_with_nobody_there(self, occupy: Callable[..., Occupancy]) -> None:
        """There is nothing to fail for."""
        hold = occupy(busy="fail")
        hold.drain()
        assert hold.lock is not None

    def test_ignore(self, occupy: Callable[..., Occupancy], clock: Clock, command: Flock) -> None:
        """It goes on regardless, and remembers that it did."""
        hold = occupy(busy="ignore")
        hold.drain()
        assert hold.ignored
        assert hold.lock is None
        hold.drain()
        assert sum(clock.naps) == 0

    def test_ignore_with_nobody_there(self, occupy: Callable[..., Occupancy]) -> None:
        """With nobody there, nothing is ignored."""
        hold = occupy(busy="ignore")
        hold.drain()
        assert not hold.ignored

    @pytest.mark.parametrize("busy", ["wait", "fail"])
    def test_within_a_command(
        self,
        environment: Environment,
        occupy: Callable[..., Occupancy],
        command: Flock,
        monkeypatch: pytest.MonkeyPatch,
        busy: str,
    ) -> None:
        """A command that asks for another digest in its own environment would wait for itself: refused, with a hint."""
        monkeypatch.setenv("ENVSYNC_IN", f"{command.inode}:digest")
        hold = occupy(busy=busy)
        with pytest.raises(RefusedError, match="would be for itself") as caught:
            hold.drain()
        assert "{digest}" in str(caught.value.hint)
        hold.close()
        assert stamps(environment) == ["stamp"]


class TestGivingUp:
    """The environment is left as it was."""

    @pytest.mark.parametrize("timeout", [0.0, 1.5])
    def test_timeout(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock, timeout: float
    ) -> None:
        """After `--timeout` the wait is over, 124, and commands can enter again."""
        hold = occupy(timeout=timeout)
        with pytest.raises(WaitTimeoutError, match="commands are still running") as caught:
            hold.drain()
        assert caught.value.exit_code == 124
        assert timeout <= clock.now - 2_000_000_000 <= timeout + 0.11
        hold.close()
        assert stamps(environment) == ["stamp"]
        assert Path(environment.stamp).read_bytes() == b"stamp"

    def test_the_time_spent_before_counts(self, occupy: Callable[..., Occupancy], clock: Clock, command: Flock) -> None:
        """The limit is on the whole wait: what was spent before draining is not given again."""
        hold = occupy(timeout=5.0)
        clock.now += 4
        with pytest.raises(WaitTimeoutError):
            hold.drain()
        assert clock.now <= 2_000_000_005.2

    def test_interrupted(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """Ctrl-C ends the wait; the stamp is back then, and the lock is nobody's."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        clock.after(1, interrupt)
        hold = occupy()
        with pytest.raises(KeyboardInterrupt):
            hold.drain()
        hold.close()
        command.release()
        assert stamps(environment) == ["stamp"]
        assert is_free(environment)


class TestShare:
    """A command follows."""

    def test_after_draining(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """The exclusive lock becomes a shared one, without being let go of."""
        hold = occupy()
        hold.drain()
        lock = hold.lock
        assert hold.share() is lock
        assert hold.share().shared
        other = flock.acquire_nowait(environment.in_use, shared=True)
        assert other is not None
        other.release()
        assert not is_free(environment)

    def test_without_draining(self, environment: Environment, occupy: Callable[..., Occupancy], command: Flock) -> None:
        """Where nothing had to be changed, it is taken shared, beside the commands that run."""
        assert occupy().share().shared

    def test_the_file_is_made(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """The first one makes the in-use lock."""
        assert not os.path.exists(environment.in_use)
        occupy().share()
        assert os.path.exists(environment.in_use)

    def test_somebody_excludes_us(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """Who holds it exclusively without the environment lock breaks the rules: this is said, not waited for."""
        rude = flock.acquire_nowait(environment.in_use, shared=False)
        assert rude is not None
        with pytest.raises(LockingError, match="without the environment lock"):
            occupy().share()
        rude.release()

    def test_after_ignoring(self, occupy: Callable[..., Occupancy], command: Flock) -> None:
        """Who went on regardless shares it with those it ignored."""
        hold = occupy(busy="ignore")
        hold.drain()
        assert hold.share().shared


class TestClose:
    """What is left."""

    def test_a_decided_commit(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """Once the journal is there, the old stamp is not brought back: it vouches for what is no more."""
        hold = occupy()
        hold.drain()
        replace.write(environment.journal, b"decided")
        hold.close()
        assert stamps(environment) == ["stamp.draining"]
        assert is_free(environment)

    def test_a_new_stamp(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """After a sync there is the new stamp, which stays."""
        hold = occupy()
        hold.drain()
        replace.discard(environment.draining)
        replace.write(environment.stamp, b"new")
        hold.close()
        assert Path(environment.stamp).read_bytes() == b"new"

    def test_twice_and_without_a_lock(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """Closing is harmless whenever it happens."""
        hold = occupy()
        hold.close()
        hold.drain()
        hold.close()
        hold.close()
        assert stamps(environment) == ["stamp"]
