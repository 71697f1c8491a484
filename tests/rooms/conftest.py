"""Rooms to begin with, and whether they can be had here."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.environments import FIXTURES
from tests.rooms.inside import ROOTLESS, as_user, output, words


@pytest.fixture(scope="session")
def unshare() -> str:
    """Tell why no file systems of our own can be mounted here; empty if they can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "there is no `unshare` here"
    script = "mount -t tmpfs -o size=1m tmpfs /mnt && mount -o remount,size=2m /mnt"
    done = output(["unshare", *ROOTLESS, "--mount", "sh", "-c", script])
    return f"no file system can be mounted here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def synced(tmp_path: Path, unshare: str) -> Path:
    """A directory with an environment and its cache."""
    if unshare:
        pytest.skip(unshare)
    lock = FIXTURES / "pylock.toml"
    done = output(words("sync", "--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.fixture
def shared(tmp_path: Path, unshare: str) -> Path:
    """A directory that other users may come to, and in which they may write below `work`."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no `setpriv` here")
    if unshare:
        pytest.skip(unshare)
    place = tmp_path / "shared"
    shutil.copytree(FIXTURES, place / "fixtures")
    (place / "work").mkdir()
    (place / "work").chmod(0o777)
    done = as_user(65534, words("--version"), cwd=place)
    assert done.returncode == 0, done.stderr
    return place
