"""A sync of real packages, 123 wheels of them, killed at points spread over the whole of it.

    REAL_SETS=DIR python -m pytest -m slow -s tests/crash/test_jupyter.py

See `tests/real` for what DIR holds. What the repair costs is measured beside fresh syncs of the same kind, and printed.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import time
from pathlib import Path

import pytest

from envsync.checking import repair
from envsync.launch import Environment
from envsync.launch.progress import quiet
from envsync.library import blocking
from tests.crash import harness
from tests.crash.harness import KILL, Kind, strike
from tests.environments import files, leftovers, unowned, unverified

POINTS = 10
"""For each of the two kinds of sync."""


@pytest.fixture
def sets() -> Path:
    directory = os.environ.get("REAL_SETS")
    if not directory:
        pytest.skip("REAL_SETS names no directory with real sets")
    return Path(directory)


def timed_sync(arguments: list[str]) -> float:
    """Sync in a child, as a command line would. Returns seconds."""
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        status = 70
        try:
            status = harness.main(arguments)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    return time.monotonic() - began


def check(env: Path, cache: Path, expected: set[str]) -> None:
    """Assert that an environment is whole: by RECORD, and by the hashes of the wheels."""
    assert files(env) == expected
    assert unverified(env) == []
    assert unowned(env) == set()
    assert leftovers(env) == []
    how = repair.request_of({"cache_dir": str(cache)}, str(env))
    assert repair.check(how, Environment(str(env)), quiet).is_sound


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kept", ["cold", "warm"])
def test_killed_anywhere(
    tmp_path: Path, sets: Path, kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whenever a first install is killed, with wheels to unpack or without, a second one ends with all of it."""
    monkeypatch.setattr(harness, "SECONDS", 600)
    lock = sets / "jupyter" / "pylock.toml"
    warm = tmp_path / "warm"
    whole = tmp_path / "whole"
    blocking.sync(lock, env=whole, cache_dir=warm, find_links=[sets / "wheelhouse"], no_index=True)
    expected = files(whole)
    check(whole, warm, expected)

    def arguments(name: str) -> list[str]:
        cache = warm if kept == "warm" else tmp_path / f"cache-{name}"
        options = ["--find-links", str(sets / "wheelhouse"), "--no-index", "--cache-dir", str(cache), "-q"]
        return ["sync", "--lock", str(lock), "--env", str(tmp_path / name), *options]

    blow = strike(arguments("counted"), 0, Kind("none"))
    assert blow.status == 0, blow.said
    fresh = [timed_sync(arguments(f"fresh-{number}")) for number in range(3)]
    repairs = []
    for point in range(1, POINTS + 1):
        name, nth = f"struck-{point}", point * blow.changes // (POINTS + 1)
        killed = strike(arguments(name), nth, KILL)
        assert os.WTERMSIG(killed.status) == signal.SIGKILL, killed.said
        repairs.append(timed_sync(arguments(name)))
        check(tmp_path / name, warm if kept == "warm" else tmp_path / f"cache-{name}", expected)
        with capsys.disabled():
            of = f"{nth} of {blow.changes}"
            share = repairs[-1] / statistics.median(fresh)
            print(
                f"\n{kept}, killed at change {of}: repaired in {repairs[-1]:.2f} s, {share:.2f} of a fresh sync", end=""
            )
    with capsys.disabled():
        print(
            f"\n{kept}: {POINTS} kills of {blow.changes} changes; a fresh sync {statistics.median(fresh):.2f} s, ",
            end="",
        )
        print(f"a repair {min(repairs):.2f} to {max(repairs):.2f} s, median {statistics.median(repairs):.2f} s")
    shutil.rmtree(tmp_path)  # gigabytes
