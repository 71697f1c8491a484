"""Print rows as one table, ratios first, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice

from contenders import ENVSYNC, LIMIT, PIP, UV
from measure import Row

RATIOS = ((ENVSYNC, UV), (ENVSYNC, PIP), (ENVSYNC, LIMIT), (UV, LIMIT))
DIGITS = {"ms": ".1f", "s": ".3f", "n": ",.0f", "MB": ",.1f", "1/s": ",.1f", "ms/s": ".2f"}
"""By unit; "n" is a plain number."""


def ratios_of(row: Row) -> dict[str, float]:
    """Divide medians: below 1, the first of the two takes less. Left out where one is missing or zero."""
    ratios = {}
    for one, other in RATIOS:
        mine, others = row.median(one), row.median(other)
        if mine is not None and others:
            ratios[f"{one}/{other}"] = mine / others
    return ratios


def cell_of(row: Row, contender: str) -> str:
    median = row.median(contender)
    if median is None:
        return "-"
    digits = DIGITS[row.unit]
    unit = "" if row.unit == "n" else f" {row.unit}"
    least, most = min(row.values[contender]), max(row.values[contender])
    spread = f" ({least:{digits}}-{most:{digits}})" if least != most else ""
    return f"{median:{digits}}{unit}{spread}"


def compared(rows: Sequence[Row]) -> list[Row]:
    """Choose what is plotted: rows that compare several, of which one at least did something."""
    some = [row for row in rows if any(any(values) for values in row.values.values())]
    return [row for row in some if len(row.values) > 1] or some or list(rows)


def as_table(groups: Mapping[str, Sequence[Row]], contenders: Sequence[str]) -> str:
    """Lay the rows out, a line each, below the name of their benchmark.

    A line has ratios of medians, then median and range for each contender.
    """
    rows = [row for group in groups.values() for row in group]
    ratios = [ratios_of(row) for row in rows]
    shown = [name for one, other in RATIOS if any((name := f"{one}/{other}") in some for some in ratios)]
    lines = [["", *shown, *contenders]]
    for row, some in zip(rows, ratios, strict=True):
        numbers = [f"{some[name]:.2f}" if name in some else "-" for name in shown]
        lines.append([f"  {row.name}", *numbers, *(cell_of(row, contender) for contender in contenders)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    head, *texts = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    remaining = iter(texts)
    grouped = [text for name, group in groups.items() for text in (name, *islice(remaining, len(group)))]
    return "\n".join((head, *grouped))


def as_json(about: Mapping[str, object], groups: Mapping[str, Sequence[Row]]) -> str:
    described = [
        {
            "benchmark": name,
            "name": row.name,
            "unit": row.unit,
            "ratios": ratios_of(row),
            "medians": {contender: row.median(contender) for contender in row.values},
            "values": {contender: list(values) for contender, values in row.values.items()},
        }
        for name, group in groups.items()
        for row in group
    ]
    return json.dumps({"about": about, "rows": described}, indent=2)
