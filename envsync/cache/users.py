"""Who needs which store entries in their place: environments that link directories of them (`--link-mode symlink`).

    <cache>/v1/users/<hash of host and path>.json   path, host, in-use lock (inode, mtime), sha256 of the entries

A reference is written before the commit that makes the links, with what the environment links before and after it, and
replaced by every sync of that environment. So there may be references too many, never too few. Whoever removes entries
(holding the cache lock exclusively, as always) leaves those alone that are `used`. If it cannot be found out what is
used, nothing may be removed.

A reference counts as long as the environment is there and its in-use lock is the file that it was: a directory that was
removed, or made anew, needs nothing any more. One that must not be looked at counts, too. What this host cannot see may
be there on another, and two containers may each have an environment of the same path: so every host has a reference of
its own, and that of another host counts for 30 days, whatever is in that place here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from typing import NamedTuple

from envsync import replace
from envsync.cache import sharing
from envsync.errors import FilesystemError
from envsync.stamp import checksum

FORMAT = 1
ELSEWHERE_SECONDS = 30 * 24 * 3600
"""How long a reference counts whose environment this host cannot see. A sync on its own host renews it."""


def record(store_root: str, env: str, shas: Collection[str]) -> None:
    """Say which entries an environment links; none at all removes the reference.

    :param env: the environment's absolute path; its in-use lock exists
    :raises FilesystemError: it cannot be written; what was there is as it was
    """
    directory, host = _directory(store_root), os.uname().nodename
    path = f"{directory}/{checksum(f'{host}:{env}'.encode('utf-8', 'surrogateescape'))}.json"
    if not shas:
        if os.path.lexists(path):
            replace.remove(path)
        _drop_others(store_root, env, path)
        return
    group = sharing.bits(store_root)
    try:
        os.makedirs(directory, exist_ok=True)
        for above in (f"{store_root}/v1", directory):
            sharing.grant(above, group)
        in_use = _in_use(env)
    except OSError as error:
        raise FilesystemError("write", path, error) from error
    value = {"format": FORMAT, "env": env, "host": host, "in-use": in_use, "entries": sorted(shas)}
    replace.write(path, json.dumps(value).encode())
    sharing.grant(path, group)
    _drop_others(store_root, env, path)


def used(store_root: str, *, drop: bool = False) -> set[str]:
    """Name the entries that some environment links.

    :param drop: remove references that do not count any more, as far as that is allowed. Only for who holds the cache
        lock exclusively: else an environment that is made anew may write its own in that very moment
    :raises FilesystemError: it cannot be found out: somebody else's references must not be read
    """
    found: set[str] = set()
    for path in _references(store_root):
        data = replace.read(path)
        if data is None:
            continue  # it was dropped just now
        reference = _load(data)
        if reference is not None and _counts(reference, path):
            found |= reference.entries
        elif drop:
            replace.discard(path)  # or it was never whole: they are renamed into place
    return found


class _Reference(NamedTuple):
    env: str
    host: str
    in_use: list[int]
    entries: set[str]


def _load(data: bytes) -> _Reference | None:
    try:
        value = json.loads(data)
        entries = {str(entry) for entry in value["entries"]}
        return _Reference(str(value["env"]), str(value["host"]), list(value["in-use"]), entries)
    except (ValueError, KeyError, TypeError):
        return None


def _references(store_root: str) -> list[str]:
    directory = _directory(store_root)
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []  # nobody links anything
    except OSError as error:
        raise FilesystemError("list", directory, error) from error
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(".json")]


def _counts(reference: _Reference, path: str) -> bool:
    is_ours = reference.host == os.uname().nodename
    try:
        if _in_use(reference.env) == reference.in_use:
            return True
        if is_ours:
            return False
    except (FileNotFoundError, NotADirectoryError):
        if is_ours:
            return False
    except OSError:
        if is_ours:
            return True  # it is not for us to look at
    try:
        return time.time() - os.stat(path).st_mtime < ELSEWHERE_SECONDS
    except OSError:
        return False  # it was removed just now


def _drop_others(store_root: str, env: str, path: str) -> None:
    """Drop what other hosts have written of the very same environment: they do not know what it links now."""
    try:
        in_use = _in_use(env)
        for other in _references(store_root):
            reference = _load(replace.read(other) or b"") if other != path else None
            if reference is not None and (reference.env, reference.in_use) == (env, in_use):
                replace.discard(other)
    except (OSError, FilesystemError):
        pass  # then there are references too many


def _directory(store_root: str) -> str:
    return f"{store_root}/v1/users"


def _in_use(env: str) -> list[int]:
    """Return what an environment is known by. Inodes alone are the same in two containers often enough."""
    status = os.stat(f"{env}/.envsync/in-use")
    return [status.st_ino, status.st_mtime_ns]
