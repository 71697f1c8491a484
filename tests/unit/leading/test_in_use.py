"""Being alone in the environment: draining, waiting, giving up, and leaving it as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.errors import LockingError, RefusedError, WaitTimeoutError
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.leading.held import ReplacedError
from envsync.leading.in_use import Occupancy
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import atomic, core, mounts, native, processes
from envsync.waiting import cycle, pace, queue
from envsync.waiting.queue import Lookout
from tests import needs
from tests.unit.scene import START, Clock, helper, holder, occupancy


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
        made.append(occupancy(environment, request, clock.now))
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
        assert clock.now == pytest.approx(START + 60, abs=0.2)
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
        assert sum(clock.naps) == pytest.approx(max(0.0, 2 * pace.LOCAL_SECONDS - age), abs=0.001)

    def test_a_stamp_from_the_future(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock
    ) -> None:
        """The server's clock may be ahead of ours: nobody waits for hours because of that."""
        os.utime(environment.stamp, (clock.now + 7200, clock.now + 7200))
        occupy().drain()
        assert sum(clock.naps) <= 2 * pace.LOCAL_SECONDS


class TestPerhapsForItself:
    """A command that runs in the environment may have started it, as srun does: no child, only the variables."""

    @pytest.mark.parametrize("marked", [True, False])
    def test_it_is_said(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch, marked: bool
    ) -> None:
        """While it waits and when it gives up, it is said that this may be for itself; never without the mark."""
        Path(environment.in_use).touch()
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino + (not marked)}:abc")
        phases: list[str] = []

        def report(phase: str, *_: int) -> None:
            phases.append(phase)

        request = Request({"timeout": 5.0}, "pylock.toml", "0", environment.path)
        hold = occupancy(environment, request, clock.now, report)
        with holder(environment.in_use, "shared"), pytest.raises(WaitTimeoutError) as caught:
            hold.drain()
        hold.close()
        assert all(phase.startswith("waiting for commands") for phase in phases)
        assert [("waiting for itself" in text) for text in (*phases, str(caught.value))] == [marked] * (len(phases) + 1)


class TestNetwork:
    """Over a network, those who wait look seldom."""

    @pytest.fixture(autouse=True)
    def network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounts, "is_network", lambda path: True)

    def test_nobody_waits(self, occupy: Callable[..., Occupancy], clock: Clock) -> None:
        """If nobody waits, nobody is waited for."""
        occupy().drain()
        assert clock.passed <= 0.01

    def test_others_wait(self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock) -> None:
        """While others wait, the stamp stays until they must have looked: two of their longest pauses."""
        place = queue.enlist(Demand(Request({}, "x", "x", environment.path), environment))
        assert place is not None
        occupy().drain()
        assert clock.passed == pytest.approx(pace.Pace(network=True).rest, abs=2 * pace.NETWORK_LEAST_SECONDS)
        place.leave()

    def test_others_have_entered(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock
    ) -> None:
        """Once they have entered, and nobody else waits, it goes on."""
        place = queue.enlist(Demand(Request({}, "x", "x", environment.path), environment))
        assert place is not None
        clock.after(1, place.leave)
        occupy().drain()
        assert clock.passed == pytest.approx(1, abs=2 * pace.NETWORK_LEAST_SECONDS)

    def test_those_who_wait_for_ours(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock
    ) -> None:
        """Those who wait for the same as we bring do not want the old stamp."""
        hold = occupy()
        place = queue.enlist(Demand(hold.session.request, environment))
        assert place is not None
        hold.drain()
        assert clock.passed <= 0.01
        place.leave()


