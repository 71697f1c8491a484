"""Measure envsync and uv side by side and print one table, ratios first.

    python benchmarks/compare.py --set SET --wheelhouse WHEELS                 all of them
    python benchmarks/compare.py launch warm --set SET --wheelhouse WHEELS     some
    python benchmarks/compare.py --page --set SET --wheelhouse WHEELS          store them for docs/performance.md

Benchmarks:
    launch     a command in a current environment; and its file operations, flock calls and all system calls
    launches   50 of them at once
    warm       sync a missing environment from a full cache, by hard links
    cold       sync a missing environment from a directory of wheels, cache empty
    network    sync a missing environment over HTTPS from an index on loopback, cache empty; and what is counted
    index      the same from the index that the machine is configured for (left out where it cannot be reached)
    bytecode   warm, with all modules compiled; and the first time, when the cache has the wheels alone
    burst      10, 50 and 200 runs at once on a missing environment, cache full; and what happened, by events
    project    50 runs at once, and launches, in a project of uv with nothing but its uv.lock
    source     launches, an edit and 50 first runs at once of a project that is built, beside `uv run`
    waiting    file operations, locks and CPU time of those who wait; and of 10,000 launches
    crowd      CPU time and calls of 500 runs of five lock files that wait for one environment (envsync only)
    wake       how late 50 waiters start once the environment is current
    wrong      20 runs at once of a lock file with a wrong hash, cache full and empty
    killed     sync again after a SIGKILL: how long it takes, and what is missing afterwards
    symlink    warm, by links to whole directories, beside uv's hard links; and the file operations
    copies     warm, with the cache on another filesystem (a tmpfs; needs root)
    clones     warm, on images of xfs and btrfs, by clones and by hard links (needs root and mkfs)
    digests    100 runs each of two lock files at once, on one environment and on one for each

Ratios are of medians; below 1, the first takes less. Cells are medians with the least and the most. `limit`
is what the work itself costs: for launch and wake the bare command, for warm mkdir and link from Python, for
cold to inflate, hash and write from Python. SET holds pylock.toml and pins.txt, WHEELS the wheels that both
name. Only `index` fetches from elsewhere. pip is slow and has to be asked for: --only envsync,uv,pip,limit.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from burst import burst
from bytecode import bytecode
from contenders import ENVSYNC, LIMIT, PIP, UV, Bench, program, version_of
from crowd import crowd
from digests import digests
from from_source import from_source
from killed import killed
from launch import launch, launches
from linking import clones, copies, symlink
from measure import MeasuringError, Row
from network import index, network
from page import publish
from project import project
from sync import cold, warm
from table import as_json, as_table
from waiting import waiting
from wake import wake
from workplace import Workplace, read_set, workplace
from wrong import wrong

BENCHMARKS: dict[str, Callable[[Bench], list[Row]]] = {
    "launch": launch,
    "launches": launches,
    "warm": warm,
    "cold": cold,
    "network": network,
    "index": index,
    "bytecode": bytecode,
    "burst": burst,
    "project": project,
    "source": from_source,
    "waiting": waiting,
    "crowd": crowd,
    "wake": wake,
    "wrong": wrong,
    "digests": digests,
    "killed": killed,
    "symlink": symlink,
    "copies": copies,
    "clones": clones,
}
CONTENDERS = (ENVSYNC, UV, PIP, LIMIT)


def main() -> int:
    arguments = parse()
    try:
        with workplace(arguments.workdir) as place:
            return report(bench_of(arguments, place), arguments.benchmarks, json=arguments.json, page=arguments.page)
    except MeasuringError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1


def bench_of(arguments: argparse.Namespace, place: Workplace) -> Bench:
    second = read_set(arguments.second_set, arguments.wheelhouse) if arguments.second_set else None
    return Bench(
        place=place,
        wheels=read_set(arguments.set, arguments.wheelhouse),
        second=second,
        chosen=tuple(name for name in CONTENDERS if name in arguments.only),
        python=base_python(),
        envsync=program(arguments.envsync) if ENVSYNC in arguments.only else "",
        uv=program(arguments.uv) if UV in arguments.only else "",
        rounds=arguments.rounds,
        time_limit=arguments.time_limit,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("benchmarks", nargs="*", metavar="BENCHMARK", help="which to run (default: all)")
    add("--set", required=True, metavar="DIR", help="directory with pylock.toml and pins.txt")
    add("--second-set", metavar="DIR", help="for digests (default: the set without a few of its packages)")
    add("--wheelhouse", required=True, metavar="DIR", help="directory with the wheels")
    add("--workdir", default=tempfile.gettempdir(), metavar="DIR", help="where to work (default: %(default)s)")
    add("--envsync", default="envsync", metavar="PATH", help="the envsync to measure (default: on PATH)")
    add("--uv", default="uv", metavar="PATH", help="the uv to measure (default: on PATH)")
    add("--only", default=f"{ENVSYNC},{UV},{LIMIT}", metavar="NAMES", help="contenders (default: %(default)s)")
    add("--rounds", type=int, metavar="N", help="how often to measure (default: as each benchmark likes)")
    add(
        "--time-limit",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="for one command (default: %(default)g)",
    )
    add("--json", action="store_true", help="print JSON with all values instead of the table")
    add("--page", action="store_true", help="write the figures and plots of docs/performance.md (needs matplotlib)")
    arguments = parser.parse_args()
    arguments.benchmarks = arguments.benchmarks or list(BENCHMARKS)
    arguments.only = arguments.only.split(",")
    for given, known in ((arguments.benchmarks, BENCHMARKS), (arguments.only, CONTENDERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)} (known: {', '.join(known)})")
    return arguments


def report(bench: Bench, names: list[str], *, json: bool, page: bool) -> int:
    """Run the benchmarks and print what they found. Returns 1 if one of them could not go on, else 0."""
    if page and importlib.util.find_spec("matplotlib") is None:
        raise MeasuringError("matplotlib is needed for --page\nhint: pip install --group benchmarks")
    begin = load_average()
    groups = {}
    for name in dict.fromkeys(names):
        before = load_average()
        rows = measured(bench, name)
        if rows is None:
            continue
        groups[name] = rows
        if page:  # at once: what comes may take an hour, and fail
            publish(about_of(bench, f"{before} before, {load_average()} after"), {name: rows})
    about = about_of(bench, f"{begin} at the start, {load_average()} at the end")
    if json:
        print(as_json(about, groups))
    else:
        print("; ".join(f"{key}: {value}" for key, value in about.items()))
        print(as_table(groups, bench.chosen))
    return int(len(groups) < len(set(names)))


def measured(bench: Bench, name: str) -> list[Row] | None:
    """Run a benchmark: if it cannot go on, that is told on stderr, and does not keep others from it."""
    start = time.monotonic()
    try:
        return BENCHMARKS[name](bench)
    except MeasuringError as error:
        print(f"compare.py: {name}: {error}", file=sys.stderr)
        return None
    finally:
        print(f"{name}: done after {time.monotonic() - start:.0f} s", file=sys.stderr)


def about_of(bench: Bench, load: str) -> dict[str, object]:
    return {
        "set": f"{bench.wheels.name} ({len(bench.wheels.wheels)} distributions)",
        "contenders": ", ".join(version_of(path) for path in (bench.envsync, bench.uv) if path),
        "python": platform.python_version(),
        "CPUs": f"{os.cpu_count()} x {processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "filesystem": filesystem_of(bench.place.directory),
        "system": platform.platform(),
        "load": load,
    }


def processor() -> str:
    """Return what the first processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = (line.partition(":")[2] for line in file if line.startswith("model name"))
            return " ".join(next(named, "unknown").split())
    except FileNotFoundError:
        return platform.processor() or platform.machine()


def filesystem_of(directory: str) -> str:
    said = subprocess.run(("df", "--output=fstype", directory), capture_output=True, text=True, check=False).stdout
    return (said.split() or ["unknown"])[-1]


def load_average() -> str:
    """Return the load of the last minute: what else the machine did falsifies times, not counts."""
    return f"{os.getloadavg()[0]:.1f}"


def base_python() -> str:
    """Return the Python to make environments of: this one, or what its own environment was made of."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


if __name__ == "__main__":
    raise SystemExit(main())
