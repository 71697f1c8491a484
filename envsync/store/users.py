"""Who needs which store entries in their place: environments that link directories of them (`--link-mode symlink`).

    <cache>/v1/users/<hash>.json   where the environment is, its in-use lock (inode, mtime), sha256 of the entries

A reference is written before the commit that makes the links, with what the environment links before and after it, and
replaced by every sync of that environment. So there may be references too many, never too few. Whoever removes entries
(holding the cache lock exclusively, as always) leaves those alone that are `used`. If it cannot be found out what is
used, nothing may be removed.

A reference counts as long as the environment is there and its in-use lock is the file that it was: the same inode, and
not older, for launches renew its time (`envsync.launch.fast_lane`). One that must not be looked at counts, too. That
an environment was removed, or made anew, is believed only where the same files are seen as by who wrote the reference:

- on the same boot of the same host, in the same mount namespace: containers may share the host's name, and each may
  have an environment of the same path. After a reboot, other disks may be mounted
- and if those directories above the environment that are there are the ones that were there: Linux gives the number of
  a mount namespace to the next one as soon as nobody is left in it

For all others it may be on a disk that they cannot see: the reference counts for 30 days, whatever is in that place. So
everybody has a reference of their own. Only a sync of the very same environment drops what others wrote of it.

A reference is JSON alone and no record (`envsync.system.records`): an envsync of before that shares the cache would
take it for damaged, and remove what is used. For the same reason one of a newer format is not for us to judge.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from typing import NamedTuple

from envsync.errors import FilesystemError
from envsync.errors.hints import UPGRADE
from envsync.launch.stamp import checksum
from envsync.system import atomic, core, groups, native, paths, processes

FORMAT = 1
ELSEWHERE_SECONDS = 30 * 24 * 3600
"""How long a reference counts whose environment cannot be seen from here. A sync that sees it renews it."""


def record(store_root: str, env: str, shas: Collection[str]) -> None:
    """Say which entries an environment links; none at all removes the reference.

    :param env: the environment's absolute path; its in-use lock exists
    :raises FilesystemError: it cannot be written; what was there is as it was
    """
    directory = _directory(store_root)
    place = {"env": env, "host": processes.host(), "view": processes.view(), "above": _above(env)}
    path = f"{directory}/{checksum(json.dumps(place).encode())}.json"
    if not shas:
        if os.path.lexists(path):
            atomic.remove(path)
        _drop_others(store_root, env, path)
        return
    group = groups.bits(store_root)
    try:
        groups.make_directory(store_root, directory)
        value = {"format": FORMAT, **place, "in-use": _in_use(env), "entries": sorted(shas)}
    except OSError as error:
        raise FilesystemError("write", path, error) from error
    atomic.write(path, json.dumps(value).encode())
    groups.grant(path, group)
    _drop_others(store_root, env, path)


def has_strangers(store_root: str) -> bool:
    """Tell whether others may link to entries here and cannot say so: root's, which they can read and not write to.

    Nobody links to what belongs to another user, but for root (`envsync.staging.linked_directories`).
    """
    try:
        mode = _shared_mode(os.stat(f"{store_root}/v1/wheels"))
        told = _shared_mode(os.stat(_directory(store_root))) if os.path.lexists(_directory(store_root)) else 0
        root = paths.realpath(store_root)
        reachable = all(os.stat(path).st_mode & 0o011 for path in (*_leading_to(root), root))
    except OSError:
        return False  # there is no such cache, or nobody can reach it
    ways = ((0o050, 0o020), (0o005, 0o002))
    return reachable and any(mode & reading == reading and not told & writing for reading, writing in ways)


def _shared_mode(status: os.stat_result) -> int:
    """Return what group and others may do in a directory of root's; nothing, if it is not root's."""
    if not native.MODES or status.st_uid != 0:
        return 0  # where there are neither, all is root's and open to all, to look at it
    return status.st_mode & (0o077 if status.st_gid else 0o007)


def _leading_to(path: str) -> list[str]:
    """Return the directories above a path, from the root on."""
    root, rest = core.split_root(path)
    parts = rest.strip("/").split("/")
    return [root + "/".join(parts[:count]) for count in range(len(parts))]


def used(store_root: str, *, drop: bool = False) -> set[str]:
    """Name the entries that some environment links.

    :param drop: remove references that do not count any more, as far as that is allowed. Only for who holds the cache
        lock exclusively: else an environment that is made anew may write its own in that very moment
    :raises FilesystemError: it cannot be found out: somebody else's references must not be read, or are of a newer
        envsync
    """
    found: set[str] = set()
    for path in _references(store_root):
        data = atomic.read_if_there(path)
        if data is None:
            continue  # it was dropped just now
        reference = _load(data, path)
        if reference is not None and _counts(reference, path):
            found |= reference.entries
        elif drop:
            atomic.discard(path)  # or it was never whole: they are renamed into place
    return found


class _Reference(NamedTuple):
    env: str
    host: str
    view: str
    above: list[list[int]]
    """Of each directory above the environment, from the root on: device and inode."""
    in_use: list[int]
    entries: set[str]


def _load(data: bytes, path: str) -> _Reference | None:
    try:
        value = json.loads(data)
        if value.get("format", FORMAT) > FORMAT:
            raise FilesystemError("read", path, OSError(0, "a newer envsync has written it"), hint=UPGRADE)
        return _Reference(
            env=str(value["env"]),
            host=str(value["host"]),
            view=str(value.get("view", "")),  # earlier versions did not say it
            above=list(value.get("above", ())),
            in_use=list(value["in-use"]),
            entries={str(entry) for entry in value["entries"]},
        )
    except atomic.SENSELESS:
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
    try:
        if _is_same(reference.in_use, _in_use(reference.env)):
            return True
    except (FileNotFoundError, NotADirectoryError):
        pass  # removed, or not to be seen from here
    except OSError:
        if reference.host == processes.host():
            return True  # it is not for us to look at
    if _is_ours(reference):
        return False
    try:
        return time.time() - os.stat(path).st_mtime < ELSEWHERE_SECONDS
    except OSError:
        return False  # it was removed just now


def _is_same(recorded: list[int], present: list[int]) -> bool:
    """Tell whether an in-use lock may be the one that was recorded. One made anew with its number counts too often."""
    return recorded[:1] == present[:1] and recorded[1:] <= present[1:]


def _is_ours(reference: _Reference) -> bool:
    """Tell whether what is seen here in the environment's place is what whoever wrote the reference would see."""
    if not reference.view or (reference.host, reference.view) != (processes.host(), processes.view()):
        return False
    seen = _above(reference.env)
    return bool(seen) and seen == reference.above[: len(seen)]


def _drop_others(store_root: str, env: str, path: str) -> None:
    """Drop what others have written of the very same environment: they do not know what it links now."""
    try:
        in_use = _in_use(env)
        for other in _references(store_root):
            reference = _load(atomic.read_if_there(other) or b"", other) if other != path else None
            if reference is not None and (reference.env, reference.in_use) == (env, in_use):
                atomic.discard(other)
    except (OSError, FilesystemError):
        pass  # then there are references too many


def _above(env: str) -> list[list[int]]:
    """Return by what the directories above an environment are known, from the root on, as far as they are there."""
    found = []
    for path in _leading_to(env):
        try:
            status = os.stat(path)
        except OSError:
            break
        found.append([status.st_dev, status.st_ino])
    return found


def _directory(store_root: str) -> str:
    return f"{store_root}/v1/users"


def _in_use(env: str) -> list[int]:
    """Return what an environment is known by. Inodes alone are the same in two containers often enough."""
    status = os.stat(f"{env}/.envsync/in-use")
    return [status.st_ino, status.st_mtime_ns]
