"""The computed cluster of docs/scale.md: what the tasks decide is the product's; nothing is lost, nothing is chance."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envsync.waiting import neighbours, pace
from envsync.waiting.desk import Desk

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks measure on Linux"),
    pytest.mark.skipif(importlib.util.find_spec("simpy") is None, reason="there is no simpy"),
]


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulation, imported as the benchmarks import one another."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import simulated

    return simulated


@pytest.fixture
def costs(sim: Any) -> Any:
    launch = sim.Work(looks=40, locks=1, cpu=0.01)
    return sim.Costs(
        launch=launch,
        again=launch,
        begin=sim.Work(looks=20, changes=4, locks=2, cpu=0.01),
        look=sim.Work(looks=2),
        enter=sim.Work(looks=8, locks=1),
        lead=sim.Work(looks=8_000, changes=12_000, cpu=1, lanes=2),
    )


@pytest.fixture
def server(sim: Any) -> Any:
    return sim.Server(threads=1, look=40e-6, change=100e-6, lock=50e-6, latency=0.3e-3)


def test_same_seed_gives_the_same(sim: Any, costs: Any, server: Any) -> None:
    """Nothing depends on chance but by the seed."""
    setting = sim.Setting(nodes=3, tasks=8, spread=1)
    one, two = (sim.compute(setting, server, costs) for _ in range(2))
    other = sim.compute(replace(setting, seed=2), server, costs)
    assert one == two or one.starts == two.starts
    assert one.counted.bins == two.counted.bins
    assert one.starts != other.starts


@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize(("environments", "local", "syncs"), [(1, False, 1), (3, False, 3), (0, True, 4)])
def test_each_starts_once_and_each_environment_is_synced_once(
    sim: Any, costs: Any, server: Any, environments: int, local: bool, syncs: int, current: bool
) -> None:
    """Whatever they wait for. Nobody starts before the environment is current."""
    setting = sim.Setting(nodes=4, tasks=9, environments=environments, current=current, spread=2)
    outcome = sim.compute(setting, server, costs, local=local)
    assert len(outcome.starts) == 4 * 9
    assert outcome.syncs == len(outcome.synced) == (0 if current else syncs)
    assert outcome.starts == sorted(outcome.starts)
    if not current:
        assert outcome.starts[0] >= min(outcome.synced)
        assert outcome.starts[-1] >= max(outcome.synced)


def test_requests_are_those_of_the_steps(sim: Any, costs: Any, server: Any) -> None:
    """The server is asked what the tasks' steps take together, no more and no less."""
    setting = sim.Setting(nodes=4, tasks=9, spread=2)
    outcome = sim.compute(setting, server, costs)
    waiters = 4 * 9 - outcome.syncs - outcome.late
    begun = 4 * 9 * (costs.launch.requests + costs.begin.requests)
    entered = (waiters + outcome.late) * costs.enter.requests + outcome.looks * costs.look.requests
    assert outcome.counted.total == pytest.approx(begun + entered + costs.lead.requests)
    current = sim.compute(replace(setting, current=True), server, costs)
    assert current.counted.total == pytest.approx(4 * 9 * costs.launch.requests)
    assert current.looks == 0


def test_server_is_never_faster_than_its_threads(sim: Any, costs: Any, server: Any) -> None:
    """The last command starts no sooner than the server can have answered all, whatever the latency."""
    setting = sim.Setting(nodes=5, tasks=20, current=True)
    for threads in (1, 4):
        outcome = sim.compute(setting, replace(server, threads=threads), costs)
        assert outcome.starts[-1] >= 100 * server.service(costs.launch) / threads


@pytest.mark.parametrize("spread", [0.0, 1.5])
@pytest.mark.parametrize("heard", [True, False])
def test_readings_that_change_nothing_can_be_left_out(
    sim: Any, costs: Any, server: Any, monkeypatch: pytest.MonkeyPatch, heard: bool, spread: float
) -> None:
    """Computed reading by reading, everybody starts at the same moment: also where pollers are too slow to be heard."""
    if not heard:
        costs = replace(costs, look=sim.Work(looks=20_000), lead=costs.lead * 4)
        monkeypatch.setattr(pace, "TOOK_MOST_SECONDS", 0.0)
    setting = sim.Setting(nodes=2, tasks=6, spread=spread, together=100)
    less, all_of_it = (sim.compute(replace(setting, exactly=exactly), server, costs) for exactly in (False, True))
    assert less.starts == pytest.approx(all_of_it.starts)
    assert (less.looks, less.alone) == (all_of_it.looks, all_of_it.alone)
    assert (less.alone == 0) == heard


