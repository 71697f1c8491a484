"""Choose the directories that become one symbolic link into the store, for `--link-mode symlink`: a pure decision.

A directory of site-packages is linked whole if all in it comes from one scheme of one wheel, and

- no other distribution of the environment has anything in it, and nothing in it is left to another one that has the
  same file (`envsync.transaction.sharing`);
- it is not a .dist-info, which has to be real: pip and importlib.metadata read it, and RECORD is made here;
- there are no shared objects in it: they may find others by `$ORIGIN/../..`, in directories of other wheels, and the
  kernel takes `..` for the parent of where a link leads to;
- it comes without bytecode, which would have to lie in it (`--compile-bytecode`);
- nothing is in its place, or all that is goes.

The highest such directories are chosen. All else is made of real directories with files in them, as in other modes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from envsync.cache.manifest import Directory, Manifest
    from envsync.installed import Layout
    from envsync.transaction.stage import Item


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
    holders = _Holders()
    for path in kept:
        holders.hold(posixpath.dirname(path), "")
    for item in items:
        for directory in item.manifest.directories:
            full = _full(layout, item.manifest, directory.scheme, directory.path)
            holders.hold(full, _holder(item.manifest, directory))
            for name, *_ in directory.files:
                if _is_shared_object(name) or (item.skip and f"{full}/{name}" in item.skip):
                    holders.hold(full, "")
                    break
    return {
        item.manifest.name: tuple(_choose(item.manifest, layout, holders, fits))
        for item in items
        if item.compiled is None
    }


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


def _choose(manifest: Manifest, layout: Layout, holders: _Holders, fits: Fits) -> Iterable[Whole]:
    decided: dict[str, bool] = {}
    """Directory → whether it is linked, by itself or above."""
    for directory in manifest.directories:
        if directory.scheme not in ("purelib", "platlib") or not directory.path:
            continue
        who = _holder(manifest, directory)
        below = ""
        for part in directory.path.split("/"):
            below = f"{below}/{part}" if below else part
            full = _full(layout, manifest, directory.scheme, below)
            if full in decided:
                if decided[full]:
                    break
                continue
            whole = Whole(full, directory.scheme, below)
            decided[full] = (
                holders.known.get(full) == who and not below.startswith(manifest.dist_info) and fits(manifest, whole)
            )
            if decided[full]:
                yield whole
                break


def _holder(manifest: Manifest, directory: Directory) -> str:
    return f"{manifest.name} {directory.scheme}"


def _full(layout: Layout, manifest: Manifest, scheme: str, path: str) -> str:
    base = layout.directory(scheme, manifest.name)
    return "/".join(part for part in (base, path) if part)


def _is_shared_object(name: str) -> bool:
    return name.endswith(".so") or ".so." in name
