"""Removing from a cache: out of sight by one rename each, then for good; and finding what is not what it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from envsync.store import clean
from envsync.store.inventory import CacheItem, inventory
from envsync.store.store import Store
from envsync.system import native
from envsync.wheel.manifest import NAME
from tests.wheels import artifact, build_wheel


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def entries(store: Store, tmp_path: Path) -> list[str]:
    """The hashes of three wheels in the store, in order."""
    wheels = [build_wheel(tmp_path, name) for name in ("one", "two", "three")]
    return sorted(store.add(wheel, artifact(wheel)).sha256 for wheel in wheels)


def listing(store: Store) -> list[str]:
    """Name all but which seconds are taken, which is no content."""
    root = Path(store.root) / "v1"
    found = (path.relative_to(root).as_posix() for path in root.glob("*/*"))
    return sorted(path for path in found if not path.startswith("names/"))


def test_what_is_set_aside_is_out_of_sight_and_whole(store: Store, entries: list[str]) -> None:
    """One rename each, to names that nobody else has."""
    items = list(inventory(store.root))
    removal = clean.set_aside(store.root, items[:2], unless_used=True)
    assert removal.removed == items[:2]
    assert [store.get(sha256) is not None for sha256 in entries] == [False, False, True]
    assert sorted(os.listdir(store.tmp)) == sorted(removal.trash)
    assert all(os.path.exists(f"{store.tmp}/{name}/{NAME}") for name in removal.trash)


@pytest.mark.parametrize("unless_used", [True, False])
def test_what_was_used_meanwhile_stays(store: Store, entries: list[str], *, unless_used: bool) -> None:
    """A prune keeps it, a clean does not."""
    for sha256 in entries:
        os.utime(store.path(sha256), (5000, 5000))
    items = list(inventory(store.root))
    store.touch(entries[1])
    removal = clean.set_aside(store.root, items, unless_used=unless_used)
    assert [item.name for item in removal.kept] == [entries[1]] * unless_used
    assert (store.get(entries[1]) is not None) == unless_used


def test_everything_is_what_is_there_now(store: Store, entries: list[str]) -> None:
    """Locks, unfinished work and what came since somebody looked go, too; directories and files of ours stay."""
    Path(store.tmp, "x.part").touch()
    Path(store.locks, entries[0]).touch()
    removal = clean.set_aside(store.root, clean.everything(store.root), unless_used=False)
    assert len(removal.removed) == 8  # with which seconds three projects have taken
    assert listing(store) == sorted(f"tmp/{name}" for name in removal.trash)
    assert clean.everything(f"{store.root}/missing") == []


def test_what_is_gone_already_is_no_error(store: Store, entries: list[str]) -> None:
    """Two cleaners may have looked at the same."""
    items = list(inventory(store.root))
    store.discard(entries[0])
    removal = clean.set_aside(store.root, items, unless_used=False)
    assert (len(removal.removed), removal.refused) == (2, [])


@pytest.mark.parametrize("answer", [errno.EXDEV, errno.ENOSPC, errno.EDQUOT])
def test_where_nothing_can_be_renamed_it_is_removed_in_place(
    store: Store, entries: list[str], monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """A full disk, on which `tmp` cannot grow, is just what a cache is cleaned for; so with layers of an overlay."""
    Path(store.tmp, "x.part").touch()

    def rename(_source: str, _destination: str) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(native, "replace", rename)
    removal = clean.set_aside(store.root, list(inventory(store.root)), unless_used=True)
    assert (len(removal.removed), removal.refused) == (4, [])
    assert listing(store) == []


def test_what_resists_is_named_and_the_rest_goes(
    store: Store, entries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not be renamed is an error at the end."""
    rename = os.rename

    def refuse(source: str, destination: str) -> None:
        if source.endswith(entries[1]):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, destination)

    monkeypatch.setattr(native, "replace", refuse)
    removal = clean.set_aside(store.root, list(inventory(store.root)), unless_used=False)
    assert sorted(item.name for item in removal.removed) == [entries[0], entries[2]]
    assert [path for path, _ in removal.refused] == [f"{store.wheels}/{entries[1]}"]


def test_a_sound_store_verifies(store: Store, entries: list[str]) -> None:
    """Every entry is looked at, and named by its wheel."""
    found = list(clean.verify(store.root))
    assert [item.name for item in found] == entries
    assert {item.problem for item in found} == {""}
    assert {item.wheel.split("-")[0] for item in found} == {"one", "two", "three"}


@pytest.mark.parametrize("damage", ["bytes", "file", "manifest"])
def test_damage_is_named(store: Store, entries: list[str], damage: str) -> None:
    """Also where size and time are what they were: a hash is not fooled."""
    entry = Path(store.path(entries[1]))
    module = next(entry.glob("purelib/*/__init__.py"))
    status = module.stat()
    if damage == "bytes":
        module.chmod(0o644)
        module.write_bytes(module.read_bytes().swapcase())
        os.utime(module, ns=(status.st_mtime_ns, status.st_mtime_ns))
        assert (module.stat().st_size, module.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    elif damage == "file":
        module.unlink()
    else:
        (entry / NAME).unlink()
    found = {item.name: item.problem for item in clean.verify(store.root)}
    assert [name for name, problem in found.items() if problem] == [entries[1]]
    expected = "its manifest is missing" if damage == "manifest" else f"`{module.relative_to(entry)}` is not what"
    assert found[entries[1]].startswith(expected)


def test_what_is_no_entry_is_named(store: Store, entries: list[str]) -> None:
    """Whatever lies among the entries: a file, or a name that no hash has."""
    Path(store.wheels, "foo").mkdir()
    Path(store.wheels, "AB" * 32).mkdir()
    Path(store.wheels, "cd" * 32).write_text("")
    bad = {item.name for item in clean.verify(store.root) if item.problem}
    assert bad == {"foo", "AB" * 32, "cd" * 32}
    for name in bad:
        store.discard_path(f"{store.wheels}/{name}")
    assert sorted(os.listdir(store.wheels)) == entries
    assert os.listdir(store.tmp) == []


def test_trash_is_not_listed_as_something_to_use(store: Store, entries: list[str]) -> None:
    """A clean that was killed leaves unfinished work, which the next one takes."""
    clean.set_aside(store.root, list(inventory(store.root)), unless_used=False)
    left = list(inventory(store.root))
    assert {item.kind for item in left} == {"tmp"}
    assert all(isinstance(item, CacheItem) for item in left)
    removal = clean.set_aside(store.root, clean.everything(store.root), unless_used=False)
    assert len(removal.removed) == 6  # with the seconds of three projects
