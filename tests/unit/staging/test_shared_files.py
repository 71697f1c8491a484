"""Shared files: who provides what depends on what is installed, never on the order in which it came."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.installed.plan import Origin, Wanted
from envsync.python.facts import Layout
from envsync.staging.parts import Item, parts
from envsync.staging.shared_files import Allotment, allot
from envsync.wheel.manifest import Directory, Manifest, Rows, Script

SITE = "lib/python3.11/site-packages"
LAYOUT = Layout(SITE, SITE, "bin", "include/site/python3.11")
BASES = {"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": ""}


def make_item(
    name: str, files: Mapping[tuple[str, str], str], scripts: Iterable[str] = (), *, rewrite: Iterable[str] = ()
) -> Item:
    """Describe a wheel.

    :param files: (scheme, path) → content, of which the hash is made
    """
    directories: dict[tuple[str, str], list[tuple[str, int, bool]]] = {}
    lines: dict[str, list[str]] = {}
    for (scheme, path), content in sorted(files.items()):
        parent, _, base = path.rpartition("/")
        directories.setdefault((scheme, parent), []).append((base, len(content), False))
        if not (scheme == "scripts" and path in rewrite):
            lines.setdefault(scheme, []).append(f"{path},sha256={content},{len(content)}\n")
    manifest = Manifest(
        name=name,
        version="1",
        filename=f"{name}-1-py3-none-any.whl",
        sha256=name.encode().hex().ljust(64, "0"),
        root="purelib",
        dist_info=f"{name}-1.dist-info",
        mtime=1,
        directories=tuple(Directory(*key, tuple(entries)) for key, entries in sorted(directories.items())),
        scripts=tuple(Script(script, name, "main", "console") for script in scripts),
        rewrite=tuple(rewrite),
        complete=False,
        record=Rows.of((scheme, "".join(rows)) for scheme, rows in sorted(lines.items())),
    )
    return Item(Wanted(name, "1", Origin(manifest.sha256)), manifest, tuple(parts(LAYOUT, name, manifest)))


def pure(name: str, **files: str) -> Item:
    """Describe a wheel with modules in site-packages."""
    return make_item(name, {("purelib", f"{path}.py"): content for path, content in files.items()})


def skipped(allotment: Allotment) -> dict[str, set[str]]:
    return {item.wanted.name: set(item.skip) for item in allotment.items if item.skip}


def test_nothing_is_shared() -> None:
    """Who shares nothing provides all of it."""
    allotment = allot([pure("a", x="1"), pure("b", y="1")], LAYOUT, {})
    assert (skipped(allotment), allotment.give_way, dict(allotment.differing)) == ({}, frozenset(), {})


def test_the_same_content_is_provided_once() -> None:
    """A file that several have with the same content is linked once, and nothing to speak of."""
    allotment = allot([pure("a", x="1"), pure("b", x="1"), pure("c", x="1")], LAYOUT, {})
    assert skipped(allotment) == {"a": {f"{SITE}/x.py"}, "b": {f"{SITE}/x.py"}}
    assert not allotment.differing


def test_the_last_name_wins() -> None:
    """Of contents that differ, that of the distribution whose name sorts last is installed, and this is said."""
    allotment = allot([pure("b", x="2"), pure("c", y="0"), pure("a", x="1")], LAYOUT, {})
    assert skipped(allotment) == {"a": {f"{SITE}/x.py"}}
    assert allotment.differing == {f"{SITE}/x.py": ("a", "b")}


def test_one_that_stays_keeps_its_file() -> None:
    """Who comes and sorts before one that stays leaves that one's file alone."""
    allotment = allot([pure("a", x="1")], LAYOUT, {f"{SITE}/x.py": ("b", "sha256=2")})
    assert skipped(allotment) == {"a": {f"{SITE}/x.py"}}
    assert allotment.give_way == frozenset()
    assert allotment.differing == {f"{SITE}/x.py": ("a", "b")}


def test_one_that_stays_gives_way() -> None:
    """Who comes and sorts after one that stays replaces its file."""
    allotment = allot([pure("b", x="1")], LAYOUT, {f"{SITE}/x.py": ("a", "sha256=2")})
    assert skipped(allotment) == {}
    assert allotment.give_way == {f"{SITE}/x.py"}
    assert allotment.differing == {f"{SITE}/x.py": ("a", "b")}


@pytest.mark.parametrize(("name", "replaced"), [("b", True), ("0", False)])
def test_the_same_content_is_provided_by_the_last_name_as_well(name: str, replaced: bool) -> None:
    """What is on disk does not depend on who came first; nothing is said, for nothing differs."""
    allotment = allot([pure(name, x="1")], LAYOUT, {f"{SITE}/x.py": ("a", "sha256=1")})
    assert skipped(allotment) == ({} if replaced else {name: {f"{SITE}/x.py"}})
    assert allotment.give_way == ({f"{SITE}/x.py"} if replaced else frozenset())
    assert dict(allotment.differing) == {}


