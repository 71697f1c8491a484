"""What the command line shows: on stderr while a sync goes on, bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from envsync.launch.messages import say
from envsync.lockfile import hearing
from envsync.waiting.shortening import briefly, fitted, volume, width

if TYPE_CHECKING:
    from rich.progress import BarColumn, TaskID
    from rich.progress import Progress as RichProgress

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
        self.shows_notes = not self.quiet
        self.lock = threading.Lock()
        self.shown = Bars() if os.isatty(2) else Lines()
        self.slowest = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shown.stop()

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        if not self.quiet:
            with self.lock:
                self.shown.show(Progress(phase, done, total, bytes_done, bytes_total, self.slowest))

    def announce(self, text: str) -> None:
        """Say what is worth knowing before it is done."""
        if not self.quiet:
            with self.lock:
                self.shown.stop()
                say(text)

    def detail(self, text: str) -> None:
        """Note which download is the slowest and how far it is."""
        self.slowest = text

    def conclude(self, result: SyncResult) -> None:
        """Say what was done, and what is worth knowing."""
        self.shown.stop()
        if self.quiet:
            return
        for note in result.notes:
            if self.verbose or note not in result.told:
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


class Progress(NamedTuple):
    """How far a sync is, as a `Report` is told it."""

    phase: str
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    slowest: str
    """The slowest download, and how far it is."""


class Lines:
    """Plain lines, now and then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.next = self.began + LINE_SECONDS
        self.phase = ""

    def show(self, at: Progress) -> None:
        """Say it, if it is time to."""
        now = time.monotonic()
        waiting = at.phase.startswith("waiting")
        if waiting and not self.phase.startswith("waiting"):
            self.next = now + WAITING_SECONDS  # no silent wait: that may take days
        self.phase = at.phase
        if now < self.next:
            return
        self.next = now + (WAITING_LINE_SECONDS if waiting else LINE_SECONDS)
        counted = f" {at.done} of {at.total}" if at.total else ""
        come = f", {volume(at.bytes_done, at.bytes_total)}" if at.bytes_done else ""
        slowest = f", {at.slowest}" if at.bytes_done and at.slowest else ""
        say(f"{at.phase}{counted}{come}{slowest}, {now - self.began:.0f} s so far")

    def stop(self) -> None:
        """Lines stay."""


class Bars:
    """One line that lives, on a terminal."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.phase = ""
        self._bars: tuple[RichProgress, BarColumn] | None = None
        self._task: TaskID | None = None

    def show(self, at: Progress) -> None:
        """Show it, once the sync has taken a while."""
        if self._bars is None:
            if time.monotonic() - self.began < BAR_SECONDS:
                return
            self._bars = _bars()
            self._bars[0].start()
        bars, column = self._bars
        if at.phase != self.phase or self._task is None:
            if self._task is not None:
                bars.remove_task(self._task)
            self.phase = at.phase
            self._task = bars.add_task(self.phase, total=None, count="", volume="")
        seconds = max(1e-3, bars.tasks[0].elapsed or 0.0)
        done, total, bytes_done, bytes_total = at[1:5]
        count = f"{done}/{total}" if total else ""
        come = volume(bytes_done, bytes_total)
        speed = f"{come}, {bytes_done / 1e6 / seconds:.1f} MB/s"
        forms = (f"{speed}, {at.slowest}" if at.slowest else speed, speed, come, "") if come else ("",)
        columns = bars.console.width  # each time: the window may have another size by now
        width_of_bar = next(bar for least, bar in BAR_COLUMNS if columns >= least and (total or bar < WIDE))
        column.bar_width = width_of_bar
        room = columns - width_of_bar - len(count) - OTHER_COLUMNS
        said = fitted((self.phase, *briefly(self.phase)), room)
        complete, whole = (bytes_done, bytes_total) if bytes_total else (done, total)
        bars.update(
            self._task,
            completed=complete,
            total=whole or None,
            description=said,
            count=count,
            volume=fitted(forms, max(0, room - width(said))),
        )

    def stop(self) -> None:
        """Take the line away."""
        if self._bars is not None:
            self._bars[0].stop()
            self._bars = self._task = None


def _bars() -> tuple[RichProgress, BarColumn]:
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
