"""The parts of a wheel: every file is in one of them, and two wheels that share a file have a place in common."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envsync.python.facts import Layout
from envsync.staging.linked_directories import Whole, choose
from envsync.staging.parts import entries_of, parts, place_of
from envsync.wheel.manifest import Directory, Manifest, Rows
from tests.unit.staging.test_shared_files import LAYOUT, SITE, make_item

APART = Layout("lib/python3.11/site-packages", "lib64/python3.11/site-packages", "bin", "include/site/python3.11")
NAMES = st.sampled_from(
    ["a", "a-1.dist-info", "a.py", "b", "bin", "include", "lib", "python3.11", "site-packages", "site"]
)
PATHS = st.lists(NAMES, max_size=5).map("/".join)
SCHEMES = st.sampled_from(["purelib", "platlib", "scripts", "headers", "data"])


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Draw a manifest with directories in order, as an unpacked wheel has them."""
    places = draw(st.lists(st.tuples(SCHEMES, PATHS), unique=True, max_size=12))
    directories = tuple(Directory(*place, [["x", 1, False], ["y.py", 2, False]]) for place in sorted(places))
    return Manifest("d", "1", "d.whl", "0" * 64, "purelib", "d-1.dist-info", 1, directories, (), (), True, Rows.of([]))


def full(layout: Layout, directory: Directory) -> str:
    return "/".join(part for part in (layout.directory(directory.scheme, "d"), directory.path) if part)


@given(manifest=manifests(), layout=st.sampled_from([LAYOUT, APART]))
def test_each_directory_is_in_one_part(manifest: Manifest, layout: Layout) -> None:
    """None is lost and none is there twice; its files belong to the part's place, wherever they are asked from."""
    found = parts(layout, "d", manifest)
    assert sorted(directory for part in found for directory in part.directories) == sorted(manifest.directories)
    assert len({(part.scheme, part.place) for part in found}) == len(found)
    for part in found:
        for directory in part.directories:
            path = full(layout, directory)
            assert place_of(layout, f"{path}/x" if path else "x") == part.place
            assert path == part.place if part.is_loose else f"{path}/".startswith(f"{part.place}/")


@given(manifest=manifests(), layout=st.sampled_from([LAYOUT, APART]))
def test_entries_are_those_of_all_files(manifest: Manifest, layout: Layout) -> None:
    """What the ledger says of a distribution is the entry of every file of it."""
    paths = [
        f"{path}/{name}" if path else name
        for directory in manifest.directories
        for path in [full(layout, directory)]
        for name, *_ in directory.files
    ]
    assert entries_of(layout, manifest, parts(layout, "d", manifest)) == {layout.entry(path) for path in paths}


def test_a_package_beside_its_dist_info_is_one_link() -> None:
    """`demo-1.dist-info` sorts between `demo` and `demo/sub`: `demo` is one part all the same, and linked once."""
    files = {("purelib", path): "x" for path in ("demo/a.py", "demo-1.dist-info/METADATA", "demo/sub/b.py")}
    item = make_item("demo", files)
    assert choose([item], LAYOUT, (), lambda *_: True) == {"demo": (Whole(f"{SITE}/demo", "purelib", "demo"),)}


def test_one_shared_object_makes_only_the_directories_above_it_real() -> None:
    """Its siblings are linked whole, each once."""
    paths = ("demo/core/a.so", "demo/core/data/x", "demo/plain/b.py", "demo/plain/deep/c.py")
    item = make_item("demo", {("platlib", path): "x" for path in paths})
    chosen = choose([item], LAYOUT, (), lambda *_: True)["demo"]
    assert [one.below for one in chosen] == ["demo/core/data", "demo/plain"]
