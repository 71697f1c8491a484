"""wake: how long after the stamp is in place those who waited for it start their commands. envsync only.

The environment is made, its stamp put aside and the environment lock held by the benchmark; when all runs have put
their names into the list of those who wait, the stamp is put back, and each command says when it started. What that
takes includes the start of the command, `date`, many times at once; the limit is the same commands started at once
without envsync. Both clocks are the system's (CLOCK_REALTIME): a step of it spoils the round.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contenders import ENVSYNC, LIMIT, Bench, Envsync
from measure import MeasuringError, Outcome, Row, run_all_at_once

COUNT = 50
ARRIVAL_SECONDS = 120.0
"""After which the benchmark gives up: not all of them wait."""


def wake(bench: Bench) -> list[Row]:
    """Measure how late waiters start."""
    if ENVSYNC not in bench.chosen:
        return []
    envsync = Envsync(bench)
    environment = os.path.join(envsync.project, ".venv")
    bench.prepare(envsync.sync(environment))
    latencies: dict[str, list[list[float]]] = {ENVSYNC: []}
    for _ in range(bench.rounds or 3):
        latencies[ENVSYNC].append(woken(bench, envsync, environment))
        if LIMIT in bench.chosen:
            latencies.setdefault(LIMIT, []).append(started(bench))
    figures: dict[str, Callable[[list[float]], float]] = {"first": min, "median": statistics.median, "last": max}
    return [
        Row(f"{COUNT} waiters, {what} start", "ms", {who: [of(one) for one in all_] for who, all_ in latencies.items()})
        for what, of in figures.items()
    ]


def woken(bench: Bench, envsync: Envsync, environment: str) -> list[float]:
    """Let runs wait, put the stamp into place, and return after how many milliseconds each has started."""
    stamp = os.path.join(environment, ".envsync", "stamp")
    aside, times = bench.place.fresh("stamp"), bench.place.fresh("times")
    released: list[int] = []

    def release() -> None:
        wait_for_names(os.path.join(environment, ".envsync", "waiting"))
        released.append(time.time_ns())
        os.rename(aside, stamp)

    with held(os.path.join(environment, ".lock")):
        os.rename(stamp, aside)
        try:
            command = envsync.run(environment, *date())
            outcome = run_all_at_once([command] * COUNT, bench.time_limit, stdout=times, meanwhile=release)
        finally:
            if os.path.exists(aside):
                os.rename(aside, stamp)
    return latencies_of(outcome, times, released[0])


def started(bench: Bench) -> list[float]:
    """Start the bare commands at once, and return after how many milliseconds each has started."""
    times = bench.place.fresh("times")
    command = bench.command(*date(), directory=bench.place.directory)
    outcome = run_all_at_once([command] * COUNT, bench.time_limit, stdout=times)
    return latencies_of(outcome, times, outcome.began_ns)


def latencies_of(outcome: Outcome, times: str, begin: int) -> list[float]:
    if outcome.failures:
        raise MeasuringError(f"wake: {len(outcome.failures)} runs failed, the first with:\n{outcome.failures[0]}")
    with open(times, encoding="ascii") as lines:
        return [(int(line) - begin) / 1e6 for line in lines]


def date() -> tuple[str, str]:
    """Return the words of a command that says the time in nanoseconds, as GNU and busybox have it."""
    found = shutil.which("date", path="/usr/bin:/bin")
    if found is None:
        raise MeasuringError("wake: there is no `date`")
    return (found, "+%s%N")


def wait_for_names(directory: str) -> None:
    """Wait until as many names as there are runs are in the list of those who wait."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    names: list[str] = []
    while time.monotonic() < deadline:
        if os.path.isdir(directory):
            names = [name for name in os.listdir(directory) if not name.endswith(".new")]
        if len(names) >= COUNT:
            return
        time.sleep(0.05)
    raise MeasuringError(f"wake: of {COUNT} runs {len(names)} waited after {ARRIVAL_SECONDS:g} s")


@contextmanager
def held(path: str) -> Iterator[None]:
    """Hold an exclusive flock."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
