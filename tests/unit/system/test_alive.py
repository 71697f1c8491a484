"""Who is alive, since when and by which command line: what every system says, with /proc or without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from envsync.system import native, processes
from tests import needs

NOBODY = 2**22 + 4
"""No pid: more than the kernel's limit, and a multiple of 4 as those of Windows are."""
NO_PIDS = (0, -1, NOBODY, 2**31 - 4, 2**40)


@contextmanager
def another(word: str = "word") -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until its stdin ends."""
    code = "import sys; print('in', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, word]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"in"
        yield process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_alive_until_it_ends() -> None:
    """A process is alive while it runs, and not once it was ended, though we still have its handle."""
    with another() as process:
        assert native.is_alive(process.pid)
        assert processes.is_alive(process.pid)
        end(process)
        assert not native.is_alive(process.pid)
        assert not processes.is_alive(process.pid)


@pytest.mark.parametrize("pid", NO_PIDS)
def test_what_is_no_process(pid: int) -> None:
    """Whatever a file says: groups, everybody, and numbers too large are no processes."""
    assert not native.is_alive(pid)
    assert not processes.is_alive(pid)


def test_this_one() -> None:
    """This process is alive, here and now, and began before now."""
    assert native.is_alive(os.getpid())
    assert processes.is_alive(os.getpid())
    assert processes.started() <= processes.clock()


def test_those_of_others_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not be asked is there, also where /proc does not show it (hidepid); who is not there is not."""
    if sys.platform == "win32":
        refused, gone = OSError(None, "refused", None, 5), OSError(None, "no such process", None, 87)
        module, name = native.common._winapi, "OpenProcess"
    else:
        refused, gone = PermissionError(1, "refused"), ProcessLookupError(3, "no such process")
        module, name = native.common.os, "kill"
    for error, expected in ((refused, True), (gone, False)):
        monkeypatch.setattr(module, name, _raising(error))
        assert processes.is_alive(NOBODY) == expected


def _raising(error: OSError) -> object:
    def ask(*_: object) -> None:
        raise error

    return ask


@needs.TOLD
def test_when_it_began() -> None:
    """By the clock of the host, between what was before and what was after; what is not there never began."""
    before = processes.clock()
    with another() as process:
        after = processes.clock()
        tick = 0.05  # kernels round
        assert before - tick <= processes.started_of(process.pid) <= after + tick
    assert processes.started_of(NOBODY) == 0.0


@needs.TOLD
def test_the_place_is_the_same_for_all_processes() -> None:
    """Boot and place are known, are the same for a child, and do not change."""
    code = "from envsync.system import processes; print(ascii([processes.boot(), processes.here()]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    time.sleep(0.01)
    assert done.stdout.strip() == ascii([processes.boot(), processes.here()])
    assert processes.boot()
    assert processes.here()


@needs.TOLD
@pytest.mark.skipif(
    sys.platform == "win32" and not processes.command_of(os.getpid()), reason="wine tells nobody's command line"
)
def test_its_command_line() -> None:
    """The words as they were given, and nothing once it has ended."""
    with another("two words") as process:
        line = processes.command_of(process.pid)
        assert "sys.stdin.read()" in line
        assert line.endswith("two words")
        assert line.startswith(os.path.basename(sys.executable))
        end(process)
    assert processes.command_of(NOBODY) == ""
