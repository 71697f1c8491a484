"""Measure the clock of a filesystem, how soon changes are seen, and what calls cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from envsync.doctor.facts import Times
from envsync.doctor.names import attempt, write
from envsync.system import core

ROUNDS = 11
"""Of each call."""
PATIENCE_SECONDS = 2.0
SEEN_SECONDS = 3.0
ODD_NS = 1_600_000_001_123_456_789
_CHANGE = "import sys; open(sys.argv[1], 'a').write('more')"


def examine(directory: str) -> Times:
    """Measure it all, in a directory of its own."""
    write(f"{directory}/stored")
    refused = attempt(os.utime, f"{directory}/stored")
    refused = refused or attempt(lambda: os.utime(f"{directory}/stored", ns=(ODD_NS, ODD_NS)))
    resolution = None if refused else _resolution(f"{directory}/stored")
    return Times(resolution, _tick(f"{directory}/tick"), _seen(directory), _calls(directory), refused)


def _resolution(path: str) -> float:
    """Store a time and look what is left of it."""
    lost = abs(ODD_NS - os.stat(path).st_mtime_ns)
    return next((step for step in (1e-9, 1e-7, 1e-6, 1e-3, 1.0, 2.0) if lost < step * 1e9), 60.0)


def _tick(path: str) -> float | None:
    """Change a file until its time is another one."""
    write(path)
    first, began = os.stat(path).st_mtime_ns, time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        write(path)
        if os.stat(path).st_mtime_ns != first:
            return time.monotonic() - began
        time.sleep(0.0005)
    return None


def _seen(directory: str) -> float | None:
    """Let another process change a file that we have just looked at."""
    path = f"{directory}/seen"
    write(path)
    size = os.stat(path).st_size
    subprocess.run([sys.executable, "-I", "-S", "-c", _CHANGE, path], check=True, stdin=subprocess.DEVNULL)
    began = time.monotonic()
    while time.monotonic() - began < SEEN_SECONDS:
        if os.stat(path).st_size != size:
            return time.monotonic() - began
        time.sleep(0.005)
    return None


def _calls(directory: str) -> dict[str, float]:
    write(f"{directory}/file")

    def lock(_: int) -> None:
        fd = core.open_file(f"{directory}/file", os.O_RDWR)
        try:
            core.lock(fd, f"{directory}/file", shared=False)
        finally:
            os.close(fd)

    calls: dict[str, Callable[[int], object]] = {
        "stat": lambda _: os.stat(f"{directory}/file"),
        "create": lambda number: write(f"{directory}/made{number}"),
        "link": lambda number: os.link(f"{directory}/file", f"{directory}/linked{number}"),
        "rename": lambda number: os.replace(f"{directory}/made{number}", f"{directory}/moved{number}"),
        "mkdir": lambda number: os.mkdir(f"{directory}/directory{number}"),
        "flock": lock,
        "unlink": lambda number: os.unlink(f"{directory}/moved{number}"),
    }
    found = {}
    for name, call in calls.items():
        seconds = [took for number in range(ROUNDS) if (took := _measure(call, number)) is not None]
        if seconds:
            found[name] = statistics.median(seconds)
    return found


def _measure(call: Callable[[int], object], number: int) -> float | None:
    began = time.perf_counter()
    try:
        call(number)
    except OSError:
        return None  # what it cannot do is said elsewhere
    return time.perf_counter() - began
