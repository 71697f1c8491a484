"""What a program starts while it syncs in a thread has none of envsync's locks; what envsync starts has them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import envsync
from envsync.launch import command
from envsync.locks import flock
from envsync.system import forking, forks
from tests.environments import FIXTURES
from tests.unit.fetching.server import File, serving
from tests.unit.library.program import write_lock
from tests.wheels import build_wheel

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Stopped:
    """A sync in a thread that stops at its first report of a phase.

    :param phase: how that begins
    """

    def __init__(self, phase: str, lock: Path, env: Path) -> None:
        self.phase = phase
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=envsync.sync, args=(lock,), kwargs={"env": env, "report": self.report})

    def report(self, phase: str, *_: int) -> None:
        if phase.startswith(self.phase) and not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(60)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.reached.wait(60)

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.thread.join()


def open_files(directory: Path, pid: int | str = "self") -> list[str]:
    """Return what a process has open in a directory."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if path.startswith(f"{directory}/"):
            found.append(path)
    return sorted(found)


@contextmanager
def forked(fork: Callable[[], int] = os.fork) -> Iterator[int]:
    """Fork a child that does nothing until the block ends."""
    reading, writing = os.pipe()
    pid = fork()
    if not pid:
        os.write(writing, b".")
        signal.pause()
        os._exit(1)
    os.read(reading, 1)  # it is up, and its hooks have run
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("phase", ["looking", "resolving", "staging", "committing"])
def test_a_fork_while_a_thread_leads(tmp_path: Path, phase: str) -> None:
    """Whatever the sync is doing: the child has no lock of it, and the next sync beside it has not to wait."""
    env = tmp_path / "env"
    with Stopped(phase, LOCK, env):
        assert open_files(tmp_path)
        with forked() as pid:
            assert open_files(tmp_path, pid) == []
    with Stopped(phase, NEXT, env), forked() as pid:
        assert open_files(tmp_path, pid) == []


def test_a_fork_while_a_thread_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the locks of wheels and of what is downloaded."""
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(tmp_path / "cache"))
    wheel = build_wheel(tmp_path, files={"demo/x": os.urandom(200_000)})
    with serving() as server:
        file = server.files[f"/{os.path.basename(wheel)}"] = File(Path(wheel).read_bytes(), hold=threading.Event())
        lock = tmp_path / "pylock.toml"
        write_lock(lock, [wheel], url=server.url)
        thread = threading.Thread(target=envsync.sync, args=(lock,), kwargs={"env": tmp_path / "env"})
        thread.start()
        assert server.began.wait(60)
        names = {os.path.splitext(path)[1] for path in open_files(tmp_path / "cache")}
        with forked() as pid:
            assert open_files(tmp_path, pid) == []
        assert file.hold is not None
        file.hold.set()
        thread.join()
    assert ".part" in names


def test_a_fork_while_a_thread_waits(tmp_path: Path) -> None:
    """Nor its name in the list of those who wait, which others would take for somebody who does."""
    env = tmp_path / "env"
    waiter = threading.Thread(target=envsync.sync, args=(LOCK,), kwargs={"env": env})
    with envsync.use(LOCK, env=env) as hold, Stopped("waiting for commands", NEXT, env):
        waiter.start()
        while not any("/waiting/" in path for path in open_files(env)):
            os.sched_yield()
        with forked() as pid:
            # The hold of the block is the program's own, and is shared.
            assert open_files(tmp_path, pid) == [f"{env}/.envsync/in-use"]
        hold.release()
    waiter.join()


def test_a_fork_past_python(tmp_path: Path) -> None:
    """C code that forks runs no hooks: the lock ends with the sync all the same."""
    env = tmp_path / "env"
    with Stopped("staging", LOCK, env):
        reading, writing = os.pipe()
        pid = ctypes.CDLL(None).fork()
        if not pid:
            os.read(reading, 1)
            os._exit(0)
    try:
        assert f"{env}/.lock" in open_files(env, pid)
        assert envsync.sync(NEXT, env=env, timeout=20).outcome == "synced"
    finally:
        os.write(writing, b".")
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_what_is_executed(tmp_path: Path) -> None:
    """A program that is started meanwhile, with all descriptors that are to be inherited, has none of them."""
    with Stopped("staging", LOCK, tmp_path / "env"):
        words = [sys.executable, "-c", "print('up', flush=True); input()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(words, close_fds=False, **pipes) as process:  # type: ignore[call-overload]
            assert process.stdout.readline() == b"up\n"
            assert open_files(tmp_path, process.pid) == []
            process.communicate(b"\n")


def test_our_own_children_have_all_locks(tmp_path: Path) -> None:
    """Whoever works for a sync keeps its locks for as long as it lives, also if the parent was killed."""
    lock = flock.acquire_nowait(str(tmp_path / "lock"), shared=False)
    assert lock is not None
    with forked(forks.fork) as pid:
        assert open_files(tmp_path, pid) == [str(tmp_path / "lock")]
    places = tmp_path / "places"
    places.mkdir()
    forking.share(4, lambda number: (places / str(number)).write_text(" ".join(open_files(tmp_path))) and None)
    assert {path.read_text() for path in places.iterdir()} == {str(tmp_path / "lock")}
    lock.release()


def test_a_number_that_was_given_again(tmp_path: Path) -> None:
    """What has the number of a lock that was closed behind envsync's back is not closed in a child."""
    fd = command.open_lock(str(tmp_path / "lock"), os.O_RDWR | os.O_CREAT)
    os.close(fd)
    (tmp_path / "other").touch()
    assert os.open(tmp_path / "other", os.O_RDONLY) == fd
    with forked() as pid:
        assert open_files(tmp_path, pid) == [str(tmp_path / "other")]
    os.close(fd)
    command.let_go(fd)


