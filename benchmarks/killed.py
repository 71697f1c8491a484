"""killed: a sync is killed by SIGKILL, and then there is another one. What does it cost, and is the result whole?

In each round, the first sync is killed after another part of the time that it takes, from a tenth to nine tenths, with
all its processes; then the second one is timed, and the files are counted that the environment lacks afterwards. The
`fresh` rows are the same sync of an environment that nobody has begun, timed in the same round.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, CommandFailedError, Row, run, started

ROUNDS = 9


def killed(bench: Bench) -> list[Row]:
    """Kill syncs, sync again, and count what is missing."""
    syncs: dict[str, Callable[[str], Command]] = {}
    if ENVSYNC in bench.chosen:
        syncs[ENVSYNC] = Envsync(bench).sync
    if UV in bench.chosen:
        syncs[UV] = Uv(bench).sync
    rounds = bench.rounds or ROUNDS
    found: dict[str, dict[str, list[float]]] = {name: {} for name in syncs}
    usual: dict[str, float] = {}
    whole: dict[str, set[str]] = {}
    for name, sync in syncs.items():
        environment = bench.place.fresh(f"{name}-environment")
        bench.prepare(sync(environment))
        whole[name] = files_of(environment)
        usual[name] = run(sync(bench.place.fresh(f"{name}-environment")), bench.time_limit).seconds
    for number in range(rounds):
        part = 0.1 + 0.8 * number / max(1, rounds - 1)
        for name, sync in syncs.items():
            for what, value in one_round(bench, name, sync, part * usual[name], whole[name]).items():
                found[name].setdefault(what, []).append(value)
    units = {"fresh": "s", "after a kill": "s"}
    names = ("fresh", "after a kill", "second sync failed", "files missing afterwards")
    return [
        Row(f"killed: {what}", units.get(what, "n"), {name: values[what] for name, values in found.items()})
        for what in names
    ]


def one_round(
    bench: Bench, name: str, sync: Callable[[str], Command], seconds: float, whole: set[str]
) -> dict[str, float]:
    """Time a fresh sync, kill another one, and sync again."""
    fresh = bench.place.fresh(f"{name}-environment")
    os.sync()
    took = run(sync(fresh), bench.time_limit).seconds
    environment = bench.place.fresh(f"{name}-environment")
    kill_after(sync(environment), seconds)
    os.sync()
    start = time.perf_counter()
    failed = 0
    try:
        run(sync(environment), bench.time_limit)
    except CommandFailedError:
        failed = 1
    repaired = time.perf_counter() - start
    missing = len(whole - files_of(environment))
    return {
        "fresh": took,
        "after a kill": repaired,
        "second sync failed": failed,
        "files missing afterwards": missing,
    }


def kill_after(command: Command, seconds: float) -> None:
    """Start a command and kill it and its processes after a while, wherever it is by then."""
    process = started(command)
    time.sleep(seconds)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was faster than before
    process.wait()


def files_of(environment: str) -> set[str]:
    """Return the files below an environment's lib, without bytecode and what only the tools know."""
    found = set()
    for top, directories, names in os.walk(os.path.join(environment, "lib")):
        directories[:] = [name for name in directories if name not in ("__pycache__", ".envsync")]
        found.update(os.path.relpath(os.path.join(top, name), environment) for name in names)
    return found
