"""crowd: what 50 and 500 runs of five lock files cost while they wait for one environment. envsync only.

The benchmark holds the environment lock, as a slow leader would, and lets them wait: once so, and once while it is said
that it is the turn of one of the five, which it then is for all of the measurement. CPU time is the kernel's account of
all of them; the file operations and flock calls of one more, that came last, are counted with strace. What one asks of
the filesystem must not grow with the number of the others.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from contenders import ENVSYNC, Bench, Envsync
from lockfiles import text_of
from measure import Command, MeasuringError, Row, run_for
from operations import calls, has_strace, traced
from wake import held

COUNTS = (50, 500)
LOCK_FILES = 5
SECONDS = 10.0
"""How long is measured."""
START_SECONDS, EACH_SECONDS = 8.0, 0.04
"""What they are given to start: and this for each."""
TURN_SECONDS = 1.0
"""How often it is said anew whose turn it is: more often than waiters lose patience."""


@dataclass(frozen=True)
class Crowd:
    """What was measured: milliseconds of CPU a second of all, and the calls of one, a second."""

    cpu: float
    operations: float


def crowd(bench: Bench) -> list[Row]:
    """Measure what waiters cost."""
    if ENVSYNC not in bench.chosen:
        return []
    has_trace = has_strace("crowd: file operations")
    rows = []
    for how, is_called in (("while somebody leads", False), ("while it is the turn of one", True)):
        for number in COUNTS:
            title = f"{number} runs of {LOCK_FILES} lock files, {how}"
            one = measured(bench, number, is_called=is_called, has_trace=has_trace)
            rows.append(Row(f"{title}: CPU of all", "ms/s", {ENVSYNC: [one.cpu]}))
            if has_trace:
                rows.append(Row(f"{title}: calls of one", "1/s", {ENVSYNC: [one.operations]}))
    return rows


def measured(bench: Bench, number: int, *, is_called: bool, has_trace: bool) -> Crowd:
    environment, trace = bench.place.fresh_directory("envsync-environment"), bench.place.fresh("trace")
    commands = [each.run(environment, "true") for each in projects(bench)]
    waits = [commands[each % LOCK_FILES] for each in range(number)]
    if has_trace:
        waits.append(traced(commands[0], trace))
    begin = START_SECONDS + EACH_SECONDS * number
    with held(os.path.join(environment, ".lock")), called(os.path.join(environment, ".envsync"), is_called):
        cpu = run_for(waits, begin, begin + SECONDS, bench.time_limit)[:number]
    return Crowd(sum(cpu) * 1000 / SECONDS, calls_of(trace, commands[0]) if has_trace else 0.0)


def projects(bench: Bench) -> Iterator[Envsync]:
    """Make a project for each lock file: they differ by a comment, and so are different requests."""
    for number in range(LOCK_FILES):
        lock = bench.place.write("pylock.toml", f"{text_of(bench.wheels.lock)}\n# {number}\n")
        yield Envsync(bench, replace(bench.wheels, lock=lock))


@contextmanager
def called(state: str, is_called: bool) -> Iterator[None]:
    """Say meanwhile, again and again, that it is the turn of one of those who wait."""
    over = threading.Event()

    def call() -> None:
        while is_called and not over.wait(TURN_SECONDS):
            key = key_of_one(os.path.join(state, "waiting"))
            if key:
                with open(os.path.join(state, "turn.next"), "w", encoding="utf-8") as file:
                    json.dump({"format": 1, "key": key}, file)
                os.replace(file.name, os.path.join(state, "turn"))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def key_of_one(waiting: str) -> str:
    """Return for which request one waits; always the same one as long as it waits."""
    try:
        with open(os.path.join(waiting, min(os.listdir(waiting))), encoding="utf-8") as file:
            return str(json.load(file)["key"])
    except (OSError, ValueError):
        return ""  # nobody says so yet


def calls_of(trace: str, command: Command) -> float:
    """Count the calls of the last seconds of a trace, a second."""
    with open(trace, encoding="utf-8", errors="replace") as lines:
        times = [call.time for call in calls(lines, command.directory)]
    if not times:
        raise MeasuringError("crowd: the traced run did nothing")
    return sum(time >= times[-1] - SECONDS for time in times) / SECONDS
