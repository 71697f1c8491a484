"""What a waiter says: for whom it waits, since when, how far they are; on a terminal in one line that goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.locks.flock import Flock
from envsync.system import processes
from envsync.waiting import narrator
from envsync.waiting.narrator import LINE_SECONDS, SILENCE_SECONDS, Narrator, describe, forms_of
from envsync.waiting.shortening import fitted, width
from tests import needs
from tests.unit.scene import LIVENESS_SECONDS, ROOT, START, Clock, helper, holder, write_progress

SAID = {"phase": "downloading", "done": 3, "total": 9, "command": "envsync run x", "since": START - 11}
LINE = "waiting for pid 4711 on n7, syncing for 11 s: downloading 3 of 9 (`envsync run x`)"
ERASE = "\r\x1b[2K"
WAIT = """\
from envsync.waiting import waiter
from envsync.waiting.waiter import Wait
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.errors import EnvsyncError
from envsync.launch.request import Request
waiter.SOCIAL_SECONDS = 0
settings = {"quiet": sys.argv[2] == "quiet", "timeout": float(sys.argv[3]) if sys.argv[3:] else None}
try:
    Wait(Demand(Request(settings, "pylock.toml", "0", sys.argv[1]), Environment(sys.argv[1]))).until_over()
    print("it leads", file=sys.stderr)
except (EnvsyncError, KeyboardInterrupt) as error:
    print(type(error).__name__, file=sys.stderr)
"""


class TestDescribe:
    """One line."""

    def test_all_of_it(self, environment: Environment, clock: Clock) -> None:
        """Pid, host, since when, phase, how far, and the command."""
        write_progress(environment, **SAID)
        assert describe(environment) == LINE

    @pytest.mark.parametrize("value", [{"since": None}, {"total": 3}, {"host": None}, {"phase": 3}, {"command": None}])
    def test_with_little_to_go_on(self, environment: Environment, clock: Clock, value: dict[str, object]) -> None:
        """Progress that lacks something is described as far as that goes."""
        write_progress(environment, **value)
        assert describe(environment).startswith("waiting for pid 4711 on ")

    @pytest.mark.parametrize("pid", [None, "x", [1], 1e999, -1, 2**80])
    def test_no_pid(self, environment: Environment, clock: Clock, pid: object) -> None:
        """A pid that is none is in nobody's way, here or elsewhere."""
        for place in ("", "elsewhere", processes.here()):
            write_progress(environment, pid=pid, place=place)
            assert describe(environment).startswith("waiting for ")

    def test_a_clock_that_is_ahead(self, environment: Environment, clock: Clock) -> None:
        """Another host's clock may be ahead of ours: nobody syncs since the future."""
        write_progress(environment, since=clock.now + 2_000)
        assert describe(environment) == "waiting for pid 4711 on n7, syncing for 0 s"

    def test_silence(self, environment: Environment, clock: Clock) -> None:
        """Of whom nothing has been heard for a while, this is said; a heartbeat late is nothing to talk about."""
        write_progress(environment, **SAID)
        assert describe(environment, SILENCE_SECONDS - 1) == LINE
        assert describe(environment, SILENCE_SECONDS + 1) == f"{LINE}; no sign of life for 21 s"

    def test_pids_of_elsewhere(self, environment: Environment, clock: Clock) -> None:
        """A pid of another host or container is not looked for here."""
        for place in ("", "another boot pid:[1]"):
            write_progress(environment, **SAID, pid=2**22 + 1, place=place)
            assert "dead" not in describe(environment)


DOWNLOAD = {**SAID, "bytes_done": 45_000_000, "bytes_total": 310_200_000, "detail": "numpy 12.0 of 80.1 MB"}


