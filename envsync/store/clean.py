"""Remove things from a cache: by one rename each while nobody uses the cache, then for good, while anybody may.

The caller holds the cache lock exclusively for `set_aside`, and for as long as it takes: a rename each. Killed in the
middle, a clean leaves a cache that works: what was renamed lies in `tmp`, which nobody reads, and goes with the next
clean, or with the next sync that finds it to be a day old.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from envsync.store import bytecode, damage, trash, users
from envsync.store.bytecode import Compiled, Shelf
from envsync.store.inventory import BYTECODE, WHEELS, CacheItem, names
from envsync.store.store import Store
from envsync.wheel.manifest import Manifest, is_newer, is_sha256, load

USERS = "users"
"""Who links what: not to be removed as long as it counts."""


class Removal(NamedTuple):
    """What became of what was to be removed.

    :ivar trash: the names in `tmp` under which it lies now
    :ivar removed: what is out of sight
    :ivar kept: what was used meanwhile, and stays
    :ivar refused: paths that could not be removed, and why
    """

    trash: list[str]
    removed: list[CacheItem]
    kept: list[CacheItem]
    refused: list[tuple[str, OSError]]


def set_aside(root: str, items: Sequence[CacheItem], *, unless_used: bool) -> Removal:
    """Rename things out of everybody's sight. To be called with the cache lock held exclusively.

    Makes nothing, for the disk may be full.

    :param unless_used: keep what was used since it was looked at
    """
    removal = Removal([], [], [], [])
    for item in items:
        path = f"{root}/v1/{item.path}"
        trashed = Store(root).staging(trash.PREFIX)
        try:
            if unless_used and os.lstat(path).st_mtime > item.used:
                removal.kept.append(item)
                continue
            trash.set_aside(path, trashed)
        except FileNotFoundError:
            continue  # somebody else removed it
        except OSError as error:
            removal.refused.append((path, error))
            continue
        removal.trash.append(os.path.basename(trashed))
        removal.removed.append(item)
    return removal


def everything(root: str) -> list[CacheItem]:
    """List all that is in a cache now, by nothing but names: what came since it was looked at goes, too.

    But for what environments link to by name: they would break.
    """
    Store(root).mend()
    linked = users.used(root, drop=True)
    strangers = users.has_strangers(root)
    return [
        CacheItem(kind, name, "", 0, 0, 0, 0.0)
        for kind in sorted(names(f"{root}/v1"))
        for name in sorted(names(f"{root}/v1/{kind}"))
        if kind != USERS and not (kind == WHEELS and (strangers or name in linked))
    ]


def not_linked(root: str, items: Sequence[CacheItem]) -> list[CacheItem]:
    """Leave out what environments link to by name since it was chosen. To be called with the cache lock held."""
    Store(root).mend()
    linked = users.used(root, drop=True)
    return [item for item in items if not (item.kind == WHEELS and item.name in linked)]


class VerifiedEntry(NamedTuple):
    """One entry, or its bytecode, compared with its hashes."""

    name: str
    """In the store: the wheel's hash."""
    wheel: str
    """The file name of the wheel; empty if the manifest cannot be read."""
    problem: str
    """What is wrong with it; empty: nothing."""
    bytecode: str = ""
    """The tag, if it is bytecode of the wheel."""

    @property
    def path(self) -> str:
        """Its path in `<cache>/v1`."""
        return f"{BYTECODE}/{self.name}/{self.bytecode}" if self.bytecode else f"{WHEELS}/{self.name}"


def verify(root: str) -> Iterator[VerifiedEntry]:
    """Compare all files of entries and of their bytecode with their hashes, a few at once: hashing releases the GIL."""
    from concurrent.futures import ThreadPoolExecutor

    kept_in = Store(root)
    kept_in.mend()
    things = [(name, "") for name in sorted(names(kept_in.wheels))]
    for name in sorted(names(f"{root}/v1/{BYTECODE}")):
        things += [(name, tag) for tag in sorted(names(f"{root}/v1/{BYTECODE}/{name}"))]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for verified in pool.map(lambda thing: _verify(kept_in, *thing), things):
            if verified is not None:
                yield verified


def _verify(kept_in: Store, name: str, tag: str) -> VerifiedEntry | None:
    manifest: Manifest | Compiled | None = None
    if is_sha256(name):
        manifest = Shelf(kept_in, tag).get(name) if tag else kept_in.get(name)
    path = f"{kept_in.root}/v1/{VerifiedEntry(name, '', '', tag).path}"
    if manifest is not None:
        wrong = next(damage.damaged_files(path, manifest), "")
        what = "was compiled" if tag else "the wheel holds"
        problem = f"`{wrong}` is not what {what}" if wrong else ""
    else:
        problem = "its manifest is missing, damaged or of an older version"
    if problem and (not os.path.lexists(path) or is_newer(path, bytecode.load if tag else load)):
        return None  # it was removed meanwhile, or is for a newer envsync to verify
    return VerifiedEntry(name, "" if manifest is None else manifest.filename, problem, tag)
