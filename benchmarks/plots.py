"""Draw one plot for each benchmark: a bar for each contender, its median, and a whisker from the least to the most.

Every row has a scale of its own, from zero to the most of it, for rows differ by orders of magnitude; the numbers are
at the bars. Colours and texts can be read on white and on black. The same results give the same bytes, with the same
matplotlib. Rows that compare nothing are left out, unless there are no others: the tables have them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from contenders import ENVSYNC, LIMIT, PIP, UV
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import Row
from table import cell_of, compared

COLOURS = {ENVSYNC: "#3b82f6", UV: "#d97706", PIP: "#a855f7", LIMIT: "#8b949e"}
TEXT = "#7d8590"
SETTINGS = {
    "svg.fonttype": "none",  # texts stay texts: smaller, and whoever looks for one finds it
    "svg.hashsalt": "envsync",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": TEXT,
    "text.parse_math": False,
}
WIDTH, LINE = 8.0, 0.19
"""Inches: of a plot, and of a line in it."""
NAMES, NUMBERS = 0.16, 0.6
"""How much room there is for the names before the bars and for the numbers after them, in bars."""


def draw(groups: Mapping[str, Sequence[Row]], directory: str) -> None:
    """Write one SVG file for each benchmark that has rows, and remove those of others."""
    os.makedirs(directory, exist_ok=True)
    plotted = {f"{name}.svg": compared(rows) for name, rows in groups.items() if rows}
    for name in os.listdir(directory):
        if name.endswith(".svg") and name not in plotted:
            os.unlink(os.path.join(directory, name))
    for name, rows in plotted.items():
        plot(rows, os.path.join(directory, name))


def plot(rows: Sequence[Row], path: str) -> None:
    """Draw rows below one another, each with its name above its bars."""
    lines = sum(len(row.values) + 1.5 for row in rows)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, LINE * lines))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-NAMES, 1 + NUMBERS)
        axes.set_ylim(lines, 0)
        line = 0.0
        for row in rows:
            axes.text(-NAMES + 0.01, line + 0.6, row.name, va="center", weight="bold")
            line = draw_row(axes, row, line + 1.5) + 0.5
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def draw_row(axes: Axes, row: Row, line: float) -> float:
    """Draw the bars of a row. Returns the line after them."""
    most = max(max(values) for values in row.values.values()) or 1.0
    for contender in filter(row.values.__contains__, COLOURS):
        values = [value / most for value in row.values[contender]]
        median = (row.median(contender) or 0.0) / most
        axes.barh(line, median, height=0.8, color=COLOURS[contender])
        if min(values) < max(values):
            spread = [[median - min(values)], [max(values) - median]]
            axes.errorbar(median, line, xerr=spread, color=TEXT, capsize=2, elinewidth=1)
        axes.text(-NAMES + 0.02, line, contender, va="center")
        axes.text(max(values) + 0.015, line, cell_of(row, contender), va="center")
        line += 1
    return line - 0.5
