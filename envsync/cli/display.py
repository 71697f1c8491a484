"""What the command line shows: on stderr while a sync goes on, bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from envsync.launch.messages import say
from envsync.lockfile import hearing
from envsync.waiting.shortening import briefly, fitted, volume, width

if TYPE_CHECKING:
    from rich.progress import BarColumn, Progress, TaskID

    from envsync.launch.request import Request
    from envsync.leading.result import SyncResult

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

    def conclude(self, result: SyncResult) -> None:
        """Say what was done, and what is worth knowing."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None
        if self.quiet:
            return
        for note in result.notes:
            say(f"note: {note}")
        if result.outcome == "synced":
            say(
                f"synced `{result.env}` in {result.seconds:.2f} s: "
                f"{len(result.installed)} installed, {len(result.removed)} removed"
            )
        if result.removed:
            say(_removed(result))
        if self.verbose:
            installers = dict(result.installers)
            for name in result.removed:
                by = installers.get(name)
                say(f"- {name}{f' (installed by {by})' if by else ''}")
            for name in result.installed:
                say(f"+ {name}")
            for detail in result.details:
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


def _removed(result: SyncResult) -> str:
    """Name what was removed, in one line: first what others had installed, then what is gone, then what is renewed."""
    installers = dict(result.installers)
    now = {name: version for name, _, version in (item.partition("==") for item in result.installed)}

    def rank(name: str) -> tuple[bool, bool]:
        return name not in installers, name.partition("==")[0] in now

    names = []
    for item in sorted(result.removed, key=rank)[:NAMED]:
        remarks = [f"installed by {installers[item]}"] if item in installers else []
        name, _, version = item.partition("==")
        if name in now:
            remarks.append(f"now {now[name]}" if now[name] != version else "installed anew")
        names.append(f"{item} ({', '.join(remarks)})" if remarks else item)
    more = f" and {len(result.removed) - NAMED} more" if len(result.removed) > NAMED else ""
    return f"removed {', '.join(names)}{more}"
