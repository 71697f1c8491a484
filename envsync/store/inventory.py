"""What a cache holds, how large it is and when it was used last; and what of it may go. Looking needs no lock."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from envsync.launch.reading import content
from envsync.store import trash
from envsync.system import core, native
from envsync.wheel.manifest import NAME, NewerError, load

BLOCK = 512
"""Bytes in a block of st_blocks, whatever the filesystem's own are (stat(2))."""
WHEELS, BYTECODE, UNFINISHED = "wheels", "bytecode", "tmp"
NEWER = "a wheel of a newer envsync"
"""What is said in place of the name of one. It goes by the rules that others go by."""
SPACIOUS = frozenset({WHEELS, "build-environments", "built", "git", "logs", "sources"})
"""What goes where a cache is too large: wheels, and what building takes (`envsync.building`)."""
NO_CONTENT = frozenset({"locks", "names", "users"})
"""What is no content: locks, which seconds are taken (`envsync.wheel.seconds`), and who links what
(`envsync.store.users`)."""


class CacheItem(NamedTuple):
    """One thing in a cache that can be removed by itself."""

    kind: str
    """The directory in `<cache>/v1` that it is in: "wheels", "tmp", "targets", ..."""
    name: str
    """Its name there; of an entry, the wheel's hash."""
    wheel: str
    """The file name of the wheel; empty if it is none, or has no manifest that can be read."""
    files: int
    bytes: int
    """On the disk. A file that is linked from environments counts in full."""
    free: int
    """Bytes that removing it frees: those of files that no environment has a link to."""
    used: float
    """When it was used last, in seconds since the epoch."""
    read: float = 0.0
    """When a file of it was read last, as far as its filesystem tells: by who links to it, and by backups, too."""

    @property
    def path(self) -> str:
        """Its path in `<cache>/v1`."""
        return f"{self.kind}/{self.name}"


class Rules(NamedTuple):
    """What may go.

    :ivar older_than: seconds since its last use; None: however old
    :ivar max_size: bytes on the disk that may stay; None: any number
    :ivar linked: hashes of the wheels that environments link to by name: they stay
    """

    older_than: float | None = None
    max_size: int | None = None
    linked: Collection[str] = ()
    unused_for: float | None = None
    """Seconds in which nobody has used it, nor read a file of it."""
    strangers: bool = False
    """Others may link to wheels and cannot say so (`envsync.store.users.has_strangers`): `unused_for` alone counts."""


def inventory(root: str) -> Iterator[CacheItem]:
    """Look at all that a cache holds. What goes away meanwhile is left out.

    :param root: the cache directory
    """
    for kind in sorted(names(f"{root}/v1")):
        if kind not in NO_CONTENT:
            for name in sorted(names(f"{root}/v1/{kind}")):
                item = measure(root, kind, name)
                if item is not None:
                    yield item


def measure(root: str, kind: str, name: str) -> CacheItem | None:
    """Look at one thing; None if it is gone."""
    path = f"{root}/v1/{kind}/{name}"
    try:
        itself = os.lstat(path)
    except OSError:
        return None
    files = total = free = 0
    read = 0.0
    for status in _statuses(path) if stat.S_ISDIR(itself.st_mode) else (itself,):
        files += 1
        size = room(status)
        total += size
        free += size if status.st_nlink == 1 else 0
        read = max(read, status.st_atime)
    wheel = _wheel(path) if kind == WHEELS else ""
    return CacheItem(kind, name, wheel, files, total, free, itself.st_mtime, read)


def room(status: os.stat_result) -> int:
    """Return how many bytes a file takes on the disk."""
    return native.allocated(status)


def prunable(items: Iterable[CacheItem], rules: Rules, now: float | None = None) -> list[CacheItem]:
    """Choose what goes, by the rules: leftovers, what is too old, then what was used least lately.

    What is known about interpreters and lock files is as good as nothing in size, and is kept unless it is too old.
    Bytecode goes with its wheel.
    """
    now = time.time() if now is None else now
    chosen: list[CacheItem] = []
    stays: list[CacheItem] = []
    bytecode: dict[str, CacheItem] = {}
    for item in items:
        limit = rules.older_than
        if item.kind == BYTECODE:
            bytecode[item.name] = item
            continue
        if item.kind == UNFINISHED:
            limit = 0.0 if item.name.startswith(trash.PREFIX) else trash.LEFTOVER_SECONDS
        elif item.kind == WHEELS and not item.wheel:
            # nobody can use it; but somebody may be removing it
            limit = trash.LEFTOVER_SECONDS
        is_old = (limit is not None and now - item.used >= limit) or _is_unused(item, rules, now)
        (chosen if is_old and not _stays(item, rules, now) else stays).append(item)
    if rules.max_size is not None:
        sizes = {name: item.bytes for name, item in bytecode.items()}
        left = sum(item.bytes + (sizes.get(item.name, 0) if item.kind == WHEELS else 0) for item in stays)
        for item in sorted(stays, key=_used):
            if left <= rules.max_size:
                break
            if item.kind in SPACIOUS and not _stays(item, rules, now):
                chosen.append(item)
                left -= item.bytes + (sizes.get(item.name, 0) if item.kind == WHEELS else 0)
    kept = {item.name for item in stays if item.kind == WHEELS} - {each.name for each in chosen if each.kind == WHEELS}
    return [*chosen, *(item for name, item in bytecode.items() if name not in kept)]


def _stays(item: CacheItem, rules: Rules, now: float) -> bool:
    """Tell whether somebody may link to it by name."""
    if item.kind != WHEELS or not item.wheel:
        return False
    return item.name in rules.linked or (rules.strangers and not _is_unused(item, rules, now))


def _is_unused(item: CacheItem, rules: Rules, now: float) -> bool:
    return rules.unused_for is not None and now - max(item.used, item.read) >= rules.unused_for


def _used(item: CacheItem) -> float:
    return item.used


def _statuses(path: str) -> Iterator[os.stat_result]:
    """Return the statuses of all files in a tree."""
    try:
        with os.scandir(path) as entries:
            found = list(entries)
    except OSError:
        return  # gone meanwhile, or not for us to look into
    for entry in found:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _statuses(entry.path)
            else:
                yield os.lstat(entry.path)  # Windows says less of it while it lists
        except OSError:
            continue  # gone meanwhile


def _wheel(path: str) -> str:
    try:
        return load(_quietly(f"{path}/{NAME}")).filename
    except NewerError:
        return NEWER
    except (OSError, ValueError):
        return ""


def _quietly(path: str) -> bytes:
    """Read a file without a trace, where one may (open(2), O_NOATIME): that it was looked at is no use of it."""
    try:
        descriptor = core.open_file(path, os.O_RDONLY | core.NONBLOCK | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return content(path)  # somebody else's
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def names(path: str) -> list[str]:
    """List a directory of the cache; empty if there is none that we may look into."""
    try:
        return os.listdir(path)
    except OSError:
        return []  # gone, or a file that is not ours
