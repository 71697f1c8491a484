"""Keep the figures of docs/scale.md: the stored results, the tables that are made of them, and the plots.

    python benchmarks/scale_page.py        write tables and plots again from what is stored

What is between two marks of the page is written here, all the rest by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from page import DOCS, MARKED, Results, as_markdown, load, write

PAGE, RESULTS, PLOTS = (os.path.join(DOCS, *name) for name in (("scale.md",), ("scale.json",), ("plots", "scale")))
WORDS = {
    "shared": "one shared environment",
    "digest": "`{digest}`, ten shared environments",
    "cache": "one on each node, from a shared cache",
    "bundle": "one on each node, from a bundle",
    "uv": "`uv run --frozen`, one shared environment",
}
STEPS = {
    "launch": "launch, environment current",
    "launch here": "launch, environment on the node's own disk, lock file in a bundle",
    "begin": "launch until it waits",
    "look": "one look of a waiter",
    "enter": "enter after a wait",
    "cold": "lead, environment missing, cache full",
    "stale": "lead, one package is new",
    "from cache": "lead on the node's own disk, from a shared cache",
    "from cache, stale": "the same, one package is new",
    "from bundle": "lead on the node's own disk, from a bundle",
    "from bundle, stale": "the same, one package is new",
    "uv before": "`uv run --frozen`, current: before the lock of the environment",
    "uv held": "with it",
    "uv after": "after it",
    "uv cold": "`uv run --frozen`, environment missing, cache full",
    "uv stale": "`uv run --frozen`, one package is missing",
}
COLOURS = {"shared": "#3b82f6", "digest": "#22c55e", "cache": "#a855f7", "bundle": "#0891b2", "uv": "#d97706"}
STATES = ("cold", "stale", "current")
TEXT = "#7d8590"


def write_page() -> None:
    """Write the tables into the page, and the plots beside it."""
    results = read()
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    write(PAGE, with_tables(text, results))
    draw(results, PLOTS)


def read() -> Results:
    """Return what is stored; nothing if there is no file."""
    return load(RESULTS)


def store(found: Results) -> None:
    """Put results in the place of older ones of the same parts."""
    write(RESULTS, as_text({**read(), **found}))


def as_text(results: Results) -> str:
    """Write results as JSON with a line for each of the innermost parts, so that one sees what changed."""
    return laid_out(results, 0) + "\n"


def laid_out(value: Any, depth: int) -> str:
    is_inner = depth >= 4 or not isinstance(value, (dict, list)) or not any(map(is_nested, values_of(value)))
    if is_inner:
        return json.dumps(value)
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {laid_out(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{' ' * depth}}}"
    return "[\n" + ",\n".join(f"{pad}{json.dumps(item)}" for item in value) + f"\n{' ' * depth}]"


def values_of(value: dict[str, Any] | list[Any]) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def with_tables(text: str, results: Results) -> str:
    """Return the page with what is between its marks made of these results."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{section(mark['name'], results)}\n{mark[3]}", text)


def section(name: str, results: Results) -> str:
    part, make = SECTIONS[name]
    return make(results) if part in results else "Not measured yet.\n"


# What is between the marks


def machine(results: Results) -> str:
    tried = results["tried"]["about"]
    about = results.get("counted", results)["set" if "counted" in results else "tried"]["about"]
    lines = [f"- {key}: {value}" for key, value in about.items() if key not in ("load", "filesystem")]
    return "\n".join([*lines, f"- real tasks: {tried['set']}; load: {tried['load']}"]) + "\n"


def counted(results: Results) -> str:
    steps = results["counted"]["set"]["steps"]
    lines = [["", "calls", "of these, changes", "locks", "requests", "again", "CPU", "bytes read"]]
    for name, words in STEPS.items():
        step = steps[name]
        calls, requests, again = step["calls"], step["requests"], step.get("again")
        lines.append(
            [
                words,
                number(total(calls)),
                number(calls["changes"]),
                number(calls["locks"]),
                number(total(requests)),
                number(total(again)) if again else "",
                f"{requests['cpu']:.2f} s" if requests["cpu"] else "",
                size_of(requests["size"]),
            ]
        )
    return as_markdown(lines)


def server(results: Results) -> str:
    served = results["served"]
    lines = [["", "one at a time", *(f"{count} at once" for count in list(served["rows"]["look"])[1:]), "taken as"]]
    words = {"look": "look (open, close)", "change": "change (create)", "lock": "open, flock, close"}
    for kind, row in served["rows"].items():
        (latency, rate), *others = row.values()
        cells = [f"{rate:,.0f} /s, {latency * 1e6:,.0f} µs", *(f"{many:,.0f} /s" for _, many in others)]
        lines.append([words[kind], *cells, f"{served['server'][kind] * 1e6:,.0f} µs"])
    way, rate = served["server"]["latency"], served["server"]["rate"]
    return as_markdown(lines) + (
        f"\nFilesystem: `{served['filesystem']}`. The way there and back: {way * 1e6:,.0f} µs. "
        f"One file is read at {rate / 1e6:,.0f} MB/s.\n"
    )


