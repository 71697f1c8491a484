"""Disks without room for pages or inodes, and a quota that is used up.

Each time: a clear error that names the path and the reason, 125, and nothing lost; then, with more room, the next
command succeeds and nothing is left over.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from envsync.system import forking
from tests.conftest import ROOT
from tests.rooms.inside import ROOTLESS, output, words
from tests.rooms.small import KINDS, WHATS, why_not
from tests.wheels import build_wheel

QUICK = [
    ("tmpfs", "both", "size", "warm"),
    ("ext4", "cache", "size", "cold"),
    ("ext4", "both", "inodes", "first"),
    ("btrfs", "both", "quota", "warm"),
]
"""Kind of file system, what is on it, what is scarce, and how it is before: see `tests.rooms.narrow`."""
ALL = [
    (kind, where, what, how)
    for kind in KINDS
    for what in WHATS[kind]
    for where, how in [
        ("env", "warm"),
        ("env", "first"),
        ("both", "warm"),
        ("both", "first"),
        ("both", "cold"),
        ("cache", "cold"),
    ]
]
STAGE, JOURNAL, UNPACKED = "/new/", "/.envsync/journal", "/unpack-ID/"


def check_rooms(directory: Path, trial: tuple[str, str, str, str], coarse: int, fine: int) -> dict[str, int]:
    """Try room after room. Returns how often which path was named."""
    kind, where, what, how = trial
    program = [sys.executable, "-m", "tests.rooms.narrow", kind, where, what, how, str(directory)]
    done = output(["unshare", *ROOTLESS, "--mount", *program, str(coarse), str(fine)], cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["problems"] == []
    outcomes = said["outcomes"]
    # Where everything is linked, a few pages are enough; and btrfs does not always take the same.
    least = 1 if kind == "btrfs" else min(coarse, said["enough"]) // 2
    assert outcomes.get("unchanged", 0) + outcomes.get("begun", 0) >= least, said
    errors = said["errors"]
    assert isinstance(errors, dict)
    return errors


@pytest.mark.parametrize("trial", QUICK, ids="-".join)
def test_a_full_disk(unshare: str, tmp_path: Path, trial: tuple[str, str, str, str]) -> None:
    """No pages, no inodes, or no quota left: the old environment runs, and is synced with more room."""
    if reason := unshare or why_not(trial[0]):
        pytest.skip(reason)
    assert check_rooms(tmp_path, trial, 4, 2)


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("trial", ALL, ids="-".join)
def test_a_disk_that_is_full_anywhere(unshare: str, tmp_path: Path, trial: tuple[str, str, str, str]) -> None:
    """The same with many rooms, so that there is none left wherever anything is written."""
    if reason := unshare or why_not(trial[0]):
        pytest.skip(reason)
    errors = check_rooms(tmp_path, trial, 24, 16)
    kind, where, _, how = trial
    struck = {STAGE} if where != "cache" else set()
    if kind != "btrfs":  # it does not say beforehand how much is left
        struck |= {JOURNAL} if where != "cache" else set()
        struck |= {UNPACKED} if how == "cold" else set()
    for place in struck:
        assert any(place in path for path in errors), (place, errors)


def test_who_comes_later_tries_afresh(tmp_path: Path) -> None:
    """Who is started as soon as another has failed is not told that one's failure: there may be room by now."""
    wheel = build_wheel(tmp_path, "demo")
    lock = tmp_path / "pylock.toml"
    archive = f'[{{ path = "{wheel}", hashes = {{ sha256 = "{"0" * 64}" }} }}]'
    package = f'[[packages]]\nname = "demo"\nversion = "1.0"\nwheels = {archive}\n'
    lock.write_text(f'lock-version = "1.0"\ncreated-by = "tests"\n{package}')
    sync = shlex.join(words("sync", "--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache"))
    for _ in range(4):  # it was a matter of ten milliseconds
        done = output(["sh", "-c", f"{sync}; {sync}; exit $?"])
        assert done.returncode == 125
        assert done.stderr.count("refusing wheel") == 2, done.stderr
        assert "which this process waited for" not in done.stderr


def test_cleaning_up_is_not_interrupted(tmp_path: Path) -> None:
    """If both processes that unpack meet a full disk, both throw away what they have begun."""
    parent, begun, cleaned = os.getpid(), tmp_path / "begun", tmp_path / "cleaned"

    def work(number: int) -> None:
        if os.getpid() != parent:
            try:
                raise OSError(28, "No space left on device")
            finally:
                begun.touch()
                time.sleep(0.3)
                cleaned.touch()
        while not begun.exists():
            time.sleep(0.001)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        forking.share(2, work)
    assert cleaned.exists()
