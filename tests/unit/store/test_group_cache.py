"""Caches that a group shares: what is made in them gets the group's bits."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.store.store import Store
from envsync.system import groups, records
from tests.wheels import artifact, build_wheel


@pytest.fixture(autouse=True)
def private() -> Iterator[None]:
    """A umask that leaves nothing to others."""
    umask = os.umask(0o077)
    yield
    os.umask(umask)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize(
    ("given", "expected"), [(0o2770, 0o070), (0o2775, 0o070), (0o2750, 0o050), (0o770, 0), (0o700, 0), (0o1777, 0)]
)
def test_the_directory_says_what_the_group_may(tmp_path: Path, given: int, expected: int) -> None:
    """Without the set-group-ID bit it says nothing, and nothing is granted."""
    tmp_path.chmod(given)
    assert groups.bits(str(tmp_path)) == expected
    assert groups.is_ours_too(str(tmp_path)) == (expected == 0o070)
    assert groups.bits(str(tmp_path / "missing")) == 0


@pytest.mark.parametrize(
    ("given", "group", "expected"),
    [
        (0o600, 0o070, 0o660),
        (0o400, 0o070, 0o440),
        (0o500, 0o070, 0o550),
        (0o700, 0o050, 0o750),
        (0o2700, 0o070, 0o2770),
        (0o600, 0, 0o600),
    ],
)
def test_the_group_gets_what_the_owner_has(tmp_path: Path, given: int, group: int, expected: int) -> None:
    """What nobody may write stays so."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(given)
    groups.grant(str(path), group)
    assert mode(path) == expected


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Nothing outside of the cache gets other modes; what is gone is no error."""
    outside = tmp_path / "outside"
    outside.touch(0o600)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(outside)
    groups.grant_tree(str(tmp_path / "tree"), 0o070)
    groups.grant(str(tmp_path / "missing"), 0o070)
    assert (mode(outside), mode(tmp_path / "tree")) == (0o600, 0o770)


def test_an_entry_is_the_groups_before_it_is_seen(tmp_path: Path) -> None:
    """All directories can be removed by the group and entered by nobody else; no file can be written."""
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o2770)
    store = Store(str(root))
    store.prepare()
    wheel = build_wheel(tmp_path, files={"demo/__init__.py": "", "demo/deep/er.py": ""}, data={"scripts/run": "x"})
    entry = Path(store.path(store.add(wheel, artifact(wheel)).sha256))
    found = [entry, *entry.rglob("*")]
    assert {mode(path) & 0o777 for path in found if path.is_dir()} == {0o770}
    assert {mode(path) & 0o777 for path in found if path.is_file()} <= {0o444, 0o555}
    assert len(found) > 8


def test_what_is_remembered_is_the_groups(tmp_path: Path) -> None:
    """Facts about interpreters and lock files are read and replaced by all of the group."""
    tmp_path.chmod(0o2770)
    path = tmp_path / "v1" / "targets" / "x.json"
    groups.write(str(tmp_path), str(path), {"fact": 1})
    assert records.load(str(path))["fact"] == 1
    assert (mode(path), mode(path.parent) & 0o777, mode(path.parent.parent) & 0o777) == (0o660, 0o770, 0o770)


def test_what_cannot_be_remembered_is_found_out_again(tmp_path: Path) -> None:
    """A cache that cannot be written is no error."""
    (tmp_path / "v1").write_text("in the way")
    groups.write(str(tmp_path), str(tmp_path / "v1" / "targets" / "x.json"), {"fact": 1})
    assert (tmp_path / "v1").read_text() == "in the way"


class TestLockFiles:
    """They have the group's bits from the first moment on."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "cache"
        root.mkdir()
        root.chmod(0o2770)
        Store(str(root)).prepare()
        return root

    def test_made_once(self, root: Path) -> None:
        """The file that is there is the lock: it is never replaced."""
        groups.make_lock_file(str(root), str(root / ".lock"))
        inode = (root / ".lock").stat().st_ino
        groups.make_lock_file(str(root), str(root / ".lock"))
        assert ((root / ".lock").stat().st_ino, mode(root / ".lock")) == (inode, 0o660)
        assert os.listdir(root / "v1" / "tmp") == []

    def test_two_that_make_it_at_once(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second uses that of the first."""
        first = os.link
        path = root / ".lock"

        def link(source: str, destination: str) -> None:
            path.touch(0o660)
            first(source, destination)

        monkeypatch.setattr("envsync.system.groups.os.link", link)
        groups.make_lock_file(str(root), str(path))
        assert path.exists()
        assert os.listdir(root / "v1" / "tmp") == []

    def test_left_to_who_opens_it(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there are no hard links, no group, or no directory, nothing is made."""

        def link(_source: str, _destination: str) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr("envsync.system.groups.os.link", link)
        groups.make_lock_file(str(root), str(root / "a"))
        root.chmod(0o700)
        groups.make_lock_file(str(root), str(root / "b"))
        root.chmod(0o2770)
        (root / "v1" / "tmp").rmdir()
        groups.make_lock_file(str(root), str(root / "c"))
        assert sorted(os.listdir(root)) == ["CACHEDIR.TAG", "v1"]
