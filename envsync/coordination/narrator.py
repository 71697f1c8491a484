"""What a waiter says on stderr: for whom it waits, since when, and how far they are.

On a terminal it is one line that lives and goes when the wait is over; elsewhere a line within a second and one a
minute. Whoever has not been heard of for a while is shown as such: a leader says something at least every
`HEARTBEAT_SECONDS`, so silence means that it is stopped, hangs in a system call, or its host is gone.
"""

from __future__ import annotations

import sys
import time

if sys.platform == "win32":
    import os
else:
    import posix as os

from envsync import launch
from envsync.coordination import processes, statefile
from envsync.coordination.failures import identity
from envsync.coordination.messages import say
from envsync.redact import redacted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.environment import Environment

LINE_SECONDS = 60.0
LIVE_SECONDS = 0.25
HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 20.0
"""Without a sign of life, after which a waiter says so."""


class Narrator:
    """Says for whom one process waits.

    :param quiet: say nothing
    """

    __slots__ = ("environment", "heard", "identity", "live", "next", "quiet", "shown")

    def __init__(self, environment: Environment, began: float, *, quiet: bool) -> None:
        self.environment = environment
        self.quiet = quiet
        self.live = not quiet and _is_terminal()
        self.next = began
        self.identity = (0, 0)
        self.heard = began
        self.shown = False

    def look(self, now: float) -> None:
        """Say it, if it is time to."""
        if now < self.next:
            return
        self.next = now + (LIVE_SECONDS if self.live else LINE_SECONDS)
        if self.quiet:
            return
        text = self.describe(now)
        if self.live:
            self._show(text)
        else:
            say(text)

    def describe(self, now: float) -> str:
        """Say for whom this process waits."""
        latest = identity(self.environment.progress)
        if latest != self.identity:
            self.identity, self.heard = latest, now
        return _printable(describe(self.environment, now - self.heard))

    def _show(self, text: str) -> None:
        try:
            columns = os.get_terminal_size(2).columns
        except OSError:
            columns = 80
        line = _cut(f"envsync: {text}", max(20, columns - 1))
        self.shown = True  # before it is: an interrupt may come in between
        _write(f"\r\x1b[2K{line}")

    def conclude(self) -> None:
        """Take the live line away."""
        if self.shown:
            _write("\r\x1b[2K")
            self.shown = False


def _printable(text: str) -> str:
    """Leave out what a terminal would obey, and what is secret: others wrote it, an older envsync perhaps."""
    return "".join(character if character.isprintable() else "?" for character in redacted(text))


def _cut(text: str, columns: int) -> str:
    """Cut a line to a terminal's width, so that it does not wrap and can be taken back."""
    if text.isascii():
        return text[:columns]
    from unicodedata import combining, east_asian_width

    width = 0
    for position, character in enumerate(text):
        width += 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        if width > columns:
            return text[:position]
    return text


def describe(environment: Environment, silent: float = 0.0) -> str:
    """Say for whom one waits: pid, host, since when, what it is doing and how far it is, and its command.

    :param silent: for how many seconds it has not been heard of
    """
    said = statefile.load(environment.progress)
    if "pid" not in said:
        return _describe_stranger(environment)
    now = time.time()
    seconds = max(0.0, now - statefile.number(said, "since", now))
    text = f"waiting for pid {said['pid']} on {said.get('host')}, syncing for {seconds:.0f} s"
    phase = statefile.text(said, "phase")
    if phase:
        text += f": {phase}"
        if said.get("total"):
            text += f" {said.get('done')} of {said['total']}"
    if command := statefile.text(said, "command"):
        text += f" (`{command}`)"
    return text + _alive(said, silent)


def _alive(said: dict[str, object], silent: float) -> str:
    pid = int(statefile.number(said, "pid"))
    if statefile.text(said, "place") == processes.here() != "":
        if processes.is_stopped(pid):
            return "; it is stopped: continue it with `kill -CONT " + str(pid) + "`, or end it"
        if not processes.is_alive(pid):
            return "; it is dead, and a child of it still holds the environment lock"
    if silent >= SILENCE_SECONDS:
        return f"; no sign of life for {silent:.0f} s"
    return ""


def _describe_stranger(environment: Environment) -> str:
    """Somebody who is not envsync, or has only just begun, holds the lock."""
    holders = processes.holders(environment.lock)
    if not holders:
        return f"waiting for whoever holds the environment lock `{environment.lock}` (uv, pip or another tool)"
    names = ", ".join(f"pid {pid} on {processes.host()} (`{processes.command_of(pid)}`)" for pid in holders)
    stopped = [str(pid) for pid in holders if processes.is_stopped(pid)]
    more = f"; it is stopped: continue it with `kill -CONT {' '.join(stopped)}`, or end it" if stopped else ""
    return f"waiting for {names}, which holds the environment lock `{environment.lock}`{more}"


def _is_terminal() -> bool:
    try:
        return os.isatty(2) and launch.variable("TERM") not in ("", "dumb")
    except OSError:
        return False


def _write(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody to tell
