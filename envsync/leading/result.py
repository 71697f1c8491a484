"""What became of a sync."""

from __future__ import annotations

from typing import Any, NamedTuple

from envsync.system import core

WOULD_SYNC = "would sync"
"""The outcome of a dry run that found something to do."""


class SyncResult(NamedTuple):
    """What became of a sync."""

    outcome: str
    """"synced" (something was changed), "current" (nothing had to be) or "waited" (another process did it)."""
    env: str
    """The environment, absolute."""
    digest: str
    installed: tuple[str, ...] = ()
    """As in `name==version`, sorted."""
    removed: tuple[str, ...] = ()
    """Likewise; an upgrade is in both."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the caller may want to know, a sentence each."""
    details: tuple[str, ...] = ()
    """What only those want to know who ask for more, a sentence each."""
    installers: tuple[tuple[str, str], ...] = ()
    """Of what was removed and envsync had not installed: by whom it was, `name==version` first."""
    told: tuple[str, ...] = ()
    """Those of the notes that say what lasts, and were said of this environment before."""

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return f"{self.env}/{core.PYTHON}"

    @classmethod
    def of(cls, *fields: Any) -> SyncResult:
        """Make one of what another version has pickled, which may know more fields."""
        return cls(*fields[: len(cls._fields)])

    def __reduce__(self) -> tuple[object, ...]:
        return self.of, tuple(self)


SyncResult.__module__ = "envsync"  # what is pickled has the name that stays, and is read by other versions, too
