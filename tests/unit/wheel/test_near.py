"""A wheel on another filesystem is read once, in large pieces, and unpacked of what was kept of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.errors import HashMismatchError
from envsync.store.store import Store
from envsync.system import native
from envsync.wheel import near
from tests.wheels import artifact, build_wheel


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "cache"))
    found.prepare()
    return found


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let all wheels seem to be on another filesystem. Returns how much of files in tests is read: size and offset."""
    reads: list[tuple[int, int]] = []
    pread = os.pread
    wheels: set[int] = set()
    original = near.copy_of

    def copy_of(status: os.stat_result, *others: object) -> object:
        wheels.add(status.st_ino)
        elsewhere = os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])
        return original(elsewhere, *others)  # type: ignore[arg-type]

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino in wheels and os.fstat(descriptor).st_nlink:
            reads.append((size, offset))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(near, "copy_of", copy_of)
    monkeypatch.setattr(native, "pread", counted)
    return reads


@pytest.mark.parametrize("in_memory", [0, near.IN_MEMORY])
def test_it_is_read_once(
    store: Store, tmp_path: Path, far: list[tuple[int, int]], in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its beginning to its end; and nothing is left of what was kept."""
    monkeypatch.setattr(near, "IN_MEMORY", in_memory)
    files = {f"demo/{number}.py": f"x = {number}\n" for number in range(50)}
    wheel = build_wheel(tmp_path, "demo", "1.0", files)
    manifest = store.add(wheel, artifact(wheel))
    assert Path(store.path(manifest.sha256), "purelib/demo/7.py").read_text() == "x = 7\n"
    assert far == [(1024 * 1024, 0), (1024 * 1024, os.path.getsize(wheel))]
    assert os.listdir(store.tmp) == []


def test_another_one(store: Store, tmp_path: Path, far: list[tuple[int, int]]) -> None:
    """Its hash is compared before any of it is looked at."""
    wheel = build_wheel(tmp_path, "demo", "1.0")
    with pytest.raises(HashMismatchError):
        store.add(wheel, artifact(wheel, hashes={"sha256": "0" * 64}))
    assert os.listdir(store.tmp) == os.listdir(store.wheels) == []
    assert far


def test_one_that_is_near_is_not_copied(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the page cache after the first look, and is read from there."""
    monkeypatch.setattr(near, "write", lambda *_, **__: pytest.fail("it was copied"))
    wheel = build_wheel(tmp_path, "demo", "1.0")
    assert store.add(wheel, artifact(wheel)).name == "demo"
