"""wrong: many runs at once with a lock file in which one hash is wrong.

All of them have to fail, and to name both hashes. Measured is how soon the first and the last do, and counted how
often it was tried: for envsync its "failed" events, for uv the runs that found the mismatch themselves. The
environment is missing; the cache is empty, or full from a sync with the right lock file. The wrong hash is that of
the smallest wheel. uv's lock file is given the hashes that it lacks when it is made of a directory of wheels. Not
measured: wheels that come over a network.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from contenders import ENVSYNC, UV, Bench, Uv
from lockfiles import smallest, spoil_uv_lock, with_wrong_hash, wrong_hash
from measure import Outcome, Row, alternate, rows_of, run_at_once
from tasks import Contender, Tally, contenders_of, events_in, rows_of_tallies, with_events

COUNT = 20
MISMATCH = "Hash mismatch"
"""What uv says."""


def wrong(bench: Bench) -> list[Row]:
    """Time and count failures, with an empty and with a full cache."""
    caches = {}
    for who, contender in contenders_of(bench).items():
        bench.prepare(contender.sync(bench.place.fresh(f"{who}-environment")))
        caches[who] = contender.cache
    contenders = contenders_of(bench, with_wrong_hash(bench.place, bench.wheels), caches)
    for contender in contenders.values():
        if isinstance(contender, Uv):
            spoil_uv_lock(os.path.join(contender.project, "uv.lock"), bench.wheels)
    rounds = bench.rounds or 3
    bench.place.require_space(rounds * len(contenders) * bench.wheels.unpacked_size)
    return [row for cold in (False, True) for row in wrong_with(bench, contenders, rounds, cold=cold)]


def wrong_with(bench: Bench, contenders: dict[str, Contender], rounds: int, *, cold: bool) -> list[Row]:
    name = f"{COUNT} runs, wrong hash, {'empty' if cold else 'full'} cache"
    tallies = {who: Tally() for who in contenders}
    timed = {who: failing(bench, who, it, tallies[who], cold=cold) for who, it in contenders.items()}
    rows = rows_of(name, alternate(name, timed, rounds), "s")
    units = {
        "attempts": "n",
        "failed": "n",
        "failed and named both hashes": "n",
        "first failure after": "s",
        "last failure after": "s",
    }
    return rows + rows_of_tallies(name, tallies, units)


def failing(bench: Bench, who: str, contender: Contender, tally: Tally, *, cold: bool) -> Callable[[], Outcome]:
    right = smallest(bench.wheels).sha256
    hashes = (right, wrong_hash(right))

    def once() -> Outcome:
        events = bench.place.fresh("events")
        cache = bench.place.fresh(f"{who}-cache") if cold else None
        command = contender.run_and_sync(bench.place.fresh(f"{who}-environment"), "true", cache=cache)
        os.sync()
        outcome = run_at_once(with_events(command, events), COUNT, bench.time_limit)
        named = sum(all(each in failure for each in hashes) for failure in outcome.failures)
        tally.add("failed", len(outcome.failures))
        tally.add("failed and named both hashes", named)
        if who == ENVSYNC:
            tally.add("attempts", events_in(events)["failed"])
        elif who == UV:
            tally.add("attempts", sum(MISMATCH in failure for failure in outcome.failures))
        tally.add("first failure after", outcome.ends[0])
        tally.add("last failure after", outcome.ends[-1])
        return outcome

    return once
