"""Measure commands: alone or many at once, alternately, within a time limit, and tell the results as rows.

Whatever is compared takes turns (A B A B ...) in one run, so that a machine that slows down slows down all.
Wall time is perf_counter's, CPU time the kernel's account of the process and all it waited for (wait4(2)).
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import resource


@dataclass(frozen=True)
class Command:
    """What to start: the words, where, and with which variables (nothing else is inherited)."""

    words: tuple[str, ...]
    directory: str
    variables: Mapping[str, str]

    def __str__(self) -> str:
        return shlex.join(self.words)


@dataclass(frozen=True)
class Outcome:
    """How one measured run ended.

    :param seconds: wall time
    :param cpu: user and system time of all processes, in seconds
    :param failures: what the failing processes of a burst wrote to stderr
    :param ends: when each process of a burst ended, in seconds after the start, the first one first
    :param began_ns: when a burst was released, by time.time_ns()
    :param switches: how often a thread of a single command gave up the CPU to wait for something
    """

    seconds: float
    cpu: float
    failures: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    began_ns: int = 0
    switches: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, in which unit, the values by contender.

    :param unit: one of `table.DIGITS`; "n" is a plain number
    """

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]

    def median(self, contender: str) -> float | None:
        values = self.values.get(contender)
        return statistics.median(values) if values else None


class MeasuringError(Exception):
    """A benchmark cannot go on; the message says why and ends with what the failing tool wrote."""


class CommandFailedError(MeasuringError):
    """A command that was to succeed did not."""

    def __init__(self, command: Command, how: str, stderr: str) -> None:
        said = stderr.strip() or "(nothing on stderr)"
        super().__init__(f"`{command}` {how}, in `{command.directory}`:\n{said}")


