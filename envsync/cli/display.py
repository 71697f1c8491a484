"""What the command line shows: on stderr while a sync goes on, bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from envsync.launch.messages import say
from envsync.lockfile import hearing
from envsync.waiting.narrator import SILENCE_SECONDS
from envsync.waiting.shortening import briefly, fitted, volume, width

if TYPE_CHECKING:
    from rich.progress import BarColumn, Progress, TaskID

    from envsync.checking.repair import Checked
    from envsync.doctor import Facts, Finding
    from envsync.launch.request import Request
    from envsync.library.status import Leader, Status
    from envsync.waiting.outcome import Outcome

LINE_SECONDS = 10.0
"""How long a phase has to last before another plain line says how far it is."""
WAITING_SECONDS = 0.7
"""How long a leader waits for others before a plain line says so."""
WAITING_LINE_SECONDS = 60.0
NAMED = 10
"""So many distributions that were removed are named; then it is said how many more there are."""
WIDE = 10
"""Of a bar: one that has no count to show is no wider."""
BAR_COLUMNS = ((100, 3 * WIDE), (60, WIDE), (0, 4))
"""How wide the bar is on a terminal of at least so many columns."""
OTHER_COLUMNS = 14
"""Of the spinner, the time and what is between them all."""
BAR_SECONDS = 0.2
"""A sync that takes less shows no bar: it would only flicker, and importing rich takes as long."""


class Display:
    """Shows the phases of one sync; a `Report`. Silent with `--quiet`."""

    def __init__(self, request: Request) -> None:
        hearing.listen()
        self.quiet = request.flag("quiet")
        self.verbose = request.flag("verbose")
        self.terminal = os.isatty(2)
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.phase = ""
        self.next_line = self.began + LINE_SECONDS
        self.bars: Progress | None = None
        self.task: TaskID | None = None
        self.slowest = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        if self.quiet:
            return
        with self.lock:
            if self.terminal:
                self._bar(phase, done, total, bytes_done, bytes_total)
            else:
                self._line(phase, done, total, bytes_done, bytes_total)

    def detail(self, text: str) -> None:
        """Note which download is the slowest and how far it is."""
        self.slowest = text

    def conclude(self, outcome: Outcome) -> None:
        """Say what was done, and what is worth knowing."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None
        if self.quiet:
            return
        for note in outcome.notes:
            say(f"note: {note}")
        if outcome.outcome == "synced":
            say(
                f"synced `{outcome.env}` in {outcome.seconds:.2f} s: "
                f"{len(outcome.installed)} installed, {len(outcome.removed)} removed"
            )
        if outcome.removed:
            say(_removed(outcome))
        if self.verbose:
            for name in outcome.removed:
                by = outcome.installers.get(name)
                say(f"- {name}{f' (installed by {by})' if by else ''}")
            for name in outcome.installed:
                say(f"+ {name}")
            for detail in outcome.details:
                say(detail)

    def _line(self, phase: str, done: int, total: int, bytes_done: int, bytes_total: int) -> None:
        now = time.monotonic()
        waiting = phase.startswith("waiting")
        if waiting and not self.phase.startswith("waiting"):
            self.next_line = now + WAITING_SECONDS  # no silent wait: that may take days
        self.phase = phase
        if now < self.next_line:
            return
        self.next_line = now + (WAITING_LINE_SECONDS if waiting else LINE_SECONDS)
        counted = f" {done} of {total}" if total else ""
        come = f", {volume(bytes_done, bytes_total)}" if bytes_done else ""
        slowest = f", {self.slowest}" if bytes_done and self.slowest else ""
        say(f"{phase}{counted}{come}{slowest}, {now - self.began:.0f} s so far")

    def _bar(self, phase: str, done: int, total: int, bytes_done: int, bytes_total: int) -> None:
        if self.bars is None:
            if time.monotonic() - self.began < BAR_SECONDS:
                return
            self.bars, self.bar_column = _bars()
            self.bars.start()
        if phase != self.phase or self.task is None:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.phase = phase
            self.task = self.bars.add_task(phase, total=None, count="", volume="")
        seconds = max(1e-3, self.bars.tasks[0].elapsed or 0.0)
        count = f"{done}/{total}" if total else ""
        come = volume(bytes_done, bytes_total)
        speed = f"{come}, {bytes_done / 1e6 / seconds:.1f} MB/s"
        forms = (f"{speed}, {self.slowest}" if self.slowest else speed, speed, come, "") if come else ("",)
        columns = self.bars.console.width  # each time: the window may have another size by now
        bar = next(bar for least, bar in BAR_COLUMNS if columns >= least and (total or bar < WIDE))
        self.bar_column.bar_width = bar
        room = columns - bar - len(count) - OTHER_COLUMNS
        said = fitted((phase, *briefly(phase)), room)
        complete, whole = (bytes_done, bytes_total) if bytes_total else (done, total)
        self.bars.update(
            self.task,
            completed=complete,
            total=whole or None,
            description=said,
            count=count,
            volume=fitted(forms, max(0, room - width(said))),
        )


