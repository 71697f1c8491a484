"""Strike every scenario at every change in every way, and print the table.

    python -m tests.crash.table                                  # all of it, by as many processes as there are cores
    python -m tests.crash.table --scenario upgrade --kind EIO    # part of it
    python -m tests.crash.table --sparse 5                       # every change, in every fifth way, by turns
    python -m tests.crash.table --scenario upgrade --kind EIO --at 17 -v
    python -m tests.crash.table --record FILE --markdown         # with all else that is damaged: the table of the docs

What a record has already is not struck again, so that it can be interrupted, and be made of several runs.
The exit status is 1 if any outcome is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.crash import suites
from tests.crash.grid import KINDS, Point, kinds_for, strike_all
from tests.crash.harness import Kind
from tests.crash.scenarios import BY_NAME, SCENARIOS, Scenario

FAMILIES = ("kill", "signal", "error")
HEAD = f"{'scenario':36} {'changes':>7} {'kills':>6} {'signals':>7} {'errors':>6} {'got over':>8} {'wrong':>5} {'s':>5}"
GOT_OVER, WRONG = "exit 0", "wrong"


class Row:
    """A line of the table: what came of all strikes of one scenario.

    :ivar kinds: kind → how the command ended → how often; of those with a wrong outcome, `WRONG` instead
    """

    def __init__(self, name: str, changes: int = 0, kinds: dict[str, Any] | None = None, seconds: float = 0.0) -> None:
        self.name = name
        self.changes = changes
        self.seconds = seconds
        self.kinds = {kind: Counter(outcomes) for kind, outcomes in (kinds or {}).items()}
        self.began = time.monotonic()

    def add(self, point: Point) -> None:
        """Count a point. A command that was not struck counts only if it is wrong all the same."""
        self.seconds = time.monotonic() - self.began
        outcomes = self.kinds.setdefault(point.kind, Counter())
        if point.struck:
            self.changes = max(self.changes, point.nth)
        if point.struck or point.wrong:
            outcomes[WRONG if point.wrong else point.exit] += 1

    def include(self, row: Row) -> None:
        """Add up."""
        self.changes += row.changes
        self.seconds += row.seconds
        for kind, outcomes in row.kinds.items():
            self.kinds.setdefault(kind, Counter()).update(outcomes)

    def cells(self) -> list[int]:
        """Return the changes; the strikes by family; the errors that it got over; the wrong outcomes; the seconds."""
        struck = dict.fromkeys(FAMILIES, 0)
        for kind, outcomes in self.kinds.items():
            struck[family(KINDS[kind])] += outcomes.total()
        errors = [outcomes for kind, outcomes in self.kinds.items() if family(KINDS[kind]) == "error"]
        got_over = sum(outcomes[GOT_OVER] for outcomes in errors)
        return [self.changes, *struck.values(), got_over, self.wrong, round(self.seconds)]

    @property
    def wrong(self) -> int:
        return sum(outcomes[WRONG] for outcomes in self.kinds.values())

    def as_json(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({"name": self.name, "changes": self.changes, "kinds": self.kinds, "seconds": self.seconds})

    def __str__(self) -> str:
        widths = (7, 6, 7, 6, 8, 5, 5)
        return f"{self.name:36} " + " ".join(
            f"{cell:{width}}" for cell, width in zip(self.cells(), widths, strict=True)
        )


def family(kind: Kind) -> str:
    """Return what a kind of strike is counted as."""
    return "error" if kind.errno else "kill" if kind.signal == signal.SIGKILL else "signal"


def load(record: Path) -> dict[str, Row]:
    """Read what was struck already; of a scenario that is in it twice, the last."""
    lines = record.read_text().splitlines() if record.exists() else []
    rows = [Row(**value) for value in map(json.loads, lines) if "kinds" in value]
    return {row.name: row for row in rows}


def markdown(rows: Iterable[Row]) -> str:
    """Return two tables: by scenario, and by kind."""
    rows = list(rows)
    total = Row("**all**")
    lines = ["| scenario | changes | kills | signals | errors | of these got over | wrong |", "|---|" + "---:|" * 6]
    for row in rows:
        total.include(row)
    lines += [f"| {row.name} | " + " | ".join(map(str, row.cells()[:-1])) + " |" for row in (*rows, total)]
    lines += ["", "| strike | number | succeeded | failed, and said why | ended by the signal | wrong |"]
    lines.append("|---|" + "---:|" * 5)
    for name, kind in KINDS.items():
        outcomes = total.kinds.get(name, Counter())
        succeeded, wrong = outcomes[GOT_OVER], outcomes[WRONG]
        rest = outcomes.total() - succeeded - wrong
        failed, ended = (rest, 0) if kind.errno else (0, rest)
        lines.append(f"| {name} | {outcomes.total()} | {succeeded} | {failed} | {ended} | {wrong} |")
    return "\n".join(lines)


def thinned(chosen: Sequence[Kind], nth: int, apart: int) -> list[Kind]:
    """Return every so manieth kind by turns: one at least of those that count changes, and of those in downloads.

    One at least is plain. The others may strike nothing before the end is reached: downloads do less than there
    are changes, and a full disk does not refuse each of them. Then a scenario would seem to be over.
    """
    found: list[Kind] = []
    for within in (False, True):
        kinds = [kind for kind in chosen if kind.within == within]
        step = min(apart, len(kinds)) or 1
        found += kinds[nth % step :: step]
    plain = [kind for kind in chosen if is_plain(kind)]
    if plain and not any(map(is_plain, found)):
        found.append(plain[nth % len(plain)])
    return found


def is_plain(kind: Kind) -> bool:
    """Tell whether a kind strikes every change that there is."""
    return not (kind.within or kind.alone or kind.lasting)


def strike_scenario(scenario: Scenario, root: Path, asked: argparse.Namespace) -> Row:
    """Strike one scenario and print what is wrong as it comes."""
    chosen = [kind for kind in kinds_for(scenario) if not asked.kind or kind.name in asked.kind]
    row = Row(scenario.name)

    def kinds(nth: int) -> Sequence[Kind]:
        return thinned(chosen, nth, asked.sparse) if asked.at in (None, nth) else ()

    workers = 1 if asked.at else asked.workers
    for point in strike_all(scenario, kinds, root, workers=workers, first=asked.at or 1):
        row.add(point)
        if point.wrong or asked.verbose:
            print(point, file=sys.stderr, flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", action="append", choices=list(BY_NAME), help="default: all")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--at", type=int, help="strike at this change only")
    parser.add_argument("--sparse", type=int, default=1, help="strike each change in every N-th way only, by turns")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--root", type=Path, help="where to work; default: a temporary directory")
    parser.add_argument("--record", type=Path, help="keep in this file what was tried, and go on with it")
    parser.add_argument("--markdown", action="store_true", help="try all else that is damaged, too, and print Markdown")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every point")
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("ENVSYNC_", "PYTHON", "VIRTUAL_ENV"))]:
        del os.environ[name]
    rows = load(asked.record) if asked.record else {}
    scenarios = [BY_NAME[name] for name in asked.scenario] if asked.scenario else SCENARIOS
    # With --markdown, stdout is the tables.
    telling = sys.stderr if asked.markdown else sys.stdout
    with tempfile.TemporaryDirectory(prefix="envsync-crash-", dir=asked.root and asked.root.resolve()) as root:
        print(HEAD, file=telling, flush=True)
        for scenario in scenarios:
            if scenario.name not in rows:
                rows[scenario.name] = strike_scenario(scenario, Path(root), asked)
                suites.keep(asked.record, rows[scenario.name].as_json())
            print(rows[scenario.name], file=telling, flush=True)
    chosen = [rows[scenario.name] for scenario in scenarios]
    total = Row("total")
    for row in chosen:
        total.include(row)
    print(total, file=telling)
    if not asked.markdown:
        return 1 if total.wrong else 0
    results = suites.run(asked.record)
    print(markdown(chosen))
    print()
    print(suites.markdown(results))
    return 1 if total.wrong or any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
