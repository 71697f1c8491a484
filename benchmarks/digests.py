"""digests: tasks of two lock files at once on one environment, and on an environment for each.

Every run looks from inside for exactly the distributions of its own lock file and fails if it sees others. With one
environment, envsync lets the one request's runs end before it changes the environment for the other; uv changes it
beneath them. With an environment for each (`--env DIR/{digest}`, for uv two directories) nobody is in anybody's way.
The cache is full. All events are written, which costs each run a few milliseconds.

Without --python, envsync names an environment by its digest on the fast lane, if it runs on the Python that the lock
files are for; then nobody gives that option, and neither does this. With it, every run has to look at that Python
first: that is measured, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from contenders import ENVSYNC, PYTHON_OPTION, Bench
from lockfiles import without_a_few
from measure import Command, Outcome, Row, alternate, rows_of, run_all_at_once
from tasks import Contender, Tally, contenders_of, events_in, look_inside, rows_of_tallies, with_events

COUNT = 100
"""Runs of each lock file."""
ONE, EACH = "one environment", "an environment for each"
EACH_WITH_PYTHON = f"{EACH}, --python given"
EVENTS = ("synced", "waited", "took_over", "failed")


def digests(bench: Bench) -> list[Row]:
    """Time and count runs of two lock files."""
    first = contenders_of(bench)
    second = contenders_of(
        bench,
        bench.second or without_a_few(bench.place, bench.wheels),
        {who: contender.cache for who, contender in first.items()},
    )
    both = {who: (first[who], second[who]) for who in first}
    for who, pair in both.items():
        for contender in pair:
            bench.prepare(contender.sync(bench.place.fresh(f"{who}-environment")))
    only_envsync = {who: pair for who, pair in both.items() if who == ENVSYNC}
    rows = digests_on(bench, ONE, both) + digests_on(bench, EACH, both)
    return rows + digests_on(bench, EACH_WITH_PYTHON, only_envsync) if only_envsync else rows


def digests_on(bench: Bench, how: str, both: dict[str, tuple[Contender, Contender]]) -> list[Row]:
    name = f"2 x {COUNT} runs, {how}"
    tallies = {who: Tally() for who in both}
    timed = {who: at_once(bench, who, pair, tallies[who], how) for who, pair in both.items()}
    rows = rows_of(name, alternate(name, timed, bench.rounds or 2), "s")
    kinds = ("failed", *(f"{kind} events" for kind in EVENTS))
    return rows + rows_of_tallies(name, tallies, dict.fromkeys(kinds, "n"))


def at_once(bench: Bench, who: str, pair: tuple[Contender, Contender], tally: Tally, how: str) -> Callable[[], Outcome]:
    def once() -> Outcome:
        events = bench.place.fresh("events")
        parent = bench.place.fresh_directory(f"{who}-environments")
        commands = [with_events(command, events) for command in commands_of(who, pair, parent, how)]
        os.sync()
        outcome = run_all_at_once(commands * COUNT, bench.time_limit)
        tally.add_failures(outcome)
        if who == ENVSYNC:
            seen = events_in(events)
            for kind in EVENTS:
                tally.add(f"{kind} events", seen[kind])
        return outcome

    return once


def commands_of(who: str, pair: tuple[Contender, Contender], parent: str, how: str) -> list[Command]:
    """Return one command for each lock file."""
    commands = []
    for number, contender in enumerate(pair):
        name = "one" if how == ONE else "{digest}" if who == ENVSYNC else str(number)
        words = look_inside(len(contender.wheels.wheels))
        command = contender.run_and_sync(f"{parent}/{name}", *words)
        commands.append(without_python(command) if how == EACH else command)
    return commands


def without_python(command: Command) -> Command:
    """Leave it to envsync which Python it takes."""
    variables = {name: value for name, value in command.variables.items() if name != PYTHON_OPTION}
    return replace(command, variables=variables)
