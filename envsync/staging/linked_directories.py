"""Choose the directories that become one symbolic link into the store, for `--link-mode symlink`: a pure decision.

A directory of site-packages is linked whole if all in it comes from one scheme of one wheel, and

- no other distribution of the environment has anything in it, and nothing in it is left to another one that has the
  same file (`envsync.staging.shared_files`);
- it is not a .dist-info, which has to be real: pip and importlib.metadata read it, and RECORD is made here;
- there are no shared objects in it: they may find others by `$ORIGIN/../..`, in directories of other wheels, and the
  kernel takes `..` for the parent of where a link leads to;
- no source in it has to get another time than the rest (`Item.later`);
- it comes without bytecode, which would have to lie in it (`--compile-bytecode`);
- nothing is in its place, or all that is goes.

The highest such directories are chosen. All else is made of real directories with files in them, as in other modes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from envsync.staging.parts import place_of

if TYPE_CHECKING:
    from envsync.python.facts import Layout
    from envsync.staging.parts import Item, Part
    from envsync.wheel.manifest import Directory, Manifest


class Whole(NamedTuple):
    """A directory to be linked whole."""

    path: str
    """Relative to the environment."""
    scheme: str
    below: str
    """Its path below the scheme."""


Fits = Callable[["Manifest", Whole], bool]
"""Tells whether a directory can be linked as far as the place and the store are concerned."""


def choose(items: Sequence[Item], layout: Layout, kept: Iterable[str], fits: Fits) -> dict[str, tuple[Whole, ...]]:
    """Choose for the distributions that are to be installed.

    :param kept: files of distributions that stay, as far as they could share a directory with one of the items
    :returns: distribution → its directories; none lies in another
    """
    holders: dict[str, list[tuple[Item, Part]]] = {}
    for item in items:
        for part in item.parts:
            holders.setdefault(part.place, []).append((item, part))
    stay: dict[str, list[str]] = {}
    for path in kept:
        stay.setdefault(place_of(layout, path), []).append(path)
    chosen: dict[str, tuple[Whole, ...]] = {}
    for place, found in holders.items():
        for name, whole in _choose(place, found, stay.get(place, ()), layout, fits):
            chosen[name] = (*chosen.get(name, ()), whole)
    return chosen


def _choose(
    place: str, found: Sequence[tuple[Item, Part]], kept: Collection[str], layout: Layout, fits: Fits
) -> Iterable[tuple[str, Whole]]:
    """Choose the directories in one place: (distribution, directory)."""
    item, part = found[0]
    if len(found) == 1 and not kept and _is_linkable(item, part, layout) and not any(_real(item, part)):
        whole = Whole(place, part.scheme, posixpath.relpath(f"/{place}", f"/{part.base}"))
        if fits(item.manifest, whole):
            yield item.wanted.name, whole
            return
    known = _Holders()
    for path in kept:
        known.hold(posixpath.dirname(path), "")
    for item, part in found:
        for directory in part.directories:
            known.hold(f"{part.base}/{directory.path}".strip("/"), _holder(item, part))
        for path in _real(item, part):
            known.hold(path, "")
    for item, part in found:
        if _is_linkable(item, part, layout):
            for whole in _highest(item, part, known, fits):
                yield item.wanted.name, whole


class _Holders:
    """Who has something in a directory: the empty string if several, or if it must be real for another reason."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def hold(self, path: str, who: str) -> None:
        while path:
            present = self.known.get(path)
            if present in (who, ""):
                return  # and so have all above it
            self.known[path] = who if present is None else ""
            path = path.rpartition("/")[0]


def _is_linkable(item: Item, part: Part, layout: Layout) -> bool:
    """Tell whether directories of a part may be linked at all."""
    is_site = part.scheme in ("purelib", "platlib") and part.base in layout.sites
    return is_site and not part.is_loose and item.compiled is None and not part.place.endswith(item.manifest.dist_info)


def _real(item: Item, part: Part) -> Iterator[str]:
    """Name the directories of a part that have to be real whoever else has something in them."""
    for directory in part.directories:
        if _is_real(item, part, directory):
            yield posixpath.join(part.base, directory.path)


def _is_real(item: Item, part: Part, directory: Directory) -> bool:
    for name, *_ in directory.files:
        if ".so" in name and _is_shared_object(name):
            return True
    apart = item.skip | item.later
    if not apart:
        return False
    path = posixpath.join(part.base, directory.path)
    return any(f"{path}/{name}" in apart for name, *_ in directory.files)


def _highest(item: Item, part: Part, known: _Holders, fits: Fits) -> Iterator[Whole]:
    who = _holder(item, part)
    decided: dict[str, bool] = {}
    """Directory → whether it is linked, by itself or above."""
    for directory in part.directories:
        below = ""
        for name in directory.path.split("/"):
            below = f"{below}/{name}" if below else name
            full = f"{part.base}/{below}"
            if full in decided:
                if decided[full]:
                    break
                continue
            whole = Whole(full, part.scheme, below)
            decided[full] = known.known.get(full) == who and fits(item.manifest, whole)
            if decided[full]:
                yield whole
                break


def _holder(item: Item, part: Part) -> str:
    return f"{item.wanted.name} {part.scheme}"


def _is_shared_object(name: str) -> bool:
    return name.endswith(".so") or ".so." in name
