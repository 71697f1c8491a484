"""Containers of one host name that share a cache to which their environments link: neither takes the other's for gone.

Each has a disk of its own at the same place. A container is what `unshare --mount` and a bind mount make of a process.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.contention.test_many_processes import finish, wait_for_line
from tests.environments import FIXTURES

LOCK = str(FIXTURES / "pylock.toml")
ENVSYNC = shlex.join(envsync_command())
SYNC = f"{ENVSYNC} sync -q --lock {LOCK} --env disk/env --cache-dir cache --link-mode symlink"
OTHER = SYNC.replace(LOCK, str(FIXTURES / "pylock.next.toml"))
PRUNE = f"{ENVSYNC} cache prune --older-than 0s --cache-dir cache"
SOUND = f"{ENVSYNC} check --env disk/env --cache-dir cache && test -n \"$(find disk/env/lib -type l -name 'greet*')\""


class Place:
    """A directory with a cache, and with the disks of two containers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.started: list[subprocess.Popen[str]] = []
        for name in ("cache", "disk", "mine", "theirs"):
            (root / name).mkdir()

    def start(self, disk: str, script: str) -> subprocess.Popen[str]:
        """Start a container that runs a shell script, with a disk mounted at `disk`."""
        words = ["unshare", "--mount", "sh", "-c", f"set -e; mount --bind {disk} disk; {script}"]
        pipe = subprocess.PIPE
        self.started.append(subprocess.Popen(words, cwd=self.root, text=True, stdin=pipe, stdout=pipe, stderr=pipe))
        return self.started[-1]

    def run(self, disk: str, script: str) -> None:
        """Run a script in a container to its end."""
        succeed(self.start(disk, script))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    place = Place(tmp_path)
    yield place
    for process in place.started:
        process.kill()
        process.communicate()


def succeed(started: subprocess.Popen[str]) -> None:
    status, out, err = finish(started)
    assert status == 0, out + err


@pytest.mark.parametrize("script", [PRUNE, f"{ENVSYNC} cache clean --cache-dir cache", f"{OTHER}; {PRUNE}"])
def test_at_the_same_time(place: Place, script: str) -> None:
    """What the one links, the other does not remove, whether it has an environment in that place or none."""
    first = place.start("mine", f"{SYNC}; echo synced >&2; read line || {SOUND}")
    wait_for_line(first, "synced")
    place.run("theirs", script)
    succeed(first)


def test_one_after_the_other(place: Place) -> None:
    """So it is if the first has ended, and the other got the number of its mount namespace."""
    place.run("mine", SYNC)
    place.run("theirs", f"{OTHER}; {PRUNE}")
    place.run("mine", SOUND)


def test_without_any(place: Place) -> None:
    """Nor does the host itself, where nothing is mounted in that place."""
    place.run("mine", SYNC)
    subprocess.run(["sh", "-c", PRUNE], cwd=place.root, check=True, capture_output=True)
    place.run("mine", SOUND)


def test_what_is_removed_is_not_used_any_more(place: Place) -> None:
    """By whoever has made it, in the same container: then what it linked goes."""
    place.run("mine", f"{SYNC}; rm -r disk/env; {PRUNE}")
    assert list((place.root / "cache" / "v1" / "wheels").iterdir()) == []
    assert list((place.root / "cache" / "v1" / "users").iterdir()) == []
