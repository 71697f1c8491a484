"""File systems that are small, of three kinds, and of which one can say how much room is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

KINDS = ("tmpfs", "ext4", "btrfs")
WHATS = {"tmpfs": ("size", "inodes"), "ext4": ("size", "inodes"), "btrfs": ("quota",)}
"""What each kind can be short of."""


class Small(Protocol):
    """A file system, not mounted yet. Nothing here is seen outside of the mount namespace."""

    path: Path
    unit: int
    """How many bytes, or inodes, one of room is."""
    reason: str
    """What the kernel says when nothing is left."""

    def mount(self) -> None:
        """Mount it, empty, with plenty of room."""

    def widen(self) -> None:
        """Have plenty of room again."""

    def leave(self, room: int) -> None:
        """Leave room for so much more than there is now."""


def make(kind: str, what: str, path: Path) -> Small:
    """Describe a file system to be mounted at a path."""
    if kind == "tmpfs":
        return Tmpfs(what, path)
    return Ext4(what, path) if kind == "ext4" else Btrfs(path)


def why_not(kind: str) -> str:
    """Tell why there can be no such file system here; empty if there can be."""
    if kind == "tmpfs":
        return ""
    if os.geteuid() != 0:
        return "only root can mount a disk image"
    if shutil.which(f"mkfs.{kind}") is None or (kind == "btrfs" and shutil.which("btrfs") is None):
        return f"there are no tools for {kind} here"
    if kind not in Path("/proc/filesystems").read_text().split():
        return f"the kernel has no {kind}"
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode:
        return "there are no loop devices here"
    return ""


def command(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


class Tmpfs:
    """Pages of memory, or inodes: the limit can be changed while it is mounted."""

    reason = "No space left on device"

    def __init__(self, what: str, path: Path) -> None:
        self.path = path
        self.option = {"size": "size", "inodes": "nr_inodes"}[what]
        self.unit = 4096 if what == "size" else 1

    def mount(self) -> None:
        command("mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=100000", "tmpfs", self.path)

    def widen(self) -> None:
        self._limit("64m" if self.option == "size" else 100_000)

    def leave(self, room: int) -> None:
        status = os.statvfs(self.path)
        if self.option == "size":
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
        else:
            used = status.f_files - status.f_ffree
        self._limit(max(1, used + room * self.unit))  # 0 is without limit

    def _limit(self, value: int | str) -> None:
        command("mount", "-o", f"remount,{self.option}={value}", self.path)


class Ext4:
    """A disk image: something else takes what is not left. Blocks are allocated later than they are written."""

    reason = "No space left on device"

    def __init__(self, what: str, path: Path) -> None:
        self.path = path
        self.what = what
        self.unit = 4096 if what == "size" else 1
        self.fill = path / "fill"

    def mount(self) -> None:
        image = self.path.with_name("image")
        with image.open("wb") as file:
            file.truncate(64 << 20)
        command("mkfs.ext4", "-q", "-F", "-m", 0, "-N", 1500, "-b", 4096, image)
        command("mount", "-o", "loop", image, self.path)

    def widen(self) -> None:
        shutil.rmtree(self.fill, ignore_errors=True)
        command("sync", "--file-system", self.path)

    def leave(self, room: int) -> None:
        self.fill.mkdir()
        command("sync", "--file-system", self.path)
        status = os.statvfs(self.path)
        if self.what == "inodes":
            for number in range(status.f_ffree - room):
                (self.fill / str(number)).touch()
        else:
            # The last few blocks may be needed to know of the others: then no room is left.
            with contextlib.suppress(OSError), (self.fill / "blocks").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail - room) * self.unit)


class Btrfs:
    """A subvolume with a quota of its own: even to remove something takes room for a moment."""

    unit = 16 << 10
    reason = "Disk quota exceeded"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = path.with_name("disk")
        self.group = ""

    def mount(self) -> None:
        image = self.path.with_name("image")
        self.disk.mkdir()
        with image.open("wb") as file:
            file.truncate(256 << 20)
        command("mkfs.btrfs", "-q", "-f", image)
        command("mount", "-o", "loop", image, self.disk)
        command("btrfs", "quota", "enable", self.disk)
        command("btrfs", "subvolume", "create", self.disk / "volume")
        command("mount", "--bind", self.disk / "volume", self.path)
        self.group = f"0/{self._show()[0]}"

    def widen(self) -> None:
        self._limit("none")

    def leave(self, room: int) -> None:
        command("btrfs", "filesystem", "sync", self.disk)
        self._limit(int(self._show()[1]) + room * self.unit)

    def _limit(self, value: int | str) -> None:
        command("btrfs", "qgroup", "limit", value, self.group, self.disk)  # from outside of the quota

    def _show(self) -> tuple[str, str]:
        """Return the number of the subvolume's group, and how much it has."""
        words = command("btrfs", "qgroup", "show", "--raw", "-f", self.disk / "volume").splitlines()[-1].split()
        return words[0].partition("/")[2], words[1]
