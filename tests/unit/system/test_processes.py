"""What this host tells of processes: real ones, in every state, and where it tells nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.launch import Environment
from envsync.system import processes
from envsync.system.processes import COMMAND_CHARACTERS
from envsync.waiting import cycle, directory, narrator, queue
from tests import needs
from tests.unit.scene import HOLD, LIVENESS_SECONDS, ROOT, helper, holder, write_progress

BEQUEATH = """\
import fcntl, os
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
child = os.fork()
if child:
    os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.read()
"""
SAY = "echo up; read x"
"""A shell's script: once it has said something, the kernel shows its arguments."""
NOBODY = 2**22 + 1
"""No pid: more than the kernel's limit."""


class TestHolders:
    """Who holds a lock."""

    @needs.PROC
    def test_one(self, tmp_path: Path) -> None:
        """The one that excludes all others is known by its pid, and when it has ended, nobody is."""
        path = str(tmp_path / "lock")
        with holder(path) as process:
            assert processes.holders(path) == [process.pid]
        assert processes.holders(path) == []

    @needs.PROC
    def test_several(self, tmp_path: Path) -> None:
        """Those who share it are all named, and we are, too."""
        import fcntl

        path = str(tmp_path / "lock")
        with holder(path, "shared") as one, holder(path, "shared") as other, open(path, "rb") as ours:
            assert processes.holders(path) == sorted([one.pid, other.pid])
            fcntl.flock(ours, fcntl.LOCK_SH)
            assert processes.holders(path) == sorted([one.pid, other.pid, os.getpid()])

    def test_open_is_not_held(self, tmp_path: Path) -> None:
        """Who has the file open, and no lock on it, is not one of them."""
        path = tmp_path / "lock"
        path.touch()
        with path.open("rb"):
            assert processes.holders(str(path)) == []

    def test_another_file(self, tmp_path: Path) -> None:
        """A lock on a file beside it is another."""
        (tmp_path / "lock").touch()
        with holder(str(tmp_path / "other")):
            assert processes.holders(str(tmp_path / "lock")) == []
        assert processes.holders(str(tmp_path / "missing")) == []

    @needs.PROC
    def test_a_child_that_inherited_it(self, tmp_path: Path) -> None:
        """If who took the lock has ended and a child still has the descriptor, it is the child that holds it."""
        path = str(tmp_path / "lock")
        with helper(BEQUEATH, path) as process:
            child = int(process.hear())
            process.process.wait(LIVENESS_SECONDS)
            assert processes.holders(path) == [child]

    @needs.PROC
    def test_a_zombie_holds_nothing(self, tmp_path: Path) -> None:
        """A holder that has ended, and that nobody has waited for yet, is not named, though its child is."""
        path = str(tmp_path / "lock")
        with helper(BEQUEATH, path) as process:
            child = int(process.hear())
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert not processes.is_alive(process.pid)
            assert processes.holders(path) == [child]

    @needs.PROC
    def test_who_waits_does_not_hold(self, tmp_path: Path) -> None:
        """A process that is blocked in flock(2) for it is not a holder."""
        path = str(tmp_path / "lock")
        blocked = HOLD.replace(" | fcntl.LOCK_NB", "").replace(
            "fcntl.flock", 'print("about to", flush=True)\nfcntl.flock'
        )
        with holder(path) as process, helper(blocked, path) as other:
            assert other.hear() == "about to"
            limit = time.monotonic() + LIVENESS_SECONDS
            while "-> FLOCK" not in processes.read_proc("/proc/locks"):
                assert time.monotonic() < limit
            assert processes.holders(path) == [process.pid]


