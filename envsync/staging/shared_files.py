"""Decide who provides a file that several distributions have.

Most often that is an `__init__.py` of a namespace that every one of them ships, with the same content. Contents that
differ are a defect of the packages; all installers let the last one win, and most have no order. Here, the
distribution whose name sorts last wins, so that what is on disk depends on what is installed and never on the
order in which it came; and if that one goes, the next gets its file back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from envsync.python.facts import Layout
from envsync.staging.parts import Item, Part, place_of
from envsync.store.damage import rows_of
from envsync.wheel import record


class Allotment(NamedTuple):
    """Who provides what."""

    items: tuple[Item, ...]
    """With the files that each is to skip."""
    give_way: frozenset[str]
    """Files of distributions that stay, which one of the items replaces."""
    differing: Mapping[str, tuple[str, ...]]
    """Path → the distributions that have it with contents that differ."""


def allot(items: Sequence[Item], layout: Layout, kept: Mapping[str, tuple[str, str]]) -> Allotment:
    """Decide for the distributions that are to be installed.

    :param kept: files of distributions that stay and could share some: path → (distribution, hash as in RECORD)
    """
    hashes = _Hashes(layout)
    skips: dict[str, set[str]] = {}
    give_way: set[str] = set()
    differing: dict[str, tuple[str, ...]] = {}
    for path, holders in _candidates(items, layout, kept).items():
        keeper = kept.get(path)
        if len(holders) == 1 and keeper is None:
            continue
        contents = {hashes.of(item, path) for item in holders}
        names = [item.wanted.name for item in holders]
        if keeper is not None:
            contents.add(keeper[1])
            names.append(keeper[0])
        if len(contents) > 1:
            differing[path] = tuple(sorted(names))
        winner = max(names)
        if keeper is not None and keeper[0] != winner:
            give_way.add(path)  # the same content, too: it may be executable in the one and not in the other
        for item in holders:
            if item.wanted.name != winner:
                skips.setdefault(item.wanted.name, set()).add(path)
    allotted = tuple(item._replace(skip=frozenset(skips.get(item.wanted.name, ()))) for item in items)
    return Allotment(allotted, frozenset(give_way), differing)


def _candidates(items: Sequence[Item], layout: Layout, kept: Mapping[str, tuple[str, str]]) -> dict[str, list[Item]]:
    """Find the files that may be shared: only directories that several have are looked into."""
    holders: dict[str, list[tuple[Item, Part]]] = {}
    for item in items:
        for part in item.parts:
            holders.setdefault(part.place, []).append((item, part))
    kept_places = {place_of(layout, path) for path in kept}
    kept_directories = {path.rpartition("/")[0] for path in kept}
    candidates: dict[str, list[Item]] = {}
    for place, found in holders.items():
        if len(found) == 1 and place not in kept_places and place != layout.scripts:
            continue
        for path, inside in _by_directory(found).items():
            if len(inside) > 1 or path in kept_directories or path == layout.scripts:
                for item, files in inside:
                    for name, _, _ in files:
                        candidates.setdefault(f"{path}/{name}" if path else name, []).append(item)
    for item in items:
        for script in item.manifest.scripts:
            candidates.setdefault(f"{layout.scripts}/{script.filename}", []).append(item)
    return candidates


def _by_directory(found: Iterable[tuple[Item, Part]]) -> dict[str, list[tuple[Item, Sequence[Sequence[Any]]]]]:
    directories: dict[str, list[tuple[Item, Sequence[Sequence[Any]]]]] = {}
    for item, part in found:
        for directory in part.directories:
            path = "/".join(name for name in (part.base, directory.path) if name)
            directories.setdefault(path, []).append((item, directory.files))
    return directories


class _Hashes:
    """The hashes of the files of wheels, read from their manifests when they are asked for."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.known: dict[str, dict[str, str]] = {}

    def of(self, item: Item, path: str) -> str:
        name = item.wanted.name
        if name not in self.known:
            self.known[name] = self._read(item)
        return self.known[name].get(path, "")

    def _read(self, item: Item) -> dict[str, str]:
        hashes = {}
        for scheme, text in rows_of(item.manifest):
            base = self.layout.directory(scheme, item.manifest.name)
            for path, hash_, _ in record.rows(text):
                hashes[f"{base}/{path}" if base else path] = hash_
        for name in item.manifest.rewrite:
            hashes[f"{self.layout.scripts}/{name}"] = f"script of {item.manifest.sha256}"
        for script in item.manifest.scripts:
            hashes[f"{self.layout.scripts}/{script.filename}"] = f"entry point {script.module}:{script.attr}"
        return hashes
