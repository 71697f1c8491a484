"""The soak as a test: a short one always, ten minutes of it under `slow`. What it does and cannot see: soak.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent / "soak.py"
BESIDE_PYTHON = os.path.dirname(sys.executable)
UV = shutil.which("uv") or shutil.which("uv", path=BESIDE_PYTHON) or ""


def soak(*options: str) -> dict[str, int]:
    """Run the soak to its end and return its tally."""
    words = [sys.executable, str(SOAK), "--uv", UV, *options]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        out = process.communicate()[0]
    except BaseException:
        process.send_signal(signal.SIGINT)  # ends and reaps all that it has started
        process.communicate()
        raise
    assert process.returncode == 0, out[-20_000:]
    tally: dict[str, int] = json.loads(out.splitlines()[-1])
    return tally


def assert_eventful(tally: dict[str, int], *, leaders: int) -> None:
    """What was asked for did happen: a soak in which nobody waits or dies shows nothing."""
    assert tally["violations"] == 0
    assert tally["killed leader"] >= leaders
    assert tally["killed waiter"] >= 1
    assert tally["killed command"] >= 1
    assert tally["event waited"] >= leaders
    assert tally["event synced"] >= leaders // 2
    assert tally["event launched"] >= 2 * leaders
    assert tally["stopped"] >= 3
    assert tally["removed entry"] >= 1
    assert tally.get("event recovered", 0) + tally.get("event took_over", 0) >= 1
    if UV:
        assert tally["uv done"] + tally.get("uv killed", 0) >= 1


@pytest.mark.timeout(300)
def test_a_short_soak() -> None:
    """Whatever is killed, each command sees exactly its environment, and all is in order at the end."""
    tally = soak("--seconds", "10", "--processes", "12", "--seed", "1", "--leader-kills", "8")
    assert_eventful(tally, leaders=8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_long_soak() -> None:
    """The same for ten minutes, with more processes and another seed each time."""
    tally = soak("--seconds", "600", "--processes", "24", "--leader-kills", "100")
    assert_eventful(tally, leaders=100)
