"""Count what a command asks of the filesystem, with strace: system calls that take a path, and flock(2).

A call counts if it names a path: fstat of an open file (newfstatat or statx with an empty path) does not, nor
do getcwd, which only returns one, and execve, which is the command itself.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace

from measure import Command, MeasuringError, run

CALL = re.compile(r'^\d+ +(?P<name>\w+)\((?:(?:AT_FDCWD|\d+)<(?P<directory>[^>]*)>, )?"(?P<path>[^"]*)"')
LOCK = re.compile(r"^\d+ +flock\(.*(?P<kind>LOCK_SH|LOCK_EX)")
UNCOUNTED = ("execve", "getcwd")


@dataclass(frozen=True)
class Operations:
    """What one command did: calls with a path below the places of interest, all of them, and flock calls."""

    inside: int
    everywhere: int
    shared: int
    exclusive: int


def count_operations(command: Command, places: Iterable[str], trace: str, time_limit: float) -> Operations:
    """Run a command under strace and count.

    :param places: directories, whose own paths count, too
    :param trace: where strace writes to
    :raises MeasuringError: there is no strace, or the command fails
    """
    strace = shutil.which("strace")
    if strace is None:
        raise MeasuringError("strace is needed to count file operations\nhint: apt-get install strace")
    options = (strace, "-f", "-y", "-qq", "-e", "trace=%file,flock", "-e", "signal=none", "-o", trace)
    run(replace(command, words=(*options, *command.words)), time_limit)
    with open(trace, encoding="utf-8", errors="replace") as lines:
        return count(lines, command.directory, tuple(places))


def count(lines: Iterable[str], directory: str, places: tuple[str, ...]) -> Operations:
    """Count in a trace; a pure function, but for the directory that relative paths start from."""
    inside = everywhere = shared = exclusive = 0
    for line in lines:
        if lock := LOCK.match(line):
            shared += lock["kind"] == "LOCK_SH"
            exclusive += lock["kind"] == "LOCK_EX"
        elif (call := CALL.match(line)) and call["path"] and call["name"] not in UNCOUNTED:
            path = os.path.normpath(os.path.join(call["directory"] or directory, call["path"]))
            everywhere += 1
            inside += any(path == place or path.startswith(place + "/") for place in places)
    return Operations(inside, everywhere, shared, exclusive)
