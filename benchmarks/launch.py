"""launch, launches: a command in an environment that is current, alone and many at once.

The limit is the same command without anybody before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial

from contenders import ENVSYNC, LIMIT, UV, Bench, Envsync, Uv, package_of
from measure import Command, MeasuringError, Row, alternate, rows_of, run, run_at_once
from operations import count_all, count_operations, has_strace

WORDS = {"true": ("true",), "python -I -c pass": ("python", "-I", "-c", "pass")}


class Current:
    """One current environment for each contender that launches."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.places: dict[str, tuple[str, str]] = {}
        self.launchers: dict[str, Callable[..., Command]] = {}
        if ENVSYNC in bench.chosen:
            envsync = Envsync(bench)
            self._add(ENVSYNC, envsync.project, envsync.sync, envsync.run)
        if UV in bench.chosen:
            uv = Uv(bench)
            self._add(UV, uv.project, uv.sync, uv.run)
        if LIMIT in bench.chosen:
            self.launchers[LIMIT] = self._bare

    def _add(self, name: str, project: str, sync: Callable[[str], Command], launch: Callable[..., Command]) -> None:
        environment = os.path.join(project, ".venv")
        self.bench.prepare(sync(environment))
        self.places[name] = (project, environment)
        self.launchers[name] = partial(launch, environment)

    def _bare(self, *words: str) -> Command:
        """Start what the others become: from an environment's bin or from the system."""
        environments = [environment for _, environment in self.places.values()]
        found = shutil.which(words[0], path=os.pathsep.join([*(f"{e}/bin" for e in environments), "/usr/bin", "/bin"]))
        if found is None:
            raise MeasuringError(f"there is no `{words[0]}` to start")
        return self.bench.command(found, *words[1:], directory=self.bench.place.directory)

    def commands(self, words: Sequence[str]) -> dict[str, Command]:
        return {name: self.launchers[name](*words) for name in self.bench.chosen if name in self.launchers}


def launch(bench: Bench) -> list[Row]:
    """Time single launches, and count their file operations and system calls."""
    current = Current(bench)
    rows = []
    for name, words in WORDS.items():
        contenders = {who: partial(run, command, bench.time_limit) for who, command in current.commands(words).items()}
        outcomes = alternate(f"launch {name}", contenders, bench.rounds or 40, warm_up=3)
        rows += rows_of(f"launch {name}", outcomes, "ms")
    if not has_strace("launch: file operations"):
        return rows
    return rows + [row for name in WORDS for row in counted(current, name)]


def counted(current: Current, name: str) -> list[Row]:
    """Count file operations, flock calls and all system calls of one launch; the limit's are the command's own."""
    bench = current.bench
    places = [place for both in current.places.values() for place in both]
    counts = {
        who: count_operations(command, places, bench.place.fresh("trace"), bench.time_limit)
        for who, command in current.commands(WORDS[name]).items()
    }
    kinds = {
        "file operations in environment and project": "inside",
        "file operations anywhere": "everywhere",
        "shared flock calls": "shared",
        "exclusive flock calls": "exclusive",
    }
    rows = [
        Row(f"launch {name}: {what}", "n", {who: [getattr(count, kind)] for who, count in counts.items()})
        for what, kind in kinds.items()
    ]
    return rows + counted_all(current, name)


def counted_all(current: Current, name: str) -> list[Row]:
    """Count all system calls of one launch, and those that find and read envsync's own modules: uv is one file."""
    bench = current.bench
    package = package_of(bench) if ENVSYNC in bench.chosen else ""
    counts = {
        who: count_all(command, package if who == ENVSYNC else "", bench.place.fresh("trace"), bench.time_limit)
        for who, command in current.commands(WORDS[name]).items()
    }
    own = {ENVSYNC: [counts[ENVSYNC][1]]} if ENVSYNC in counts else {}
    return [
        Row(f"launch {name}: system calls", "n", {who: [every] for who, (every, _) in counts.items()}),
        Row(f"launch {name}: of these, for own modules", "n", own),
    ]


def launches(bench: Bench, count: int = 50) -> list[Row]:
    """Time many launches at once, until the last has ended."""
    current = Current(bench)
    rows = []
    for name, words in WORDS.items():
        contenders = {
            who: partial(run_at_once, command, count, bench.time_limit)
            for who, command in current.commands(words).items()
        }
        title = f"{count} launches {name}"
        outcomes = alternate(title, contenders, bench.rounds or 7, warm_up=1)
        for who, several in outcomes.items():
            failures = [failure for outcome in several for failure in outcome.failures]
            if failures:
                raise MeasuringError(f"{title}: {len(failures)} of {who} failed, the first with:\n{failures[0]}")
        rows += rows_of(title, outcomes, "s")
    return rows