def fit(results: Results) -> str:
    lines = [["", "delay", "tasks", "real", "computed", "computed / real"]]
    for row in results["fit"]:
        least, most = min(row["seconds"]), max(row["seconds"])
        lines.append(
            [
                row["what"],
                f"+{row['delay']} ms",
                str(row["tasks"]),
                f"{row['real']:.2f} s ({least:.2f}-{most:.2f})",
                f"{row['computed']:.2f} s",
                f"{row['computed'] / row['real']:.2f}",
            ]
        )
    latencies = ", ".join(f"{float(ms):g} ms: {seconds * 1e3:.2f} ms" for ms, seconds in latencies_of(results))
    plotted = "![real and computed](plots/scale/fit.svg)"
    return f"{plotted}\n\n{as_markdown(lines)}\nOne request took, with a delay of {latencies}.\n"


def latencies_of(results: Results) -> list[tuple[str, float]]:
    return list(results["tried"]["latencies"].items())


def state(results: Results, name: str) -> str:
    head = ["", "requests", "syncs", "last sync ended", "half has started", "last start"]
    lines = [head]
    for placement, row in rows_of(results, name):
        words = WORDS[placement]
        lines.append(
            [
                words,
                number(row["requests"]),
                number(row["syncs"]),
                while_of(row["synced"]) if row["syncs"] else "",
                while_of(row["half"]),
                while_of(row["last"]),
            ]
        )
    if len(lines) == 1:
        return "Not computed yet.\n"
    return f"![requests sent a second, {name}](plots/scale/{name}.svg)\n\n{as_markdown(lines)}"


def waits(results: Results) -> str:
    """Say what waiters did who had to wait for somebody on another node."""
    lines = [["", "", "looks of waiters", "of these, the poller was not heard of", "took the lock too late to sync"]]
    for name in ("cold", "stale"):
        for placement, row in rows_of(results, name):
            if placement in ("shared", "digest"):
                lines.append([name, WORDS[placement], *(number(row[key]) for key in ("looks", "alone", "late"))])
    return as_markdown(lines)


SECTIONS: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    "machine": ("tried", machine),
    "counted": ("counted", counted),
    "server": ("served", server),
    "fit": ("fit", fit),
    "cold": ("computed", lambda results: state(results, "cold")),
    "stale": ("computed", lambda results: state(results, "stale")),
    "current": ("computed", lambda results: state(results, "current")),
    "waits": ("computed", waits),
}
"""By mark: which part has to be stored, and what is made of it."""


def rows_of(results: Results, state: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the cases of a state that are computed, each with its placement."""
    return [(row["placement"], row) for row in results["computed"] if row["state"] == state]


def total(work: Mapping[str, float]) -> float:
    return work["looks"] + work["changes"] + work["locks"]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def size_of(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.0f} kB"


def while_of(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


# Plots


def draw(results: Results, directory: str) -> None:
    """Write the plots. The same results give the same bytes, with the same matplotlib."""
    import matplotlib as mpl
    from plots import SETTINGS

    os.makedirs(directory, exist_ok=True)
    with mpl.rc_context(SETTINGS):
        if "fit" in results:
            draw_fit(results["fit"], os.path.join(directory, "fit.svg"))
        if "computed" in results:
            for name in filter(partial(rows_of, results), STATES):
                draw_state(results, name, os.path.join(directory, f"{name}.svg"))


def draw_state(results: Results, name: str, path: str) -> None:
    """Draw how many requests a second were sent, and when the last command started."""
    figure, axes = new_figure("seconds", "requests sent a second")
    for placement, row in rows_of(results, name):
        times = [(at + 0.5) * row["width"] for at in range(len(row["rates"]))]
        axes.plot(times, row["rates"], color=COLOURS[placement], label=WORDS[placement].replace("`", ""), linewidth=1.2)
        axes.plot([row["last"]], [10], "o", color=COLOURS[placement], markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=10)
    finish(figure, axes, path)


def draw_fit(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Draw for each case how long it really took, and how long by computation."""
    figure, axes = new_figure("real: seconds until the last command has started", "computed")
    cases = dict.fromkeys((row["what"], row["delay"]) for row in rows)
    colours = dict(zip(dict.fromkeys(what for what, _ in cases), COLOURS.values(), strict=False))
    for what, delay in cases:
        points = [(row["real"], row["computed"]) for row in rows if (row["what"], row["delay"]) == (what, delay)]
        mark = "o" if delay == 1 else "s"
        axes.plot(*zip(*points, strict=True), mark, color=colours[what], label=f"{what}, +{delay} ms", markersize=4)
    ends = [found(row["real"] for row in rows) for found in (min, max)]
    axes.plot(ends, ends, color=TEXT, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(figure, axes, path)


def new_figure(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    axes = figure.add_axes((0.09, 0.16, 0.9, 0.81))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def finish(figure: Any, axes: Any, path: str) -> None:
    """Make all texts and lines readable on white and on black, and write the file."""
    for spine in axes.spines.values():
        spine.set_color(TEXT)
    axes.tick_params(colors=TEXT, which="both")
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)
    axes.legend(frameon=False, fontsize=7, labelcolor=TEXT)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_page()
