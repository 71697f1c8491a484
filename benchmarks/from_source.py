"""source: a project that is installed from its sources, as an editable, beside a directory that is built.

All contenders have a copy of the same two projects and a uv.lock; the backend stands in the tree, so nothing but
Python's start and the tools' own work is measured. `uv run` is measured as it is typed, and with `--frozen`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import partial

from contenders import ENVSYNC, UV, Bench
from measure import Command, MeasuringError, Outcome, Row, alternate, rows_of, run, run_at_once
from operations import count_operations, has_strace

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

COUNT = 50
FROZEN = "uv --frozen"
"""A contender beside those of the table: its figures are in rows of their own, with this in the name."""
WORDS = ("python", "-I", "-c", "pass")
LOCK = """\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "app"
version = "1.0"
source = {{ editable = "." }}
dependencies = [{{ name = "lib" }}]

[package.metadata]
requires-dist = [{{ name = "lib", directory = "{lib}" }}]

[[package]]
name = "lib"
version = "1.0"
source = {{ directory = "{lib}" }}
"""
SOURCES = '[tool.uv.sources]\nlib = {{ path = "{lib}" }}\n'


class Packaged:
    """A packaged project and the directory that it depends on, for one contender.

    :param flags: of `run`, besides what is needed
    """

    def __init__(self, bench: Bench, who: str, *flags: str) -> None:
        from tests.projects import make_project

        self.bench = bench
        self.who = who
        self.flags = flags
        place = bench.place.fresh_directory(who.replace(" ", ""))
        self.place, self.project, self.log = place, f"{place}/app", f"{place}/log"
        lib = "../lib"
        make_project(f"{place}/lib", "lib", log=self.log)
        sources = SOURCES.format(lib=lib)
        make_project(
            self.project, "app", log=self.log, requires=["lib"], scripts={"app": "app:main"}, pyproject=sources
        )
        with open(f"{self.project}/uv.lock", "w", encoding="utf-8") as file:
            file.write(LOCK.format(lib=lib))
        with open(f"{self.project}/src/app/__init__.py", "a", encoding="utf-8") as file:
            file.write("\n\ndef main() -> None:\n    pass\n")

    def run(self, *words: str) -> Command:
        """Return what starts a command with this contender's cache and environment."""
        if self.who == ENVSYNC:
            variables = {"ENVSYNC_CACHE_DIR": f"{self.place}/cache"}
            line = (self.bench.envsync, "run", "--python", self.bench.python, "--", *words)
            return self.bench.command(*line, directory=self.project, **variables)
        variables = {"UV_CACHE_DIR": f"{self.place}/cache", "UV_OFFLINE": "1", "UV_PYTHON": self.bench.python}
        return self.bench.command(self.bench.uv, "run", *self.flags, *words, directory=self.project, **variables)

    def builds(self) -> int:
        """Count the builds so far."""
        with open(self.log, encoding="utf-8") as lines:
            return sum(json.loads(line)["hook"].startswith("build_") for line in lines)

    def edit(self, number: int) -> None:
        """Add an entry point."""
        path = f"{self.project}/pyproject.toml"
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace('app = "app:main"\n', f'app = "app:main"\nmore{number} = "app:main"\n', 1))


def packaged(bench: Bench) -> dict[str, Packaged]:
    made = {}
    if ENVSYNC in bench.chosen:
        made[ENVSYNC] = Packaged(bench, ENVSYNC)
    if UV in bench.chosen:
        made[UV] = Packaged(bench, UV)
        made[FROZEN] = Packaged(bench, FROZEN, "--frozen")
    return made


def from_source(bench: Bench) -> list[Row]:
    """Time and count launches, an edit of the entry points, and many first runs at once."""
    contenders = packaged(bench)
    for each in contenders.values():
        bench.prepare(each.run(*WORDS))
    rows = launches(bench, contenders)
    edits = {who: partial(edited, each, bench) for who, each in contenders.items()}
    rows += shown(rows_of("source: a new entry point, then run", alternate("edits", edits, bench.rounds or 5), "ms"))
    return rows + at_once(bench)


def launches(bench: Bench, contenders: Mapping[str, Packaged]) -> list[Row]:
    timed = {who: partial(run, each.run(*WORDS), bench.time_limit) for who, each in contenders.items()}
    outcomes = alternate("source: launch", timed, bench.rounds or 40, warm_up=3)
    rows = shown(rows_of("source: launch", outcomes, "ms"))
    if has_strace("source: file operations"):
        counts = {}
        for who, each in contenders.items():
            trace = bench.place.fresh("trace")
            counts[who] = [count_operations(each.run(*WORDS), [each.place], trace, bench.time_limit).inside]
        rows += shown([Row("source: file operations of a launch in trees and environment", "n", counts)])
    return rows


def edited(contender: Packaged, bench: Bench) -> Outcome:
    """Edit pyproject.toml, and time what runs next: it has to build the links again."""
    before = contender.builds()
    contender.edit(before)
    outcome = run(contender.run(f"more{before}"), bench.time_limit)
    if contender.builds() != before + 1:
        raise MeasuringError(f"{contender.who} has built {contender.builds() - before} for one edit")
    return outcome


def at_once(bench: Bench) -> list[Row]:
    """Start many with nothing cached, and count the builds."""
    title = f"source: {COUNT} at once, nothing cached"
    outcomes: dict[str, list[Outcome]] = {}
    builds: dict[str, list[float]] = {}
    for _ in range(bench.rounds or 3):
        for who, each in packaged(bench).items():
            outcomes.setdefault(who, []).append(run_at_once(each.run(*WORDS), COUNT, bench.time_limit))
            builds.setdefault(who, []).append(each.builds())
    failed = {who: [float(len(outcome.failures)) for outcome in several] for who, several in outcomes.items()}
    counted = [Row(f"{title}: builds", "n", builds), Row(f"{title}: failed", "n", failed)]
    return shown([*rows_of(title, outcomes, "s"), *counted])


def shown(rows: list[Row]) -> list[Row]:
    """Give what is measured of `uv run --frozen` rows of its own, beside envsync again."""
    found = []
    for row in rows:
        found.append(Row(row.name, row.unit, {who: values for who, values in row.values.items() if who != FROZEN}))
        if FROZEN in row.values:
            values = {ENVSYNC: row.values.get(ENVSYNC, ()), UV: row.values[FROZEN]}
            found.append(Row(f"{row.name} (uv with --frozen)", row.unit, {who: v for who, v in values.items() if v}))
    return found
