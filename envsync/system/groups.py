"""A cache that a group shares: its directory has the set-group-ID bit, as `chmod g+s` or mode 2770 gives it.

What is made below such a directory gets its group (inode(7)), but its permissions come from the umask of whoever makes
it: with 022 nobody else could add or remove an entry, with 077 not even read one. So what envsync makes in it gets
the group's bits that the cache directory itself has, as git does with `core.sharedRepository`. Files that nobody may
write stay so.

Files of entries and of their bytecode may be read by everybody, whatever the umask: they are linked into environments
of syncs that have another one. Who may get at them is said by the directories that they are in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress

from envsync.errors import FilesystemError
from envsync.system import atomic, core, native, paths, records

GROUP = stat.S_IRWXG


def bits(root: str) -> int:
    """Return the group's permission bits that all in a cache is to have; 0 if no group shares it."""
    try:
        mode = os.stat(root).st_mode
    except OSError:
        return 0
    return mode & GROUP if mode & stat.S_ISGID else 0


def grant(path: str, group: int) -> None:
    """Give the group its bits, as far as the owner has them. Somebody else's files are left as they are."""
    if not group:
        return
    try:
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        wanted = mode | ((mode & stat.S_IRWXU) >> 3) & group
        if wanted != mode and not stat.S_ISLNK(status.st_mode):
            native.chmod(path, wanted)
    except OSError:
        pass  # gone, or its owner has seen to it


def make_lock_file(root: str, path: str) -> None:
    """Make a lock file that has the group's bits from the first moment on, unless it is there or no group shares it.

    One that had them a moment later could not be opened meanwhile, or ever if whoever made it died: others would go on
    without the lock. Where it cannot be made so, whoever opens it makes it.

    :param root: the cache directory
    """
    group = 0 if os.path.lexists(path) else bits(root)
    if not group:
        return
    temporary = f"{root}/v1/tmp/lock-{os.urandom(8).hex()}"
    try:
        os.close(core.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError:
        return
    try:
        grant(temporary, group)
        os.link(temporary, path)
    except OSError:
        pass  # somebody else made it, or there are no hard links here
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def make_directory(root: str, path: str) -> None:
    """Make a directory of a cache, and those above it, as far as they are missing, and give the group its bits.

    New ones have them from the first moment on: in one that got them later, others could make nothing meanwhile.

    :param root: the cache directory
    :param path: below it
    :raises OSError: it cannot be made
    """
    group = bits(root)
    if not group:
        atomic.make_directory(path)
        return
    names = paths.relpath(path, root).split("/")
    directories = [f"{root}/{'/'.join(names[: count + 1])}" for count in range(len(names))]
    for directory in directories:
        if not os.path.isdir(directory):
            _make_granted(directory, group)
    atomic.make_directory(path)
    for directory in directories:
        grant(directory, group)


def _make_granted(path: str, group: int) -> None:
    """Make a directory, unless somebody else does or it cannot be made."""
    temporary = f"{path}-{os.urandom(8).hex()}"
    try:
        os.mkdir(temporary)
    except OSError:
        return
    grant(temporary, group)
    try:
        native.replace(temporary, path)  # over one that somebody has just made, if that is empty (rename(2))
    except OSError:
        os.rmdir(temporary)


def is_ours_too(root: str) -> bool:
    """Tell whether a group shares a cache that we may write to."""
    return bool(bits(root) & stat.S_IWGRP) and os.access(root, os.W_OK | os.X_OK)


def grant_tree(path: str, group: int) -> None:
    """Give the group its bits on a directory and all that is in it."""
    if not group:
        return
    grant(path, group)
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            grant(f"{directory}/{name}", group)


def withhold_tree(path: str) -> None:
    """Let nobody but the owner write to a directory and to all that is in it, whatever the umask it was made with."""
    for directory, names, files in os.walk(path):
        for each in (directory, *(f"{directory}/{name}" for name in (*names, *files))):
            mode = os.lstat(each).st_mode
            if not stat.S_ISLNK(mode) and mode & 0o022:
                native.chmod(each, stat.S_IMODE(mode) & ~0o022)


def write(root: str, path: str, value: Mapping[str, object]) -> None:
    """Write what is known of something else into the cache: a record that may be missing. A newer one stays.

    :param root: the cache directory
    :param path: below it; its directory is made
    """
    try:
        make_directory(root, os.path.dirname(path))
        if records.is_newer(path):
            return
        atomic.write(path, records.dump(value))
        grant(path, bits(root))
    except (OSError, FilesystemError):
        pass  # a read-only cache: it has to be found out again next time
