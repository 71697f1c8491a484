"""Measure a server of a filesystem: how long it takes for a request, and how many it answers a second.

One process asks for one thing after the other; then more and more do so at once, until there are no more answers a
second. What the server takes for itself is one by its most answers, for its one queue; the rest is the way, which is
taken to be as long as in a network at least.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from measure import MeasuringError

WAY_SECONDS = 0.2e-3
"""The way there and back is taken to be at least so long: where it is measured, both ends may be one machine."""
SECONDS = 2.0
ASKERS = (1, 4, 16)
FILES = 50
"""That one of them looks at."""
FILE_BYTES = 1 << 26
PIECE = 1 << 20


def look(directory: str, number: int) -> None:
    """Open what is there, which clients ask their server for, whatever they have in their caches."""
    os.close(os.open(os.path.join(directory, f"there-{number % FILES}"), os.O_RDONLY))


def change(directory: str, number: int) -> None:
    os.close(os.open(os.path.join(directory, f"new-{number}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def lock(directory: str, number: int) -> None:
    del number
    with open(os.path.join(directory, "lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


KINDS: dict[str, Callable[[str, int], None]] = {"look": look, "change": change, "lock": lock}


def ask(kind: str, directory: str, results: Any) -> None:
    """Ask again and again for a while, and say how long each answer took."""
    times = []
    over = time.perf_counter() + SECONDS
    while (begin := time.perf_counter()) < over:
        KINDS[kind](directory, len(times))
        times.append(time.perf_counter() - begin)
    results.put(times)


def asked(kind: str, directory: str, askers: int) -> tuple[float, float]:
    """Let some processes ask at once. Returns the median of seconds for an answer, and answers a second."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    places = [tempfile.mkdtemp(dir=directory) for _ in range(askers)]
    for place in places:
        for number in range(FILES):
            os.close(os.open(os.path.join(place, f"there-{number}"), os.O_CREAT | os.O_WRONLY))
    processes = [context.Process(target=ask, args=(kind, place, results)) for place in places]
    for process in processes:
        process.start()
    times = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return statistics.median(times[0]), sum(map(len, times)) / SECONDS


def served(directory: str) -> dict[str, Any]:
    """Measure the server that a directory is on."""
    if not os.path.isdir(directory):
        raise MeasuringError(f"there is no directory `{directory}`")
    place = tempfile.mkdtemp(prefix="envsync-served-", dir=directory)
    try:
        rows = {kind: {str(askers): asked(kind, place, askers) for askers in ASKERS} for kind in KINDS}
        rate = bytes_a_second(place)
    finally:
        shutil.rmtree(place)
    most = {kind: max(answers for _, answers in row.values()) for kind, row in rows.items()}
    service = {kind: 1 / answers for kind, answers in most.items()}
    way = rows["look"]["1"][0] - service["look"]
    server = {"threads": 1, **service, "latency": max(WAY_SECONDS, way), "rate": rate}
    return {"filesystem": kind_of(place), "server": server, "rows": rows}


def bytes_a_second(place: str) -> float:
    """Write a file and read it through, past the page cache as far as that is possible."""
    path = os.path.join(place, "large")
    with open(path, "wb") as file:
        file.writelines(os.urandom(PIECE) for _ in range(FILE_BYTES // PIECE))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with open(path, "rb", buffering=0) as file:
        begin = time.perf_counter()
        while file.read(PIECE):
            pass
        return FILE_BYTES / (time.perf_counter() - begin)


def kind_of(path: str) -> str:
    """Return the type of the filesystem that a path is on, as /proc/self/mountinfo says it (proc(5))."""
    found = ("", "unknown")
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            root, (kind, source) = fields.split()[4], rest.split()[:2]
            if (path == root or path.startswith(f"{root.rstrip('/')}/")) and len(root) >= len(found[0]):
                scheme, mark, _ = source.partition(r"\043")  # a `#`, as proc(5) writes it
                found = (root, f"{kind}, {scheme}" if mark else kind)
    return found[1]
