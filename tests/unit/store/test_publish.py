"""Replacing what environments link to: it is there all the time, but for the moment between two renames."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.errors import FilesystemError
from envsync.store import users
from envsync.store.store import Store
from envsync.store.trash import REPLACED
from envsync.system import native
from envsync.wheel.manifest import Manifest
from tests.wheels import artifact, build_wheel

LONG = 0.2
"""Seconds that fetching takes at each checkpoint: far longer than two renames."""


class Linked:
    """A store with an entry to which an environment links."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root / "cache"))
        self.store.prepare()
        self.wheel = build_wheel(root, files={"demo/__init__.py": "x = 1\n"})
        self.sha256 = self.add().sha256
        self.env = root / "env"
        (self.env / ".envsync").mkdir(parents=True)
        (self.env / ".envsync" / "in-use").touch()
        users.record(self.store.root, str(self.env), {self.sha256})
        self.module = Path(self.store.path(self.sha256), "purelib/demo/__init__.py")

    def add(self, store: Store | None = None, checkpoint: float = 0) -> Manifest:
        found = artifact(self.wheel)
        return (store or self.store).add(self.wheel, found, checkpoint=lambda: time.sleep(checkpoint))

    def damage(self) -> int:
        """Write to it. Returns its inode."""
        self.module.chmod(0o644)
        self.module.write_text("x = 7\n")
        return os.stat(self.store.path(self.sha256)).st_ino

    @property
    def inode(self) -> int:
        return os.stat(self.store.path(self.sha256)).st_ino

    @property
    def is_sound(self) -> bool:
        return self.module.read_text() == "x = 1\n" and os.listdir(self.store.tmp) == []


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    return Linked(tmp_path)


WATCH = """
import os, select, sys, time
path, longest, looks, since = sys.argv[1], 0.0, 0, None
print("watching", flush=True)
while not select.select([0], [], [], 0)[0]:
    looks += 1
    now = time.monotonic()
    if os.path.exists(path):
        since = None
    else:
        since = since or now
        longest = max(longest, now - since)
print(looks, longest)
"""


def test_a_reader_never_misses_it_while_it_is_fetched(linked: Linked) -> None:
    """Whoever polls a module sees the old one until the new one is there, but for the time that a rename takes."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", WATCH, str(linked.module)]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "watching\n"
        for _ in range(3):
            old = linked.damage()
            with linked.store.replacing([linked.sha256]):
                assert linked.store.get(linked.sha256) is None
                linked.add(checkpoint=LONG)
                assert linked.store.get(linked.sha256) is not None
            assert linked.inode != old
            assert linked.is_sound
        looks, longest = reader.communicate()[0].split()
    assert int(looks) > 100
    assert float(longest) < LONG


def test_if_fetching_fails_it_stays_as_it_was(linked: Linked) -> None:
    """In its place, never moved; and it is found again."""
    old = linked.damage()
    with pytest.raises(RuntimeError), linked.store.replacing([linked.sha256]):
        raise RuntimeError
    assert linked.inode == old
    assert linked.store.get(linked.sha256) is not None
    assert os.listdir(linked.store.tmp) == []


@pytest.fixture(params=["after the first rename", "after the second"])
def moment(linked: Linked, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody else looks for what was cut off, just then."""
    rename = native.replace

    def look(source: str, destination: str) -> None:
        rename(source, destination)
        first = os.path.basename(destination).startswith(REPLACED)
        if first if request.param == "after the first rename" else destination == linked.store.path(linked.sha256):
            monkeypatch.setattr(native, "replace", rename)
            Store(linked.store.root).mend()

    monkeypatch.setattr(native, "replace", look)
    yield
    assert native.replace is rename, "it never came to that"


@pytest.mark.usefixtures("moment")
def test_whoever_mends_meanwhile_is_in_nobodys_way(linked: Linked) -> None:
    """The one puts it back, the other begins again."""
    old = linked.damage()
    with linked.store.replacing([linked.sha256]):
        linked.add()
    assert linked.inode != old
    assert linked.is_sound


def test_of_two_that_replace_it_the_second_uses_what_is_there(linked: Linked) -> None:
    """What is damaged is the one that was there, not its place."""
    linked.damage()
    other = Store(linked.store.root)
    with linked.store.replacing([linked.sha256]), other.replacing([linked.sha256]):
        linked.add()
        new = linked.inode
        linked.add(other)
    assert linked.inode == new
    assert linked.is_sound


def test_what_was_cut_off_is_put_back(linked: Linked) -> None:
    """By whoever looks next: settling, sweeping. Something in place is never touched."""
    for look in (lambda store: store.settle("elsewhere"), Store.sweep, Store.mend):
        old, place = linked.inode, linked.store.path(linked.sha256)
        os.rename(place, f"{linked.store.tmp}/{REPLACED}{linked.sha256}-0123")
        look(Store(linked.store.root))
        assert linked.inode == old
        os.mkdir(f"{linked.store.tmp}/{REPLACED}{linked.sha256}-4567")
        look(Store(linked.store.root))
        assert linked.inode == old
        assert os.listdir(linked.store.tmp) == []


def test_if_the_new_one_cannot_come_the_old_one_is_put_back(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full, of all times, between the two renames."""
    rename, old = os.rename, linked.damage()
    moves: list[str] = []

    def fail(source: str, destination: str) -> None:
        if destination == linked.store.path(linked.sha256):
            moves.append(source)
            if len(moves) == 2:
                raise OSError(28, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(native, "replace", fail)
    with pytest.raises(FilesystemError, match="No space left"), linked.store.replacing([linked.sha256]):
        linked.add()
    assert len(moves) == 3
    assert linked.inode == old
    assert os.listdir(linked.store.tmp) == []
