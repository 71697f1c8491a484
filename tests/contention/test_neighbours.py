"""Real processes of one node that wait for the same, as on a network filesystem: whatever becomes of who looks for all.

The environment is on a local disk, and is taken for a shared one. tests/lab has a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.waiting import word
from tests.conftest import ROOT
from tests.contention.led import Group, led

NUMBER = 6
START = """\
import sys
sys.path.insert(0, {root!r})
from envsync.system import mounts
mounts.is_network = lambda path: not path.startswith({runtime!r})
from envsync.__main__ import start
start()
"""


class Node(Group):
    """Waiters for an environment that was current, and is led by the test."""

    def __init__(self, project: Path, runtime: Path) -> None:
        super().__init__(project, runtime)
        code = START.format(root=str(ROOT), runtime=str(runtime))
        self.waiters = [
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, "run", "--", "greet"],
                cwd=project,
                env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(NUMBER)
        ]

    def gathered(self) -> subprocess.Popen[str]:
        """Wait until one looks for all others. Returns it."""
        self.until(lambda: len(self.holders("place")) == 1 and len(self.holders("word")) >= NUMBER - 1)
        self.until(self.words)
        pid = self.holders("place")[0]
        return next(waiter for waiter in self.waiters if waiter.pid == pid)

    def words(self) -> list[word.Word]:
        read = (word.load(path.read_bytes()) for path in self.local.glob("*.word"))
        return [each for each in read if each is not None]


@pytest.fixture
def node(tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Node]:
    """A project whose environment somebody leads, and those who wait for it."""
    with led(tmp_path, run_envsync) as (project, runtime):
        node = Node(project, runtime)
        try:
            yield node
        finally:
            for waiter in node.waiters:
                waiter.kill()
                waiter.communicate()


def greeted(waiter: subprocess.Popen[str]) -> bool:
    out, err = waiter.communicate(timeout=60)
    assert waiter.returncode == 0, err
    return out == "HELLO, WORLD!\n"


def test_all_start(node: Node) -> None:
    """As one sees the stamp, all enter; and nothing is left."""
    node.gathered()
    node.serve()
    assert all(map(greeted, node.waiters))
    assert os.listdir(node.local) == []


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_others_start_without_the_poller(node: Node, how: signal.Signals) -> None:
    """Whether it is stopped or killed; one that goes on starts, too."""
    poller = node.gathered()
    poller.send_signal(how)
    if how == signal.SIGKILL:
        poller.wait()
    node.serve()
    assert all(greeted(waiter) for waiter in node.waiters if waiter is not poller)
    if how == signal.SIGSTOP:
        assert poller.poll() is None
        poller.send_signal(signal.SIGCONT)
        assert greeted(poller)


def test_another_looks_for_all_when_one_is_stopped(node: Node) -> None:
    """The others gather around a new one."""
    poller = node.gathered()
    poller.send_signal(signal.SIGSTOP)
    node.until(lambda: len(node.holders("place")) == 1 and node.holders("place") != [poller.pid])
    node.until(lambda: len(node.holders("word")) >= NUMBER - 2)
    poller.send_signal(signal.SIGCONT)
    node.until(lambda: len(node.holders("word")) >= NUMBER - 1)
    node.serve()
    assert all(map(greeted, node.waiters))


def test_without_their_directory(node: Node) -> None:
    """It is removed, and somebody else's link is put there: all start all the same."""
    node.gathered()
    shutil.rmtree(node.local)
    node.local.symlink_to(node.local.parent)
    node.serve()
    assert all(map(greeted, node.waiters))
