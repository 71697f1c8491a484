"""`--durable`: a power cut at any change of a sync leaves an environment that is whole, or is not taken for current.

The environment and the cache are on an ext4 image behind a loop device. At a change of the file system, while the
process stands still, the image is copied: what the kernel has written to the device by then, in its order, is in the
copy, and what it still holds in memory is not. That is what a power cut leaves, but for disks that acknowledge what
they have not written. The copy is mounted in a mount namespace of its own, at the same path, and judged (`after.py`).

ext4 is mounted as badly as it goes: contents may reach the disk long after the names (`data=writeback`,
`noauto_da_alloc`), and before each copy somebody else syncs a file, so that the names do reach it. Without `--durable`,
the same cuts leave environments that are taken for current and are not whole: the test can fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.__main__ import main
from envsync.library import blocking
from tests.environments import FIXTURES

FIRST = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
AFTER = str(Path(__file__).parent / "after.py")
OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=300"
CHANGES = frozenset(
    {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
)


class Disk:
    """An ext4 file system on an image, mounted at `place`."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "image"
        self.place = directory / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", OPTIONS, self.image, self.place], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.place], check=True)

    def cut(self, copy: Path) -> None:
        """Copy what is on the device, after somebody else has synced something."""
        fd = os.open(self.place / "somebody-elses", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"x")
        os.fsync(fd)
        os.close(fd)
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)

    def judge(self, copy: Path) -> str:
        """Say what is wrong with a copy; the empty string if nothing is."""
        script = 'mount -o loop "$1" "$2" && shift 2 && exec "$@"'
        words = [sys.executable, AFTER, str(self.place / "env"), str(self.place / "cache"), FIRST, NEXT]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", str(copy), str(self.place), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr[-2000:] or str(done.returncode)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be cut off."""
    if os.getuid() != 0 or shutil.which("mkfs.ext4") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, mkfs.ext4 and unshare")
    try:
        disk = Disk(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device can be mounted here: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


def cuts(disk: Disk, tmp_path: Path, arguments: list[str], due: range) -> dict[int, str]:
    """Sync in a child, cut the power at each change that is due, and return what was wrong, by number."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 2)
            sys.addaudithook(_striker(disk, tmp_path, due, writing))
            status = main(arguments)
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading) as file:
        wrong = dict(line.rstrip("\n").split("\t", 1) for line in file)
    status = os.waitpid(pid, 0)[1]
    assert status == 0
    assert wrong
    return {int(number): text for number, text in wrong.items()}


def _striker(disk: Disk, tmp_path: Path, due: range, writing: int):  # type: ignore[no-untyped-def]
    count = 0
    busy = False
    parent = os.getpid()

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal count, busy
        if busy or os.getpid() != parent:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or writes:
            count += 1
            if count in due:
                busy = True
                copy = tmp_path / f"copy{count}"
                disk.cut(copy)
                wrong = disk.judge(copy).replace("\n", " ")
                copy.unlink()
                os.write(writing, f"{count}\t{wrong}\n".encode())
                busy = False

    return audit


@pytest.fixture
def cache(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> str:
    cache = str(disk.place / "cache")
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", cache)
    return cache


SOME = range(5, 10_000, 16)
ALL = range(1, 10_000)


def durable_cuts(disk: Disk, tmp_path: Path, due: range) -> dict[int, str]:
    """Cut the power during an upgrade and return what was wrong."""
    env = str(disk.place / "env")
    blocking.sync(FIRST, env=env, durable=True)
    found = cuts(disk, tmp_path, ["sync", "--lock", NEXT, "--env", env, "--durable", "-q"], due)
    print(f"{len(found)} power cuts, {sum(map(bool, found.values()))} wrong")
    return {number: text for number, text in found.items() if text}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cache")
def test_power_cuts_during_an_upgrade(disk: Disk, tmp_path: Path) -> None:
    """Cut off at any of many changes, the environment is the old one, the new one, or repaired by the next sync."""
    assert durable_cuts(disk, tmp_path, SOME) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("cache")
def test_power_cuts_at_every_change(disk: Disk, tmp_path: Path) -> None:
    """The same at every change."""
    assert durable_cuts(disk, tmp_path, ALL) == {}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cache")
def test_without_durable_a_power_cut_is_not_survived(disk: Disk, tmp_path: Path) -> None:
    """Without --durable, a cut after the sync leaves files without content: so the tests of it can fail."""
    env = str(disk.place / "env")
    assert blocking.sync(FIRST, env=env, link_mode="copy").outcome == "synced"
    disk.cut(tmp_path / "copy")
    assert disk.judge(tmp_path / "copy") != ""


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cache")
def test_a_durable_sync_is_on_the_disk_when_it_returns(disk: Disk, tmp_path: Path) -> None:
    """A cut right after a first sync leaves the whole environment, current."""
    env = str(disk.place / "env")
    assert blocking.sync(FIRST, env=env, link_mode="copy", durable=True).outcome == "synced"
    disk.cut(tmp_path / "copy")
    assert disk.judge(tmp_path / "copy") == ""