def started(command: Command, stderr: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that it can be killed with all that it starts."""
    return subprocess.Popen(
        command.words,
        cwd=command.directory,
        env=command.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )


def run(command: Command, time_limit: float) -> Outcome:
    """Run a command that has to succeed.

    :param time_limit: seconds after which it is killed with all that it started in its session
    :raises CommandFailedError: it did not exit with 0, or not in time
    """
    with tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = started(command, stderr)
        with killed_after(time_limit, [process.pid]) as expired:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            how = f"took more than {time_limit:g} s" if expired else ended(process.returncode)
            raise CommandFailedError(command, how, text_of(stderr))
    return Outcome(seconds, usage.ru_utime + usage.ru_stime, switches=usage.ru_nvcsw)


def run_at_once(command: Command, count: int, time_limit: float) -> Outcome:
    """Run one command many times at once; see `run_all_at_once`."""
    return run_all_at_once([command] * count, time_limit)


def run_all_at_once(
    commands: Sequence[Command],
    time_limit: float,
    *,
    stdout: str = os.devnull,
    meanwhile: Callable[[], None] | None = None,
) -> Outcome:
    """Run commands at once, all released by one event, and wait for all. Failures are counted.

    :param time_limit: seconds after which those still running are killed; they count as failed
    :param stdout: the file to which all of them append
    :param meanwhile: called when they have been released, before anybody waits for them
    """
    gate, opener = os.pipe()
    arrivals, arrived = os.pipe()
    errors = [tempfile.TemporaryFile() for _ in commands]  # noqa: SIM115 (closed below, all of them)
    output = os.open(stdout, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    pids: list[int] = []
    ends, failures, cpu = [], [], 0.0
    with killed_after(time_limit, pids):
        for command, error in zip(commands, errors, strict=True):
            pids.append(start_behind(gate, opener, arrived, command, (output, error.fileno())))
        awaited = len(commands)
        while awaited:
            awaited -= len(os.read(arrivals, awaited))
        start, began_ns = time.perf_counter(), time.time_ns()
        os.close(opener)
        if meanwhile is not None:
            meanwhile()
        for number, status, usage in in_order_of_ending(pids):
            ends.append(time.perf_counter() - start)
            cpu += usage.ru_utime + usage.ru_stime
            code = os.waitstatus_to_exitcode(status)
            if code:
                failures.append(text_of(errors[number]).strip() or ended(code))
    for descriptor in (gate, arrivals, arrived, output):
        os.close(descriptor)
    for error in errors:
        error.close()
    return Outcome(ends[-1], cpu, tuple(failures), tuple(ends), began_ns)


def start_behind(gate: int, opener: int, arrived: int, command: Command, outputs: tuple[int, int]) -> int:
    """Fork a process that waits until the gate's other end is closed, and then becomes the command.

    :param outputs: descriptors for stdout and stderr
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.close(opener)
        os.chdir(command.directory)
        for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
            os.dup2(source, target)
        os.write(arrived, b".")
        os.read(gate, 1)
        os.execve(command.words[0], command.words, dict(command.variables))
    finally:
        os._exit(127)


def in_order_of_ending(pids: Sequence[int]) -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """Wait for each of these children as it ends. Yields its place in the sequence, its status and its usage."""
    with selectors.DefaultSelector() as selector:
        for number, pid in enumerate(pids):
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                os.close(key.fd)
                _, status, usage = os.wait4(pids[key.data], 0)
                yield key.data, status, usage


def run_for(commands: Sequence[Command], begin: float, end: float, time_limit: float) -> list[float]:
    """Run commands at once that do not end by themselves, and tell them to end after a while.

    :param end: seconds after which they get SIGTERM
    :param time_limit: seconds more, after which they are killed
    :returns: of each, the CPU seconds that it took between begin and end, not counting its children's
    :raises CommandFailedError: one of them ended before
    """
    pids: list[int] = []
    with killed_after(end + time_limit, pids), tempfile.TemporaryFile() as stderr:
        start = time.monotonic()
        for command in commands:
            process = started(command, stderr)
            process.returncode = 0  # it is waited for here, where it is seen whether it ended by itself
            pids.append(process.pid)
        time.sleep(max(0.0, start + begin - time.monotonic()))
        before = [cpu_of(pid) for pid in pids]
        time.sleep(max(0.0, start + end - time.monotonic()))
        after = [cpu_of(pid) for pid in pids]
        for command, pid in zip(commands, pids, strict=True):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise CommandFailedError(command, "ended by itself", text_of(stderr))
            os.killpg(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
    return [more - less for less, more in zip(before, after, strict=True)]


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, to the nanosecond (Linux: clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def killed_after(seconds: float, pids: Sequence[int]) -> Iterator[list[bool]]:
    """Kill these session leaders and their process groups after a while, or if the body raises.

    Yields a list that is empty unless the time ran out.
    """
    expired: list[bool] = []

    def kill() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(pid, signal.SIGKILL)

    def ring(_signal: int, _frame: object) -> None:
        expired.append(True)
        kill()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield expired
    except BaseException:
        kill()
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def alternate(
    name: str, contenders: Mapping[str, Callable[[], Outcome]], rounds: int, *, warm_up: int = 0
) -> dict[str, list[Outcome]]:
    """Let the contenders take turns and return their outcomes, without those of the rounds to warm up.

    What a contender has to prepare it does before it starts to measure, in the same call.
    """
    outcomes: dict[str, list[Outcome]] = {contender: [] for contender in contenders}
    for number in range(-warm_up, rounds):
        for contender, once in contenders.items():
            outcome = once()
            if number >= 0:
                outcomes[contender].append(outcome)
    print(f"{name}: {rounds} rounds of {', '.join(contenders)}", file=sys.stderr)
    return outcomes


def rows_of(name: str, outcomes: Mapping[str, Sequence[Outcome]], unit: str) -> list[Row]:
    """Make the two rows that every benchmark has: wall time and CPU time."""
    scale = 1000.0 if unit == "ms" else 1.0
    wall = {who: [outcome.seconds * scale for outcome in several] for who, several in outcomes.items()}
    cpu = {who: [outcome.cpu * scale for outcome in several] for who, several in outcomes.items()}
    return [Row(f"{name}: wall", unit, wall), Row(f"{name}: CPU", unit, cpu)]


def ended(code: int) -> str:
    return f"exited with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
