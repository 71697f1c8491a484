"""Those who wait for the same on one node: one looks for all, and whatever becomes of it, nobody waits longer.

Each waiter is one of this process, with files of its own; the clock moves to whoever wakes next. One that is stopped
does not wake any more; one that is killed loses its descriptors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.errors import SharedFailureError
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.fast_lane import Entry
from envsync.launch.request import Request
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import mounts, node_local
from envsync.waiting import failures, pace
from envsync.waiting.desk import Desk
from envsync.waiting.neighbours import NOTHING_SEEN, Neighbours
from envsync.waiting.waiter import Sight, Wait
from tests.unit.scene import START, Clock, leave, make_environment, make_request, write_stamp

NUMBER = 6
INTERVAL = pace.NETWORK_MOST_SECONDS * (1 + pace.SPREAD)
"""The longest pause of one who is alone."""
LONG = 25.0
"""By then, all look as seldom as they do."""


class Blind(Sight):
    """Sees nothing."""

    def enter(self, *, again: bool, network: bool, share: bool) -> Entry | None:
        return None


class Node:
    """Some waiters on one node, and the clock.

    :ivar held: by waiter, what ended its wait, and when
    """

    def __init__(self, clock: Clock, demands: list[Demand]) -> None:
        self.clock = clock
        self.waits = [Wait(demand) for demand in demands]
        self.wakes: dict[Wait, float] = {}
        self.held: dict[Wait, tuple[Flock | Entry | Exception, float]] = {}
        for wait in self.waits:
            assert wait.begin() is None
            self.wakes[wait] = clock.now + wait.pause()

    @property
    def pollers(self) -> list[Wait]:
        return [wait for wait in self.waits if wait._neighbours is not None and wait._neighbours.polls]

    def stop(self, wait: Wait) -> None:
        del self.wakes[wait]

    def go_on(self, wait: Wait) -> None:
        self.wakes[wait] = self.clock.now

    def kill(self, wait: Wait) -> None:
        """Do what the kernel does: close its descriptors."""
        self.stop(wait)
        if wait._neighbours is not None and wait._neighbours._desk is not None:
            wait._neighbours._desk.close()

    def until(self, seconds: float) -> None:
        """Let time pass, as far as anybody waits."""
        while self.wakes and min(self.wakes.values()) <= START + seconds:
            wait, when = min(self.wakes.items(), key=lambda item: item[1])
            if when > self.clock.now:
                self.clock.sleep(when - self.clock.now)
                self.clock.naps.clear()
            held: Flock | Entry | Exception | None
            try:
                held = wait.look()
            except SharedFailureError as error:
                held = error
            if held is None:
                self.wakes[wait] = self.clock.now + wait.pause()
            else:
                wait.end()
                self.held[wait] = (held, self.clock.passed)
                del self.wakes[wait]
        self.clock.sleep(max(0.0, seconds - self.clock.passed))
        self.clock.naps.clear()

    def close(self) -> None:
        for wait in self.waits:
            wait.end()
        for held, _ in self.held.values():
            if not isinstance(held, Exception):
                leave(held)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on this node's own disk, beside an environment on a shared one."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(node_local.core, "NODE", str(tmp_path / "no-tmp"))
    monkeypatch.setattr(mounts, "is_network", lambda path: not path.startswith(str(runtime)))
    return runtime / "envsync"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Sight]:
    """Who has looked for the stamp itself, each time."""
    looks: list[Sight] = []
    original = Sight.enter

    def enter(self: Sight, *, again: bool, network: bool, share: bool) -> Entry | None:
        looks.append(self)
        return original(self, again=again, network=network, share=share)

    monkeypatch.setattr(Sight, "enter", enter)
    return looks


@pytest.fixture
def node(
    local: Path, environment: Environment, request_: Request, leader: Flock, clock: Clock, looks: list[Sight]
) -> Iterator[Node]:
    """Waiters, one of whom polls."""
    node = Node(clock, [Demand(request_, environment) for _ in range(NUMBER)])
    yield node
    node.close()


def test_one_looks_for_all(node: Node, looks: list[Sight]) -> None:
    """As many looks as one makes, and one of its own a minute for each of the others. All read its word."""
    node.until(LONG)
    assert len(node.pollers) == 1
    poller = node.pollers[0]
    looks.clear()
    node.until(LONG + 90)
    others = [sight for sight in looks if sight is not poller.sight]
    assert 90 / INTERVAL * 2 - 1 <= len(looks) - len(others) <= 90 / INTERVAL * 2 / 0.6 + 1
    assert len(others) <= (NUMBER - 1) * 2


def test_all_enter_when_one_sees_the_stamp(node: Node, environment: Environment, request_: Request) -> None:
    """Everybody looks itself, at once, and holds the environment then; nothing is left in the directory."""
    node.until(LONG)
    write_stamp(environment, request_)
    node.until(LONG + INTERVAL)
    assert len(node.held) == NUMBER
    assert all(isinstance(held, Entry) for held, _ in node.held.values())
    ends = [when for _, when in node.held.values()]
    assert max(ends) - min(ends) <= 2 * pace.FOLLOWERS_SECONDS
    assert max(ends) <= LONG + INTERVAL * pace.FOR_OTHERS + 2 * pace.FOLLOWERS_SECONDS


def test_the_directory_is_left_empty(node: Node, environment: Environment, request_: Request, local: Path) -> None:
    """The last who polls removes the files."""
    node.until(5)
    assert len(os.listdir(local)) == 2
    write_stamp(environment, request_)
    node.until(20)
    assert len(node.held) == NUMBER
    assert os.listdir(local) == []


def remove(local: Path) -> None:
    shutil.rmtree(local)


def replace(local: Path) -> None:
    """As a cleaner of /tmp and a later run do."""
    shutil.rmtree(local)
    local.mkdir(mode=0o700)


def plant(local: Path) -> None:
    """As somebody might who wants to be trusted."""
    shutil.rmtree(local)
    local.symlink_to(local.parent)


def spoil(local: Path) -> None:
    """Make the word one that cannot be read."""
    for path in local.glob("*.word"):
        path.write_bytes(b"nonsense")


@pytest.mark.parametrize("strike", ["stopped", "killed", "exec'd", remove, replace, plant, spoil])
def test_whatever_becomes_of_the_poller(
    node: Node, environment: Environment, request_: Request, local: Path, strike: str | Callable[[Path], None]
) -> None:
    """Nobody starts later than two intervals after the stamp, the worst moment being just after a look."""
    node.until(LONG)
    poller = node.pollers[0]
    before = poller.sight.looks
    while poller.sight.looks == before:
        node.until(node.clock.passed + 0.01)
    stamped = node.clock.passed
    lost = set()
    if callable(strike):
        strike(local)
    elif strike == "exec'd":
        node.stop(poller)
        poller.end()
        lost = {poller}
    else:
        (node.stop if strike == "stopped" else node.kill)(poller)
        lost = {poller}
    write_stamp(environment, request_)
    node.until(stamped + 2 * INTERVAL)
    assert set(node.waits) - lost == set(node.held)
    assert all(isinstance(held, Entry) for held, _ in node.held.values())


def test_a_stopped_poller_is_left(node: Node, looks: list[Sight]) -> None:
    """The others begin a new group, and one of them looks for all; the old one joins them when it goes on."""
    node.until(LONG)
    old = node.pollers[0]
    node.stop(old)
    node.until(LONG + 3 * INTERVAL)
    assert len(node.pollers) == 2
    looks.clear()
    node.until(LONG + 3 * INTERVAL + 50)
    assert len(looks) <= 50 / INTERVAL * 2 / 0.6 + NUMBER
    node.go_on(old)
    node.until(LONG + 3 * INTERVAL + 51)
    assert len(node.pollers) == 1
    assert node.pollers != [old]


def test_a_poller_whose_looks_take_long_is_heard(tmp_path: Path, clock: Clock) -> None:
    """Who takes the place says at once in how long it has looked, so that nobody begins a new group; and no longer."""
    path = str(tmp_path / "group")
    poller, other = (Neighbours(Desk(path), clock.now, may_poll=True) for _ in range(2))
    assert not poller.spares(clock.now, 4.0)
    assert poller.polls
    clock.sleep(10)
    assert not other.spares(clock.now, 4.0)  # it has not looked itself yet
    assert other.hears(clock.now)
    assert other.try_for_us(clock.now)
    other.looked(clock.now, NOTHING_SEEN, 4.0, is_for_us=False, entered=False)
    assert other.spares(clock.now, 4.0)
    clock.sleep(2.1)
    assert not other.spares(clock.now, 4.0)
    assert not other.hears(clock.now)
    for one in (poller, other):
        one.leave()


def test_the_poller_takes_over(node: Node, leader: Flock) -> None:
    """When the leader dies, exactly one leads: who polls, or has just begun to."""
    node.until(LONG)
    leader.release()
    node.until(LONG + pace.LOCKS_APART * INTERVAL)
    assert [type(held) for held, _ in node.held.values()] == [Flock]
    assert len(node.pollers) == 1


def test_an_interrupted_leader_is_succeeded_at_once(
    node: Node, environment: Environment, request_: Request, leader: Flock
) -> None:
    """What it has left word of shows that nobody leads: the poller does not wait for its next try at the lock."""
    node.until(LONG)
    failures.tell_interruption(environment, request_.key, "staging")
    leader.release()
    node.until(node.clock.passed + INTERVAL * pace.FOR_OTHERS)
    assert [type(held) for held, _ in node.held.values()] == [Flock]


def test_a_failure_reaches_all(node: Node, environment: Environment, request_: Request) -> None:
    """Each fails by what it has read itself."""
    node.until(LONG)
    details = {"message": "no space", "hint": "make some", "exit_code": 125, "host": "n1", "pid": 7}
    failures.record(environment, request_.key, failures.FATAL, details)
    node.until(LONG + 2 * INTERVAL)
    assert len(node.held) == NUMBER
    assert all("no space" in str(held) for held, _ in node.held.values())


def test_a_word_that_lies(node: Node, environment: Environment, request_: Request, local: Path) -> None:
    """Who says for ever that nothing is new delays the others by a minute, and not more."""
    node.until(5)
    liar = node.pollers[0]
    liar.sight = Blind(liar.demand)
    write_stamp(environment, request_)
    node.until(5 + 61)
    assert set(node.waits) - {liar} == set(node.held)


def test_a_stamp_that_is_for_us_and_does_not_fit(
    node: Node, environment: Environment, request_: Request, looks: list[Sight]
) -> None:
    """As a network filesystem shows it while it has old times: everybody looks as if alone, and enters by itself."""
    node.until(LONG)
    write_stamp(environment, request_)
    config = Path(environment.config)
    content = config.read_text()
    config.write_text(content + "\n")
    looks.clear()
    node.until(LONG + INTERVAL + 1)
    assert len({id(sight) for sight in looks}) == NUMBER
    assert not node.held or all(isinstance(held, Flock) for held, _ in node.held.values())


def test_what_is_wanted_makes_the_group(
    local: Path, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
) -> None:
    """Two lock files, two pollers: each tries the environment lock when it is its turn."""
    demands = [Demand(make_request(tmp_path, content), environment) for content in (b"a", b"b") for _ in range(2)]
    node = Node(clock, demands)
    node.until(5)
    assert len(node.pollers) == 2
    assert {wait.demand.key for wait in node.pollers} == {demand.key for demand in demands}
    node.close()


def test_another_environment_of_the_same_path(
    local: Path, environment: Environment, request_: Request, leader: Flock, clock: Clock, tmp_path: Path
) -> None:
    """As two containers may see it: each has a poller."""
    first = Node(clock, [Demand(request_, environment)])
    first.until(1)
    os.rename(environment.path, tmp_path / "elsewhere")
    make_environment(Path(environment.path))
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    second = Node(clock, [Demand(request_, environment)])
    second.until(2)
    assert len(first.pollers) == len(second.pollers) == 1
    for node in (first, second):
        node.close()
    lock.release()


def test_who_waits_for_a_slot_does_not_poll(
    local: Path, environment: Environment, request_: Request, leader: Flock, clock: Clock
) -> None:
    """It could not try the environment lock for others."""

    class Slots:
        def acquire(self, *, blocking: bool) -> bool:
            return not blocking

        def release(self) -> None:
            pass

    wait = Wait(Demand(request_, environment), slots=Slots())
    assert wait.begin() is None
    clock.sleep(1)
    assert wait.look() is None
    assert wait._neighbours is not None
    assert not wait._neighbours.polls
    wait.end()


class TestDirectory:
    """Where the files are."""

    @pytest.fixture
    def tmp(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What stands for /tmp, sticky and open to all."""
        tmp = tmp_path / "tmp"
        tmp.mkdir()
        tmp.chmod(0o1777)
        monkeypatch.setattr(node_local.core, "NODE", str(tmp))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        return tmp

    def test_is_made(self, tmp: Path) -> None:
        """Of this user's name, for this user alone."""
        path = Path(node_local.directory())
        assert path == tmp / f"envsync-{os.geteuid()}"
        assert path.stat().st_mode & 0o777 == 0o700

    def test_that_of_the_session_comes_first(self, tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it is there; a batch job often has the variable of where it was submitted, and no directory."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        assert node_local.directory().startswith(str(tmp))
        (tmp_path / "run").mkdir(mode=0o700)
        assert node_local.directory() == str(tmp_path / "run" / "envsync")

    def test_not_one_that_others_could_have_made(self, tmp: Path, tmp_path: Path) -> None:
        """A link, another mode, a file: then there is none."""
        path = tmp / f"envsync-{os.geteuid()}"
        (tmp_path / "mine").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "mine")
        assert node_local.directory() == ""
        path.unlink()
        path.write_text("")
        assert node_local.directory() == ""
        path.unlink()
        path.mkdir(mode=0o755)
        assert node_local.directory() == ""

    @pytest.mark.parametrize(("mode", "sound"), [(0o1777, True), (0o777, False), (0o775, False), (0o755, True)])
    def test_not_where_others_may_rename_it(self, tmp: Path, mode: int, *, sound: bool) -> None:
        """A /tmp without the sticky bit is none."""
        tmp.chmod(mode)
        assert bool(node_local.directory()) is sound

    def test_not_on_a_network_filesystem(self, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its locks would be other nodes', too."""
        monkeypatch.setattr(mounts, "is_network", lambda path: True)
        assert node_local.directory() == ""

    def test_somebody_elses(self, tmp: Path) -> None:
        """Nobody else's is used."""
        if os.geteuid() != 0:
            pytest.skip("only root can make it somebody else's")
        path = tmp / "envsync-0"
        path.mkdir(mode=0o700)
        os.chown(path, 4711, 4711)
        assert node_local.directory() == ""
