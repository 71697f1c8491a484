"""Get rid of what is in a store: out of everybody's sight by one rename into `tmp`, then for good, without haste.

What is in `tmp` is read by nobody. Whoever is killed leaves there what the next clean removes, or the next sync that
finds it to be a day old.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from envsync.errors import FilesystemError
from envsync.system import atomic, native
from envsync.wheel.manifest import NAME

PREFIX = "discarded"
"""How the names of trash in tmp begin: whoever put it there was removing it, and anybody may go on with that."""
REPLACED = "replaced-"
"""How the names of entries in tmp begin that make room for another one, followed by their hash and a hyphen."""
LEFTOVER_SECONDS = 24 * 3600
"""Seconds after which nobody is still working on something in tmp."""

_IN_PLACE = frozenset({errno.EXDEV, errno.ENOSPC, errno.EDQUOT})
"""What rename(2) answers where removing works: in a lower layer of an overlay, and if tmp would have to grow."""


def sweep(root: str) -> int:
    """Remove what was left over in a cache more than a day ago; return how many things that were."""
    removed = 0
    for path in _unfinished(root):
        try:
            if time.time() - os.lstat(path).st_mtime < LEFTOVER_SECONDS:
                continue
        except OSError:
            continue  # gone meanwhile
        remove_tree(path)
        removed += 1
    return removed


def _unfinished(root: str) -> Iterator[str]:
    """Name what is in tmp, and the temporary files of what is written beside its place."""
    beside = [
        (f"{root}/v1/{kind}", atomic.SUFFIX) for kind in ("hashes", "interpreters", "skeletons", "targets", "users")
    ]
    for directory, suffix in ((f"{root}/v1/tmp", ""), *beside):
        try:
            names = os.listdir(directory)
        except OSError:
            continue  # nothing there, or nothing that we may see
        yield from (f"{directory}/{name}" for name in names if name.endswith(suffix))


def put_aside(path: str, aside: str) -> None:
    """Set something aside, if it is there.

    :param aside: in the store's tmp, which is made if it is not there
    :raises FilesystemError: it is there and cannot be removed
    """
    if not os.path.lexists(path):
        return  # somebody else did it
    try:
        atomic.make_directory(os.path.dirname(aside))
        set_aside(path, aside)
    except FileNotFoundError:
        pass  # as above, just now
    except OSError as error:
        refused = FilesystemError("remove", path, error)
        if refused.is_refusal:
            refused.hint = "let its owner run `envsync cache verify`, or name another cache with --cache-dir"
        raise refused from error


def set_aside(path: str, aside: str) -> None:
    """Take something out of everybody's sight by one rename, or where that does not work by removing it in place.

    :raises OSError: neither works
    """
    try:
        atomic.move(path, aside)
    except OSError as error:
        if error.errno not in _IN_PLACE and not atomic.is_refused_directory(path, error):
            raise
        # Without its manifest it is not used.
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(f"{path}/{NAME}")
        remove_tree(path)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise


def remove_tree(path: str) -> None:
    """Remove a file or a tree in tmp as far as possible; what stays is not read by anybody and swept later."""
    import shutil

    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.isdir(path):  # it, or directories in it, may be sealed (`envsync.staging.linked_directories`)
            _make_writable(path)
            for directory, names, _ in os.walk(path):
                for name in names:
                    _make_writable(f"{directory}/{name}")
            shutil.rmtree(path, ignore_errors=True)


def _make_writable(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            native.chmod(path, 0o700)
    except OSError:
        pass  # removing it will show whether that was needed
