"""Compute what a thousand nodes with a hundred tasks each do to a shared filesystem, for docs/scale.md.

    python benchmarks/cluster.py --delayed DIR --served DIR --envsync DIR/tool/bin/envsync \
        --set SET --tried SET --wheelhouse WHEELS --tried-wheelhouse WHEELS       all of it
    python benchmarks/cluster.py compute                                          some of it; the rest is as stored

Parts, one after the other; each stores what it finds in docs/scale.json and writes the page anew:
    count      what each step of a task asks of the filesystem (takes strace, and all options but --served)
    try        real tasks on it, with delays: how long they take (takes --delayed, --envsync and both --tried...)
    serve      latency and throughput of a server (takes --served)
    fit        the same tasks, computed
    compute    1,000 nodes

DIR of --delayed is on a filesystem that counts and delays (see calibrated.py), that of --served on one whose server is
measured. envsync has to be installed on the former, as it would be on a cluster: `python -m venv DIR/tool`, then
`DIR/tool/bin/pip install .`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calibrated import CACHED_SECONDS, costs, lanes_of, mount_of, queue, real, steps_of
from compare import about_of, base_python, load_average
from contenders import ENVSYNC, UV, Bench, program
from measure import MeasuringError
from scale_page import read, store, write_page
from served import served
from simulated import Costs, Outcome, Queue, Server, Setting, compute
from workplace import read_set, workplace

NODES, TASKS = 1_000, 100
SPREAD_SECONDS = 5.0
LOCK_FILES = 10
TOGETHER = 128
POINTS = 160
"""Of a line in a plot."""
CALLS, REQUESTS = "calls", "requests"
CURRENT, STALE, COLD = "current", "stale", "cold"


@dataclass(frozen=True)
class Placement:
    """Where environments are, and which counted step brings them to what they are to be.

    :param environments: as in `Setting`
    :param leads: what the leader does, by how the environment was found
    :param tool: who does it
    """

    environments: int
    leads: Mapping[str, str]
    local: bool = False
    tool: str = ENVSYNC


PLACEMENTS = {
    "shared": Placement(1, {CURRENT: COLD, STALE: STALE, COLD: COLD}),
    "digest": Placement(LOCK_FILES, {CURRENT: COLD, STALE: STALE, COLD: COLD}),
    "cache": Placement(
        0,
        {CURRENT: "from cache", STALE: "from cache, stale", COLD: "from cache"},
        local=True,
    ),
    "bundle": Placement(
        0,
        {CURRENT: "from bundle", STALE: "from bundle, stale", COLD: "from bundle"},
        local=True,
    ),
    "uv": Placement(
        1,
        {CURRENT: "uv cold", STALE: "uv stale", COLD: "uv cold"},
        tool=UV,
    ),
}
STATES = (COLD, CURRENT, STALE)


def main() -> int:
    arguments = parse()
    try:
        for name in arguments.parts:
            print(f"{name} ...", file=sys.stderr, flush=True)
            PARTS[name](arguments)
            write_page()
    except MeasuringError as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="which to do (default: all)")
    add("--delayed", metavar="DIR", help="directory on a filesystem that counts and delays")
    add("--served", metavar="DIR", help="directory on a filesystem whose server is measured")
    add("--set", metavar="DIR", help="directory with pylock.toml and pins.txt: what is counted")
    add("--tried", metavar="DIR", help="a smaller one, with which real tasks are run")
    add("--wheelhouse", metavar="DIR", help="directory with the wheels of --set")
    add("--tried-wheelhouse", metavar="DIR", help="directory with those of --tried")
    add("--envsync", default="envsync", metavar="PATH", help="the envsync to measure (default: on PATH)")
    add("--uv", default="uv", metavar="PATH", help="the uv to measure (default: on PATH)")
    add("--rounds", type=int, default=3, metavar="N", help="how often real tasks are run (default: %(default)d)")
    add("--time-limit", type=float, default=900.0, metavar="SECONDS", help="for one command (default: %(default)g)")
    add("--processes", type=int, default=os.cpu_count(), metavar="N", help="to compute in (default: %(default)d)")
    add("--anew", action="store_true", help="compute all cases again, not only those that are not stored")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)} (known: {', '.join(PARTS)})")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


# Parts


def count(arguments: argparse.Namespace) -> None:
    """Count the steps of tasks with both sets, and find how many requests of a leader are under way at once."""
    counted = {}
    for which in ("set", "tried"):
        with benched(arguments, which) as (bench, local):
            mount = mount_of(arguments.delayed)
            print(f"counting with {bench.wheels.name}", file=sys.stderr, flush=True)
            counted[which] = {"about": about(bench), "steps": steps_of(bench, mount, local)}
            if which == "tried":
                counted[which]["lanes"] = lanes_of(bench, mount, local)
    store({"counted": counted})


def try_real(arguments: argparse.Namespace) -> None:
    """Run real tasks."""
    with benched(arguments, "tried") as (bench, local):
        found = real(bench, mount_of(arguments.delayed), local)
        store({"tried": {"about": about(bench), "cpus": os.cpu_count(), **found}})


def serve(arguments: argparse.Namespace) -> None:
    """Measure a server."""
    store({"served": served(required(arguments, "served"))})


def fit(_: argparse.Namespace) -> None:
    """Compute the tasks that were tried."""
    results = read()
    steps, lanes, tried = results["counted"]["tried"]["steps"], results["counted"]["tried"]["lanes"], results["tried"]
    rows = []
    for row in tried["rows"]:
        server = tried_server(tried["latencies"], row["delay"])
        setting = Setting(
            nodes=1,
            tasks=row["tasks"],
            current=row["what"].endswith(CURRENT),
            cpus=tried["cpus"],
            cached=CACHED_SECONDS,
            is_server_here=True,
        )
        outcome = compute(setting, server, costs_of(row["what"], steps, lanes, REQUESTS))
        measured = statistics.median(row["seconds"])
        rows.append({**row, "real": measured, "computed": outcome.starts[-1]})
        print(row["what"], row["delay"], row["tasks"], f"{measured:.2f} {outcome.starts[-1]:.2f}", file=sys.stderr)
    store({"fit": rows})


def compute_all(arguments: argparse.Namespace) -> None:
    """Compute a thousand nodes, for each placement and state."""
    results = read()
    stored = {} if arguments.anew else {key_of(row): row for row in results.get("computed", [])}
    jobs = [(results, name, state) for state in STATES for name in PLACEMENTS if (name, state) not in stored]
    with multiprocessing.get_context("fork").Pool(arguments.processes) as pool:
        for row in pool.imap_unordered(one_of, jobs):
            stored[key_of(row)] = row
            every = [(name, state) for name in PLACEMENTS for state in STATES]
            store({"computed": [stored[key] for key in every if key in stored]})


def key_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["placement"], row["state"]


def one_of(job: tuple[Mapping[str, Any], str, str]) -> dict[str, Any]:
    return one(*job)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "count": count,
    "try": try_real,
    "serve": serve,
    "fit": fit,
    "compute": compute_all,
}


def one(results: Mapping[str, Any], name: str, state: str) -> dict[str, Any]:
    """Compute one placement in one state."""
    began = time.monotonic()
    placement = PLACEMENTS[name]
    steps, lanes = results["counted"]["set"]["steps"], results["counted"]["tried"]["lanes"]
    cost = cost_of(placement, steps, lanes, CALLS, state)
    setting = Setting(
        nodes=NODES,
        tasks=TASKS,
        environments=placement.environments,
        current=state == CURRENT,
        spread=SPREAD_SECONDS,
        together=TOGETHER,
    )
    outcome = compute(setting, Server(**results["served"]["server"]), cost, local=placement.local)
    print(name, state, f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return {"placement": name, "state": state, **summary(outcome)}


def summary(outcome: Outcome) -> dict[str, Any]:
    """Keep of an outcome what the page shows."""
    counted, starts = outcome.counted, outcome.starts
    span = max(1, -(-len(counted.bins) // POINTS))
    rates = [sum(counted.bins[at : at + span]) / span / counted.width for at in range(0, len(counted.bins), span)]
    return {
        "syncs": outcome.syncs,
        "tasks": len(starts),
        "first": digits(starts[0]),
        "half": digits(starts[len(starts) // 2]),
        "last": digits(starts[-1]),
        "synced": digits(max(outcome.synced, default=0.0)),
        "requests": digits(counted.total),
        "late": outcome.late,
        "looks": outcome.looks,
        "alone": outcome.alone,
        "width": span * counted.width,
        "rates": [digits(rate, 3) for rate in rates],
    }


def digits(number: float, count: int = 4) -> float:
    return float(f"{number:.{count}g}")


# What it is computed of


def costs_of(what: str, steps: Mapping[str, Any], lanes: Mapping[str, float], how: str) -> Costs | Queue:
    """Return what a task costs that was tried."""
    if what.startswith(UV):
        return queue(steps, how, lanes, sync="uv cold")
    return costs(steps, how, lanes, lead=COLD)


def cost_of(
    placement: Placement, steps: Mapping[str, Any], lanes: Mapping[str, float], how: str, state: str
) -> Costs | Queue:
    lead = placement.leads[state]
    if placement.tool == UV:
        return queue(steps, how, lanes, sync=lead)
    return costs(steps, how, lanes, lead=lead, here=placement.local)


def tried_server(latencies: Mapping[str, float], delay: float) -> Server:
    """Return the server that was tried: each request takes CPU here, and its delay."""
    own = latencies["0"]
    return Server(1, own, own, own, latencies[f"{delay:g}"] - own)


# Where it is measured


class benched:  # noqa: N801 (a context manager)
    """A place to measure at, on the filesystem that counts, and a directory of this node's own."""

    def __init__(self, arguments: argparse.Namespace, which: str) -> None:
        self.arguments = arguments
        wheelhouse = required(arguments, "wheelhouse" if which == "set" else "tried_wheelhouse")
        self.wheels = read_set(required(arguments, which), wheelhouse)
        self.place = workplace(required(arguments, "delayed"))
        self.local = tempfile.TemporaryDirectory(prefix="envsync-local-")

    def __enter__(self) -> tuple[Bench, str]:
        arguments = self.arguments
        bench = Bench(
            place=self.place.__enter__(),
            wheels=self.wheels,
            second=None,
            chosen=(ENVSYNC, UV),
            python=base_python(),
            envsync=program(arguments.envsync),
            uv=program(arguments.uv),
            rounds=arguments.rounds,
            time_limit=arguments.time_limit,
        )
        return bench, self.local.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.local.__exit__(*error)
        self.place.__exit__(*error)


def required(arguments: argparse.Namespace, name: str) -> str:
    given: str | None = getattr(arguments, name)
    if not given:
        raise MeasuringError(
            f"--{name.replace('_', '-')} is needed for that\nhint: python benchmarks/cluster.py --help"
        )
    return os.path.abspath(given)


def about(bench: Bench) -> dict[str, object]:
    return about_of(bench, load_average())


if __name__ == "__main__":
    raise SystemExit(main())