@pytest.mark.parametrize(("one", "other"), [("purelib", "platlib"), ("scripts", "data"), ("purelib", "data")])
def test_schemes_do_not_matter(one: str, other: str) -> None:
    """A file is shared by where it ends up, whatever scheme it comes from."""
    first = make_item("a", {(one, "x" if one == "scripts" else "x.py"): "1"})
    path = f"{BASES[one]}/x" if one == "scripts" else f"{BASES[one]}/x.py"
    second = make_item("b", {(other, path.removeprefix(BASES[other] + "/") if BASES[other] else path): "2"})
    assert skipped(allot([first, second], LAYOUT, {})) == {"a": {path}}


def test_headers_are_never_shared() -> None:
    """Each distribution has its own directory of headers."""
    items = [make_item(name, {("headers", "x.h"): name}) for name in ("a", "b")]
    assert skipped(allot(items, LAYOUT, {})) == {}


def test_two_entry_points_of_one_name() -> None:
    """Two scripts of one name are provided once, and it is said that they differ."""
    items = [make_item("a", {}, ["tool"]), make_item("b", {}, ["tool"])]
    allotment = allot(items, LAYOUT, {})
    assert skipped(allotment) == {"a": {"bin/tool"}}
    assert allotment.differing == {"bin/tool": ("a", "b")}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("more", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("rewrite", [False, True], ids=["as it is", "rewritten"])
def test_an_entry_point_and_a_script(names: tuple[str, str], more: bool, rewrite: bool) -> None:
    """A script of one and an entry point of another that have one name are one file, which one of them provides."""
    script, entry_point = names
    files = {("scripts", "tool"): "1"}
    items = [make_item(script, files, rewrite=["tool"] if rewrite else []), make_item(entry_point, {}, ["tool"])]
    if more:
        items.append(make_item("c", {("scripts", "other"): "1"}))
    allotment = allot(items, LAYOUT, {})
    assert skipped(allotment) == {"a": {"bin/tool"}}
    assert allotment.differing == {"bin/tool": ("a", "b")}


def test_rewritten_scripts_that_differ() -> None:
    """Two `#!python` scripts of one name are not the same because neither has a hash."""
    items = [make_item(name, {("scripts", "tool"): name}, rewrite=["tool"]) for name in ("a", "b")]
    allotment = allot(items, LAYOUT, {})
    assert skipped(allotment) == {"a": {"bin/tool"}}
    assert allotment.differing == {"bin/tool": ("a", "b")}


NAMES = ("a", "b", "c", "d")
PATHS = st.sampled_from(["x.py", "p/x.py", "p/y.py", "p/q/x.py"])
CONTENTS = st.dictionaries(PATHS, st.sampled_from("12"), max_size=4)


@given(
    st.dictionaries(st.sampled_from(NAMES), CONTENTS), st.dictionaries(st.sampled_from(NAMES), CONTENTS), st.randoms()
)
def test_every_file_has_one_provider(coming, staying, random) -> None:  # type: ignore[no-untyped-def]
    """For any distributions: each path is provided exactly once, by the last name, in whatever order they come."""
    staying = {name: files for name, files in staying.items() if name not in coming}
    kept = {
        f"{SITE}/{path}": (name, f"sha256={content}")
        for name, files in sorted(staying.items())
        for path, content in files.items()
    }
    items = [
        make_item(name, {("purelib", path): content for path, content in files.items()})
        for name, files in coming.items()
    ]
    allotment = allot(items, LAYOUT, kept)
    check(allotment, coming, kept)
    shuffled = allot(random.sample(items, len(items)), LAYOUT, kept)
    assert {item.wanted.name: item.skip for item in shuffled.items} == {
        item.wanted.name: item.skip for item in allotment.items
    }
    assert (shuffled.give_way, shuffled.differing) == (allotment.give_way, allotment.differing)


def check(allotment: Allotment, coming: Mapping[str, Mapping[str, str]], kept: Mapping[str, tuple[str, str]]) -> None:
    skips = {item.wanted.name: item.skip for item in allotment.items}
    for short in {path for files in coming.values() for path in files}:
        path = posixpath.join(SITE, short)
        holders = sorted(name for name, files in coming.items() if short in files)
        providers = [name for name in holders if path not in skips[name]]
        hashes = {name: f"sha256={coming[name][short]}" for name in holders}
        keeper, there = kept.get(path, ("", ""))
        stays = path in kept and path not in allotment.give_way
        assert len(providers) + stays == 1, path
        expected = there if keeper > holders[-1] else hashes[holders[-1]]
        assert (there if stays else hashes[providers[0]]) == expected
        contents: Sequence[str] = [*hashes.values(), *([there] if path in kept else [])]
        assert (path in allotment.differing) == (len(set(contents)) > 1)
    assert set().union(*skips.values()) <= {f"{SITE}/{path}" for files in coming.values() for path in files}
