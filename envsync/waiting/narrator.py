"""What a waiter says on stderr: for whom it waits, since when, and how far they are.

On a terminal it is one line that lives and goes when the wait is over, shortened to the width that it has just then:
the command goes first, then the host; phase and count stay to the last. Elsewhere it is a line within a second and one
a minute. Whoever has not been heard of for a while is shown as such: a leader says something at least every
`HEARTBEAT_SECONDS`, so silence means that it is stopped, hangs in a system call, or its host is gone.
"""

from __future__ import annotations

import time

from envsync.errors.redact import redacted
from envsync.launch.messages import say
from envsync.system import core, processes, records, schedulers
from envsync.waiting import directory
from envsync.waiting.failures import identity
from envsync.waiting.shortening import DRAINING, briefly, fitted, volume

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.launch import Environment

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
        forms = self._forms(now)
        if self.live:
            self._show(forms)
        else:
            say(forms[0])

    def describe(self, now: float) -> str:
        """Say for whom this process waits."""
        return self._forms(now)[0]

    def _forms(self, now: float) -> list[str]:
        latest = identity(self.environment.progress)
        if latest != self.identity:
            self.identity, self.heard = latest, now
        return list(map(_printable, forms_of(self.environment, now - self.heard)))

    def _show(self, forms: list[str]) -> None:
        try:
            columns = os.get_terminal_size(2).columns  # each time: the window may have another size by now
        except OSError:
            columns = 80
        line = fitted((f"envsync: {form}" for form in forms), max(20, columns - 1))
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


def describe(environment: Environment, silent: float = 0.0) -> str:
    """Say for whom one waits: pid, host, since when, what it is doing and how far it is, and its command.

    :param silent: for how many seconds it has not been heard of
    """
    return forms_of(environment, silent)[0]


def forms_of(environment: Environment, silent: float = 0.0) -> list[str]:
    """Say the same as `describe`, each time with less: first without the command, last with phase and count alone."""
    said = records.load(environment.progress)
    if "pid" not in said:
        return _stranger(environment)
    alarm = _alive(said, silent)
    if not any(alarm) and _is_draining(said) and directory.is_marked(environment):
        alarm = (
            "; this may be waiting for itself, for it was started from within such a command",
            "; for itself?",
        )
    return _leader(said, *alarm)


def _is_draining(said: dict[str, object]) -> bool:
    return records.text(said, "phase").startswith(DRAINING)


def _leader(said: dict[str, object], alarm: str, alarm_short: str) -> list[str]:
    """Say what a leader said of itself.

    :param alarm: what is wrong with it, and what can be done; empty if nothing is
    :param alarm_short: the same in a word
    """
    now = time.time()
    job, _ = schedulers.of_record(said)
    who, where = f"waiting for pid {said['pid']}", f" on {said.get('host')}{f' of {job}' if job else ''}"
    age = f", syncing for {max(0.0, now - records.number(said, 'since', now)):.0f} s"
    phase, count, more = records.text(said, "phase"), "", ""
    if said.get("total"):
        count = f" {said.get('done')} of {said['total']}"
    if done := volume(records.number(said, "bytes_done"), records.number(said, "bytes_total")):
        more = f", {done}"
    detail = f", {text}" if (text := records.text(said, "detail")) else ""
    words = f" (`{text}`)" if (text := records.text(said, "command")) else ""
    if not phase:
        return [f"{who}{where}{age}{words}{alarm}", f"{who}{where}{age}{alarm_short}", f"{who}{alarm_short}"]
    brief, least = briefly(phase)
    state = f" ({alarm_short[2:]})" if alarm_short else ""
    return [
        f"{who}{where}{age}: {phase}{count}{more}{detail}{words}{alarm}",
        f"{who}{where}{age}: {phase}{count}{more}{detail}{alarm}",
        f"{who}{where}{age}: {phase}{count}{more}{detail}{alarm_short}",
        f"{who}{age}: {brief}{count}{more}{detail}{alarm_short}",
        f"{who}{age}: {brief}{count}{more}{alarm_short}",
        f"{who}: {least}{count}{more}{alarm_short}",
        f"{who}: {least}{count}{alarm_short}",
        f"waiting{state}: {least}{count}",
        f"{least}{count}{alarm_short}",
        f"{least}{count}",
    ]


def _alive(said: dict[str, object], silent: float) -> tuple[str, str]:
    pid = int(records.number(said, "pid"))
    if records.text(said, "place") == processes.here() != "":
        if processes.is_stopped(pid):
            return f"; it is stopped: continue it with `kill -CONT {pid}`, or end it", "; stopped"
        if not processes.is_alive(pid):
            return "; it is dead, and a child of it still holds the environment lock", "; dead"
    if silent >= SILENCE_SECONDS:
        _, end = schedulers.of_record(said)
        return f"; no sign of life for {silent:.0f} s{f': `{end}` ends its job' if end else ''}", "; silent"
    return "", ""


def _stranger(environment: Environment) -> list[str]:
    """Say for whom one waits who says nothing: somebody who is not envsync, or has only just begun."""
    lock = f"the environment lock `{environment.lock}`"
    holders = processes.holders(environment.lock)
    if not holders:
        if _is_ours(environment):
            return [f"waiting for another envsync, which holds {lock} and has not said yet what it does", _OURS]
        return [f"waiting for whoever holds {lock} (uv, pip or another tool)", "waiting for the environment lock"]
    pids = ", ".join(map(str, holders))
    names = ", ".join(f"pid {pid} on {processes.host()} (`{processes.command_of(pid)}`)" for pid in holders)
    stopped = [str(pid) for pid in holders if processes.is_stopped(pid)]
    more = f"; it is stopped: continue it with `kill -CONT {' '.join(stopped)}`, or end it" if stopped else ""
    brief = "; stopped" if stopped else ""
    return [
        f"waiting for {names}, which holds {lock}{more}",
        f"waiting for {names}, which holds the environment lock{brief}",
        f"waiting for pid {pids}, which holds the environment lock{brief}",
        f"waiting for pid {pids}{brief}",
    ]


_OURS = "waiting for another envsync"


def _is_ours(environment: Environment) -> bool:
    """Tell whether it is envsync that holds the environment lock, though it says nothing: by what only leaders hold."""
    from envsync.waiting.queue import is_held

    return is_held(environment.leading) or identity(environment.lease) != (0, 0)


def _is_terminal() -> bool:
    try:
        return os.isatty(2) and core.variable("TERM") not in ("", "dumb")
    except OSError:
        return False


def _write(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody to tell