class TestShortened:
    """The same in less room."""

    def shown(self, environment: Environment, columns: int) -> str:
        return fitted(forms_of(environment), columns)

    def test_the_order_in_which_things_go(self, environment: Environment, clock: Clock) -> None:
        """The command first, then the host, the slowest wheel, the seconds, the bytes, whom; phase and count stay."""
        write_progress(environment, **DOWNLOAD)
        forms = list(dict.fromkeys(self.shown(environment, columns) for columns in range(200, 10, -1)))
        assert forms[:7] == [
            "waiting for pid 4711 on n7, syncing for 11 s: downloading 3 of 9, 45.0 of 310.2 MB, numpy 12.0 of 80.1 MB "
            "(`envsync run x`)",
            "waiting for pid 4711 on n7, syncing for 11 s: downloading 3 of 9, 45.0 of 310.2 MB, numpy 12.0 of 80.1 MB",
            "waiting for pid 4711, syncing for 11 s: downloading 3 of 9, 45.0 of 310.2 MB, numpy 12.0 of 80.1 MB",
            "waiting for pid 4711, syncing for 11 s: downloading 3 of 9, 45.0 of 310.2 MB",
            "waiting for pid 4711: downloading 3 of 9, 45.0 of 310.2 MB",
            "waiting for pid 4711: downloading 3 of 9",
            "waiting: downloading 3 of 9",
        ]

    @pytest.mark.parametrize("said", [{}, {"host": "a" * 64}, {"pid": 4194304}, {"command": "x" * 80}])
    def test_at_any_width(self, environment: Environment, clock: Clock, said: dict[str, object]) -> None:
        """Phase and count are there on terminals of 40 columns, one of which stays free, and of all that are wider."""
        write_progress(environment, **{**DOWNLOAD, "done": 63, "total": 123, **said})
        for columns in range(39 - len("envsync: "), 112):
            shown = self.shown(environment, columns)
            assert width(shown) <= columns
            assert "downloading 63 of 123" in shown

    def test_a_long_phase(self, environment: Environment, clock: Clock) -> None:
        """A phase that tells a story is brought down to its beginning."""
        phase = "waiting for commands that run in the environment to end: pid 12 (`python job.py`), pid 13 (`x`)"
        write_progress(environment, phase=phase)
        assert phase in self.shown(environment, 160)
        assert self.shown(environment, 100).endswith(": waiting for commands that run in the environment to end")
        assert self.shown(environment, 50) == "waiting for pid 4711: waiting for commands"
        assert self.shown(environment, 30) == "waiting: waiting for commands"

    @needs.PROC
    def test_what_is_wrong_stays(self, environment: Environment, clock: Clock) -> None:
        """That a leader is stopped is said in a word where there is no room for more, longer than all but its phase."""
        with helper("sys.stdin.read()") as process:
            write_progress(environment, **SAID, pid=process.pid, place=processes.here())
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            for columns in range(36, 100):
                assert "stopped" in self.shown(environment, columns)

    @pytest.mark.parametrize(
        "phase", ["waiting for commands that run in the environment to end: pid 7 (`x`)", "staging"]
    )
    @pytest.mark.parametrize("marked", [True, False])
    def test_perhaps_for_itself(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch, phase: str, marked: bool
    ) -> None:
        """Who was started from within, and waits for the commands there to end, may wait for what started it."""
        write_progress(environment, phase=phase)
        inode = os.stat(environment.in_use).st_ino
        monkeypatch.setenv("ENVSYNC_IN", f"{inode + (not marked)}:abc")
        assert ("may be waiting for itself" in describe(environment)) == (marked and phase != "staging")

    @needs.PROC
    def test_strangers(self, environment: Environment) -> None:
        """Of others, the pid stays."""
        with holder(environment.lock) as process:
            assert self.shown(environment, 30) == f"waiting for pid {process.pid}"
        assert self.shown(environment, 35) == "waiting for the environment lock"


class TestLeader:
    """A leader of this host."""

    @needs.PROC
    def test_stopped(self, environment: Environment, clock: Clock) -> None:
        """One that was stopped is said to be, with the command that continues it."""
        with helper("sys.stdin.read()") as process:
            write_progress(environment, **SAID, pid=process.pid, place=processes.here())
            line = LINE.replace("4711", str(process.pid))
            assert describe(environment) == line
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            expected = f"{line}; it is stopped: continue it with `kill -CONT {process.pid}`, or end it"
            assert describe(environment, 99) == expected

    @needs.PROC
    def test_dead_with_a_child(self, environment: Environment, clock: Clock) -> None:
        """One that is dead, though the lock is held still, has left it to a child."""
        with helper("") as process:
            process.process.wait(LIVENESS_SECONDS)
            write_progress(environment, **SAID, pid=process.pid, place=processes.here())
            line = LINE.replace("4711", str(process.pid))
            assert (
                describe(environment, 99) == f"{line}; it is dead, and a child of it still holds the environment lock"
            )

    def test_alive(self, environment: Environment, clock: Clock) -> None:
        """Of one that is alive and silent, the silence is said."""
        write_progress(environment, **SAID, pid=os.getpid(), place=processes.here())
        assert describe(environment, 99).endswith("(`envsync run x`); no sign of life for 99 s")


