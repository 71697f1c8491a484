"""Which names may be one somewhere: found exactly, without a filesystem that folds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.system import native
from envsync.wheel import twins
from envsync.wheel.archive import fold
from envsync.wheel.unpack import unpack
from tests.wheels import build_wheel, sha256_of

TELLS_APART = pytest.mark.skipif(native.RESTRICTS_NAMES, reason="names that differ in case are one on Windows")


@given(st.lists(st.text("aAbß/", min_size=1, max_size=6).filter(lambda text: "" not in text.split("/")), unique=True))
def test_pairs_are_found_exactly(paths: list[str]) -> None:
    """There is a pair exactly if two paths, or directories above them, fold to one; each is of one directory."""
    above = {path[:end] for path in paths for end in range(1, len(path) + 1) if (path + "/")[end] == "/"}
    found = twins.find(paths)
    assert bool(found) == (len({fold(path) for path in above}) < len(above))
    for one, other in found:
        assert {one, other} <= above
        assert one != other
        assert fold(one) == fold(other)
        assert os.path.dirname(one) == os.path.dirname(other)


@TELLS_APART
@pytest.mark.parametrize(
    ("one", "other"),
    [("a.py", "A.py"), ("x/a.py", "X/a.py"), ("stra\u00dfe", "STRASSE"), ("\u00e9", "e\u0301"), ("x", "X/y")],
)
def test_a_filesystem_that_tells_names_apart_is_asked_and_left_as_it_was(tmp_path: Path, one: str, other: str) -> None:
    """Nothing is refused and nothing left where both names can be."""
    pairs = twins.find([f"library/{one}", f"library/{other}"])
    assert pairs
    twins.refuse("demo-1.0-py3-none-any.whl", pairs, str(tmp_path), "environment", "")
    assert list(tmp_path.iterdir()) == []


@TELLS_APART
def test_an_entry_knows_the_names_that_may_be_one(tmp_path: Path) -> None:
    """The manifest has them, scripts that are made of entry points included; nothing is lost of an entry as it was."""
    scripts = {"console_scripts": {"demo": "demo:f", "Demo": "demo:f"}}
    path = build_wheel(tmp_path, files={"demo/a.py": "1", "demo/A.py": "2"}, entry_points=scripts)
    entry = tmp_path / "entry"
    entry.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        manifest = unpack(
            descriptor, os.path.basename(path), sha256_of(path), str(entry), second_for=lambda _: 1_700_000_000
        )
    finally:
        os.close(descriptor)
    found = {frozenset(os.path.basename(path) for path in pair) for pair in manifest.twins}
    assert found == {frozenset({"a.py", "A.py"}), frozenset({"demo", "Demo"})}
    assert twins.lost(manifest, str(entry)) is None
    (entry / "purelib" / "demo" / "A.py").unlink()
    assert twins.lost(manifest, str(entry)) == f"{entry}/purelib/demo/A.py"
