"""What the leader's own line says of a download."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envsync.cli.display import Display
from envsync.launch.request import Request

ROOT = Path(__file__).parent.parent.parent.parent


def test_a_download(capfd: pytest.CaptureFixture[str]) -> None:
    """The bytes that have come, of how many, and the slowest download; in other phases neither."""
    display = Display(Request({}, "x", "x", "x"))
    for phase, volume in (
        ("downloading", (45_000_000, 310_000_000)),
        ("downloading", (45_000_000, 0)),
        ("staging", ()),
    ):
        display.shown.next = 0.0
        display.detail("numpy 1.0 of 2.0 MB")
        display(phase, 3, 9, *volume)
    lines = [line.partition(", 0 s")[0] for line in capfd.readouterr().err.splitlines()]
    assert lines == [
        "envsync: downloading 3 of 9, 45.0 of 310.0 MB, numpy 1.0 of 2.0 MB",
        "envsync: downloading 3 of 9, 45.0 MB, numpy 1.0 of 2.0 MB",
        "envsync: staging 3 of 9",
    ]


BARS = """\
import sys, time
from envsync.cli.display import Display
from envsync.launch.request import Request
with Display(Request({}, "x", "x", "x")) as display:
    display.shown.began -= 1
    display.detail("numpy 12.0 of 80.1 MB")
    for _ in range(2):
        display(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 45_000_000 * bool(int(sys.argv[3])), 310_000_000)
"""


def last_line(columns: int, *words: str) -> str:
    """Let a display show something on a terminal of some width. Returns its last line, without control characters."""
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", BARS, *words], stderr=theirs, cwd=ROOT, env={**variables, "TERM": "xterm"}
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            seen += chunk
    except OSError:
        pass  # EIO: it has ended
    os.close(ours)
    assert process.wait(60) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]


@pytest.mark.parametrize("columns", [40, 50, 60, 80, 100, 120])
def test_a_bar_in_a_narrow_terminal(columns: int) -> None:
    """Phase and count are whole at any width; where there is room, the bytes are shown, and the slowest download."""
    shown = last_line(columns, "downloading", "63", "123")
    assert len(shown) <= columns
    assert "downloading" in shown
    assert "63/123" in shown
    assert ("45.0 of 310.0 MB" in shown) == (columns >= 60)
    assert ("numpy 12.0 of 80.1 MB" in shown) == (columns >= 120)


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_a_long_phase(columns: int) -> None:
    """What a leader waits for is told as far as there is room; the beginning is whole."""
    phase = "waiting for commands that run in the environment to end: pid 12 (`python [a] job.py`)"
    shown = last_line(columns, phase, "0", "0")
    assert len(shown) <= columns
    assert ("waiting for commands " if columns < 120 else phase) in shown
