"""Strike every scenario at every change in every way, and print the table.

    python -m tests.crash.table                                  # all of it, by as many processes as there are cores
    python -m tests.crash.table --scenario upgrade --kind EIO    # part of it
    python -m tests.crash.table --scenario upgrade --kind EIO --at 17 -v

The exit status is 1 if any outcome is wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.crash.harness import ERRORS, KILL_ONE, KILLS, LASTING, SIGNALS, Kind, Striker, strike
from tests.crash.judge import judge
from tests.crash.scenarios import BY_NAME, SCENARIOS, Scenario, build_wheels
from tests.crash.stage import Stage

KINDS = {kind.name: kind for kind in (*KILLS, KILL_ONE, *SIGNALS, *ERRORS, *LASTING)}
MOST = 2000
"""Changes after which something is wrong with the counting."""


class Point(NamedTuple):
    """One strike and what is wrong with its outcome."""

    scenario: str
    kind: str
    nth: int
    struck: str
    """The change; empty: it made fewer than that, and is done."""
    exit: str
    wrong: list[str]

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.wrong)
        return f"{self.scenario}, {self.kind} at change {self.nth} ({self.struck}), {self.exit}:{lines}"


def strike_all(
    scenario: Scenario,
    kinds: Callable[[int], Sequence[Kind]],
    root: Path,
    *,
    striker: Striker = strike,
    workers: int = 2,
    first: int = 1,
) -> Iterator[Point]:
    """Strike a scenario at change 1, 2, 3 ... until it ends untouched, by several processes.

    :param kinds: the kinds of strikes at the N-th change
    :param root: a directory that exists
    :param striker: how to strike
    """
    wheels = root / "wheels"
    if not wheels.exists():
        build_wheels(wheels)
    running = {}
    for worker in range(workers):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            place = root / f"{scenario.name} {worker}".replace(" ", "-").replace(",", "")
            _work(scenario, kinds, striker, place, wheels, writing, range(first + worker, MOST, workers))
        os.close(writing)
        running[pid] = reading
    try:
        yield from _gather(list(running.values()))
    finally:
        for pid in running:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(pid, 0)
        for reading in running.values():
            os.close(reading)


def check(scenario: Scenario, points: Iterable[Point]) -> None:
    """Assert that every change was struck, and that nothing is wrong after any of them."""
    points = list(points)
    wrong = [point for point in points if point.wrong]
    assert not wrong, f"{len(wrong)} of {len(points)} outcomes are wrong\n" + "\n".join(map(str, wrong[:20]))
    struck = {point.nth for point in points if point.struck}
    last = max(struck, default=0)
    # Two processes may both try what one of them has to do only: then some runs are a few changes longer.
    assert {nth for nth in range(1, last) if nth not in struck} <= set(range(last - 4 * scenario.forks, last))
    assert last >= scenario.least


def _work(
    scenario: Scenario,
    kinds: Callable[[int], Sequence[Kind]],
    striker: Striker,
    root: Path,
    wheels: Path,
    writing: int,
    changes: Iterable[int],
) -> None:
    """Strike at some of the changes. Ends the process."""
    try:
        gc.freeze()  # what is not looked at is not copied for each child
        stage = Stage(scenario, root, wheels)
        for nth in changes:
            is_over = True
            for kind in kinds(nth):
                stage.restore()
                blow = striker(stage.arguments, nth, kind)
                wrong = judge(stage, blow, kind)
                is_over = is_over and not blow.struck
                struck = "" if not blow.struck else str(blow.struck[0]).replace(str(root), "")
                point = Point(scenario.name, kind.name, nth, struck, _exit(blow.status), wrong)
                _send(writing, json.dumps(point))
            if is_over:
                os._exit(0)
        _send(writing, json.dumps({"error": f"it makes more than {MOST} changes"}))
    except BaseException:  # noqa: BLE001  # told to the parent
        _send(writing, json.dumps({"error": traceback.format_exc()}))
    finally:
        os._exit(1)


def _send(writing: int, text: str) -> None:
    data = memoryview(text.encode() + b"\n")
    while data:
        data = data[os.write(writing, data) :]


def _gather(readings: list[int]) -> Iterator[Point]:
    """Yield the points of all workers as they come."""
    import select

    rest = dict.fromkeys(readings, b"")
    while rest:
        for reading in select.select(list(rest), [], [])[0]:
            data = os.read(reading, 1 << 16)
            *lines, rest[reading] = (rest[reading] + data).split(b"\n")
            for line in lines:
                value = json.loads(line)
                if isinstance(value, dict):
                    raise RuntimeError(value["error"])
                yield Point(*value)
            if not data:
                del rest[reading]


def _exit(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def kinds_for(scenario: Scenario) -> tuple[Kind, ...]:
    """Return all kinds that make a difference for a scenario."""
    return tuple(kind for kind in KINDS.values() if scenario.forks or not kind.alone)


HEAD = f"{'scenario':26} {'changes':>7} {'kills':>6} {'signals':>7} {'errors':>6} {'got over':>8} {'wrong':>5} {'s':>5}"


class Row:
    """A line of the table."""

    def __init__(self, scenario: Scenario) -> None:
        self.name = scenario.name
        self.changes = 0
        self.points: Counter[str] = Counter()
        self.wrong = 0
        self.began = time.monotonic()

    def add(self, point: Point) -> None:
        if point.struck:
            self.changes = max(self.changes, point.nth)
            kind = KINDS[point.kind]
            family = "error" if kind.errno else "kill" if kind.signal == signal.SIGKILL else "signal"
            self.points[family] += 1
            self.points["got over"] += family == "error" and point.exit == "exit 0"
        self.wrong += bool(point.wrong)

    def __str__(self) -> str:
        counts = self.points
        seconds = time.monotonic() - self.began
        return (
            f"{self.name:26} {self.changes:7} {counts['kill']:6} {counts['signal']:7} {counts['error']:6} "
            f"{counts['got over']:8} {self.wrong:5} {seconds:5.0f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.table", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=list(BY_NAME), help="default: all")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--at", type=int, help="strike at this change only")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--root", type=Path, help="where to work; default: a temporary directory")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every point")
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("ENVSYNC_", "PYTHON", "VIRTUAL_ENV"))]:
        del os.environ[name]
    total = Row(Scenario("total", "", None, ()))
    with tempfile.TemporaryDirectory(prefix="envsync-crash-", dir=asked.root) as root:
        print(HEAD, flush=True)
        for scenario in [BY_NAME[name] for name in asked.scenario] if asked.scenario else SCENARIOS:
            chosen = [kind for kind in kinds_for(scenario) if not asked.kind or kind.name in asked.kind]
            row = Row(scenario)

            def kinds(nth: int, chosen: Sequence[Kind] = chosen) -> Sequence[Kind]:
                return chosen if asked.at in (None, nth) else ()

            for point in strike_all(
                scenario, kinds, Path(root), workers=1 if asked.at else asked.workers, first=asked.at or 1
            ):
                row.add(point)
                if point.wrong or asked.verbose:
                    print(point, flush=True)
            print(row, flush=True)
            total.points.update(row.points)
            total.wrong += row.wrong
            total.changes += row.changes
    print(total)
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
