"""warm, cold: make one environment that is missing, from a full or an empty cache.

The limit of `warm` is mkdir and link alone, from Python in two threads. The limit of `cold` is to hash
every archive, and to inflate, hash and write every file, from Python in two threads. pip has no cache of
unpacked wheels and does the same in both.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from contenders import ENVSYNC, LIMIT, PIP, UV, Bench, Envsync, Limit, Pip, Uv
from measure import Command, Outcome, Row, alternate, rows_of, run


def warm(bench: Bench) -> list[Row]:
    """Sync from a warm cache by hard links."""
    contenders: dict[str, Callable[[], Outcome]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        contenders[ENVSYNC] = settled(bench, "envsync", envsync.sync)
    if UV in bench.chosen:
        uv = Uv(bench)
        contenders[UV] = settled(bench, "uv", uv.sync)
    if PIP in bench.chosen:
        contenders[PIP] = settled(bench, "pip", Pip(bench).install)
    if LIMIT in bench.chosen:
        limit = Limit(bench)
        store, listing = bench.place.fresh("limit-store"), bench.place.fresh("limit-listing")
        bench.prepare(limit.unpack(store))
        bench.prepare(limit.list_store(store, listing))
        contenders[LIMIT] = settled(bench, "limit", lambda path: limit.link(listing, path))
    return rows_of("warm", alternate("warm", contenders, bench.rounds or 7, warm_up=1), "s")


def cold(bench: Bench) -> list[Row]:
    """Sync from a directory of wheels with an empty cache."""
    rounds = bench.rounds or 3
    bench.place.require_space(rounds * len(bench.chosen) * bench.wheels.unpacked_size)
    contenders: dict[str, Callable[[], Outcome]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        contenders[ENVSYNC] = settled(
            bench, "envsync", lambda path: envsync.sync(path, cache=bench.place.fresh("envsync-cache"))
        )
    if UV in bench.chosen:
        uv = Uv(bench)
        contenders[UV] = settled(bench, "uv", lambda path: uv.sync_cold(path, bench.place.fresh("uv-cache")))
    if PIP in bench.chosen:
        contenders[PIP] = settled(bench, "pip", Pip(bench).install)
    if LIMIT in bench.chosen:
        contenders[LIMIT] = settled(bench, "limit", Limit(bench).unpack)
    return rows_of("cold", alternate("cold", contenders, rounds), "s")


def settled(bench: Bench, name: str, command: Callable[[str], Command]) -> Callable[[], Outcome]:
    """Return what measures a command on a path of its own, after everything written before is on the disk."""

    def once() -> Outcome:
        prepared = command(bench.place.fresh(f"{name}-environment"))
        os.sync()
        return run(prepared, bench.time_limit)

    return once
