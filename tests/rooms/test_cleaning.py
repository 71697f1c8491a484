"""A full disk is just what a cache is cleaned for."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.environments import FIXTURES, unverified
from tests.rooms.inside import ROOTLESS, output, words
from tests.rooms.small import KINDS, WHATS, why_not

MOUNTS = {
    "no blocks": "truncate -s 4M image; mkfs.ext4 -q -m 0 image; mount -o loop image small",
    "no inodes": "mount -t tmpfs -o size=8m,nr_inodes=200 tmpfs small",
}
FILLS = {
    "no blocks": "dd if=/dev/zero of=small/fill bs=64k; dd if=/dev/zero of=small/more bs=512",
    "no inodes": "while : >small/fill-$((number += 1)); do :; done",
}


@pytest.mark.parametrize("scarce", MOUNTS)
@pytest.mark.parametrize("command", [("clean",), ("prune", "--older-than", "0")], ids=lambda command: command[0])
def test_a_full_disk_can_be_cleaned(unshare: str, tmp_path: Path, scarce: str, command: tuple[str, ...]) -> None:
    """Nothing has to be made for that: neither a file nor a directory, and afterwards there is room again."""
    if reason := unshare or (why_not("ext4") if scarce == "no blocks" else ""):
        pytest.skip(reason)
    (tmp_path / "small").mkdir()
    options = ["--cache-dir", tmp_path / "small" / "cache"]
    sync = words("sync", "--lock", FIXTURES / "pylock.toml", "--link-mode", "copy", "--env")
    script = "\n".join(
        [
            "set -e",
            MOUNTS[scarce],
            shlex.join([*sync, "env", *map(str, options)]),
            "rm -f small/cache/v1/tmp/*",
            f"({FILLS[scarce]}) 2>/dev/null || true",
            "! mkdir small/cache/v1/tmp/new 2>/dev/null || { echo 'there is room'; exit 3; }",
            shlex.join(words("cache", *command, *options)),
            "rm -rf small/more small/fill-*",
            shlex.join([*sync, "again", *map(str, options)]),
            "echo wheels: $(ls small/cache/v1/wheels | wc -l), left: $(ls small/cache/v1/tmp | wc -l)",
        ]
    )
    done = output(["unshare", *ROOTLESS, "--mount", "sh", "-c", script], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "removed 5 wheels" in done.stdout
    assert "wheels: 5, left: 0" in done.stdout
    assert unverified(tmp_path / "again") == []


FULL = """\
import subprocess, sys
from pathlib import Path
from tests.rooms import small
kind, what, directory, *start = sys.argv[1:]
place = Path(directory) / "narrow"
place.mkdir()
disk = small.make(kind, what, place)
disk.mount()
made = ["--lock", Path(directory, "pylock.toml"), "--env", place / "envs/{digest}", "--cache-dir", place / "cache"]
def run(*words):
    return subprocess.run([*start, *words], check=True, capture_output=True, text=True).stdout
run("sync", *made, "--link-mode", "copy")
disk.leave(0)
print(run("env", "prune", place / "envs/{digest}", "--yes"))
assert list((place / "envs").iterdir()) == []
disk.widen()
print(run("run", *made, "--", "greet"))
"""


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind in KINDS for what in WHATS[kind]])
def test_environments_on_a_full_disk_are_removed(tmp_path: Path, unshare: str, kind: str, what: str) -> None:
    """There is no room for anything else, and that is when they are to go."""
    if unshare or (reason := why_not(kind)):
        pytest.skip(unshare or reason)
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", tmp_path)
    program = [sys.executable, "-c", FULL, kind, what, str(tmp_path), *words()]
    done = output(["unshare", *ROOTLESS, "--mount", *program], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "removed 1 environment, " in done.stdout
    assert "HELLO, WORLD!" in done.stdout
