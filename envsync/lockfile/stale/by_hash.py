"""Does a lock file have what pyproject.toml asks for? Told without a resolution: no index, no build, no tool.

Each kind of lock file keeps something of the project to tell it by: uv the requirements themselves (`by_requirements`),
Poetry and PDM a hash of them (here). What was not compared is never called current: at most, no difference was found.
And what its own tool accepts is never called stale. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Table = Mapping[str, Any]
_SHOWN = 3


class Verdict(NamedTuple):
    """What came of comparing a lock file with what it was made from."""

    differences: tuple[str, ...] = ()
    """What pyproject.toml asks for otherwise, a clause each. None: no difference was found."""
    unchecked: str = ""
    """What could not be looked at, and why, in a clause; empty if all was that tells them apart."""

    @property
    def summary(self) -> str:
        """The first of the differences, in one line."""
        shown = "; ".join(self.differences[:_SHOWN])
        more = len(self.differences) - _SHOWN
        return shown + (f"; and {more} more" if more > 0 else "")


def of_poetry(lock: Table, head: str, project: Table) -> Verdict:
    """Compare a poetry.lock with its pyproject.toml, by the hash that Poetry keeps of what it was made from.

    :param head: the first line of the lock file, which names the version that wrote it
    """
    kept = _text(_table(lock, "metadata"), "content-hash")
    if not kept:
        return Verdict(unchecked="it has no content-hash")
    found = {_poetry_hash(project, with_groups=True)}
    version = re.search(r"Poetry (\d+)\.(\d+)", head)
    if version is not None and tuple(map(int, version.groups())) < (2, 3):
        found.add(_poetry_hash(project, with_groups=False))
    return _by_hash(kept in found)


def _poetry_hash(project: Table, *, with_groups: bool) -> str:
    """Hash what decides for Poetry (2.5; the same text has been hashed since 1.1, dependency groups since 2.3)."""
    metadata, own = _table(project, "project"), _table(_table(project, "tool"), "poetry")
    groups = _table(project, "dependency-groups") if with_groups else {}
    names = ("requires-python", "dependencies", "optional-dependencies")
    standard = {name: metadata[name] for name in names if metadata.get(name) is not None}
    legacy = ("dependencies", "source", "extras", "dev-dependencies")
    if not standard and not groups:
        kept = {**{name: own.get(name) for name in legacy}, **({"group": own["group"]} if "group" in own else {})}
        return _hash(kept)
    kept = {name: own[name] for name in (*legacy, "group") if own.get(name) is not None}
    tables = {"project": standard, "dependency-groups": groups}
    return _hash({**{name: table for name, table in tables.items() if table}, "tool": {"poetry": kept}})


def of_pdm(lock: Table, project: Table) -> Verdict:
    """Compare a pdm.lock with its pyproject.toml, by the hash that PDM keeps of what it was made from."""
    metadata = _table(lock, "metadata")
    algorithm, _, kept = _text(metadata, "content_hash").partition(":")
    own = _table(_table(project, "tool"), "pdm")
    if algorithm != "sha256" or not kept:
        return Verdict(unchecked="it has no content_hash of SHA-256")
    if "lock_inputs" in metadata or _table(own, "resolution").get("lock_inputs") is True:
        return Verdict(unchecked="it has its inputs in a form that only PDM compares (lock_inputs)")
    if "workspace" in own:
        return Verdict(unchecked="its hash covers the members of a workspace")
    return _by_hash(kept == _pdm_hash(project, own))


def _pdm_hash(project: Table, own: Table) -> str:
    """Hash what decides for PDM (2.29)."""
    metadata = _table(project, "project")
    groups: dict[str, list[Any]] = {}
    for table in (_table(project, "dependency-groups"), _table(own, "dev-dependencies")):
        for name, listed in table.items():
            groups.setdefault(re.sub(r"[^A-Za-z0-9]+", "-", name).lower(), []).extend(listed)
    decides = {
        "sources": own.get("source", []),
        "dependencies": metadata.get("dependencies", []),
        "dev-dependencies": groups,
        "optional-dependencies": metadata.get("optional-dependencies", {}),
        "requires-python": metadata.get("requires-python", ""),
        "resolution": own.get("resolution", {}),
    }
    return _hash(decides)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _by_hash(is_same: bool) -> Verdict:
    return Verdict(() if is_same else ("its requirements were changed since they were locked",))


def _table(table: Table, name: str) -> Table:
    value = table.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(table: Table, name: str) -> str:
    value = table.get(name)
    return value if isinstance(value, str) else ""
