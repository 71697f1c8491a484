"""Many runs at once: what each of them checks from inside, and what is counted of them.

Events are counted from the file that ENVSYNC_EVENTS names. uv has none.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import inside
from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, Outcome, Row
from workplace import Wheels

SCRIPT = os.path.abspath(inside.__file__)
Contender = Envsync | Uv


@dataclass
class Tally:
    """What came of the rounds of one contender, beside the times: for each figure, a value for each round."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

    def add_failures(self, outcome: Outcome) -> None:
        self.add("failed", len(outcome.failures))
        self.failures.extend(outcome.failures)


def contenders_of(
    bench: Bench, wheels: Wheels | None = None, caches: dict[str, str] | None = None
) -> dict[str, Contender]:
    """Make those of envsync and uv that are compared, each with a project of its own.

    :param wheels: what they install; default: the set
    :param caches: by contender; default: each has one of its own, that is empty
    """
    made: dict[str, Contender] = {}
    caches = caches or {}
    if ENVSYNC in bench.chosen:
        made[ENVSYNC] = Envsync(bench, wheels, caches.get(ENVSYNC))
    if UV in bench.chosen:
        made[UV] = Uv(bench, wheels, caches.get(UV))
    return made


def look_inside(*numbers: int) -> tuple[str, ...]:
    """Return the words of a command that checks how much of its environment it sees (see inside.py)."""
    return ("python", "-I", SCRIPT, *map(str, numbers))


def with_events(command: Command, events: str) -> Command:
    """Let a command append its events to a file."""
    return replace(command, variables={**command.variables, "ENVSYNC_EVENTS": events})


def events_in(path: str) -> Counter[str]:
    """Count the events in a file, by name; none if nobody wrote it."""
    if not os.path.exists(path):
        return Counter()
    with open(path, encoding="utf-8") as lines:
        return Counter(json.loads(line)["event"] for line in lines)


def rows_of_tallies(name: str, tallies: dict[str, Tally], units: dict[str, str]) -> list[Row]:
    """Make a row for each figure, and say on stderr how the first of the failing runs failed.

    :param units: by figure, in the order of the rows
    """
    for who, tally in tallies.items():
        if tally.failures:
            first = tally.failures[0]
            print(f"{name}: {len(tally.failures)} of {who} failed, the first with:\n{first}", file=sys.stderr)
    return [
        Row(
            f"{name}: {what}",
            unit,
            {who: tally.figures[what] for who, tally in tallies.items() if what in tally.figures},
        )
        for what, unit in units.items()
    ]


def rounds_of(contenders: Sequence[Callable[[], None]], rounds: int) -> None:
    """Let contenders take turns whose times are not compared."""
    for _ in range(rounds):
        for once in contenders:
            once()