def test_a_child_finds_its_lock_gone(tmp_path: Path) -> None:
    """In a child, a lock is not in place any more, and releasing it closes nobody's descriptor."""
    lock = flock.acquire_nowait(str(tmp_path / "lock"), shared=False)
    assert lock is not None
    pid = os.fork()
    if not pid:
        number = os.open(os.devnull, os.O_RDONLY)
        in_place = lock.is_in_place()
        lock.release()
        os.fstat(number)
        os._exit(1 if in_place else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert lock.is_in_place()
    lock.release()


STEPS = """\
import fcntl, os, queue, signal, sys, threading, time
from envsync.launch import command
from envsync.locks import flock
from envsync.system import forks
path, who, end = sys.argv[1:]
program, seen, asked, pids = os.getpid(), set(), queue.SimpleQueue(), []
forks.FORK_TRIES, forks.TRY_SECONDS = 2, 0.01

def fork():
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    pids.append(pid)

def step(frame, event, _):
    code = frame.f_code
    if code.co_filename not in (command.__file__, flock.__file__) or "_Forks" in code.co_qualname:
        return None
    place = code, frame.f_lineno
    if event in ("line", "return") and place not in seen and os.getpid() == program:
        seen.add(place)
        if who == "handler":
            fork()
        else:
            done = threading.Event()
            asked.put(done)
            done.wait()
    return step

def work():
    sys.settrace(step)
    fd = command.open_lock(path, os.O_RDWR | os.O_CREAT)
    assert flock.try_lock(fd, path, shared=False)
    if who == "thread":
        own = forks.fork()
        if not own:
            time.sleep(60)
            os._exit(0)
        os.kill(own, signal.SIGKILL)
        os.waitpid(own, 0)
    if end == "closed":
        command.close_lock(fd)
    sys.settrace(None)

thread = threading.Thread(target=work)
thread.start()
while thread.is_alive() or not asked.empty():
    try:
        done = asked.get(timeout=0.01)
    except queue.Empty:
        continue
    fork()
    done.set()
print(*pids, flush=True)
if end == "killed":
    os.kill(program, signal.SIGKILL)
sys.stdin.read()
os._exit(0)
"""
"""Lock a file in a thread, and fork before each line of that, in another thread or, as a handler would, in this one."""


@pytest.mark.parametrize("end", ["closed", "killed"])
@pytest.mark.parametrize("who", ["thread", "handler"])
def test_a_fork_at_each_step(tmp_path: Path, who: str, end: str) -> None:
    """Whenever somebody forks, also past the wait for a guard: the lock ends as the process lets go of it, or ends."""
    words = [sys.executable, "-W", "ignore", "-c", STEPS, str(tmp_path / "lock"), who, end]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        try:
            assert len(pids) > 10
            if end == "killed":
                process.wait(60)
            deadline = time.monotonic() + 10  # a child of just now has still to close what it has
            while (lock := flock.acquire_nowait(str(tmp_path / "lock"), shared=False)) is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            lock.release()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            process.communicate("")


FIRST = """\
import os, sys, envsync
lock, env = sys.argv[1:]

def step(frame, event, _):
    if frame.f_code.co_name == "_read_stamp" and not os.fork():
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        os._exit(any(os.path.lexists(link) and os.readlink(link).endswith("/in-use") for link in links))

sys.settrace(step)
envsync.sync(lock, env=env)
sys.settrace(None)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_fork_at_the_first_look(tmp_path: Path) -> None:
    """The very first lock that a program takes, to see whether there is anything to do, is none of its children's."""
    envsync.sync(LOCK, env=tmp_path / "env")
    words = [sys.executable, "-W", "ignore", "-c", FIRST, str(LOCK), str(tmp_path / "env")]
    assert subprocess.run(words, check=False).returncode == 0
