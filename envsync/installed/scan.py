"""What is installed in an environment: its dist-infos.

The truth is on disk: a distribution is installed if site-packages has its .dist-info (PEP 376), and owns the
files in its RECORD and the bytecode compiled from them (`envsync.transaction.owned`). Our own record of what we
installed only adds what cannot be seen there (`envsync.installed.ledger`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.plan import Installed, Origin
from envsync.launch import Environment
from envsync.python.facts import Layout
from envsync.system import core, native

_SKELETON = frozenset({".lock", "pyvenv.cfg", ".gitignore", "CACHEDIR.TAG"})


def installers(environment: Environment, items: Iterable[Installed]) -> dict[str, str]:
    """Say who installed distributions that are not as envsync installed them, as their INSTALLER files do.

    :returns: their names, as in `name==version`, and the tools; without those that envsync installed itself
    """
    from envsync.system.regular import read_regular

    found: dict[str, str] = {}
    for item in items:
        if item.origin is None:
            try:
                tool = (
                    read_regular(f"{environment.path}/{item.dist_info}/INSTALLER")[:100]
                    .decode("utf-8", "replace")
                    .strip()
                )
            except OSError:
                tool = ""
            if tool != "envsync":
                found[f"{item.name}=={item.version}"] = tool if tool.isprintable() and tool else "somebody"
    return found


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


def _origin(environment: Environment, dist_info: str, entry: LedgerEntry | None, version: str) -> Origin | None:
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
    name = path.removeprefix(f"{core.BIN}/python")
    return name != path and not name.removesuffix(native.PROGRAM).strip(native.ENDS_OF_PYTHON)


def is_bytecode(path: str) -> bool:
    """Tell whether a path is that of bytecode which can be made anew."""
    return path.endswith(".pyc") and path.split("/")[-2:-1] == ["__pycache__"]
