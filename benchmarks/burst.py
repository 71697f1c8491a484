"""burst: many runs at once on an environment that is missing, with a warm cache.

Every one of them checks that it sees all distributions of the set and fails if not; afterwards the files
that the RECORDs name are looked for. There is no limit to compare with: one sync (`warm`) is the least.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, Outcome, Row, alternate, rows_of, run_at_once
from workplace import missing_files

COUNTS = (10, 50)
CHECK = """
import os, sys
site_packages = sys.prefix + "/lib/python%d.%d/site-packages" % sys.version_info[:2]
seen = sum(name.endswith(".dist-info") for name in os.listdir(site_packages))
sys.exit("sees %d distributions of COUNT" % seen if seen < COUNT else 0)
"""


@dataclass
class Jobs:
    """The runs of one contender: how to start one, and what came of them beside the times.

    :param start: makes the command for an environment and the words to run in it
    :param failed: of each round, how many runs failed
    :param missing: of each round, how many files of the environment were missing afterwards
    """

    start: Callable[..., Command]
    failed: list[float] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def burst(bench: Bench) -> list[Row]:
    """Time bursts of several sizes, and count who failed."""
    starters: dict[str, Callable[..., Command]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        bench.prepare(envsync.sync(bench.place.fresh("envsync-environment")))
        starters[ENVSYNC] = envsync.run_and_sync
    if UV in bench.chosen:
        uv = Uv(bench)
        bench.prepare(uv.sync(bench.place.fresh("uv-environment")))
        starters[UV] = uv.run_and_sync
    return [row for count in COUNTS for row in burst_of(bench, count, starters)]


def burst_of(bench: Bench, count: int, starters: dict[str, Callable[..., Command]]) -> list[Row]:
    name = f"burst of {count}"
    jobs = {who: Jobs(start) for who, start in starters.items()}
    contenders = {who: at_once(bench, who, count, several) for who, several in jobs.items()}
    rows = rows_of(name, alternate(name, contenders, bench.rounds or 5), "s")
    for who, several in jobs.items():
        if several.failures:
            print(
                f"{name}: {len(several.failures)} of {who} failed, the first with:\n{several.failures[0]}",
                file=sys.stderr,
            )
    rows.append(Row(f"{name}: failed", "n", {who: several.failed for who, several in jobs.items()}))
    rows.append(Row(f"{name}: files missing afterwards", "n", {who: several.missing for who, several in jobs.items()}))
    return rows


def at_once(bench: Bench, who: str, count: int, jobs: Jobs) -> Callable[[], Outcome]:
    check = CHECK.replace("COUNT", str(len(bench.wheels.wheels)))

    def once() -> Outcome:
        environment = bench.place.fresh(f"{who}-environment")
        command = jobs.start(environment, "python", "-I", "-c", check)
        os.sync()
        outcome = run_at_once(command, count, bench.time_limit)
        jobs.failed.append(len(outcome.failures))
        jobs.failures.extend(outcome.failures)
        jobs.missing.append(missing_files(environment))
        return outcome

    return once
