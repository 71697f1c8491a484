"""How much room an environment takes, and how much is free when it is gone: files may be links to those of a cache."""

from __future__ import annotations

import os
from typing import NamedTuple

from envsync.store.inventory import room


class Size(NamedTuple):
    """What a tree takes on the disk.

    :ivar files: how many
    :ivar bytes: in all; a file with several names in it counts once
    :ivar free: of that, what removing it frees: files without a name elsewhere
    """

    files: int = 0
    bytes: int = 0
    free: int = 0


def measure(path: str) -> Size:
    """Look at each file of a tree. What goes away meanwhile is left out."""
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    files = 0
    for status in _files(path):
        files += 1
        identity = status.st_dev, status.st_ino
        links, size, names = found.get(identity, (status.st_nlink, room(status), 0))
        found[identity] = links, size, names + 1
    total = sum(size for _, size, _ in found.values())
    return Size(files, total, sum(size for links, size, names in found.values() if names >= links))


def _files(path: str) -> list[os.stat_result]:
    found: list[os.stat_result] = []
    open_ways = [path]
    while open_ways:
        try:
            with os.scandir(open_ways.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        open_ways.append(entry.path)
                    else:
                        found.append(os.lstat(entry.path))  # Windows says less of it while it lists
        except OSError:
            continue  # gone meanwhile, or not for us to look into
    return found
