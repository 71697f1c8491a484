"""Remove from a bundle what nobody needs any more: the only thing that ever removes anything from one.

What stays is said in `envsync.bundling.directory`. Versions go before the wheels that only they have named, so that
whoever is killed leaves no version without its wheels. A wheel goes out of sight by one rename before it is deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from envsync.bundling.directory import KEPT_SECONDS, Bundle
from envsync.bundling.verifying import Damage, former, is_bytecode, is_entry, present
from envsync.errors import FilesystemError, LockFileError
from envsync.store.inventory import names
from envsync.system import atomic, paths


class Pruned(NamedTuple):
    """What went, or would go."""

    wheels: tuple[str, ...]
    """Their places in the bundle."""
    bytecode: tuple[str, ...]
    """Likewise."""
    versions: int
    bytes: int


def prune(bundle: Bundle, text: bytes, *, age: float = KEPT_SECONDS, dry_run: bool = False) -> Pruned:
    """Remove what no lock file of late names. The lock of the bundle is held exclusively.

    :param text: its lock file
    :param age: for how long what was replaced stays usable, in seconds
    :raises LockFileError: one that counts is damaged, so that nobody knows what it needs; nothing was removed
    :raises FilesystemError: something cannot be removed
    """
    since = time.time() - age
    needed = set(present(bundle, text).files)
    counting = {os.path.basename(bundle.version(text))}
    for each in former(bundle, since=since):
        if isinstance(each, Damage):
            hint = f"`ls -la {bundle.versions}` shows it; once nobody uses what it was, remove it, and prune again"
            raise LockFileError(f"{bundle.root}/{each.path}", each.problem, hint=hint)
        needed |= each.files.keys()
        counting.add(os.path.basename(each.path))
    versions = [name for name in sorted(os.listdir(bundle.versions)) if name not in counting]
    found = [item for item in _files(bundle, since) if item[0] not in needed]
    places = [place for place, _ in found]
    if not dry_run:
        _remove(bundle, versions, places)
    return Pruned(
        tuple(place for place in places if not is_bytecode(place)),
        tuple(filter(is_bytecode, places)),
        len(versions),
        sum(size for _, size in found),
    )


def _files(bundle: Bundle, since: float) -> Iterator[tuple[str, int]]:
    """Yield the wheels and the bytecode that nobody has added or asked for since then: place and size."""
    for above in (bundle.wheels, bundle.bytecode):
        for name in sorted(filter(is_entry, names(above))):
            directory = f"{above}/{name}"
            try:
                files = [(each, os.lstat(f"{directory}/{each}")) for each in sorted(os.listdir(directory))]
                latest = max([os.stat(directory).st_mtime, *(status.st_mtime for _, status in files)])
            except OSError:
                continue  # no directory, or none that we may look into
            if latest < since:
                short = paths.relpath(directory, bundle.root)
                yield from ((f"{short}/{each}", status.st_size) for each, status in files)


def _remove(bundle: Bundle, versions: list[str], places: list[str]) -> None:
    for name in versions:
        atomic.remove(f"{bundle.versions}/{name}")
    for place in places:
        path, trashed = f"{bundle.root}/{place}", bundle.staging("trash")
        try:
            atomic.make_directory(bundle.tmp)
            atomic.move(path, trashed)
            atomic.discard(trashed)
            if not os.listdir(os.path.dirname(path)):  # else there is bytecode of a wheel for another Python
                os.rmdir(os.path.dirname(path))
        except OSError as error:
            raise FilesystemError("remove", path, error) from error
    bundle.sweep()
