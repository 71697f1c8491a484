"""bytecode: sync a missing environment with its bytecode, from a cache that has all, and from one that has the wheels.

uv compiles in the environment, every time. envsync compiles in its cache, the first time, and links ever after.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, MeasuringError, Outcome, Row, alternate, rows_of, run

VALID = os.path.join(os.path.dirname(os.path.abspath(__file__)), "valid.py")


def bytecode(bench: Bench) -> list[Row]:
    """Sync from a warm cache with bytecode; then with wheels alone in the cache."""
    rounds = bench.rounds or 5
    bench.place.require_space(rounds * bench.wheels.unpacked_size)
    warm: dict[str, Callable[[], Outcome]] = {}
    first: dict[str, Callable[[], Outcome]] = {}
    if ENVSYNC in bench.chosen:
        envsync = Envsync(bench)
        bench.prepare(envsync.sync(bench.place.fresh("envsync-environment")))
        first[ENVSYNC] = checked(
            bench, "envsync", lambda path: envsync.sync(path, compiled=True), without=envsync.cache
        )
        warm[ENVSYNC] = checked(bench, "envsync", lambda path: envsync.sync(path, compiled=True))
    if UV in bench.chosen:
        uv = Uv(bench)
        bench.prepare(uv.sync(bench.place.fresh("uv-environment")))
        first[UV] = checked(bench, "uv", lambda path: uv.sync(path, compiled=True))
        warm[UV] = checked(bench, "uv", lambda path: uv.sync(path, compiled=True))
    rows = rows_of("first", alternate("bytecode, first", first, min(rounds, 3)), "s")
    return rows + rows_of("bytecode", alternate("bytecode", warm, rounds), "s")


def checked(
    bench: Bench, name: str, command: Callable[[str], Command], *, without: str | None = None
) -> Callable[[], Outcome]:
    """Return what measures a sync into a path of its own, and then looks whether all bytecode is valid.

    :param without: a cache whose bytecode is put aside before
    """

    def once() -> Outcome:
        path = bench.place.fresh(f"{name}-environment")
        if without is not None and os.path.exists(f"{without}/v1/bytecode"):
            os.rename(f"{without}/v1/bytecode", bench.place.fresh("bytecode"))
        prepared = command(path)
        os.sync()
        outcome = run(prepared, bench.time_limit)
        words = [f"{path}/bin/python", "-I", "-B", VALID]
        seen = subprocess.run(words, capture_output=True, text=True, check=False)
        if seen.returncode:
            raise MeasuringError(f"{name} leaves modules without valid bytecode:\n{seen.stderr}")
        return outcome

    return once