class TestStranger:
    """Somebody who says nothing of itself."""

    @needs.PROC
    def test_known(self, environment: Environment) -> None:
        """Whoever holds the lock here is named: pid, host and command."""
        with holder(environment.lock) as process:
            said = describe(environment)
            command = processes.command_of(process.pid)
            assert said.startswith(
                f"waiting for pid {process.pid} on {processes.host()} (`{command}`), which holds the "
            )
            assert said.endswith(f"environment lock `{environment.lock}`")

    @needs.PROC
    def test_stopped(self, environment: Environment) -> None:
        """If it is stopped, that is said, too."""
        with holder(environment.lock) as process:
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert describe(environment).endswith(f"continue it with `kill -CONT {process.pid}`, or end it")

    @pytest.mark.parametrize("how", ["leading", "lease"])
    def test_one_of_ours(self, environment: Environment, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of envsync it is not said that it may be another tool, even if nobody here knows who holds the lock."""
        monkeypatch.setattr(processes, "holders", lambda path: [])
        with holder(getattr(environment, how)):
            said = describe(environment)
        assert said.startswith("waiting for another envsync, which holds the environment lock")
        assert "tool" not in said

    def test_unknown(self, environment: Environment) -> None:
        """Where nothing is known of it, it is another tool's, on another host perhaps."""
        assert "uv, pip or another tool" in describe(environment)
        assert environment.lock in describe(environment)

    @pytest.mark.parametrize("content", [b"", b"{", b'{"host": "n7"}', b"[1]"])
    def test_damaged_progress(self, environment: Environment, content: bytes) -> None:
        """Progress that names no pid names nobody."""
        Path(environment.progress).write_bytes(content)
        assert "uv, pip or another tool" in describe(environment)


class TestWhen:
    """How often."""

    @pytest.fixture
    def said(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[tuple[float, str]]:
        said: list[tuple[float, str]] = []
        monkeypatch.setattr(narrator, "say", lambda text: said.append((clock.passed, text)))
        return said

    def test_a_line_a_minute(
        self, environment: Environment, clock: Clock, said: list[tuple[float, str]], leader: Flock
    ) -> None:
        """At once, then once a minute."""
        voice = Narrator(environment, clock.now, quiet=False)
        for _ in range(1_300):
            voice.look(clock.now)
            clock.now += 0.1
        assert [round(when / LINE_SECONDS) for when, _ in said] == [0, 1, 2]
        voice.conclude()
        assert len(said) == 3

    def test_signs_of_life(self, environment: Environment, clock: Clock, said: list[tuple[float, str]]) -> None:
        """A leader that says anything, be it what it said before, is not silent."""
        voice = Narrator(environment, clock.now, quiet=False)
        for second in range(125):
            if second < 62 and second % 5 == 0:
                write_progress(environment, **SAID)
            voice.look(clock.now)
            clock.now += 1
        assert [text.partition("; ")[2] for _, text in said] == ["", "", "no sign of life for 60 s"]

    def test_quiet(self, environment: Environment, clock: Clock, said: list[tuple[float, str]]) -> None:
        """With --quiet, nothing."""
        voice = Narrator(environment, clock.now, quiet=True)
        for _ in range(200):
            voice.look(clock.now)
            clock.now += 1
        voice.conclude()
        assert said == []


class Terminal:
    """A pseudo-terminal, and a waiter whose stderr it is."""

    def __init__(
        self, environment: Environment, *words: str, term: str, columns: int, end: Callable[[], object]
    ) -> None:
        import termios

        self.ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        self.end = end
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WAIT}"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", code, environment.path, *(words or ("loud",))],
            stderr=theirs,
            env={**os.environ, "TERM": term},
        )
        os.close(theirs)

    def text(self, *until: str) -> str:
        """Let the wait end once something was said, and return all that came. Several: one after the other."""
        seen = b""
        awaited = [text.encode() for text in until]
        while True:
            try:
                chunk = os.read(self.ours, 1 << 16)
            except OSError:  # EIO: nobody has the other end open any more
                chunk = b""
            if not chunk:
                break
            seen += chunk
            if awaited and awaited[0] in seen:
                awaited.pop(0)
                self.end()
        os.close(self.ours)
        self.process.wait(LIVENESS_SECONDS)
        return seen.decode()