class TestWho:
    """For whom it waits."""

    @needs.PROC
    def test_they_are_named(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """Whoever waits for us learns that we wait, and for which commands; so does who gives up."""
        said: list[str] = []
        hold = occupy(timeout=3.0)
        hold.held.progress.report = lambda phase, *_: said.append(phase)
        with pytest.raises(WaitTimeoutError) as caught:
            hold.drain()
        name = f": pid {os.getpid()} (`{processes.command_of(os.getpid())}`)"
        assert set(said) == {f"waiting for commands that run in the environment to end{name}"}
        assert name in caught.value.message

    def test_not_all_of_very_many(
        self,
        environment: Environment,
        occupy: Callable[..., Occupancy],
        monkeypatch: pytest.MonkeyPatch,
        command: Flock,
    ) -> None:
        """Three of a hundred are named, and the number of the others."""
        monkeypatch.setattr(processes, "holders", lambda path: list(range(100, 200)))
        monkeypatch.setattr(processes, "is_alive", lambda pid: True)
        with pytest.raises(RefusedError, match=r"pid 100 .*pid 101 .*pid 102 .*, 97 more$"):
            occupy(busy="fail").drain()

    def test_nobody_is_known(
        self,
        environment: Environment,
        occupy: Callable[..., Occupancy],
        monkeypatch: pytest.MonkeyPatch,
        command: Flock,
    ) -> None:
        """Commands on other hosts have no names here."""
        monkeypatch.setattr(processes, "holders", lambda path: [])
        with pytest.raises(RefusedError, match=r"\(--busy fail\)$"):
            occupy(busy="fail").drain()

    def test_it_says_that_it_waits(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """An interrupt that comes while it waits finds it waiting, one that comes later does not."""
        seen: list[bool] = []
        hold = occupy()
        clock.after(1, lambda: seen.append(hold.waits))
        clock.after(2, command.release)
        hold.drain()
        assert seen == [True]
        assert not hold.waits


class TestCycle:
    """Waiting that would be for itself, by way of other environments."""

    def test_refused(
        self,
        environment: Environment,
        occupy: Callable[..., Occupancy],
        clock: Clock,
        command: Flock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is looked for every second, for its last link may come later; then nobody waits any more."""
        monkeypatch.setattr(cycle, "holds", lambda **_: ("/other",))
        looks: list[float] = []

        def find(_: Environment, held: tuple[str, ...], known: dict[str, Lookout]) -> str | None:
            looks.append(clock.passed)
            return "/other" if clock.passed > 5 else None

        monkeypatch.setattr(cycle, "find", find)
        hold = occupy()
        with pytest.raises(RefusedError, match="`/other`") as caught:
            hold.drain()
        assert caught.value.exit_code == 124
        assert 4 <= len(looks) <= 7
        hold.close()
        assert stamps(environment) == ["stamp"]

    def test_what_it_opened_itself(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """That it has the in-use lock's file open to take it does not mean that it runs within the environment."""
        monkeypatch.setenv("ENVSYNC_IN", "1:of another environment")
        with holder(environment.in_use, "shared"), helper(TAKE, environment.path) as process:
            assert process.hear() == "()"


TAKE = """\
import os
from envsync.waiting import cycle
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from tests.unit.scene import occupancy
def find(environment, held, known):
    print(held, flush=True)
    os._exit(0)
cycle.find = find
environment = Environment(sys.argv[1])
occupancy(environment, Request({}, "x", "x", environment.path)).drain()
"""


class TestReplaced:
    """The environment is replaced while it waits."""

    def test_its_lock_is_another(
        self, environment: Environment, occupy: Callable[..., Occupancy], clock: Clock, command: Flock
    ) -> None:
        """A new in-use lock is free and says nothing of those who hold the old one: it is not taken for theirs."""

        def replace_it() -> None:
            os.rename(environment.in_use, environment.in_use + ".old")
            Path(environment.in_use).touch()

        clock.after(1, replace_it)
        clock.after(3, command.release)
        hold = occupy()
        with pytest.raises(ReplacedError):
            hold.drain()
        assert hold.lock is None or not hold.lock.is_in_place()

    def test_its_lock_is_gone_when_it_is_tried(
        self, occupy: Callable[..., Occupancy], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As Windows says, where it is opened by its name once more to be held."""
        monkeypatch.setattr(core, "lock", lambda fd, path, *, shared: os.stat(f"{path}.gone"))
        with pytest.raises(ReplacedError):
            occupy().drain()


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
        assert sum(clock.naps) == pytest.approx(native.GLANCE_SECONDS)
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
        assert sum(clock.naps) == pytest.approx(native.GLANCE_SECONDS)

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
        assert timeout <= clock.now - START <= timeout + 0.11
        hold.close()
        assert stamps(environment) == ["stamp"]
        assert Path(environment.stamp).read_bytes() == b"stamp"

    def test_the_time_spent_before_counts(self, occupy: Callable[..., Occupancy], clock: Clock, command: Flock) -> None:
        """The limit is on the whole wait: what was spent before draining is not given again."""
        hold = occupy(timeout=5.0)
        clock.now += 4
        with pytest.raises(WaitTimeoutError):
            hold.drain()
        assert clock.now <= START + 5.2

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
        atomic.write(environment.journal, b"decided")
        hold.close()
        assert stamps(environment) == ["stamp.draining"]
        assert is_free(environment)

    def test_a_new_stamp(self, environment: Environment, occupy: Callable[..., Occupancy]) -> None:
        """After a sync there is the new stamp, which stays."""
        hold = occupy()
        hold.drain()
        atomic.discard(environment.draining)
        atomic.write(environment.stamp, b"new")
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
