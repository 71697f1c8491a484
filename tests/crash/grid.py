"""Strike a scenario at every change in turn, by several processes, and judge each outcome."""

from __future__ import annotations

import gc
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.crash.harness import DOWNLOADING, ERRORS, KILL_ONE, KILLS, LASTING, SIGNALS, Kind, Striker, strike
from tests.crash.judge import judge
from tests.crash.scenarios import Scenario, build_wheels
from tests.crash.stage import Stage

KINDS = {kind.name: kind for kind in (*KILLS, KILL_ONE, *SIGNALS, *DOWNLOADING, *ERRORS, *LASTING)}
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
    assert {nth for nth in range(1, last) if nth not in struck} <= set(
        range(last - 4 * scenario.forks - scenario.varies, last)
    )
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
    return tuple(
        kind for kind in KINDS.values() if (scenario.forks or not kind.alone) and (scenario.served or not kind.within)
    )