class TestTerminal:
    """A real process, and what it writes to a terminal."""

    def test_a_line_that_goes(self, environment: Environment, leader: Flock) -> None:
        """It is one line, written over and over, and erased before anything else is said."""
        write_progress(environment, **SAID)
        text = Terminal(environment, term="xterm", columns=200, end=leader.release).text("waiting for")
        *lines, last = text.split(ERASE)
        assert lines[0] == ""
        assert lines[1:]
        assert all(line.startswith("envsync: waiting for pid 4711 on n7") and "\n" not in line for line in lines[1:])
        assert last == "it leads\r\n"

    def test_erased_after_an_interrupt(self, environment: Environment, leader: Flock) -> None:
        """However the wait ends, the line goes."""
        terminal = Terminal(environment, term="xterm", columns=80, end=lambda: None)
        terminal.end = lambda: terminal.process.send_signal(signal.SIGINT)
        assert terminal.text("waiting for").endswith(f"{ERASE}KeyboardInterrupt\r\n")

    def test_erased_after_a_limit(self, environment: Environment, leader: Flock) -> None:
        """So it does when the time is up."""
        text = Terminal(environment, "loud", "0.3", term="xterm", columns=80, end=lambda: None).text()
        assert text.endswith(f"{ERASE}WaitTimeoutError\r\n")

    @pytest.mark.parametrize("columns", [21, 40, 79])
    def test_narrower_than_the_line(self, environment: Environment, leader: Flock, columns: int) -> None:
        """A line that does not fit is shortened: one that wraps could not be erased. Phase and count stay."""
        write_progress(environment, **SAID)
        text = Terminal(environment, term="xterm", columns=columns, end=leader.release).text("downloading")
        *lines, _ = text.split(ERASE)
        assert max(map(len, lines[1:])) < columns
        assert all(("downloading 3 of 9" if columns > 30 else "downloading") in line for line in lines[1:])

    def test_after_a_resize(self, environment: Environment, leader: Flock) -> None:
        """The line fits the window as it is now, not as it was when the wait began."""
        import termios

        write_progress(environment, **SAID)
        terminal = Terminal(environment, term="xterm", columns=120, end=lambda: None)

        def narrow() -> None:
            termios.tcsetwinsize(terminal.ours, (24, 40))
            terminal.end = leader.release

        terminal.end = narrow
        assert "envsync run x" in terminal.text("envsync run x", "envsync: waiting: downloading 3 of 9")

    def test_characters_of_two_columns(self, environment: Environment, leader: Flock) -> None:
        """Nor may one that is made of wide characters wrap."""
        import unicodedata

        write_progress(environment, **{**SAID, "host": "宽" * 40})
        text = Terminal(environment, term="xterm", columns=60, end=leader.release).text("waiting")
        *lines, _ = text.split(ERASE)
        widths = [sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) for line in lines[1:]]
        assert max(widths) < 60

    def test_nothing_that_a_terminal_obeys(self, environment: Environment, leader: Flock) -> None:
        """What others write into the environment does not move the cursor or set the title of a waiter's terminal."""
        write_progress(environment, **{**SAID, "host": "n7\x1b]0;title\x07\r\n", "phase": "a\x1b[2Jb"})
        text = Terminal(environment, term="xterm", columns=200, end=leader.release).text("waiting for")
        assert "\x1b" not in text.replace(ERASE, "")

    @pytest.mark.parametrize("term", ["dumb", ""])
    def test_a_terminal_that_cannot(self, environment: Environment, leader: Flock, term: str) -> None:
        """Where a line cannot be erased, it is a plain one, as in a log."""
        write_progress(environment, **SAID)
        text = Terminal(environment, term=term, columns=40, end=leader.release).text("waiting for")
        first, *rest = text.split("\r\n")
        assert first.startswith("envsync: waiting for pid 4711 on n7")
        assert first.endswith("downloading 3 of 9 (`envsync run x`)")
        assert rest == ["it leads", ""]

    def test_quiet(self, environment: Environment, leader: Flock) -> None:
        """With --quiet, the terminal stays as it was."""
        text = Terminal(environment, "quiet", "0.3", term="xterm", columns=80, end=leader.release).text()
        assert text == "WaitTimeoutError\r\n"
