"""waiting: what those who wait ask of the filesystem and of the CPU, in the third to tenth second of the wait.

The benchmark holds the environment lock and one run waits for it: once at its own pace, which on a local disk is the
local one, and once as over a network (see paced.py). File operations within the project and the environment, and
flock calls, are counted with strace; CPU time is the kernel's account of a run without it. uv waits
in flock(2), whatever the filesystem, so its one measurement is in both groups. For later seconds the pace over a
network is computed: looks by `envsync.waiting.pace`, operations for each as measured locally.

The sums for many waiters and many launches are products, not measurements. Not measured: what an operation costs a
file server, and what uv does when it gets the lock (see `launch`: that, one after the other). A launch of envsync
includes the two looks that the launcher's shell takes at its working directory, here the project.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from contenders import ENVSYNC, LIMIT, UV, Bench, Envsync, Uv, python_of
from launch import Current
from measure import Command, MeasuringError, Row, run_for
from operations import Call, calls, count_operations, has_strace, traced
from wake import held

BEGIN, END = 2.0, 10.0
"""The seconds of the wait that are looked at."""
START = 3.0
"""Seconds that strace may need to get a run to wait."""
LATER = (60.0, 160.0)
WAITERS = 1_000
LAUNCHES = 10_000
PACED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "paced.py")
KINDS = {
    "stamp": "the stamp",
    "failure.json": "failure.json",
    ".envsync": "whether .envsync is there",
    "turn": "whose turn it is",
    ".lock": "the environment lock",
}
"""What an operation is for, by the last part of its path."""


@dataclass(frozen=True)
class Waited:
    """What one waiter did.

    :param cpu: CPU seconds a second
    :param begun: file operations until it waited; 0 if there is no strace, and the rest is not known either
    :param files: file operations a second, by what they were for
    :param locks: flock calls a second
    """

    cpu: float
    begun: int = 0
    files: Counter[str] = field(default_factory=Counter)
    locks: float = 0.0

    @property
    def operations(self) -> float:
        return float(sum(self.files.values()))


@dataclass(frozen=True)
class Looks:
    """How often a waiter looks, as its own code says: a second, locally and over a network."""

    local: float
    network: float
    locks_apart: float


def waiting(bench: Bench) -> list[Row]:
    """Count what waiters do."""
    local: dict[str, Waited] = {}
    network: dict[str, Waited] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        environment = bench.place.fresh_directory("envsync-environment")
        command = envsync.run(environment, "true")
        local[ENVSYNC] = wait(bench, command, envsync.project, environment)
        as_network = paced(bench, "network", *command.words[1:])
        network[ENVSYNC] = wait(bench, replace(command, words=as_network), envsync.project, environment)
    if UV in bench.chosen:
        uv = Uv(bench)
        environment = bench.place.fresh("uv-environment")
        bench.prepare(uv.sync(environment))
        local[UV] = network[UV] = wait(bench, uv.run(environment, "true"), uv.project, environment)
    rows = rows_of_wait("one waiter, local disk", local) + rows_of_wait("one waiter, as over a network", network)
    if ENVSYNC in local and local[ENVSYNC].begun:
        rows += computed(bench, local, network)
    return rows + launched(bench)


def wait(bench: Bench, command: Command, project: str, environment: str) -> Waited:
    """Let a run wait for the environment lock, and at the same time another one under strace."""
    trace = bench.place.fresh("trace")
    waits = [command]
    if has_strace("waiting: file operations"):
        waits.append(traced(command, trace))
    with held(os.path.join(environment, ".lock")):
        cpu = run_for(waits, BEGIN, END + START, bench.time_limit)[0]
    waited = Waited(cpu / (END + START - BEGIN))
    if not os.path.exists(trace):
        return waited
    with open(trace, encoding="utf-8", errors="replace") as lines:
        return count_wait(waited, list(calls(lines, command.directory)), project, environment)


def count_wait(waited: Waited, found: list[Call], project: str, environment: str) -> Waited:
    """Count in the trace of one wait; it begins when the environment lock is asked for and not had."""
    lock = os.path.join(environment, ".lock")
    began = next((call.time for call in found if call.lock and call.path == lock), None)
    if began is None:
        raise MeasuringError(f"waiting: nobody asked for `{lock}`")
    inside = [call for call in found if not call.lock and call.is_below((project, environment))]
    window = range_of(inside, began)
    locks = [call for call in range_of(found, began) if call.lock]
    seconds = END - BEGIN
    kinds = Counter(KINDS.get(os.path.basename(call.path), "others") for call in window)
    files = Counter({kind: count / seconds for kind, count in kinds.items()})
    return replace(waited, begun=sum(call.time <= began for call in inside), files=files, locks=len(locks) / seconds)


def range_of(found: Iterable[Call], began: float) -> list[Call]:
    return [call for call in found if BEGIN <= call.time - began < END]


def rows_of_wait(name: str, waited: dict[str, Waited]) -> list[Row]:
    rows = [Row(f"{name}: CPU", "ms/s", {who: [one.cpu * 1000] for who, one in waited.items()})]
    counts = {who: one for who, one in waited.items() if one.begun}
    if not counts:
        return rows
    rows.append(Row(f"{name}: file operations to begin", "n", {who: [one.begun] for who, one in counts.items()}))
    rows.append(Row(f"{name}: file operations", "1/s", {who: [one.operations] for who, one in counts.items()}))
    rows += [
        Row(f"{name}: of these, {kind}", "1/s", {who: [one.files[kind]] for who, one in counts.items()})
        for kind in (*KINDS.values(), "others")
        if any(one.files[kind] for one in counts.values())
    ]
    return [*rows, Row(f"{name}: flock calls", "1/s", {who: [one.locks] for who, one in counts.items()})]


def computed(bench: Bench, local: dict[str, Waited], network: dict[str, Waited]) -> list[Row]:
    """Compute what the pace promises, to be compared with what was measured, and sum up for many waiters."""
    begin, later = looks_between(bench, BEGIN, END), looks_between(bench, *LATER)
    mine = local[ENVSYNC]
    title = "one waiter, as over a network"
    rest = {UV: [local[UV].operations]} if UV in local else {}
    rows = [
        Row("one waiter, local disk: looks by its pace, computed", "1/s", {ENVSYNC: [begin.local]}),
        Row(f"{title}: looks by its pace, computed", "1/s", {ENVSYNC: [begin.network]}),
        Row(f"{title}: file operations, computed", "1/s", {ENVSYNC: [operations_of(mine, begin)], **rest}),
        Row(
            f"{title}, after a minute: file operations, computed",
            "1/s",
            {ENVSYNC: [operations_of(mine, later)], **rest},
        ),
    ]
    for name, waited in (("local disk", local), ("as over a network", network)):
        title = f"{WAITERS:,} waiters, {name}"
        summed = {who: [one.operations * WAITERS] for who, one in waited.items()}
        rows.append(Row(f"{title}: file operations", "1/s", summed))
        rows.append(Row(f"{title}: flock calls", "1/s", {who: [one.locks * WAITERS] for who, one in waited.items()}))
    summed = {ENVSYNC: [operations_of(mine, later) * WAITERS], **{who: [0.0] for who in rest}}
    return [*rows, Row(f"{title}, after a minute: file operations", "1/s", summed)]


def operations_of(local: Waited, looks: Looks) -> float:
    """Return the file operations a second over a network: what a look and what a try at the lock take locally."""
    files = local.files
    lookups = files[KINDS["stamp"]] + files[KINDS["failure.json"]]
    each = lookups / looks_of(local)
    tries = (local.operations - lookups) / local.locks if local.locks else 0.0
    return looks.network * (each + tries / looks.locks_apart)


def looks_of(local: Waited) -> float:
    return local.files[KINDS["stamp"]] or 1.0


def looks_between(bench: Bench, begin: float, end: float) -> Looks:
    words = paced(bench, "looks", str(begin), str(end))
    said = subprocess.run(words, capture_output=True, text=True, timeout=bench.time_limit, check=False)
    if said.returncode:
        raise MeasuringError(f"cannot ask envsync for its pace:\n{said.stderr}")
    local, network, apart = map(float, said.stdout.split())
    return Looks(local / (end - begin), network / (end - begin), apart)


def paced(bench: Bench, *words: str) -> tuple[str, ...]:
    """Return the words of paced.py, run by the Python beside envsync's launcher as that runs it."""
    python = python_of(bench)
    return (python, "-I", "-S", PACED, os.path.dirname(python), *words)


def launched(bench: Bench) -> list[Row]:
    """Count the file operations and exclusive locks of one launch in a current environment, times many."""
    if not has_strace("waiting: launches"):
        return []
    current = Current(replace(bench, chosen=tuple(who for who in bench.chosen if who != LIMIT)))
    places = [place for both in current.places.values() for place in both]
    counts = {
        who: count_operations(command, places, bench.place.fresh("trace"), bench.time_limit)
        for who, command in current.commands(("true",)).items()
    }
    title = f"{LAUNCHES:,} launches, current"
    return [
        Row(f"{title}: file operations", "n", {who: [one.inside * LAUNCHES] for who, one in counts.items()}),
        Row(f"{title}: exclusive flock calls", "n", {who: [one.exclusive * LAUNCHES] for who, one in counts.items()}),
    ]
