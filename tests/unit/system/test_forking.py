"""Sharing work with forked children: every piece is done whatever becomes of them, and nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.system import forking
from envsync.system.forking import can_share, share
from tests import needs
from tests.unit.scene import descriptors

pytestmark = needs.PROC

ROOT = Path(__file__).parent.parent.parent.parent


class Work:
    """Pieces that leave a line each in one file, so that it can be told how often each was done, and by whom."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "done"
        self.parent = os.getpid()
        self.spoil: Callable[[int], None] = lambda number: None
        """Done before each piece, in whichever process."""

    def __call__(self, number: int) -> None:
        self.spoil(number)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{number} {os.getpid()}\n".encode())
        os.close(fd)

    @property
    def in_child(self) -> bool:
        return os.getpid() != self.parent

    def counts(self) -> Counter[int]:
        return Counter(int(line.split()[0]) for line in self.path.read_text().splitlines())

    def processes(self) -> set[int]:
        return {int(line.split()[1]) for line in self.path.read_text().splitlines()}


@pytest.fixture(autouse=True, scope="module")
def alone() -> None:
    """Wait until the idle threads of earlier tests have ended: Trio keeps them for ten seconds."""
    deadline = time.monotonic() + 60
    while threading.active_count() > 1:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "done").touch()
    return Work(tmp_path)


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    """No process is left, running or not waited for, and no descriptor."""
    before = children(), descriptors()
    yield
    assert (children(), descriptors()) == before


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize("children", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 100, 2048])
def test_each_piece_is_done_once(work: Work, count: int, children: int) -> None:
    """Where nothing goes wrong, every piece is done, by one of the processes."""
    share(count, work, children=children)
    assert work.counts() == Counter(range(count))
    assert len(work.processes()) <= children + 1


def test_the_work_is_shared(work: Work, tmp_path: Path) -> None:
    """A child takes what the parent has not time for."""

    def spoil(number: int) -> None:
        mine, other = ("child", "parent") if work.in_child else ("parent", "child")
        (tmp_path / mine).touch()
        while not (tmp_path / other).exists():
            os.sched_yield()

    work.spoil = spoil
    share(10, work)
    assert work.counts() == Counter(range(10))
    assert len(work.processes()) == 2


@pytest.mark.parametrize("how", ["error", "exit", "kill", "terminate"])
def test_what_a_child_leaves_is_done_here(work: Work, tmp_path: Path, how: str) -> None:
    """A child that fails or is killed costs nothing but time: all that it may not have done is done again."""
    started = tmp_path / "started"

    def spoil(number: int) -> None:
        if not work.in_child:
            while not started.exists():
                os.sched_yield()
        elif started.exists():
            if how == "error":
                raise OSError(errno.EIO, "broken")
            if how == "exit":
                sys.exit(3)
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
        else:
            started.touch()

    work.spoil = spoil
    share(50, work)
    assert work.counts().keys() == set(range(50))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_error_here_ends_the_children(work: Work, error: BaseException) -> None:
    """What goes wrong in this process is raised, when no child is at work any more."""

    def spoil(number: int) -> None:
        if not work.in_child:
            raise error
        signal.pause()

    work.spoil = spoil
    with pytest.raises(type(error)):
        share(10, work)


@pytest.mark.parametrize("cause", [errno.EAGAIN, errno.ENOMEM])
def test_without_a_child(work: Work, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
    """Where no further process can be had, as under a limit on their number, all is done here."""

    def refused() -> int:
        raise OSError(cause, os.strerror(cause))

    monkeypatch.setattr(os, "fork", refused)
    share(10, work)
    assert work.counts() == Counter(range(10))


def test_where_children_are_not_waited_for(tmp_path: Path) -> None:
    """A process that was started with SIGCHLD ignored, as some daemons start theirs, cannot wait for its children."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from envsync.system import forking\n"
        f"forking.share(20, lambda number: open({str(tmp_path)!r} + f'/{{number}}', 'w').close())\n"
    )
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = subprocess.Popen([sys.executable, "-I", "-c", code], stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGCHLD, before)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
    assert len(os.listdir(tmp_path)) == 20


def test_a_process_with_threads_does_not_fork() -> None:
    """The locks of other threads would stay locked in the child."""
    assert can_share(10)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert not can_share(10)
    finally:
        end.set()
        thread.join()


def test_how_many_pieces() -> None:
    """One piece is not worth a process, and the numbers of too many do not fit into a pipe."""
    assert not can_share(0)
    assert not can_share(1)
    assert can_share(2)
    assert can_share(forking._PIPE_BYTES // forking._NUMBER_BYTES)
    assert not can_share(forking._PIPE_BYTES // forking._NUMBER_BYTES + 1)
