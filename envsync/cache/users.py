"""Who needs which store entries in their place: environments that link directories of them (`--link-mode symlink`).

    <cache>/v1/users/<hash of the environment's path>.json   path, host, inode of its in-use lock, sha256 of the entries

A reference is written before the commit that makes the links, with what the environment links before and after it, and
replaced by every sync of that environment. So there may be references too many, never too few. Whoever removes entries
(holding the cache lock exclusively, as always) leaves those alone that are `used`.

A reference counts as long as the environment is there and its in-use lock is the file that it was: a directory that was
removed, or made anew, needs nothing any more. What this host cannot see may be there on another: if another host wrote
the reference, or the environment must not be looked at, it counts. That of another host counts for 30 days.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator

from envsync import replace
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
    path = f"{_directory(store_root)}/{checksum(env.encode('utf-8', 'surrogateescape'))}.json"
    if not shas:
        if os.path.lexists(path):
            replace.remove(path)
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        inode = os.stat(_in_use(env)).st_ino
    except OSError as error:
        raise FilesystemError("write", path, error) from error
    value = {
        "format": FORMAT,
        "env": env,
        "host": os.uname().nodename,
        "in-use": inode,
        "entries": sorted(shas),
    }
    replace.write(path, json.dumps(value).encode())


def used(store_root: str) -> set[str]:
    """Name the entries that some environment links. Drops references that do not count any more, if it may."""
    found: set[str] = set()
    for path in _references(store_root):
        try:
            value = json.loads(replace.read(path) or b"")
            env, host, inode = str(value["env"]), value["host"], value["in-use"]
            entries = {str(entry) for entry in value["entries"]}
        except (ValueError, KeyError, TypeError):
            replace.discard(path)  # it was never whole: they are renamed into place
            continue
        if _counts(env, host, inode, path):
            found |= entries
        else:
            replace.discard(path)
    return found


def _references(store_root: str) -> Iterator[str]:
    directory = _directory(store_root)
    try:
        names = os.listdir(directory)
    except OSError:
        return  # nobody links anything
    yield from (f"{directory}/{name}" for name in sorted(names) if name.endswith(".json"))


def _counts(env: str, host: object, inode: object, path: str) -> bool:
    try:
        return os.stat(_in_use(env)).st_ino == inode
    except (FileNotFoundError, NotADirectoryError):
        if host == os.uname().nodename:
            return False
    except OSError:
        pass  # it is not for us to look at
    try:
        return time.time() - os.stat(path).st_mtime < ELSEWHERE_SECONDS
    except OSError:
        return False  # it was removed just now


def _directory(store_root: str) -> str:
    return f"{store_root}/v1/users"


def _in_use(env: str) -> str:
    return f"{env}/.envsync/in-use"
