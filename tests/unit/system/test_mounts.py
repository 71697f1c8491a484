"""What the mount table says of a filesystem and its locks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.system import mounts
from envsync.system.mounts import Mount, is_network, mount_of, parse
from tests import needs

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


@needs.PROC
def test_a_real_one(tmp_path: Path) -> None:
    """The filesystem of this test is known; of a path that is not there, nothing."""
    assert mounts.mount_of(f"{tmp_path}/missing").kind == ""
    assert mounts.mount_of("/proc").kind == "proc"


def mount(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str, *, optional: str = "shared:1") -> None:
    """Pretend that a path is on a filesystem of this type, with others mounted besides."""
    device = os.stat(path).st_dev
    table = (
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} /a /b\\040c rw,noatime {optional} - {kind} server:/x rw\n"
        "37 35 99:99 / /other rw - ext4 /dev/x rw\n"
    )
    monkeypatch.setattr(mounts, "read_proc", lambda name: table if name == "/proc/self/mountinfo" else "")


class TestFilesystem:
    """Which filesystems others share."""

    @pytest.mark.parametrize("optional", ["", "shared:1", "shared:1 master:2 propagate_from:3"])
    def test_its_type(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optional: str) -> None:
        """The type comes after a hyphen and any number of optional fields (proc_pid_mountinfo(5))."""
        mount(monkeypatch, tmp_path, "nfs4", optional=optional)
        assert mount_of(str(tmp_path)).kind == "nfs4"

    @pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "cifs", "ceph", "beegfs", "fuse.sshfs", "fuse"])
    def test_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """Those of clusters, and FUSE as long as it is not known to be local: MooseFS, gluster and sshfs are FUSE."""
        mount(monkeypatch, tmp_path, kind)
        assert is_network(str(tmp_path))

    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs", ""])
    def test_local(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """Those of one host, and what is unknown."""
        mount(monkeypatch, tmp_path, kind or "unheard-of")
        assert not is_network(str(tmp_path))

    @pytest.mark.parametrize("table", ["", "garbage\n", "1 2 3\n", "- - - - - - -\n", "36 35 0:0 / / rw -\n"])
    def test_nothing_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
        """Without a table of mounts, or with one that nobody understands, a filesystem counts as local."""
        monkeypatch.setattr(mounts, "read_proc", lambda name: table)
        assert mount_of(str(tmp_path)).kind == ""
        assert not is_network(str(tmp_path))

    def test_a_table_that_is_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line that ends too early says nothing."""
        device = os.stat(tmp_path).st_dev
        table = f"36 35 {os.major(device)}:{os.minor(device)} / / rw -"
        monkeypatch.setattr(mounts, "read_proc", lambda name: table)
        assert not is_network(str(tmp_path))

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        """A path that does not exist is on nothing."""
        assert mount_of(str(tmp_path / "x")).kind == ""

    @needs.PROC
    def test_for_real(self, tmp_path: Path) -> None:
        """The kernel's own table is understood: it has a type for /proc."""
        assert mount_of("/proc").kind == "proc"
