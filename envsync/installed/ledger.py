"""Our own record of what we installed, `installed.json`: what cannot be seen in the environment itself.

That is which wheel, by hash, a distribution came from, and how. It counts for a distribution as long as that one's
RECORD is the very file we wrote (size and mtime): whoever reinstalls it writes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from envsync.errors import EnvironmentRefusedError
from envsync.errors.hints import UPGRADE
from envsync.installed.plan import Origin
from envsync.launch import Environment
from envsync.launch.reading import content
from envsync.launch.stamp import checksum
from envsync.system import records
from envsync.system.atomic import SENSELESS


class LedgerEntry(NamedTuple):
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
    adopted: bool = False
    """uv installed it; it was compared with the wheel, and taken over (`envsync.leading.adopt`)."""
    unverified: bool = False
    """The lock file had no hash for it."""


class Ledger(NamedTuple):
    """The content of `installed.json`."""

    path: str
    """The environment's absolute path when it was written: scripts name it."""
    host: str
    """Machine and libc family that it was made for."""
    entries: Mapping[str, LedgerEntry]
    in_use: tuple[int, ...] = ()
    """Inodes of the in-use locks that commands may hold: more than one if it was lost (`envsync.leading.lost`).

    The last is that of the commit. Those before it were lost: commands were seen to hold them, or may do so.
    """

    @property
    def unverified(self) -> tuple[str, ...]:
        """The names of what was installed without a hash in the lock file, sorted."""
        return tuple(sorted(name for name, entry in self.entries.items() if entry.unverified))


def load_ledger(environment: Environment, path: str = "") -> Ledger:
    """Read `installed.json`. One that is missing or damaged is empty: everything is then reinstalled.

    :param path: where it is, if it is not in its place yet
    :raises EnvironmentRefusedError: it was written by a newer envsync
    """
    try:
        value = _read(path or environment.installed)
        if value["format"] > records.FORMAT:
            problem = f"its `installed.json` has format {value['format']}"
            raise EnvironmentRefusedError(environment.path, problem, hint=UPGRADE)
        entries = {name: _entry(item) for name, item in value["distributions"].items()}
        in_use = tuple(int(inode) for inode in value.get("in_use", ()))
        return Ledger(_text(value["environment"]), _text(value["host"]), entries, in_use)
    except (OSError, *SENSELESS):
        return Ledger("", "", {})


def _read(path: str) -> dict[str, Any]:
    """Read the record. In that of format 1, a checksum of the rest, written densely, is the first pair.

    :raises OSError: it cannot be read
    :raises ValueError: it is damaged; so may other errors of `atomic.SENSELESS`
    """
    value: dict[str, Any] = records.parse(content(path))
    if value["format"] == 1 and value.pop("checksum") != checksum(records.dense(value)):
        raise ValueError("its checksum does not match")
    return value


def _entry(item: Mapping[str, Any]) -> LedgerEntry:
    """Make an entry of what `installed.json` says.

    :raises ValueError: it makes no sense; so may other errors of `atomic.SENSELESS`
    """
    url, (size, mtime_ns) = item["direct_url"], item["record"]
    if not isinstance(size, int) or not isinstance(mtime_ns, int):
        raise ValueError("its RECORD has no size or time")
    return LedgerEntry(
        _text(item["version"]),
        Origin(_text(item["sha256"]), None if url is None else _text(url)),
        size,
        mtime_ns,
        tuple(map(_text, item["entries"])),
        item["scripts"] is True,
        _text(item.get("bytecode", "")),
        item.get("linked", False) is True,
        item.get("adopted", False) is True,
        item.get("unverified", False) is True,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no text")
    return value


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
            **({"adopted": True} if entry.adopted else {}),
            **({"unverified": True} if entry.unverified else {}),
        }
        for name, entry in sorted(ledger.entries.items())
    }
    return records.dump(
        {
            "environment": ledger.path,
            "host": ledger.host,
            "in_use": ledger.in_use,
            "distributions": distributions,
        }
    )
