"""Keep the figures of docs/performance.md: the stored results, the tables that are made of them, and the plots.

    python benchmarks/compare.py --page --set SET --wheelhouse WHEELS     measure, store, and write tables and plots
    python benchmarks/page.py                                             write them again from what is stored

Benchmarks that were not measured this time keep their stored results; each has its own account of machine and load.
What is between two marks of the page is written here, all the rest by hand.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from contenders import ENVSYNC, LIMIT, PIP, UV
from measure import Row
from table import cell_of, ratios_of

DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")
PAGE, RESULTS, PLOTS = (os.path.join(DOCS, name) for name in ("performance.md", "performance.json", "plots"))
MARKED = re.compile(r"(<!-- made of the results: (?P<name>\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
SUMMARY, MACHINE = "summary", "machine"
RATIO = f"{ENVSYNC}/{UV}"
GOALS: Sequence[tuple[str, str, str, float | None]] = (
    ("launch", "launch true: wall", "launch of a command in a current environment", 0.5),
    ("launches", "50 launches true: wall", "50 launches at once", None),
    ("warm", "warm: wall", "first sync, cache full, hard links", 0.75),
    ("bytecode", "bytecode: wall", "the same with bytecode", None),
    ("symlink", "symlink: wall", "by links to directories, beside uv's hard links", 0.35),
    ("cold", "cold: wall", "first sync, cache empty, from wheels in a directory", 0.8),
    ("network", "network: wall", "first sync, cache empty, over HTTPS on loopback", 1.5),
    ("index", "index: wall", "first sync, cache empty, from a real index", 1.5),
    ("burst", "burst of 50: wall", "50 runs at once, environment missing, cache full", None),
)
"""What the summary shows: benchmark, row, in words, and the ratio that was asked for."""

Results = dict[str, Any]


def publish(about: Mapping[str, object], groups: Mapping[str, Sequence[Row]]) -> None:
    """Store results, and write the page's tables and plots anew."""
    write(RESULTS, as_text(merged(read(), about, groups)))
    write_page()


def write_page() -> None:
    """Write the tables into the page, and the plots beside it."""
    from plots import draw

    results = read()
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    write(PAGE, with_tables(text, results))
    draw({name: rows_of(result) for name, result in results.items()}, PLOTS)


def read() -> Results:
    """Return the stored results by benchmark; none if there is no file."""
    return load(RESULTS)


def load(path: str) -> Results:
    """Return the results in a file; none if there is no file."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        results: Results = json.load(file)
    return results


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def merged(stored: Results, about: Mapping[str, object], groups: Mapping[str, Sequence[Row]]) -> Results:
    """Put results in the place of older ones of the same benchmarks."""
    fresh = {
        name: {
            "about": dict(about),
            "rows": [{"name": row.name, "unit": row.unit, "values": rounded(row)} for row in rows],
        }
        for name, rows in groups.items()
    }
    return {**stored, **fresh}


def rounded(row: Row) -> dict[str, list[float]]:
    """Keep six digits of each value: more than any clock here is worth."""
    return {who: [float(f"{value:.6g}") for value in values] for who, values in row.values.items()}


def as_text(results: Results) -> str:
    """Write results as JSON with a line for each row, so that one sees what changed."""
    lines = []
    for name, result in results.items():
        rows = ",\n".join(f"  {json.dumps(row)}" for row in result["rows"])
        about = json.dumps(result["about"])
        lines.append(f'{json.dumps(name)}: {{\n "about": {about},\n "rows": [\n{rows}\n ]}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    return [Row(**row) for row in result["rows"]]


def with_tables(text: str, results: Results) -> str:
    """Return the page with what is between its marks made of these results."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{section(mark['name'], results)}\n{mark[3]}", text)


def section(name: str, results: Results) -> str:
    if name == SUMMARY:
        return summary(results)
    if name == MACHINE:
        return machine(results)
    rows = rows_of(results[name]) if name in results else []
    if not rows:
        return "Not measured: it could not run on that machine.\n"
    load = results[name]["about"].get("load", "not known")
    plotted = f"![{name}: medians, from the least to the most](plots/{name}.svg)"
    rounds = max(len(values) for row in rows for values in row.values.values())
    return f"{plotted}\n\n{table(rows)}\nRounds: {rounds}. Load of the machine: {load}.\n"


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as a table: the ratio of medians, then median and range of each contender."""
    contenders = [who for who in (ENVSYNC, UV, PIP, LIMIT) if any(who in row.values for row in rows)]
    cells = ([row.name, ratio_of(row), *(cell_of(row, who) for who in contenders)] for row in rows)
    return as_markdown([["", "ratio", *contenders], *cells])


def summary(results: Results) -> str:
    """Say of the main figures whether they are what was asked for."""
    lines = [["", "ratio", ENVSYNC, UV, "asked for", "reached"]]
    for benchmark, name, words, goal in GOALS:
        row = next((row for row in rows_of(results.get(benchmark, {"rows": []})) if row.name == name), None)
        if row is None:
            lines.append(
                [words, *["not measured"] * 3, f"{goal:g}" if goal else "", "" if goal is None else "not known"]
            )
            continue
        ratio = ratios_of(row).get(RATIO)
        reached = "" if goal is None or ratio is None else "yes" if ratio <= goal else "**no**"
        cells = (cell_of(row, ENVSYNC), cell_of(row, UV))
        lines.append([words, ratio_of(row), *cells, f"{goal:g}" if goal else "", reached])
    return as_markdown(lines)


def ratio_of(row: Row) -> str:
    ratio = ratios_of(row).get(RATIO)
    return "" if ratio is None else f"{ratio:.2f}"


def machine(results: Results) -> str:
    """Name each machine and state of software that results are of, and which are."""
    described: dict[str, list[str]] = {}
    for name, result in results.items():
        about = "; ".join(f"{key}: {value}" for key, value in result["about"].items() if key != "load")
        described.setdefault(about, []).append(name)
    if len(described) == 1:
        return "".join(f"- {item}\n" for item in next(iter(described)).split("; "))
    return "".join(f"- {', '.join(names)}: {about}\n" for about, names in described.items())


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
    return "\n".join((head, "|---" * len(lines[0]) + "|", *rest)) + "\n"


if __name__ == "__main__":
    write_page()
