"""What uv keeps in the .dist-info of what came from a local path: without it, uv takes that for out of date.

uv 0.13 compares it with what is there now, and installs again what differs. For a wheel that is the file's ctime. For a
directory it is what `[tool.uv] cache-keys` name: the latest ctime of the files, the commit, the tags, the values of
variables, and for directories when they were made, or their inode where that is not known.
"""

from __future__ import annotations

import json
import os
from glob import iglob
from urllib.parse import urlsplit

from envsync.system import core, native, paths

NAME = "uv_cache.json"


def text(direct_url: str) -> bytes | None:
    """Return what uv would keep, as the wheel or directory is now.

    :param direct_url: the text of direct_url.json
    :returns: None if it came from elsewhere, or is not there any more
    """
    origin = json.loads(direct_url)
    parts = urlsplit(origin["url"])
    if parts.scheme != "file" or "vcs_info" in origin:
        return None
    path = paths.of_url(parts.netloc, parts.path)
    if path is None:
        return None
    if "dir_info" in origin:
        value = _of_tree(paths.join(path, origin.get("subdirectory", "")).rstrip("/"))
    else:
        value = _value(_latest([path]))
    return json.dumps(value, separators=(",", ":")).encode() if any(value.values()) else None


def _value(latest: int | None) -> dict[str, object]:
    timestamp = None if latest is None else _time(latest)
    return {"timestamp": timestamp, "commit": None, "tags": None, "env": {}, "directories": {}}


def _of_tree(tree: str) -> dict[str, object]:
    from envsync.building import trees  # needs a parser, and few syncs need this

    decides = trees.deciding(tree)
    files = [f"{tree}/{file}" for file in decides.dated]
    found = [f"{tree}/{name}" for each in decides.patterns for name in iglob(each, root_dir=tree, recursive=True)]
    value = _value(_latest([*files, *filter(os.path.isfile, found)]))
    environ = core.variables()
    value["env"] = {name: environ.get(name) for name in decides.variables}
    value["directories"] = {name: _made(f"{tree}/{name}") for name in decides.directories}
    value["commit"] = trees.commit_of(tree) if decides.commit else None
    value["tags"] = trees.tags_of(tree) if decides.tags else None
    return value


def _latest(paths: list[str]) -> int | None:
    """Return the latest ctime of files, in ns; None if none of them is there."""
    times = []
    for path in paths:
        try:
            times.append(os.stat(path).st_ctime_ns)
        except OSError:
            pass  # not there, which counts for nothing
    return max(times, default=None)


def _made(directory: str) -> object:
    try:
        inode = os.stat(directory).st_ino
    except OSError:
        return None
    birth = native.birth_ns(directory)
    return inode if birth is None else _time(birth)


def _time(ns: int) -> dict[str, int]:
    seconds, nanos = divmod(ns, 1_000_000_000)
    return {"secs_since_epoch": seconds, "nanos_since_epoch": nanos}
