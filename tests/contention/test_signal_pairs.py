"""Two signals that come at once, at any time, end a process by one of them, and the next sync puts all right."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, unverified

LOCK = str(FIXTURES / "pylock.toml")
KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAIRS = [pair for pair in itertools.product(KINDS, KINDS) if pair[0] != pair[1]]
TIMES = 8
"""How often each pair is sent, later and later."""
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""

Run = Callable[..., subprocess.CompletedProcess[str]]


def listens(pid: int) -> bool:
    """Tell whether a process has a handler for SIGTERM: before, Python starts, and shows what interrupts that."""
    try:
        (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return False
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nobody tells here what a process listens to")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(number.name for number in pair))
@pytest.mark.parametrize("words", [("sync",), ("run",)], ids=" ".join)
def test_a_pair_at_any_time(
    tmp_path: Path, run_envsync: Run, words: tuple[str, ...], pair: tuple[signal.Signals, signal.Signals]
) -> None:
    """From the first moment that it listens to the end of the process: no traceback, and no status of its own."""
    env = tmp_path / "env"
    command = ["true"] if words == ("run",) else []
    whole = [*words, "--lock", LOCK, "--env", "env", *(["--", *command] if command else [])]
    for number in range(TIMES):
        process = subprocess.Popen([*envsync_command(), *whole], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + SECONDS
        while not listens(process.pid) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(0.012 * number)
        process.send_signal(pair[0])
        time.sleep(0.00002 * (number % 4) ** 3)
        process.send_signal(pair[1])
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode in {0, -pair[0], -pair[1]}, err
        assert "Traceback" not in err
        assert "Exception ignored" not in err
        if number % 3 == 2:
            shutil.rmtree(env, ignore_errors=True)  # a first sync and one that finds something are ended
    done = run_envsync(*whole)
    assert done.returncode in (0, 125), done.stderr
    if done.returncode:  # that three in a row died is said once
        assert "died" in done.stderr
        assert run_envsync(*whole).returncode == 0
    assert unverified(env) == []
