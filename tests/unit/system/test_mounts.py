"""What the mount table says of a filesystem and its locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.system import mounts
from envsync.system.mounts import Mount, parse

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard
30 22 0:40 / /shared rw,nosuid - lustre n1@tcp:/fs rw,localflock,lazystatfs
31 22 0:41 / /home rw master:3 shared:7 - nfs4 server:/home rw,vers=4.2,local_lock=none
"""


def test_kind_and_options() -> None:
    """Both the mount's own options and those of the filesystem are told, however many fields there are before."""
    found = parse(TABLE, "0:41")
    assert (found.kind, found.local_flock) == ("nfs4", "")
    assert {"rw", "vers=4.2", "local_lock=none"} <= set(found.options)


def test_what_is_not_there() -> None:
    """Of a device that is not in the table, or of a damaged line, nothing is known, and nothing is said against it."""
    assert (parse(TABLE, "9:9").kind, parse("22 1 8:1 / /\n", "8:1").kind, Mount().local_flock) == ("", "", "")


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("lustre", "localflock", "lustre, localflock"),
        ("lustre", "flock", ""),
        ("nfs", "nolock", "nfs, nolock"),
        ("nfs", "local_lock=all", "nfs, local_lock=all"),
        ("nfs4", "local_lock=flock", "nfs4, local_lock=flock"),
        ("nfs4", "local_lock=posix", ""),
        ("cifs", "nobrl", "cifs, nobrl"),
        ("fuse.sshfs", "rw", "fuse.sshfs"),
        ("fuse.glusterfs", "rw", ""),
        ("ext4", "nolock", ""),
    ],
)
def test_flock_that_stays_within_the_node(kind: str, options: str, reason: str) -> None:
    """Known by the options, or by the kind of the filesystem; of all others the best is believed."""
    assert Mount(kind, ("rw", options)).local_flock == reason


def test_a_real_one(tmp_path: Path) -> None:
    """The filesystem of this test is known; of a path that is not there, nothing."""
    assert mounts.mount_of(f"{tmp_path}/missing").kind == ""
    assert mounts.mount_of("/proc").kind == "proc"