def _bars() -> tuple[Progress, BarColumn]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = BarColumn()
    return (
        Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            bar,
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[volume]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        ),
        bar,
    )


def _removed(outcome: Outcome) -> str:
    """Name what was removed, in one line: first what others had installed, then what is gone, then what is renewed."""
    now = {name: version for name, _, version in (item.partition("==") for item in outcome.installed)}

    def rank(name: str) -> tuple[bool, bool]:
        return name not in outcome.installers, name.partition("==")[0] in now

    names = []
    for item in sorted(outcome.removed, key=rank)[:NAMED]:
        remarks = [f"installed by {outcome.installers[item]}"] if item in outcome.installers else []
        name, _, version = item.partition("==")
        if name in now:
            remarks.append(f"now {now[name]}" if now[name] != version else "installed anew")
        names.append(f"{item} ({', '.join(remarks)})" if remarks else item)
    more = f" and {len(outcome.removed) - NAMED} more" if len(outcome.removed) > NAMED else ""
    return f"removed {', '.join(names)}{more}"


def describe_status(status: Status) -> Iterator[str]:
    """Say in lines for people what is known of an environment."""
    now = time.time()
    if status.current is None:
        yield f"`{status.env}` is as it was synced; name a lock file to know whether it is what that asks for"
    elif status.current:
        yield f"`{status.env}` is current"
    else:
        yield f"`{status.env}` is not current: {status.reason}"
    if status.leader is not None:
        yield f"syncing: {_leader(status.leader, now)}"
    for holder in status.holders:
        yield f"locked by: pid {holder.pid} (`{holder.command}`)"
    for waiter in status.waiters:
        yield f"waiting: pid {waiter.pid} on {waiter.host} for {_ago(waiter.since, now)} (`{waiter.command}`)"
    for command in status.commands:
        yield f"running here: pid {command.pid} (`{command.command}`)"
    if status.failure is not None:
        failure = status.failure
        yield f"last failure: pid {failure.pid} on {failure.host}, {_ago(failure.time, now)} ago: {failure.message}"
    for path in status.leftovers:
        yield f"left over by a dead leader, for the next sync to see to: `{path}`"
    if status.pythonpath:
        yield (
            f"PYTHONPATH is set: `run` lets modules in `{status.pythonpath}` come before those of the environment, "
            "`run --isolated` does not"
        )


def describe_check(env: str, checked: Checked) -> Iterator[str]:
    """Say in lines for people what a check found and what a repair did."""
    found = checked.found
    for finding in found.findings:
        whose = f" ({finding.distribution})" if finding.distribution else ""
        yield f"{finding.kind}: `{finding.path}`{whose}{f': {finding.detail}' if finding.detail else ''}"
    for name in checked.repaired:
        yield f"installed anew: {name}"
    for note in checked.notes:
        yield f"note: {note}"
    if checked.left is not None:
        for finding in checked.left.findings:
            if finding.kind != "unowned":
                yield f"still {finding.kind}: `{finding.path}`"
    now = checked.left or found
    verdict = "sound" if checked.is_sound else "damaged; `envsync check --repair` restores what envsync installed"
    if checked.left is not None and not checked.is_sound:
        verdict = "still damaged"
    yield f"`{env}`: {now.distributions} distributions, {now.files} files, {now.bytes / 1e6:.1f} MB: {verdict}"


def describe_facts(env: str, facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    """Say in lines for people what a filesystem does, and what follows."""
    kind = f" ({facts.kind}{', shared between hosts' if facts.network else ''})" if facts.kind else ""
    yield f"tried in `{facts.directory}`{kind}"
    for finding in findings:
        yield f"{finding.level:8}{finding.subject}: {finding.text}"
        if finding.advice:
            yield f"{'':8}hint: {finding.advice}"
    worst = [finding for finding in findings if finding.level != "fine"]
    if any(finding.level == "unsafe" for finding in worst):
        yield f"`{env}`: not safe to sync here"
    else:
        yield f"`{env}`: safe to sync here" + (", with the limits above" if worst else "")


def _leader(leader: Leader, now: float) -> str:
    counted = f" {leader.done} of {leader.total}" if leader.total else ""
    if leader.bytes_done:
        counted += f", {volume(leader.bytes_done, leader.bytes_total)}"
    counted += f", {leader.detail}" if leader.detail else ""
    stopped = "; it is stopped" if leader.stopped else ""
    silent = f"; no sign of life for {leader.silent:.0f} s" if leader.silent >= SILENCE_SECONDS else ""
    return (
        f"pid {leader.pid} on {leader.host} for {_ago(leader.since, now)}: {leader.phase}{counted} "
        f"(`{leader.command}`){stopped}{silent}"
    )


def _ago(since: float, now: float) -> str:
    seconds = max(0.0, now - since)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
