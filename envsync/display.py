"""What the command line shows on stderr while a sync goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from envsync.coordination.messages import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from envsync.coordination.outcome import Outcome
    from envsync.request import Request

LINE_SECONDS = 10.0
"""How long a phase has to last before another plain line says how far it is."""
BAR_SECONDS = 0.2
"""A sync that takes less shows no bar: it would only flicker, and importing rich takes as long."""


class Display:
    """Shows the phases of one sync; a `Report`. Silent with `--quiet`."""

    def __init__(self, request: Request) -> None:
        self.quiet = request.flag("quiet")
        self.verbose = request.flag("verbose")
        self.terminal = os.isatty(2)
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.phase = ""
        self.next_line = self.began + LINE_SECONDS
        self.bars: Progress | None = None
        self.task: TaskID | None = None

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
                self._line(phase, done, total, bytes_done)

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
        if self.verbose:
            for name in outcome.removed:
                say(f"- {name}")
            for name in outcome.installed:
                say(f"+ {name}")

    def _line(self, phase: str, done: int, total: int, bytes_done: int) -> None:
        now = time.monotonic()
        if now < self.next_line:
            return
        self.next_line = now + LINE_SECONDS
        counted = f" {done} of {total}" if total else ""
        volume = f" ({bytes_done / 1e6:.0f} MB)" if bytes_done else ""
        say(f"{phase}{counted}{volume}, {now - self.began:.0f} s so far")

    def _bar(self, phase: str, done: int, total: int, bytes_done: int, bytes_total: int) -> None:
        if self.bars is None:
            if time.monotonic() - self.began < BAR_SECONDS:
                return
            self.bars = _bars()
            self.bars.start()
        if phase != self.phase or self.task is None:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.phase = phase
            self.task = self.bars.add_task(phase, total=None, count="", volume="")
        seconds = max(1e-3, self.bars.tasks[0].elapsed or 0.0)
        volume = f"{bytes_done / 1e6:.1f} MB, {bytes_done / 1e6 / seconds:.1f} MB/s" if bytes_done else ""
        complete, whole = (bytes_done, bytes_total) if bytes_total else (done, total)
        self.bars.update(
            self.task,
            completed=complete,
            total=whole or None,
            count=f"{done}/{total}" if total else "",
            volume=volume,
        )


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[volume]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
