"""Is a wait for ourselves, through however many environments? And is one that is not left alone?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.system import processes
from envsync.waiting import cycle, queue
from envsync.waiting.queue import Rank
from tests import needs
from tests.unit.scene import helper, make_environment, write_progress

DRAINING = "waiting for commands that run in the environment to end: pid 7 (`x`)"
HOLDS = """\
from envsync.waiting import cycle
print(*cycle.holds(), sep="|", flush=True)
"""


class World:
    """Environments by letter, and who waits in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: list[Rank] = []
        for name in "ABCDE":
            make_environment(path / name)

    def __getitem__(self, name: str) -> Environment:
        return Environment(str(self.path / name))

    def leads(self, name: str, *, within: str, phase: str = DRAINING) -> None:
        """Let somebody who runs within some environments lead in one."""
        write_progress(self[name], phase=phase, holds=self.paths(within))

    def waits(self, name: str, *, within: str) -> None:
        """Let somebody who runs within some environments wait for one."""
        place = queue.enlist(Demand(Request({}, "x", "x", "x"), self[name]), self.paths(within).split("\n"))
        assert place is not None
        self.places.append(place)

    def paths(self, names: str) -> str:
        return "\n".join(self[name].path for name in names)

    def find(self, name: str, *, within: str) -> str | None:
        """Look as one who runs within some environments and waits for another. Returns a letter."""
        found = cycle.find(self[name], tuple(self[other].path for other in within))
        return None if found is None else os.path.basename(found)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for place in world.places:
        place.leave()


class TestFind:
    """Walking back along those who wait for the end of commands."""

    def test_two(self, world: World) -> None:
        """I run in A and wait for B; a command of B waits for the commands of A to end, me among them."""
        world.leads("A", within="B")
        assert world.find("B", within="A") == "A"

    def test_three(self, world: World) -> None:
        """I run in A and wait for C; one of B leads in A, and one of C leads in B."""
        world.leads("A", within="B")
        world.leads("B", within="C")
        assert world.find("C", within="A") == "B"

    def test_five(self, world: World) -> None:
        """However long the way is, it is gone to its end."""
        for name, within in ("AB", "BC", "CD", "DE"):
            world.leads(name, within=within)
        assert world.find("E", within="A") == "D"

    def test_a_waiter_in_between(self, world: World) -> None:
        """Who waits behind a leader that waits for me waits for me, too."""
        world.leads("A", within="")
        world.waits("A", within="B")
        assert world.find("B", within="A") == "A"

    def test_within_several(self, world: World) -> None:
        """One who runs within one environment, started from another, is a command of both."""
        world.leads("A", within="DB")
        assert world.find("B", within="CA") == "A"

    def test_by_another_name(self, world: World, tmp_path: Path) -> None:
        """An environment is known by its in-use lock, not by the path that was written."""
        (tmp_path / "link").symlink_to(world["B"].path)
        write_progress(world["A"], phase=DRAINING, holds=str(tmp_path / "link"))
        assert world.find("B", within="A") == "A"


class TestNoCycle:
    """No false alarm."""

    def test_within_nothing(self, world: World) -> None:
        """Who runs within no environment can keep no one waiting."""
        world.leads("A", within="B")
        assert world.find("B", within="") is None

    def test_nesting(self, world: World) -> None:
        """I run in A, and wait for B, whose commands wait for nothing of ours."""
        assert world.find("B", within="A") is None
        world.leads("B", within="")
        world.waits("B", within="A")
        assert world.find("B", within="A") is None

    def test_two_that_nest_alike(self, world: World) -> None:
        """Two commands of A that both wait for B wait for others, not for each other."""
        world.leads("B", within="A")
        world.waits("B", within="A")
        assert world.find("B", within="A") is None

    def test_a_leader_that_works(self, world: World) -> None:
        """A leader that is at work in A, and waits for no command, will come to its end."""
        for phase in ("downloading", "staging", "committing", ""):
            world.leads("A", within="B", phase=phase)
            assert world.find("B", within="A") is None

    def test_others_turn_in_circles(self, world: World) -> None:
        """A circle of others, which does not lead back to what I wait for, is walked once and is theirs to break."""
        world.leads("A", within="B")
        world.leads("B", within="A")
        assert world.find("C", within="A") is None

    def test_a_dead_one(self, world: World) -> None:
        """One that has stopped waiting is no link."""
        world.leads("A", within="")
        world.waits("A", within="B")
        world.places[0].leave()
        assert world.find("B", within="A") is None

    def test_what_is_gone(self, world: World, tmp_path: Path) -> None:
        """An environment that is not there leads nowhere."""
        write_progress(world["A"], phase=DRAINING, holds=str(tmp_path / "nowhere"))
        assert world.find("B", within="A") is None
        assert cycle.find(Environment(str(tmp_path / "missing")), (world["A"].path,)) is None
        assert cycle.find(Environment(str(tmp_path / "missing")), (str(tmp_path / "gone"),)) is None

    def test_damaged(self, world: World) -> None:
        """A leader whose word cannot be read is no link."""
        Path(world["A"].progress).write_bytes(b"{")
        assert world.find("B", within="A") is None


class TestHolds:
    """Which environments a process runs within."""

    @pytest.fixture(autouse=True)
    def _inside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ENVSYNC_IN", "1:x")

    @needs.PROC
    def test_by_its_own_descriptor(self, world: World) -> None:
        """It has the in-use lock open."""
        with open(world["A"].in_use, "rb"):
            assert cycle.holds() == (world["A"].path,)
        assert cycle.holds() == ()

    @needs.PROC
    def test_by_an_ancestors(self, world: World) -> None:
        """Or its parent has, though it closed all descriptors itself; each is named once, in order."""
        a, b = world["A"], world["B"]
        with open(b.in_use, "rb"), open(a.in_use, "rb"), open(a.in_use, "rb"), helper(HOLDS) as process:
            assert process.hear() == f"{a.path}|{b.path}"

    def test_without_a_run(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that `run` has nothing to do with is not looked at: it costs a look at all ancestors."""
        monkeypatch.delenv("ENVSYNC_IN")
        monkeypatch.setattr(processes, "ancestors", pytest.fail)
        with open(world["A"].in_use, "rb"):
            assert cycle.holds() == ()

    def test_other_files(self, tmp_path: Path) -> None:
        """Other files of such a name are not in-use locks; one that is deleted keeps nobody waiting."""
        (tmp_path / "in-use").touch()
        environment = make_environment(tmp_path / "env")
        with open(tmp_path / "in-use", "rb"), open(environment.in_use, "rb"):
            os.unlink(environment.in_use)
            assert cycle.holds() == ()


def test_refusal(world: World) -> None:
    """It says which environments are in the way of each other, and what to do; it is a refusal."""
    error = cycle.refusal(world["B"], world["A"].path)
    assert world["A"].path in str(error)
    assert world["B"].path in str(error)
    assert getattr(error, "exit_code", None) == 124
    assert "{digest}" in str(getattr(error, "hint", None))


def make_walk(world: World) -> Callable[[], str | None]:
    """Make a way on which every environment leads to all others."""
    for name in "ABCD":
        world.leads(name, within="ABCD".replace(name, ""))
    return lambda: world.find("E", within="A")


def test_it_ends(world: World) -> None:
    """A tangle is walked once."""
    assert make_walk(world)() is None
