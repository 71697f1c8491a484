"""What became of a sync, or of a wait for one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from envsync.launch.fast_lane import Entry


WOULD_SYNC = "would sync"
"""The outcome of a dry run that found something to do."""


class Outcome:
    """What became of a sync.

    :ivar outcome: "synced" (something was changed), "current" (nothing had to be) or "waited" (another process did);
        of a dry run `WOULD_SYNC` instead of the first
    :ivar env: absolute path of the environment
    :ivar installed: as in `name==version`, sorted
    :ivar removed: likewise; an upgrade is in both
    :ivar installers: who had installed what was removed, if it was not envsync, by that name and version
    :ivar notes: what the user may want to know, a sentence each
    :ivar details: what only those want to know who ask for more, a sentence each
    :ivar entry: a shared hold on the environment, if a command follows
    """

    __slots__ = (
        "details",
        "digest",
        "entry",
        "env",
        "installed",
        "installers",
        "notes",
        "outcome",
        "removed",
        "seconds",
    )

    def __init__(
        self,
        outcome: str,
        env: str,
        digest: str,
        *,
        installed: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
        installers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
        notes: tuple[str, ...] = (),
        details: tuple[str, ...] = (),
        entry: Entry | None = None,
    ) -> None:
        self.outcome = outcome
        self.env = env
        self.digest = digest
        self.installed = installed
        self.removed = removed
        self.installers = installers or {}
        self.seconds = seconds
        self.notes = notes
        self.details = details
        self.entry = entry
