"""A signal whose exception was lost, in a destructor, ends a wait all the same: it may be the only one that comes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES
from tests.unit.scene import LIVENESS_SECONDS, ROOT

LOCK, NEXT = (str(FIXTURES / name) for name in ("pylock.toml", "pylock.next.toml"))
CODE = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from envsync.launch import signals

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[2]))

signals.listen()
shown, sys.unraisablehook = sys.unraisablehook, lambda _: None
Deaf()
sys.unraisablehook = shown
sys.argv[1:] = sys.argv[3:]
from envsync.__main__ import start
start()
"""
SYNC = ("sync", "--lock", NEXT, "--env", "env")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "held", "kind"),
    [
        (SYNC, "env/.lock", fcntl.LOCK_EX),
        (("run", *SYNC[1:], "--", "true"), "env/.lock", fcntl.LOCK_EX),
        (("check", "--repair", "--env", "env"), "env/.lock", fcntl.LOCK_EX),
        (SYNC, "env/.envsync/in-use", fcntl.LOCK_SH),
        (("check", "--env", "env"), "env/.envsync/in-use", fcntl.LOCK_EX),
        (SYNC, "cache/.gate", fcntl.LOCK_EX),
        (("cache", "clean"), "cache/.lock", fcntl.LOCK_SH),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_it_ends_the_wait(
    tmp_path: Path,
    run_envsync: Callable[..., subprocess.CompletedProcess[str]],
    words: tuple[str, ...],
    held: str,
    kind: int,
    number: signal.Signals,
) -> None:
    """Whatever is waited for is held by others all the while, and only the signal can end it."""
    variables = {"ENVSYNC_CACHE_DIR": str(tmp_path / "cache")}
    run_envsync("sync", "--lock", NEXT, "--env", "other", env=variables, check=True)  # so that nothing is fetched
    run_envsync("sync", "--lock", LOCK, "--env", "env", env=variables, check=True)
    if "--repair" in words:
        next((tmp_path / "env/lib").glob("*/site-packages/greet/__init__.py")).unlink()
    with open(tmp_path / held, "r+b") as file:
        fcntl.flock(file, kind)
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(ROOT), str(int(number)), *words],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIVENESS_SECONDS,
        )
    assert done.returncode == -number, done.stderr
    assert "Traceback" not in done.stderr
