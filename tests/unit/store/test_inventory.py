"""What a cache holds, and what of it may go."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.store.inventory import BYTECODE, UNFINISHED, WHEELS, CacheItem, Rules, inventory, measure, prunable
from envsync.store.store import Store
from envsync.store.trash import LEFTOVER_SECONDS
from tests.wheels import artifact, build_wheel

DAY = 86400.0
NOW = 1000 * DAY


def item(name: str, age: float, size: int = 10, kind: str = WHEELS, wheel: str = "x.whl") -> CacheItem:
    return CacheItem(kind, name, wheel if kind == WHEELS else "", 1, size, size, NOW - age)


def names(chosen: list[CacheItem]) -> list[str]:
    return [chosen.name for chosen in chosen]


ITEMS = [
    item("new", 0),
    item("weeks", 14 * DAY, 20),
    item("months", 60 * DAY, 30),
    item("unreadable", 2 * DAY, wheel=""),
    item("just unreadable", 0, wheel=""),
    item("left over", LEFTOVER_SECONDS + 1, kind=UNFINISHED),
    item("in work", 60, kind=UNFINISHED),
    item("fact", 14 * DAY, kind="interpreters"),
]
ALWAYS = ["unreadable", "left over"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), ALWAYS),
        (Rules(older_than=30 * DAY), ["months", *ALWAYS]),
        (Rules(older_than=14 * DAY), ["weeks", "months", *ALWAYS, "fact"]),
        (Rules(older_than=0), ["new", "weeks", "months", *ALWAYS, "fact"]),
        (Rules(older_than=30 * DAY, linked={"months"}), ALWAYS),
        (Rules(max_size=90), ALWAYS),
        (Rules(max_size=89), [*ALWAYS, "months"]),
        (Rules(max_size=50), [*ALWAYS, "months", "weeks"]),
        (Rules(max_size=0), [*ALWAYS, "months", "weeks", "new", "just unreadable"]),
        (Rules(older_than=30 * DAY, max_size=50), ["months", *ALWAYS, "weeks"]),
        (Rules(max_size=60, linked={"months"}), [*ALWAYS, "weeks", "new"]),
    ],
)
def test_what_goes(rules: Rules, expected: list[str]) -> None:
    """What nobody can use, then what is too old, then what was used least lately; what is linked to stays."""
    assert names(prunable(ITEMS, rules, NOW)) == expected


def test_bytecode_goes_with_its_wheel() -> None:
    """However old it is itself: without the wheel nobody links it, and with the wheel it is wanted."""
    items = [
        item("old", 60 * DAY, kind=BYTECODE),
        item("new", 60 * DAY, kind=BYTECODE),
        item("nobody's", 0, kind=BYTECODE),
        item("old", 60 * DAY),
        item("new", 0),
    ]
    assert [chosen.path for chosen in prunable(items, Rules(older_than=30 * DAY), NOW)] == [
        "wheels/old",
        "bytecode/old",
        "bytecode/nobody's",
    ]
    assert names(prunable(items, Rules(max_size=40), NOW)) == ["nobody's"]
    assert names(prunable(items, Rules(max_size=39), NOW)) == ["old", "old", "nobody's"]


@given(
    st.lists(
        st.builds(
            item,
            st.text(min_size=1, max_size=3),
            st.floats(-DAY, 100 * DAY),
            st.integers(0, 100),
            st.sampled_from([WHEELS, UNFINISHED, "targets"]),
            st.sampled_from(["", "x.whl"]),
        ),
        max_size=12,
    ),
    st.none() | st.floats(0, 100 * DAY),
    st.none() | st.integers(0, 500),
    st.sets(st.text(min_size=1, max_size=3)),
)
def test_whatever_there_is(items: list[CacheItem], age: float | None, limit: int | None, linked: set[str]) -> None:
    """Nothing goes twice, nothing that is linked to goes, nothing too old stays, and the rest fits if wheels can go."""
    chosen = prunable(items, Rules(age, limit, linked), NOW)
    stays = [found for found in items if not any(found is other for other in chosen)]
    assert len(stays) + len(chosen) == len(items)
    assert not any(found.kind == WHEELS and found.name in linked for found in chosen)
    removable = [found for found in stays if found.kind == WHEELS and found.name not in linked]
    if age is not None:
        assert not any(NOW - found.used >= age for found in removable if found.wheel)
    if limit is not None and removable:
        assert sum(found.bytes for found in stays) <= limit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


def add(store: Store, directory: Path, name: str, **options: Any) -> str:
    wheel = build_wheel(directory, name, "1.0", **options)
    return store.add(wheel, artifact(wheel)).sha256


def test_what_is_there(store: Store, tmp_path: Path) -> None:
    """Entries with their wheel's name, sizes on the disk and last use; unfinished work; facts; no locks."""
    sha256 = add(store, tmp_path, "demo", files={"demo/data.bin": os.urandom(100_000)})
    os.utime(store.path(sha256), (5000, 5000))
    (Path(store.tmp) / "x.part").write_bytes(b"x" * 10_000)
    (Path(store.locks) / sha256).touch()
    (Path(store.root) / "v1" / "targets").mkdir()
    (Path(store.root) / "v1" / "targets" / "y.json").write_text("{}")
    part, fact, wheel = sorted(inventory(store.root), key=lambda found: (found.kind != UNFINISHED, found.kind))
    assert (wheel.path, wheel.wheel, wheel.used) == (f"wheels/{sha256}", "demo-1.0-py3-none-any.whl", 5000)
    assert 100_000 < wheel.bytes < 150_000
    assert wheel.free == wheel.bytes
    assert (part.path, part.wheel, part.files) == ("tmp/x.part", "", 1)
    assert 10_000 <= part.bytes < 20_000
    assert (fact.path, fact.files) == ("targets/y.json", 1)


