"""Count what a command asks of the kernel, with strace: system calls that take a path, flock(2), and all of them.

A call is a file operation if it names a path: fstat of an open file (newfstatat or statx with an empty path) does
not, nor do getcwd, which only returns one, and execve, which is the command itself.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from measure import Command, MeasuringError, run

CALL = re.compile(
    r"^\d+ +(?P<time>\d+\.\d+)? *(?P<name>\w+)\("
    r'(?:(?:(?:AT_FDCWD|\d+)<(?P<directory>[^>]*)>, )?"(?P<path>[^"]*)"'
    r"|\d+<(?P<locked>[^>]*)>, (?P<lock>LOCK_SH|LOCK_EX))"
)
UNCOUNTED = ("execve", "getcwd")
NAME = re.compile(r"^\d+ +(?:\d+\.\d+ +)?(?P<name>\w+)\(")
"""Matches once for each call: what ends one that was interrupted by another's begins with `<...`."""
FILES_AND_LOCKS = "%file,flock"


@dataclass(frozen=True)
class Operations:
    """What one command did: calls with a path below the places of interest, all of them, and flock calls.

    :param names: how often each call was made, of those that were traced
    """

    inside: int
    everywhere: int
    shared: int
    exclusive: int
    names: Counter[str] = field(default_factory=Counter)


def traced(command: Command, trace: str, what: str = FILES_AND_LOCKS) -> Command:
    """Return what runs a command under strace, with the times of its calls.

    :param trace: where strace writes to
    :param what: the calls to trace, as strace wants them
    :raises MeasuringError: there is no strace
    """
    strace = shutil.which("strace")
    if strace is None:
        raise MeasuringError("strace is needed to count file operations\nhint: apt-get install strace")
    apart = ("--seccomp-bpf",) if what != "all" else ()  # stops at nothing else, which would change who waits for whom
    options = (strace, "-f", *apart, "-y", "-qq", "-ttt", "-e", f"trace={what}", "-e", "signal=none", "-o", trace)
    return replace(command, words=(*options, *command.words))


def count_operations(
    command: Command, places: Iterable[str], trace: str, time_limit: float, what: str = FILES_AND_LOCKS
) -> Operations:
    """Run a command under strace and count.

    :param places: directories, whose own paths count, too
    :param trace: where strace writes to
    :param what: the calls to trace, as strace wants them
    :raises MeasuringError: there is no strace, or the command fails
    """
    run(traced(command, trace, what), time_limit)
    with open(trace, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    names = Counter(call["name"] for call in map(NAME.match, lines) if call)
    return replace(count(lines, command.directory, tuple(places)), names=names)


def count_all(command: Command, place: str, trace: str, time_limit: float) -> tuple[int, int]:
    """Run a command under strace and count its system calls of all kinds.

    :param place: a directory, or empty
    :param trace: where strace writes to
    :returns: all of them, and those that name the place, what is below it, or an open file of it
    :raises MeasuringError: there is no strace, or the command fails
    """
    run(traced(command, trace, "all"), time_limit)
    named = re.compile(rf'[<"]{re.escape(place)}[/">]')
    with open(trace, encoding="utf-8", errors="replace") as file:
        lines = [line for line in file if NAME.match(line)]
    return len(lines), sum(named.search(line) is not None for line in lines) if place else 0


@dataclass(frozen=True)
class Call:
    """One system call of a trace that names a path or locks.

    :param time: seconds since the epoch, 0 if the trace does not say
    :param path: absolute
    :param lock: LOCK_SH or LOCK_EX for flock(2), else empty
    """

    time: float
    name: str
    path: str
    lock: str

    def is_below(self, places: Iterable[str]) -> bool:
        return any(self.path == place or self.path.startswith(place + "/") for place in places)


def calls(lines: Iterable[str], directory: str) -> Iterator[Call]:
    """Read a trace; a pure function, but for the directory that relative paths start from."""
    for line in lines:
        call = CALL.match(line)
        if call is None or call["name"] in UNCOUNTED or (call["path"] == "" and not call["lock"]):
            continue
        path = call["locked"] or os.path.normpath(os.path.join(call["directory"] or directory, call["path"]))
        yield Call(float(call["time"] or 0), call["name"], path, call["lock"] or "")


def count(lines: Iterable[str], directory: str, places: tuple[str, ...]) -> Operations:
    """Count in a trace."""
    found = list(calls(lines, directory))
    files = [call for call in found if not call.lock]
    locks = Counter(call.lock for call in found if call.lock)
    inside = sum(call.is_below(places) for call in files)
    return Operations(inside, len(files), locks["LOCK_SH"], locks["LOCK_EX"])


def has_strace(what: str) -> bool:
    """Tell whether there is a strace, and say on stderr what is left out if there is none."""
    if shutil.which("strace") is not None:
        return True
    print(f"{what}: skipped, for there is no strace\nhint: apt-get install strace", file=sys.stderr)
    return False