class TestProduct:
    """What the tasks decide is decided by the product."""

    def test_pace(self, sim: Any, costs: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """If waiters looked more seldom, they would look less and start later."""
        setting = sim.Setting(nodes=6, tasks=2, spread=1)
        costs = replace(costs, lead=costs.lead * 20)
        before = sim.compute(setting, server, costs)
        monkeypatch.setattr(pace, "NETWORK_LEAST_SECONDS", 10.0)
        monkeypatch.setattr(pace, "NETWORK_MOST_SECONDS", 10.0)
        after = sim.compute(setting, server, costs)
        assert after.looks < before.looks / 2
        assert after.starts[-1] > before.starts[-1]

    def test_neighbours(self, sim: Any, costs: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """If nobody on a node were heard, each would look for itself."""
        setting = sim.Setting(nodes=2, tasks=20, spread=1)
        before = sim.compute(setting, server, costs)
        monkeypatch.setattr(neighbours.Neighbours, "hears", lambda *_: False)
        after = sim.compute(setting, server, costs)
        assert after.looks > 2 * before.looks

    def test_slow_looks(self, sim: Any, costs: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where looks take longer than a word counts else, pollers are heard all the same: fewer look."""
        costs = replace(costs, look=sim.Work(looks=20_000), lead=costs.lead * 4)
        setting = sim.Setting(nodes=2, tasks=6, spread=1, together=100)
        after = sim.compute(setting, server, costs)
        monkeypatch.setattr(pace, "TOOK_MOST_SECONDS", 0.0)
        before = sim.compute(setting, server, costs)
        assert before.alone > 2 * after.alone
        assert before.looks > after.looks
        assert before.synced > after.synced

    def test_local_looks(self, sim: Any, costs: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """How late those start whose environment is on the node's own disk is said by the pace there."""
        setting = sim.Setting(nodes=1, tasks=6, environments=0)
        costs = replace(costs, enter=sim.NONE)
        before = sim.compute(setting, server, costs, local=True)
        assert before.starts[-1] - before.synced[0] <= pace.LOCAL_SECONDS
        monkeypatch.setattr(pace, "LOCAL_SECONDS", 7.0)
        after = sim.compute(setting, server, costs, local=True)
        assert 7 < after.starts[-1] < 8

    def test_desk(self, sim: Any) -> None:
        """What a desk does is all done without files here."""
        does = {name for name, value in vars(Desk).items() if callable(value) and not name.startswith("__")}
        assert does - {"read_anew"} <= set(vars(sim.Paper))


def test_tool_that_locks_lets_one_in_after_the_other(sim: Any, server: Any) -> None:
    """The lock is held by one at a time: so the last starts no sooner than all have had it."""
    queue = sim.Queue(
        before=sim.Work(looks=5), held=sim.Work(looks=100), sync=sim.Work(changes=4_000), after=sim.Work(looks=5)
    )
    setting = sim.Setting(nodes=3, tasks=10)
    outcome = sim.compute(setting, server, queue)
    held = 100 * (server.look + server.latency)
    assert (outcome.syncs, len(outcome.starts)) == (1, 30)
    assert outcome.starts[-1] - outcome.starts[0] >= 28 * held


def test_what_a_trace_says_is_counted_by_place_and_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By path, by descriptor and relative to one; changes and locks apart; and nothing of a neighbour."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import calibrated

    trace = tmp_path / "trace"
    trace.write_text(
        '7 1.5 openat(AT_FDCWD</home>, "/far/a", O_RDONLY|O_CLOEXEC) = 3</far/a>\n'
        '7 1.6 read(3</far/a>, "x", 4096) = 21\n'
        "7 1.7 close(3</far/a>) = 0\n"
        '7 1.8 openat(AT_FDCWD</home>, "/far/b", O_RDWR|O_CREAT, 0666) = 3</far/b>\n'
        "7 1.9 flock(3</far/b>, LOCK_EX|LOCK_NB) = 0\n"
        '8 2.0 newfstatat(5</far/dir>, "name", {st_mode=S_IFREG}, 0) = 0\n'
        '8 2.1 newfstatat(AT_FDCWD</far/dir>, "name", {st_mode=S_IFREG}, 0) = 0\n'
        '8 2.2 openat(AT_FDCWD</home>, "/farther/a", O_RDONLY) = 3</farther/a>\n'
        '8 2.3 openat(AT_FDCWD</far/dir>, "/near/a", O_RDONLY) = 3</near/a>\n'
        "8 2.4 +++ exited with 0 +++\n"
    )
    found = calibrated.calls_below(str(trace), "/far")
    assert [call.time for call in found] == [1.5, 1.6, 1.8, 1.9, 2.0, 2.1]
    assert calibrated.sorted_by_kind(found) == calibrated.Work(looks=4, changes=1, locks=1, size=21)


# The page


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale_page

    return scale_page


def test_tables_of_the_page_are_what_the_stored_results_say(page: Any) -> None:
    """Nobody edits a figure: `python benchmarks/scale_page.py` changes nothing. And all that is stored is shown."""
    text = Path(page.PAGE).read_text()
    assert page.with_tables(text, page.read()) == text
    names = [mark["name"] for mark in page.MARKED.finditer(text)]
    assert sorted(names) == sorted(page.SECTIONS)
    assert Path(page.RESULTS).read_text() == page.as_text(page.read())


def test_each_case_of_the_page_is_computed(page: Any, sim: Any) -> None:
    """Whatever tasks do, each starts once; and each environment is synced once, unless it is current."""
    import cluster

    rows = page.read()["computed"]
    cases = [(row["placement"], row["state"]) for row in rows]
    assert cases == [(name, state) for name in cluster.PLACEMENTS for state in cluster.STATES if (name, state) in cases]
    assert {state for _, state in cases} >= {cluster.COLD, cluster.CURRENT}
    assert list(cluster.PLACEMENTS) == list(page.WORDS)
    for row in rows:
        environments = cluster.PLACEMENTS[row["placement"]].environments or cluster.NODES
        assert row["tasks"] == cluster.NODES * cluster.TASKS
        assert row["syncs"] == (0 if row["state"] == cluster.CURRENT else environments)


def test_plots_of_the_page_are_of_the_stored_results(page: Any) -> None:
    """There is one for each state and one of the fit, and none of anything else; each names its cases."""
    plots = {path.name: path.read_text() for path in Path(page.PLOTS).iterdir()}
    rows = {name: page.rows_of(page.read(), name) for name in page.STATES}
    assert set(plots) == {"fit.svg", *(f"{name}.svg" for name in page.STATES if rows[name])}
    for name in page.STATES:
        assert all(page.WORDS[placement].replace("`", "") in plots[f"{name}.svg"] for placement, _ in rows[name])
    assert all(f"{row['what']}, +{row['delay']} ms" in plots["fit.svg"] for row in page.read()["fit"])
