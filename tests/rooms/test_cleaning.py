"""A full disk is just what a cache is cleaned for."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.environments import FIXTURES, unverified
from tests.rooms.inside import ROOTLESS, output, words
from tests.rooms.small import why_not

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
