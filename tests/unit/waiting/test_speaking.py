"""Of the tasks of a parallel step on one node, one speaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.errors import SharedFailureError
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.locks.flock import Flock
from envsync.system import mounts, node_local
from envsync.waiting import failures, speaking
from envsync.waiting.speaking import Circle
from tests.unit.scene import START, Clock
from tests.unit.waiting.test_neighbours import Node

NUMBER = 6
STEP = {"SLURM_PROCID": "7", "SLURM_STEP_NUM_TASKS": "64", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3"}


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on this node's own disk, and no scheduler."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(node_local.core, "NODE", str(tmp_path / "no-tmp"))
    names = [*speaking.RANKS, *speaking.RANKS.values(), *(name for names in speaking.STEPS for name in names)]
    for name in filter(None, names):
        monkeypatch.delenv(name, raising=False)
    return runtime


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def demands(environment: Environment, request_: Request) -> list[Demand]:
    return [Demand(request_, environment) for _ in range(NUMBER)]


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.usefixtures("in_step")
def test_one_speaks(
    demands: list[Demand],
    local: Path,
    leader: Flock,
    clock: Clock,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    network: bool,
) -> None:
    """In two minutes there are three lines, as of one who is alone, and when it is killed, the next says another."""
    monkeypatch.setattr(mounts, "is_network", lambda path: network and not path.startswith(str(local)))
    node = Node(clock, demands)
    node.until(130)
    assert capfd.readouterr().err.count("waiting for") == 3
    speaker = next(
        wait for wait in node.waits if wait._company and wait._company._circle and is_heard(wait._company._circle)
    )
    node.kill(speaker)
    assert speaker._company is not None
    assert speaker._company._circle is not None
    kill(speaker._company._circle)
    node.until(130 + 3)
    assert capfd.readouterr().err.count("waiting for") == 1
    node.close()


def is_heard(circle: Circle) -> bool:
    return circle._neighbours is not None and circle._neighbours.polls


def kill(circle: Circle) -> None:
    """Do what the kernel does."""
    assert circle._neighbours is not None
    assert circle._neighbours._desk is not None
    circle._neighbours._desk.close()


@pytest.mark.usefixtures("in_step")
def test_one_that_is_stopped(demands: list[Demand], clock: Clock) -> None:
    """Another speaks after some seconds, and only one."""
    circles = [Circle(demand, START) for demand in demands]
    assert [circle.speaks(START) for circle in circles] == [True] + [False] * (NUMBER - 1)
    clock.sleep(0.05)
    assert [circle.speaks(clock.now) for circle in circles] == [True] + [False] * (NUMBER - 1)
    heard: list[bool] = []
    while clock.passed < 5:
        clock.sleep(0.05)
        heard = [circle.speaks(clock.now) for circle in circles[1:]]
    assert heard.count(True) == 1
    assert not circles[0].speaks(clock.now)
    for circle in circles:
        circle.leave()


@pytest.mark.usefixtures("in_step")
def test_a_failure_is_told_whole_once(
    demands: list[Demand], environment: Environment, request_: Request, leader: Flock, clock: Clock
) -> None:
    """By the others in one line, with its id."""
    node = Node(clock, demands)
    node.until(5)
    details = {"id": "0123456789abcdef", "message": "no space", "hint": "make some", "host": "n1", "pid": 7}
    failures.record(environment, request_.key, failures.FATAL, details)
    node.until(10)
    errors = [error for error, _ in node.held.values() if isinstance(error, SharedFailureError)]
    whole = [error for error in errors if "no space" in error.message]
    brief = [error for error in errors if "pid 7 on n1 failed (failure 01234567)" in error.message]
    assert (len(whole), len(brief)) == (1, NUMBER - 1)
    assert {error.hint for error in brief} == {""}
    node.close()


@pytest.mark.parametrize(
    "variables",
    [{}, {**STEP, "SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}],
    ids=["no step", "one task", "one rank"],
)
def test_all_speak(
    demands: list[Demand], clock: Clock, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Without a scheduler's variables, or where there is but one task."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert all(Circle(demand, START).speaks(START) for demand in demands)


@pytest.mark.usefixtures("in_step")
def test_all_speak_who_want_to(demands: list[Demand], clock: Clock) -> None:
    """With `--verbose`."""
    for demand in demands:
        demand.verbose = True
    assert all(Circle(demand, START).speaks(START) for demand in demands)


@pytest.mark.usefixtures("in_step")
def test_another_step_has_its_own(demands: list[Demand], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is another one."""
    first = Circle(demands[0], START)
    assert first.speaks(START)
    monkeypatch.setenv("SLURM_STEP_ID", "4")
    second = Circle(demands[1], START)
    assert second.speaks(START)
    first.leave()
    second.leave()
