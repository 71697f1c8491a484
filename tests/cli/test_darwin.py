"""Syncs with the module that envsync has for macOS (`tests/darwin.py`), a library standing in for macOS's C library."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import darwin
from tests.conftest import ROOT
from tests.environments import FIXTURES, leftovers, site_packages, unverified

LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")


def on_macos(*arguments: str, cwd: Path, refuses: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, darwin.__file__, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(darwin.standing_in()),
            "DARWIN_CALLS": str(cwd / "calls"),
            "DARWIN_REFUSES": str(refuses),
            "ENVSYNC_CACHE_DIR": str(cwd / "cache"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(cwd: Path) -> list[str]:
    """Name the calls of macOS's C library that were made."""
    path = cwd / "calls"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("mode", ["auto", "clone"])
def test_files_are_clones(tmp_path: Path, mode: str) -> None:
    """Each file has what its RECORD says, the mode of the umask and the time of the cache's, and is nobody else's."""
    done = on_macos("sync", "--lock", LOCK, "--env", "env", "--link-mode", mode, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "could not be" not in done.stderr
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []
    modules = [path for path in site_packages(tmp_path / "env").rglob("*.py") if path.is_file()]
    assert {path.stat().st_nlink for path in modules} == {1}
    assert len(calls(tmp_path)) >= len(modules)
    assert on_macos("check", "--env", "env", cwd=tmp_path).returncode == 0
    done = on_macos("run", "--lock", NEXT, "--env", "env", "--link-mode", mode, "--", "greet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert unverified(tmp_path / "env") == []


def test_where_there_are_no_clones_files_are_linked(tmp_path: Path) -> None:
    """HFS+ and exFAT say ENOTSUP, which is asked for once by each worker and not for each file."""
    done = on_macos("sync", "--lock", LOCK, "--env", "env", cwd=tmp_path, refuses=errno.ENOTSUP)
    assert done.returncode == 0, done.stderr
    assert unverified(tmp_path / "env") == []
    modules = [path for path in site_packages(tmp_path / "env").rglob("*.py") if path.is_file()]
    assert {path.stat().st_nlink for path in modules} == {2}
    assert 1 <= len(calls(tmp_path)) <= 8


def test_durable_syncs_volumes(tmp_path: Path) -> None:
    """Those of the cache and of the environment, by the call that waits for it."""
    done = on_macos("sync", "--lock", LOCK, "--env", "env", "--durable", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path).count("fsync_volume_np") >= 2


@pytest.mark.parametrize(("refuses", "said"), [(0, ""), (errno.ENOTSUP, "ENOTSUP")])
def test_doctor_tries_a_clone(tmp_path: Path, refuses: int, said: str) -> None:
    """In the way in which a sync makes one."""
    done = on_macos("doctor", "--env", "env", "--json", cwd=tmp_path, refuses=refuses)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["facts"]["names"]["clone"] == said
    assert "fclonefileat" in calls(tmp_path)
