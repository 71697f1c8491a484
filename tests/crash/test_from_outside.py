"""Killed and failing from outside: at each change and each write of a real command line, over all its processes.

What the audit hook of the harness cannot see: write(2), fsync(2), copy_file_range(2), and what other programs change
that the command starts. It takes the lab's `killer`, which counts system calls:

    LAB_KILLER=PATH python -m pytest -m slow tests/crash/test_from_outside.py
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.crash.grid import check, strike_all
from tests.crash.harness import DECIDES, ERRORS, KILL, SECONDS, Blow, Change, Kind
from tests.crash.scenarios import BY_NAME

KILLER = os.environ.get("LAB_KILLER", "")
CALLS = "link,rename,mkdir,unlink,rmdir,symlink,create,write,truncate,chmod,chown,utime,fsync"
KINDS = tuple(kind for kind in (KILL, *ERRORS) if kind.name in ("SIGKILL", "ENOSPC", "EIO"))
EVENTS = {"unlink": "os.remove", "rmdir": "os.rmdir"}
NOT_REACHED = 124


def strike_from_outside(arguments: Sequence[str], nth: int, kind: Kind) -> Blow:
    """Run a command line, and strike at its N-th change or write below the directory that its environment is in."""
    root = os.path.dirname(arguments[arguments.index("--env") + 1])
    how = ["kill", str(nth)] if kind.signal else ["err", str(nth), kind.name]
    with tempfile.NamedTemporaryFile("r") as log:
        words = [
            KILLER,
            "--calls",
            CALLS,
            "--under",
            f"{root}/",
            "--log",
            log.name,
            *how,
            *envsync_command(),
            *arguments,
        ]
        done = subprocess.run(
            words,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        lines = [line.split(" ", 3) for line in log.read().splitlines()]
    said = re.sub("^killer: .*\n", "", done.stdout + done.stderr, flags=re.MULTILINE)
    reached = not done.stderr.startswith("killer: the command ended")
    made = [call for number, _, call, _ in lines if int(number) != nth]
    assert made or nth == 1
    decided = any(
        call == "rename" and paths.endswith(DECIDES) and int(number) != nth for number, _, call, paths in lines
    )
    struck = tuple(
        Change(EVENTS.get(call, call), tuple(paths.split(" ")))
        for number, _, call, paths in lines
        if int(number) == nth
    )
    status = done.returncode if reached else 0 if done.returncode == NOT_REACHED else done.returncode
    killed = kind.signal and status == 128 + signal.SIGKILL
    return Blow(signal.SIGKILL if killed else status << 8, struck, decided, said, (), len(lines))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not KILLER, reason="LAB_KILLER does not name the lab's killer")
@pytest.mark.parametrize("name", ["two processes", "two processes, cold store", "recovery"])
def test_struck_from_outside_at_any_change_or_write(tmp_path: Path, name: str) -> None:
    """Whichever of its system calls a command is killed at, or gets an error from: nothing is lost."""
    scenario = BY_NAME[name]._replace(forks=True)
    points = list(strike_all(scenario, lambda _: KINDS, tmp_path, striker=strike_from_outside))
    print(f"{len(points)} strikes, {sum(bool(point.wrong) for point in points)} wrong")
    check(scenario, points)