def test_what_environments_link_to_frees_nothing(store: Store, tmp_path: Path) -> None:
    """Removing one of two links leaves the bytes where they are."""
    sha256 = add(store, tmp_path, "demo", files={"demo/a.bin": os.urandom(50_000), "demo/b.bin": os.urandom(9000)})
    before = measure(store.root, WHEELS, sha256)
    os.link(f"{store.path(sha256)}/purelib/demo/a.bin", tmp_path / "link")
    after = measure(store.root, WHEELS, sha256)
    assert before is not None
    assert after is not None
    assert after.bytes == before.bytes == before.free
    assert 50_000 <= before.free - after.free < 60_000


def test_a_use_makes_an_entry_new(store: Store, tmp_path: Path) -> None:
    """The time of the directory says when it was used last; being looked at is no use."""
    sha256 = add(store, tmp_path, "demo")
    os.utime(store.path(sha256), (5000, 5000))
    store.get(sha256)
    old = measure(store.root, WHEELS, sha256)
    store.touch(sha256)
    new = measure(store.root, WHEELS, sha256)
    assert old is not None
    assert new is not None
    assert old.used == 5000
    assert abs(new.used - time.time()) < 100


def test_odd_things(store: Store, tmp_path: Path) -> None:
    """No cache, files in the way, links out of it: counted as what they are, or not at all."""
    assert list(inventory(str(tmp_path / "missing"))) == []
    assert measure(store.root, WHEELS, "missing") is None
    (Path(store.root) / "v1" / "file").write_text("")
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 100_000)
    (Path(store.tmp) / "link").symlink_to(big)
    (Path(store.wheels) / "broken").mkdir()
    found = {item.path: item for item in inventory(store.root)}
    assert found.keys() == {"tmp/link", "wheels/broken"}
    assert found["tmp/link"].bytes < 10_000
    assert found["wheels/broken"].wheel == ""


def test_what_building_takes_goes_by_size_too() -> None:
    """Of build environments, built wheels and the rest, what was used least lately goes first, beside wheels."""
    kinds = ["build-environments", "built", "git", "logs", "sources", "targets"]
    items = [CacheItem(kind, "a", "", 1, 10, 10, float(number)) for number, kind in enumerate(kinds)]
    chosen = [item.kind for item in prunable(items, Rules(max_size=30), now=100.0)]
    assert chosen == ["build-environments", "built", "git"]
    assert [item.kind for item in prunable(items, Rules(max_size=0), now=100.0)] == kinds[:-1]
    assert [item.kind for item in prunable(items, Rules(older_than=97.0), now=100.0)] == kinds[:4]
