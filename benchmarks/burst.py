"""burst: many runs at once on an environment that is missing, with a full cache.

Measured are rounds in which every run looks from inside for all distributions of the set, and fails if it misses
one; afterwards the files that the RECORDs name are looked for. Counted, in rounds of their own that are not measured,
are events, and every run counts all files that it sees. Of the events, "synced" has to be 1. There is no limit to
compare with: one sync (`warm`) is the least.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from contenders import ENVSYNC, Bench
from inside import files_in, site_packages_of
from measure import Outcome, Row, alternate, rows_of, run_at_once
from tasks import (
    Contender,
    Tally,
    contenders_of,
    events_in,
    look_inside,
    rounds_of,
    rows_of_tallies,
    with_events,
)
from workplace import missing_files

ROUNDS = {10: 5, 50: 5, 200: 2}
"""How often each size is measured."""
COUNTED_ROUNDS = {10: 3, 50: 3, 200: 1}
EVENTS = ("synced", "waited", "took_over", "failed")


def burst(bench: Bench) -> list[Row]:
    """Time bursts of several sizes, and count who failed and what happened."""
    contenders = contenders_of(bench)
    files = seen_by(bench, contenders)
    return [row for count in ROUNDS for row in burst_of(bench, count, contenders, files)]


def seen_by(bench: Bench, contenders: dict[str, Contender]) -> dict[str, int]:
    """Count the files that a run sees in the environment of each contender, and fill its cache by that."""
    files = {}
    for who, contender in contenders.items():
        environment = bench.place.fresh(f"{who}-environment")
        bench.prepare(contender.sync(environment))
        files[who] = files_in(site_packages_of(environment))
    return files


def burst_of(
    bench: Bench, count: int, contenders: dict[str, Contender], files: dict[str, int], where: str = ""
) -> list[Row]:
    """Time and count bursts of one size.

    :param files: how many files each contender's runs have to see
    :param where: what the rows' names begin with
    """
    name = f"{where}burst of {count}"
    tallies = {who: Tally() for who in contenders}
    timed = {who: measured(bench, who, it, count, tallies[who]) for who, it in contenders.items()}
    rows = rows_of(name, alternate(name, timed, bench.rounds or ROUNDS[count]), "s")
    counting = [counted(bench, who, it, count, files[who], tallies[who]) for who, it in contenders.items()]
    rounds_of(counting, min(bench.rounds or COUNTED_ROUNDS[count], COUNTED_ROUNDS[count]))
    kinds = ("failed", "files missing afterwards", "runs that saw every file", *(f"{kind} events" for kind in EVENTS))
    return rows + rows_of_tallies(name, tallies, dict.fromkeys(kinds, "n"))


def measured(bench: Bench, who: str, contender: Contender, count: int, tally: Tally) -> Callable[[], Outcome]:
    words = look_inside(len(bench.wheels.wheels))

    def once() -> Outcome:
        environment = bench.place.fresh(f"{who}-environment")
        command = contender.run_and_sync(environment, *words)
        os.sync()
        outcome = run_at_once(command, count, bench.time_limit)
        tally.add_failures(outcome)
        tally.add("files missing afterwards", missing_files(environment))
        return outcome

    return once


def counted(bench: Bench, who: str, contender: Contender, count: int, files: int, tally: Tally) -> Callable[[], None]:
    words = look_inside(len(bench.wheels.wheels), files)

    def once() -> None:
        events = bench.place.fresh("events")
        command = contender.run_and_sync(bench.place.fresh(f"{who}-environment"), *words)
        outcome = run_at_once(with_events(command, events), count, bench.time_limit)
        tally.failures.extend(outcome.failures)
        tally.add("runs that saw every file", count - len(outcome.failures))
        if who == ENVSYNC:
            seen = events_in(events)
            for kind in EVENTS:
                tally.add(f"{kind} events", seen[kind])

    return once
