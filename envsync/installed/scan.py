"""What is installed in an environment: its dist-infos, their files, and our own record of what we installed.

The truth is on disk: a distribution is installed if site-packages has its .dist-info (PEP 376), and owns the
files in its RECORD and the bytecode compiled from them. `installed.json` only adds what cannot be seen there: which
wheel, by hash, a distribution came from. It counts for a distribution as long as that one's RECORD is the very file
we wrote (size and mtime): whoever reinstalls it writes another.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from envsync.installed.plan import Installed, Origin
from envsync.launch.environment import Environment
from envsync.launch.request import content
from envsync.launch.stamp import checksum
from envsync.python.facts import Layout
from envsync.system.atomic import SENSELESS

FORMAT = 1
_SKELETON = frozenset({".lock", "pyvenv.cfg", ".gitignore", "CACHEDIR.TAG"})


class Entry(NamedTuple):
    """What `installed.json` says of one distribution."""

    version: str
    origin: Origin
    record_size: int
    record_mtime_ns: int
    entries: tuple[str, ...]
    """Its top-level entries (`Layout.entry`)."""
    scripts: bool
    """Some of its files name the environment's path."""
    bytecode: str = ""
    """The tag of the bytecode that was installed with it; empty for none."""
    linked: bool = False
    """Some of its directories are links into the store (`envsync.staging.linked_directories`)."""


class Ledger(NamedTuple):
    """The content of `installed.json`."""

    path: str
    """The environment's absolute path when it was written: scripts name it."""
    host: str
    """Machine and libc family that it was made for."""
    entries: Mapping[str, Entry]
    in_use: tuple[int, ...] = ()
    """Inodes of the in-use locks that commands may hold: more than one if it was lost (`envsync.leading.lost`).

    The last is that of the commit. Those before it were lost: commands were seen to hold them, or may do so.
    """


def load_ledger(environment: Environment, path: str = "") -> Ledger:
    """Read `installed.json`. One that is missing or damaged is empty: everything is then reinstalled.

    :param path: where it is, if it is not in its place yet
    """
    try:
        value = json.loads(unseal(content(path or environment.installed)))
        if value["format"] != FORMAT:
            return Ledger("", "", {})
        entries = {name: _entry(item) for name, item in value["distributions"].items()}
        in_use = tuple(int(inode) for inode in value.get("in_use", ()))
        return Ledger(_text(value["environment"]), _text(value["host"]), entries, in_use)
    except (OSError, *SENSELESS):
        return Ledger("", "", {})


def _entry(item: Mapping[str, Any]) -> Entry:
    """Make an entry of what `installed.json` says.

    :raises ValueError: it makes no sense; so may other errors of `atomic.SENSELESS`
    """
    url, (size, mtime_ns) = item["direct_url"], item["record"]
    if not isinstance(size, int) or not isinstance(mtime_ns, int):
        raise ValueError("its RECORD has no size or time")
    return Entry(
        _text(item["version"]),
        Origin(_text(item["sha256"]), None if url is None else _text(url)),
        size,
        mtime_ns,
        tuple(map(_text, item["entries"])),
        item["scripts"] is True,
        _text(item.get("bytecode", "")),
        item.get("linked", False) is True,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no text")
    return value


def installers(environment: Environment, items: Iterable[Installed]) -> dict[str, str]:
    """Say who installed distributions that are not as envsync installed them, as their INSTALLER files do.

    :returns: their names, as in `name==version`, and the tools; without those that envsync installed itself
    """
    from envsync.system.regular import read

    found: dict[str, str] = {}
    for item in items:
        if item.origin is None:
            try:
                tool = read(f"{environment.path}/{item.dist_info}/INSTALLER")[:100].decode("utf-8", "replace").strip()
            except OSError:
                tool = ""
            if tool != "envsync":
                found[f"{item.name}=={item.version}"] = tool if tool.isprintable() and tool else "somebody"
    return found


def dump_ledger(ledger: Ledger) -> bytes:
    """Serialize `installed.json`."""
    distributions = {
        name: {
            "version": entry.version,
            "sha256": entry.origin.sha256,
            "direct_url": entry.origin.direct_url,
            "record": [entry.record_size, entry.record_mtime_ns],
            "entries": entry.entries,
            "scripts": entry.scripts,
            **({"bytecode": entry.bytecode} if entry.bytecode else {}),
            "linked": entry.linked,
        }
        for name, entry in sorted(ledger.entries.items())
    }
    value = {
        "format": FORMAT,
        "environment": ledger.path,
        "host": ledger.host,
        "in_use": ledger.in_use,
        "distributions": distributions,
    }
    return seal(json.dumps(value, separators=(",", ":")).encode())


def seal(body: bytes) -> bytes:
    """Put a checksum of a JSON object into it as its first pair: one that was cut or changed is taken for absent."""
    return b'{"checksum":"%s",%s' % (checksum(body).encode(), body[1:])


def unseal(data: bytes) -> bytes:
    """Take the checksum out again.

    :raises ValueError: the object is not what was sealed
    """
    head, _, rest = data.partition(b'",')
    body = b"{" + rest
    if head != b'{"checksum":"' + checksum(body).encode():
        raise ValueError("its checksum does not match")
    return body


def scan(environment: Environment, layout: Layout, ledger: Ledger) -> list[Installed]:
    """List the distributions in the environment, sorted by name. One look at each RECORD, none into it."""
    found = []
    for site in layout.sites:
        try:
            # What begins with a tilde was moved aside by pip, which was killed while it uninstalled it.
            names = [
                name
                for name in os.listdir(f"{environment.path}/{site}")
                if name.endswith(".dist-info") and not name.startswith("~")
            ]
        except FileNotFoundError:
            continue
        for directory in names:
            raw_name, _, version = directory.removesuffix(".dist-info").partition("-")
            name = normalized(raw_name)
            dist_info = f"{site}/{directory}"
            entry = ledger.entries.get(name)
            origin = _origin(environment, dist_info, entry, version)
            bytecode = entry.bytecode if entry is not None and origin is not None else ""
            found.append(Installed(name, version, dist_info, origin, bytecode))
    return sorted(found, key=lambda item: (item.name, item.dist_info))


def normalized(name: str) -> str:
    """Normalize the name of a distribution, as packaging does (PEP 503), without importing it unless that is needed.

    That takes as long as a tenth of a sync from a full cache.
    """
    plain = name.replace("_", "-").replace(".", "-").lower()
    if "--" not in plain:
        return plain
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _origin(environment: Environment, dist_info: str, entry: Entry | None, version: str) -> Origin | None:
    if entry is None or entry.version != version:
        return None
    try:
        status = os.lstat(f"{environment.path}/{dist_info}/RECORD")
    except OSError:
        return None
    ours = (entry.record_size, entry.record_mtime_ns) == (status.st_size, status.st_mtime_ns)
    return entry.origin if ours else None


_STORE = re.compile(r"/v1/wheels/[0-9a-f]{64}/(purelib|platlib)/.")


def is_store_link(path: str) -> bool:
    """Tell whether this is a link to a directory of a store, whichever that is (`--link-mode symlink`)."""
    try:
        return _STORE.search(os.readlink(path)) is not None
    except OSError:
        return False


def is_skeleton(path: str) -> bool:
    """Tell whether a path is the environment's own, whatever a RECORD claims."""
    if path in _SKELETON or path.startswith(".envsync/") or "/.envsync/" in path:
        return True
    name = path.removeprefix("bin/python")
    return name != path and not name.strip("0123456789.")
