"""How often a waiter looks: often where it costs nothing, seldom where a thousand nodes ask one server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.waiting import pace
from envsync.waiting.pace import Pace, filesystem, is_network


def mount(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str, *, optional: str = "shared:1") -> None:
    """Pretend that a path is on a filesystem of this type, with others mounted besides."""
    device = os.stat(path).st_dev
    table = (
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} /a /b\\040c rw,noatime {optional} - {kind} server:/x rw\n"
        "37 35 99:99 / /other rw - ext4 /dev/x rw\n"
    )
    monkeypatch.setattr(pace, "read", lambda name: table if name == "/proc/self/mountinfo" else "")


class TestFilesystem:
    """Which filesystems others share."""

    @pytest.mark.parametrize("optional", ["", "shared:1", "shared:1 master:2 propagate_from:3"])
    def test_its_type(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optional: str) -> None:
        """The type comes after a hyphen and any number of optional fields (proc_pid_mountinfo(5))."""
        mount(monkeypatch, tmp_path, "nfs4", optional=optional)
        assert filesystem(str(tmp_path)) == "nfs4"

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
        monkeypatch.setattr(pace, "read", lambda name: table)
        assert filesystem(str(tmp_path)) == ""
        assert not is_network(str(tmp_path))

    def test_a_table_that_is_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line that ends too early says nothing."""
        device = os.stat(tmp_path).st_dev
        table = f"36 35 {os.major(device)}:{os.minor(device)} / / rw -"
        monkeypatch.setattr(pace, "read", lambda name: table)
        assert not is_network(str(tmp_path))

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        """A path that does not exist is on nothing."""
        assert filesystem(str(tmp_path / "x")) == ""

    def test_for_real(self, tmp_path: Path) -> None:
        """The kernel's own table is understood: it has a type for /proc."""
        assert filesystem("/proc") == "proc"


class TestPause:
    """The pauses."""

    def test_local(self) -> None:
        """On a local disk, a waiter looks twenty times a second however long it takes."""
        assert {Pace(network=False).pause(waited) for waited in (0, 1, 60, 86_400)} == {0.05}

    @pytest.mark.parametrize(
        ("waited", "expected"), [(0.0, 0.1), (1.0, 0.1), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0), (60.0, 2.0), (9e9, 2.0)]
    )
    def test_network(self, waited: float, expected: float) -> None:
        """Over a network, the pause grows by a tenth of what was waited from 0.1 s to 2 s, a quarter either way."""
        pauses = [Pace(network=True).pause(waited) for _ in range(400)]
        assert 0.75 * expected <= min(pauses) < 0.85 * expected
        assert 1.15 * expected < max(pauses) <= 1.25 * expected
        assert sum(pauses) / len(pauses) == pytest.approx(expected, rel=0.05)

    def test_spread(self) -> None:
        """Those who started together do not ask together: after a minute, they are spread over the whole pause."""
        phases = []
        for _ in range(200):
            waited = looked = 0.0
            while waited < 60:
                looked, waited = waited, waited + Pace(network=True).pause(waited)
            phases.append((60 - looked) / (waited - looked))
        quarters = [sum(quarter <= phase * 4 < quarter + 1 for phase in phases) for quarter in range(4)]
        assert min(quarters) >= 20

    @pytest.mark.parametrize(("seconds", "least", "most"), [(60, 60, 80), (3600, 1750, 1950)])
    def test_looks(self, seconds: int, least: int, most: int) -> None:
        """A waiter asks the server some 70 times in the first minute and some 1,850 times in the first hour."""
        looks, waited = 0, 0.0
        pace = Pace(network=True)
        while waited < seconds:
            waited += pace.pause(waited)
            looks += 1
        assert least <= looks <= most

    def test_the_rest_of_a_stamp(self) -> None:
        """A stamp is left for two of the longest pauses, so that everybody who waits for it has seen it."""
        for network in (False, True):
            longest = max(Pace(network=network).pause(9e9) for _ in range(200))
            assert Pace(network=network).rest >= 2 * longest * 0.99
