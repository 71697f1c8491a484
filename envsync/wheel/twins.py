"""Names that differ by case or Unicode form only: two files on most filesystems, one on others.

Linux headers have `xt_MARK.h` beside `xt_mark.h`. Whether such a wheel can be installed is up to two filesystems, that
of the cache, where it is unpacked, and that of the environment: each is asked, by making two such names on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError, WheelError
from envsync.system import atomic, paths
from envsync.wheel.archive import fold, printable

if TYPE_CHECKING:
    from envsync.wheel.manifest import Manifest

Pair = tuple[str, str]
"""Two paths that differ in their last component only."""


def find(paths: Iterable[str]) -> tuple[Pair, ...]:
    """Name the files and directories among these paths, and those above them, that may be one somewhere."""
    seen: set[str] = set()
    spelled: dict[Pair, str] = {}
    pairs = []
    for path in paths:
        while path and path not in seen:
            seen.add(path)
            parent, _, name = path.rpartition("/")
            other = spelled.setdefault((parent, fold(name)), path)
            if other != path:
                pairs.append((other, path))
            path = parent  # noqa: PLW2901  # and so have all above it
    return tuple(pairs)


def refuse(wheel: str, pairs: Iterable[Pair], directory: str, whose: str, hint: str) -> None:
    """Refuse a wheel that has names which a filesystem does not tell apart.

    :param directory: on that filesystem, writable
    :param whose: "environment" or "cache"
    :param hint: what to do then
    :raises WheelError: it does not
    """
    pair = _folded(pairs, directory)
    if pair is not None:
        one, other = (printable(path.partition("/")[2]) for path in pair)
        problem = f"it has `{one}` and `{other}`, which are one file on the filesystem of the {whose}"
        raise WheelError(wheel, problem, hint=hint)


def is_one(one: str, other: str, directory: str) -> bool:
    """Ask a filesystem that ignores case whether it takes two names for one that may be (`envsync.wheel.archive.fold`).

    :param directory: on that filesystem, writable
    :raises FilesystemError: it cannot be asked
    """
    return (one.isascii() and other.isascii()) or _folded([(one, other)], directory) is not None


def lost(manifest: Manifest, entry: str) -> str | None:
    """Name a file of a store entry that is not there as it is spelled: it was copied to where another is the same.

    :param entry: its directory
    """
    files = (
        "/".join(part for part in (directory.scheme, directory.path, name) if part)
        for directory in manifest.directories
        for name, *_ in directory.files
    )
    listed: dict[str, frozenset[str]] = {}
    for pair in find(files):
        parent = paths.join(entry, pair[0].rpartition("/")[0])
        if parent not in listed:
            listed[parent] = _listing(parent)
        missing = {path.rpartition("/")[2] for path in pair} - listed[parent]
        if missing:
            return paths.join(parent, missing.pop())
    return None


def _listing(directory: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError:
        return frozenset()


def _folded(pairs: Iterable[Pair], directory: str) -> Pair | None:
    """Return a pair that is one file on a filesystem. Pairs in ASCII are all alike: one of them stands for the rest."""
    asked = {(pair[0].isascii() and pair[1].isascii()) or pair: pair for pair in pairs}
    if not asked:
        return None
    place = f"{directory}/names-{os.urandom(6).hex()}"
    try:
        os.mkdir(place)
        try:
            return next((pair for pair in asked.values() if _is_one(place, pair)), None)
        finally:
            atomic.discard_tree(place)
    except OSError as error:
        raise FilesystemError("try names in", directory, error) from error


def _is_one(place: str, pair: Pair) -> bool:
    one, other = (f"{place}/{path.rpartition('/')[2]}" for path in pair)
    os.mkdir(one)
    try:
        return os.path.lexists(other)
    finally:
        os.rmdir(one)
