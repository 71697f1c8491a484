"""A supervised program: its status and its words come back, and nothing that it has started outlives it, or us."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.building import supervised, supervisor
from envsync.errors import FilesystemError
from envsync.locks import flock
from envsync.system import processes
from tests import needs

pytestmark = needs.PROC
ROOT = Path(__file__).parent.parent.parent.parent

DAEMON = """\
import os, signal, sys, time
def leave(name, session=True, stubborn=False):
    '''Leave a daemon that has forked twice; returns once its pid is in a file of this name.'''
    reading, writing = os.pipe()
    if os.fork() == 0:
        if session:
            os.setsid()
        if os.fork() == 0:
            if stubborn:
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            with open(name + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(name + ".new", name)
            os.write(writing, b"x")
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()
    os.read(reading, 1)
"""
"""Prepended to programs that leave something running."""
LEADER = """\
import os, sys
sys.path.insert(0, {root!r})
from envsync.building import supervised, supervisor
from envsync.locks import flock
lock = flock.acquire_nowait("lock", shared=False)
supervised.run([sys.executable, "-c", {program!r}], cwd=os.getcwd(), env=dict(os.environ), log="log")
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No child of ours is left, running or not waited for, and no descriptor."""
    before = own_children(), sorted(os.listdir("/proc/self/fd"))
    yield
    assert (own_children(), sorted(os.listdir("/proc/self/fd"))) == before


def own_children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs Python code under supervision, in the test's directory."""

    def run(code: str, *words: str, checkpoint: Callable[[], object] = lambda: None, **env: str) -> int:
        return supervised.run(
            [sys.executable, "-c", code, *words],
            cwd=str(tmp_path),
            env={**os.environ, **env},
            log=str(tmp_path / "log"),
            checkpoint=checkpoint,
        )

    return run


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.01)


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_comes_back(run: Callable[..., int], status: int) -> None:
    """Whatever a program exits with is what is returned."""
    assert run(f"raise SystemExit({status})") == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_a_signal_comes_back(run: Callable[..., int], number: int) -> None:
    """A program that a signal has ended gives minus its number; none is ignored that the supervisor ignores."""
    code = f"import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    assert run(code) == -number


def test_words_are_logged_in_order(run: Callable[..., int], tmp_path: Path) -> None:
    """Both streams are one, of the program and of what it starts, after what the log held before."""
    (tmp_path / "log").write_text("before\n")
    code = "import os\nfor n in range(500): os.write(1 + n % 2, b'%d\\n' % n)\nos.system('echo last >&2')"
    assert run(code) == 0
    assert (tmp_path / "log").read_text() == "before\n" + "".join(f"{n}\n" for n in range(500)) + "last\n"


def test_much_is_logged(run: Callable[..., int], tmp_path: Path) -> None:
    """Nobody has to read it for a program to go on saying things."""
    assert run("import os\nfor _ in range(300): os.write(2, b'x' * 65536)") == 0
    assert (tmp_path / "log").stat().st_size == 300 * 65536


