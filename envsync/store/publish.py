"""Bring what was made in a store's `tmp` into its place: entries (`envsync.store.store`) and bytecode alike.

It appears there by one rename, whole. Of two that bring the same, the first to rename wins, and the other uses that.
EEXIST and ENOTEMPTY alone do not prove that somebody won: what is there is read, and only what cannot be used makes
room:

    rename wheels/<sha256> tmp/replaced-<sha256>-<random>
    rename tmp/unpack-<random> wheels/<sha256>
    rename tmp/replaced-<sha256>-<random> tmp/discarded-<random>

Environments may link to it (`--link-mode symlink`), and lack it between the first two. Who is killed there leaves
nothing in place, and whoever looks next puts it back (`mend`). That takes no lock: whoever is replacing it and lives
finds the place taken, looks what is there, and begins again. As soon as something is in place, what made room is trash.

What is not covered: where directories cannot be renamed, what is there is removed in place, and the new one moved file
by file. That takes longer, and cannot be put back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from envsync.errors import FilesystemError
from envsync.errors.hints import UPGRADE
from envsync.store import trash
from envsync.store.directories import Directories
from envsync.store.trash import REPLACED
from envsync.system import atomic, groups
from envsync.wheel.manifest import NAME, is_sha256

TRIES = 10
_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})

Found = TypeVar("Found")


def publish(
    store: Directories,
    directory: str,
    path: str,
    find: Callable[[], Found | None],
    is_newer: Callable[[], bool] = lambda: False,
) -> Found | None:
    """Rename a directory into place, or use what is there.

    :param directory: in the store's tmp, with a manifest in it
    :param path: its place in the store
    :param find: reads what is in place; None if it cannot be used
    :param is_newer: tells whether that is so because a newer envsync has made it
    :returns: what was found in place; None if the directory was brought there
    :raises FilesystemError: it cannot be brought there, or is not ours to replace; what was in place is in place
    """
    group = groups.bits(store.root)
    groups.grant_tree(directory, group)
    if store.durable:
        atomic.sync_filesystem(store.tmp)
    asides: list[str] = []
    try:
        for _ in range(TRIES):
            try:
                _make_room(path, group)
                move_entry(directory, path)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and os.path.lexists(directory):
                    continue  # somebody has cleaned the place away in between
                if error.errno not in _OCCUPIED:
                    raise FilesystemError("create", path, error) from error
            else:
                return None
            found = find()
            if found is not None:
                return found
            if is_newer():
                raise FilesystemError("replace", path, OSError(0, "a newer envsync has made it"), hint=UPGRADE)
            asides.append(store.staging(REPLACED + os.path.basename(path)))
            trash.put_aside(path, asides[-1])
        raise FilesystemError("replace", path, FileExistsError(errno.EEXIST, "it keeps coming back damaged"))
    finally:
        for aside in asides:
            _put_back_or_away(store, aside, path)


def mend(store: Directories, names: Iterable[str]) -> None:
    """Put entries back that made room for others which never came.

    :param names: in the store's tmp
    """
    for name in names:
        sha256 = name.removeprefix(REPLACED).partition("-")[0]
        if is_sha256(sha256):
            _put_back_or_away(store, f"{store.tmp}/{name}", f"{store.wheels}/{sha256}")


def _put_back_or_away(store: Directories, aside: str, path: str) -> None:
    """Put back what made room, or if something is in place, remove it. Somebody else may do the same."""
    with suppress(OSError):
        if not os.path.lexists(path):
            move_entry(aside, path)
            return
        trashed = store.staging(trash.PREFIX)
        atomic.move(aside, trashed)
        trash.remove_tree(trashed)


def _make_room(path: str, group: int) -> None:
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        atomic.make_directory(above)
    for directory in (os.path.dirname(above), above):
        groups.grant(directory, group)


def move_entry(directory: str, path: str) -> None:
    """Put an entry in place: all at once, or where directories cannot be renamed, its manifest last.

    :raises OSError: it cannot be moved, or something is there
    """
    try:
        atomic.move(directory, path)
    except OSError as error:
        if not atomic.is_refused_directory(directory, error):
            raise
        if os.path.lexists(f"{path}/{NAME}"):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        # Whoever else does the same moves files of the same content, so one that is there is as good as ours.
        atomic.move_tree(directory, path, last=NAME)