class TestState:
    """Alive, stopped, ended."""

    @needs.PROC
    def test_stopped(self) -> None:
        """A process that was sent SIGSTOP is stopped, and alive; after SIGCONT it is not stopped."""
        with helper("sys.stdin.read()") as process:
            assert not processes.is_stopped(process.pid)
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert processes.is_stopped(process.pid)
            assert processes.is_alive(process.pid)
            os.kill(process.pid, signal.SIGCONT)
            os.waitid(os.P_PID, process.pid, os.WCONTINUED | os.WNOWAIT)
            assert not processes.is_stopped(process.pid)

    @needs.PROC
    def test_ended(self) -> None:
        """A zombie is not alive, and nor is what was never there."""
        with helper("") as process:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert not processes.is_alive(process.pid)
            assert not processes.is_stopped(process.pid)
        assert not processes.is_alive(NOBODY)
        assert not processes.is_stopped(NOBODY)
        assert processes.is_alive(os.getpid())

    @needs.PROC
    def test_a_strange_name(self, tmp_path: Path) -> None:
        """A process may call itself what it likes, parentheses and states included."""
        name = tmp_path / ") Z 1 (x"
        name.symlink_to(sys.executable)
        code = "print('up', flush=True); import sys; sys.stdin.read()"
        with subprocess.Popen([name, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert processes.is_alive(process.pid)
            assert ") Z 1 (x" in processes.read_proc(f"/proc/{process.pid}/stat")
            process.kill()


class TestCommand:
    """What they run, as it is shown."""

    @needs.PROC
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["x"], "x"),
            (["a b", ""], "a b"),
            (["\x1b[31mred\n\r\tx"], "?[31mred???x"),
            (["grüße", "😀"], "grüße 😀"),
            (["\u202e\u200b"], "??"),
            (["x" * 500], "x" * (COMMAND_CHARACTERS - 3 - len(f"sh -c {SAY} sh ")) + "..."),
        ],
    )
    def test_of_a_process(self, arguments: list[str], expected: str) -> None:
        """The name without its directory, then the arguments; nothing that a terminal would obey; not too long."""
        words = ["/bin/sh", "-c", SAY, "sh", *arguments]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert processes.command_of(process.pid) == f"sh -c {SAY} sh {expected}".strip()
            process.kill()

    @needs.PROC
    def test_bytes_that_are_no_text(self) -> None:
        """Arguments that are not UTF-8 are shown as far as that goes."""
        words = [b"/bin/sh", b"-c", SAY.encode(), b"\xff\xfe"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            shown = processes.command_of(process.pid)
            assert shown.startswith(f"sh -c {SAY} ")
            shown.encode()
            process.kill()

    def test_nobody(self) -> None:
        """A process that is gone, or that the kernel runs, has no command."""
        assert processes.command_of(NOBODY) == ""
        assert processes.command_of(2) == ""  # kthreadd

    @pytest.mark.parametrize(
        ("argv", "expected"),
        [
            (["/opt/x/envsync/__main__.py", "run", "--", "x"], "envsync run -- x"),
            (["/usr/bin/envsync", "sync"], "envsync sync"),
            (["-c"], "-c"),
            ([""], ""),
            ([], ""),
            (["x", "\udcff"], "x ?"),
        ],
    )
    def test_our_own(self, monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: str) -> None:
        """Ours is what was typed, however Python was started."""
        monkeypatch.setattr(sys, "argv", argv)
        assert processes.own_command() == expected

    def test_embedded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that embeds Python may have no arguments at all."""
        monkeypatch.delattr(sys, "argv")
        assert processes.own_command() == "envsync"

    @given(st.lists(st.text(st.characters(exclude_categories=()), max_size=60), max_size=5))
    def test_any_words(self, words: list[str]) -> None:
        """Whatever the words are, one printable line of bounded length comes of them."""
        shown = processes.shown(words)
        assert shown == "" or shown.isprintable()
        assert len(shown) <= COMMAND_CHARACTERS


class TestWhere:
    """Which processes and clocks may be compared."""

    @needs.PROC
    def test_one_place(self) -> None:
        """Two processes here say the same of where they are, and it is something."""
        code = "from envsync.system import processes; print(processes.here() or '-', processes.boot() or '-')"
        with helper(code) as process:
            assert process.hear() == f"{processes.here()} {processes.boot()}"
        assert processes.boot() in processes.here()

    @needs.PROC
    def test_another_pid_namespace(self, tmp_path: Path) -> None:
        """In a pid namespace of its own a process is elsewhere, though on the same boot, and knows no holders here."""
        path = str(tmp_path / "lock")
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from envsync.system import processes\n"
            "print(processes.here(), processes.boot(), processes.holders(sys.argv[1]), sep='|')"
        )
        with holder(path):
            words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-I", "-c", code, path]
            try:
                done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIVENESS_SECONDS)
            except FileNotFoundError:
                pytest.skip("unshare(1) is not there")
        if done.returncode and "unshare" in done.stderr:
            pytest.skip(f"no namespaces of our own: {done.stderr}")
        here, boot, found = done.stdout.strip().split("|")
        assert here not in ("", processes.here())
        assert boot == processes.boot()
        assert found == "[]"

    def test_started(self) -> None:
        """The kernel's word for when a process was started is by the clock that we read, to a hundredth of a second."""
        before = processes.clock()
        with helper("from envsync.system import processes; print(processes.started(), processes.clock())") as one:
            started, said = map(float, one.hear().split())
        assert before - 0.011 <= started <= said <= processes.clock()

    @needs.PROC
    def test_ancestors(self) -> None:
        """The parent, its parent, and so on, and not ourselves."""
        found = processes.ancestors()
        assert os.getpid() not in found
        assert os.getppid() in found or os.getppid() == 1
        code = "from envsync.system import processes; print(*processes.ancestors())"
        with helper(code) as process:
            assert {os.getpid(), *found} == set(map(int, process.hear().split()))

    def test_inherited(self, tmp_path: Path) -> None:
        """A descriptor that is open, as those that `run` hands on are, counts, but for one of our own."""
        path = tmp_path / "x"
        path.touch()
        assert not processes.inherited(str(path))
        with path.open("rb") as file:
            assert processes.inherited(str(path))
            assert not processes.inherited(str(path), besides=file.fileno())
            high = os.dup2(file.fileno(), 200)
        assert processes.inherited(str(path))
        os.close(high)
        assert not processes.inherited(str(path))
        assert not processes.inherited(str(tmp_path / "missing"))


def _fails(*_: object) -> None:
    raise FileNotFoundError(2, "No such file or directory")


EVERYTHING: list[Callable[[Environment], object]] = [
    lambda environment: processes.boot(),
    lambda environment: processes.here(),
    lambda environment: processes.clock(),
    lambda environment: processes.started() > 0,
    lambda environment: processes.own_command(),
    lambda environment: processes.command_of(1),
    lambda environment: processes.is_alive(1),
    lambda environment: processes.is_stopped(1),
    lambda environment: processes.holders(environment.lock),
    lambda environment: processes.ancestors(),
    lambda environment: processes.inherited(environment.lock),
    lambda environment: cycle.holds(),
    lambda environment: cycle.find(environment, ("/a",)),
    directory.is_inside,
    narrator.describe,
    queue.waiting,
]


class TestNothing:
    """Where there is no /proc, or not all of it."""

    @pytest.mark.parametrize("ask", EVERYTHING)
    def test_no_proc(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Environment], object]
    ) -> None:
        """Nobody is known, and nothing raises."""
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino}:x")
        monkeypatch.setattr(processes, "read_proc", lambda path: "")
        monkeypatch.setattr(processes.os, "listdir", _fails)
        monkeypatch.setattr(processes.os, "readlink", _fails)
        write_progress(environment, place="", phase="staging")
        ask(environment)

    @pytest.mark.parametrize("text", ["", "garbage", "x " * 60, ") ", ") ) )", "\n", "1: FLOCK"])
    @pytest.mark.parametrize("ask", EVERYTHING)
    def test_a_proc_that_nobody_understands(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Environment], object], text: str
    ) -> None:
        """Nor does it where the kernel says what no kernel has said yet."""
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino}:x")
        monkeypatch.setattr(processes, "read_proc", lambda path: text)
        ask(environment)

    def test_a_proc_that_hides(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If it names a holder that has ended and does not list processes, nobody is known."""
        path = str(tmp_path / "lock")
        with helper(BEQUEATH, path) as process:
            process.hear()
            process.process.wait(LIVENESS_SECONDS)
            monkeypatch.setattr(processes.os, "listdir", _fails)
            assert processes.holders(path) == []

    @needs.PROC
    def test_read(self, tmp_path: Path) -> None:
        """What cannot be read is empty, and what is no text is read as far as that goes."""
        assert processes.read_proc(str(tmp_path)) == ""
        assert processes.read_proc(str(tmp_path / "x")) == ""
        (tmp_path / "x").write_bytes(b"a\xff" * 50_000)
        assert processes.read_proc(str(tmp_path / "x")) == "a\ufffd" * 50_000