def test_what_a_program_is_given(run: Callable[..., int], tmp_path: Path) -> None:
    """Its words, variables and directory as they are, whatever bytes; no input, no descriptors, no ignored signals."""
    odd = os.fsdecode(b"\xff\xfe $HOME '\n\x01")
    many = "many" * 30_000  # larger than a pipe
    code = (
        "import os, signal, sys\n"
        "ignored = [n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN]\n"
        "print([os.fsencode(sys.argv[1]), os.environb[b'ODD'], os.getcwd(), sys.stdin.read(),\n"
        "       sorted(os.listdir('/proc/self/fd')), len(os.environ['MANY']), ignored, signal.pthread_sigmask(0, ()),\n"
        "       os.getsid(0) == os.getpid(), 'LC_CTYPE' in os.environ])"
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert run(code, odd, ODD=odd, MANY=many, LC_ALL="C.UTF-8") == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    python = ["Signals.SIGPIPE", "Signals.SIGXFSZ"]  # Python itself ignores them
    bytes_of_odd = os.fsencode(odd)
    found = (tmp_path / "log").read_text().strip()
    ignored = f"[{', '.join(f'<{name}: {getattr(signal, name[8:]).value}>' for name in python)}]"
    assert found == (
        f"[{bytes_of_odd!r}, {bytes_of_odd!r}, {str(tmp_path)!r}, '', ['0', '1', '2', '3'], {len(many)}, "
        f"{ignored}, set(), True, False]"
    )


@pytest.mark.parametrize("argv", ["not-there", "./not-there", "."])
def test_a_program_that_cannot_be_started(tmp_path: Path, argv: str) -> None:
    """The system's own answer comes back, with the program's name."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # which one, the next lines say
        supervised.run([argv], cwd=str(tmp_path), env={"PATH": "/usr/bin"}, log=str(tmp_path / "log"))
    assert caught.value.filename == argv
    assert caught.value.errno == (errno.EACCES if argv == "." else errno.ENOENT)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is named, not the program."""
    with pytest.raises(FileNotFoundError) as caught:
        supervised.run(["true"], cwd=str(tmp_path / "no"), env=dict(os.environ), log=str(tmp_path / "log"))
    assert caught.value.filename == str(tmp_path / "no")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """Nothing is started then."""
    with pytest.raises(FilesystemError, match="cannot write"):
        supervised.run(["touch", "ran"], cwd=str(tmp_path), env=dict(os.environ), log=str(tmp_path / "no/log"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("status", [0, 1])
def test_a_daemon_ends_with_its_program(run: Callable[..., int], tmp_path: Path, session: bool, status: int) -> None:
    """One that has forked twice, begun another session and ignores signals is gone when the call returns."""
    names = ["first", "second", "third"]
    code = DAEMON + "".join(f"leave({name!r}, {session}, stubborn=True)\n" for name in names)
    assert run(f"{code}raise SystemExit({status})") == status
    pids = [int((tmp_path / name).read_text()) for name in names]
    assert [pid for pid in pids if processes.read_proc(f"/proc/{pid}/stat")] == []


def test_all_ends_when_the_program_is_killed(run: Callable[..., int], tmp_path: Path) -> None:
    """By itself, and by SIGKILL."""
    assert run(DAEMON + "leave('daemon'); os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    assert not processes.is_alive(int((tmp_path / "daemon").read_text()))


class Enough(Exception):  # noqa: N818  # it is no error
    """What a test's checkpoint raises."""


def test_what_a_checkpoint_raises_ends_all(run: Callable[..., int], tmp_path: Path) -> None:
    """The program, its daemon and a child that was stopped are gone before the exception goes on."""
    code = DAEMON + (
        "leave('daemon', stubborn=True)\n"
        "child = os.fork()\n"
        "if not child: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.waitpid(child, os.WUNTRACED)\n"
        "open('stopped.new', 'w').write(str(child)); os.rename('stopped.new', 'stopped')\n"
        "time.sleep(600)"
    )

    def checkpoint() -> None:
        if (tmp_path / "stopped").exists():
            raise Enough

    with pytest.raises(Enough):
        run(code, checkpoint=checkpoint)
    for name in ("daemon", "stopped"):
        assert not processes.is_alive(int((tmp_path / name).read_text()))


def test_a_program_that_was_stopped_is_ended(run: Callable[..., int], tmp_path: Path) -> None:
    """A program under SIGSTOP does not answer, and ends all the same."""
    code = "import os, signal; open('pid', 'w').write(str(os.getpid())); os.kill(os.getpid(), signal.SIGSTOP)"

    def checkpoint() -> None:
        if (tmp_path / "pid").exists() and (pid := (tmp_path / "pid").read_text()) and processes.is_stopped(int(pid)):
            raise Enough

    with pytest.raises(Enough):
        run(code, checkpoint=checkpoint)
    assert not processes.is_alive(int((tmp_path / "pid").read_text()))


def test_a_checkpoint_may_raise_at_once(run: Callable[..., int], tmp_path: Path) -> None:
    """Before the program has even begun, too, and with a request that no pipe holds."""

    def checkpoint() -> None:
        raise Enough

    with pytest.raises(Enough):
        run("open('ran', 'w')", "x" * 120_000, checkpoint=checkpoint)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Return a function that starts a process which holds a lock and runs a program under supervision."""
    started = []

    def start(program: str) -> subprocess.Popen[bytes]:
        code = LEADER.format(root=str(ROOT), program=DAEMON + program)
        started.append(subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_ends_with_the_leader(
    leader: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path, number: int
) -> None:
    """However the leader dies, its lock is free for others that very moment, and all that was built with it ends."""
    process = leader(
        "open('program.new', 'w').write(str(os.getpid())); os.rename('program.new', 'program')\n"
        "leave('daemon', stubborn=True); time.sleep(600)"
    )
    wait_until((tmp_path / "daemon").exists)
    pids = [int((tmp_path / name).read_text()) for name in ("program", "daemon")]
    assert all(map(processes.is_alive, pids))
    process.send_signal(number)
    process.wait()
    lock = flock.acquire_nowait(str(tmp_path / "lock"), shared=False)
    assert lock is not None
    lock.release()
    wait_until(lambda: not any(map(processes.is_alive, pids)))


def test_nothing_of_a_program_has_the_lock(leader: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Neither the supervisor nor the program nor its daemon holds the leader's lock while all of them live."""
    process = leader("leave('daemon'); time.sleep(600)")
    wait_until((tmp_path / "daemon").exists)
    assert processes.holders(str(tmp_path / "lock")) == [process.pid]
    inode = (tmp_path / "lock").stat().st_ino
    daemon = int((tmp_path / "daemon").read_text())
    supervisor = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    program = Path(f"/proc/{supervisor[0]}/task/{supervisor[0]}/children").read_text().split()
    assert str(daemon) in program  # adopted
    for pid in (*supervisor, *program):
        assert inode not in [os.stat(f"/proc/{pid}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{pid}/fd")]


def test_a_fork_that_has_our_end_of_the_pipe(leader: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Where another process has inherited it, the pipe does not end with the leader: then its death is seen."""
    code = LEADER.format(root=str(ROOT), program=DAEMON + "leave('daemon'); time.sleep(600)")
    forking = (
        "import threading, time, os\n"
        "def fork():\n"
        "    while not os.path.exists('daemon'): time.sleep(0.01)\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        time.sleep(600)\n"
        "    open('fork.new', 'w').write(str(pid)); os.rename('fork.new', 'fork')\n"
        "threading.Thread(target=fork, daemon=True).start()\n"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", forking + code], cwd=tmp_path)
    wait_until((tmp_path / "fork").exists)
    fork = int((tmp_path / "fork").read_text())
    try:
        process.kill()
        process.wait()
        wait_until(lambda: not processes.is_alive(int((tmp_path / "daemon").read_text())))
        assert processes.is_alive(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_a_supervisor_that_is_killed(run: Callable[..., int], tmp_path: Path) -> None:
    """Its program dies with it, and counts as killed."""
    code = (
        "import os, signal, time; open('pid', 'w').write(str(os.getpid())); os.kill(os.getppid(), 9); time.sleep(600)"
    )
    assert run(code) == -signal.SIGKILL
    wait_until(lambda: not processes.is_alive(int((tmp_path / "pid").read_text())))


def test_a_supervisor_hears_no_other_signal(run: Callable[..., int]) -> None:
    """A terminal or a job's end signals everybody: what is to be done then, we say."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    code = f"import os, signal\nfor name in {names}: os.kill(os.getppid(), getattr(signal, name))\nraise SystemExit(7)"
    assert run(code) == 7


def test_many_at_once(run: Callable[..., int], tmp_path: Path) -> None:
    """Twenty threads run a program each: every one gets its own status, and no daemon is left."""
    found: dict[int, int] = {}

    def one(number: int) -> None:
        found[number] = run(f"{DAEMON}leave('daemon-{number}'); raise SystemExit({number})")

    threads = [threading.Thread(target=one, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(20)}
    assert not [pid for pid in tmp_path.glob("daemon-*") if processes.is_alive(int(pid.read_text()))]


def test_what_forks_on_and_on_is_ended(run: Callable[..., int], tmp_path: Path) -> None:
    """A program that replaces itself by a child all the time is caught in the end."""
    code = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True:\n"
        "        with open('beats', 'a') as file: file.write('x')\n"
        "        if os.fork(): os._exit(0)\n"
        "while not os.path.exists('beats'): pass\n"
    )
    assert run(code) == 0
    beats = (tmp_path / "beats").stat().st_size
    assert not [name for name in os.listdir("/proc") if name.isdigit() and cwd_of(name) == str(tmp_path)]
    assert (tmp_path / "beats").stat().st_size == beats


def cwd_of(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_where_the_kernel_does_not_adopt(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """As on macOS: the program's process group is ended, a daemon that has not left it among them."""
    script = Path(supervisor.__file__).read_text()
    (tmp_path / "supervisor.py").write_text(
        script.replace("PR_SET_CHILD_SUBREAPER = 1, 36", "PR_SET_CHILD_SUBREAPER = 1, -1")
    )
    monkeypatch.setattr(supervised, "_SUPERVISOR", str(tmp_path / "supervisor.py"))
    code = DAEMON + "leave('daemon', session=False, stubborn=True)\n"

    def checkpoint() -> None:
        if is_cancelled and (tmp_path / "daemon").exists():
            raise Enough

    if is_cancelled:
        with pytest.raises(Enough):
            run(code + "time.sleep(600)", checkpoint=checkpoint)
    else:
        assert run(code + "raise SystemExit(4)", checkpoint=checkpoint) == 4
    wait_until(lambda: not processes.is_alive(int((tmp_path / "daemon").read_text())))  # whoever adopts it waits for it
