"""What was found out about a filesystem: plain data.

An answer to "can it be done" is the empty string, or the name of the error that the filesystem gives, as in "EXDEV".
None stands for what could not be asked, because what it depends on failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class LockFacts(NamedTuple):
    """What flock(2) does between two processes."""

    exclusive: str
    """An exclusive lock can be had."""
    excludes: bool | None
    """While one process has it, another does not get it."""
    shared: str
    """A shared lock can be had, through a descriptor that may only read."""
    shared_together: bool | None
    """Two processes can have it at once."""
    shared_excludes: bool | None
    """It keeps out a process that wants the file exclusively."""
    keeps_out_shared: bool | None
    """An exclusive lock keeps out a process that wants the file shared."""
    inherited: bool | None
    """A program that was started with the descriptor holds the lock when the one that took it has let go."""
    freed: bool | None
    """The lock is free when that program was killed."""
    local: str
    """Why it is known that flock stays within this node; empty if nothing is known against it."""


class Names(NamedTuple):
    """What can be done with names."""

    hard_link: str
    clone: str
    """FICLONE: two files share their blocks until one is written to."""
    symlink: str
    rename_over: str
    """A file is renamed over another one."""
    rename_errors: tuple[str, ...]
    """Errors of some renames of many, of which others succeeded."""
    rename_directory: str
    folds_case: bool
    """`A` and `a` are one name."""
    hidden: tuple[str, ...]
    """Names under which a file that was removed while it was open came back."""


class Times(NamedTuple):
    """How fine its clock is, and how long calls take. All in seconds."""

    resolution: float | None
    """The finest difference of times of change that it stores; None: they cannot be set."""
    tick: float | None
    """After which a file that is changed again gets another time; None: not within two seconds."""
    seen: float | None
    """Until this process saw what another one of this host has changed; None: not within three seconds."""
    calls: dict[str, float]
    """Call → the median of some."""
    refused: str = ""
    """Times of files cannot be set."""


class CacheFacts(NamedTuple):
    """The cache beside the environment."""

    path: str
    exists: bool
    writable: bool
    kind: str
    """Of its filesystem."""
    same_filesystem: bool
    same_owner: bool
    """It belongs to the user who asks."""
    link: str | None
    """A file of the cache's filesystem can be hard linked to the environment's."""
    clone: str | None
    lock: str | None
    """It can be locked exclusively, as cleaning it takes; else why not."""


class Space(NamedTuple):
    """What is left."""

    bytes: int
    inodes: int | None
    """None where the filesystem does not count them."""


class Facts(NamedTuple):
    """All that was found out."""

    directory: str
    """Where it was tried."""
    writable: str
    """A directory can be made there."""
    kind: str
    """Of the filesystem, as mount(8) says it; empty if it is not known."""
    options: tuple[str, ...]
    network: bool
    """Other hosts may share it."""
    recorded: str
    """How the environment is locked by its record: "flock" or "lease"; "unknown" if it cannot be used, empty if nobody
    has decided."""
    space: Space | None
    locks: LockFacts | None = None
    names: Names | None = None
    times: Times | None = None
    cache: CacheFacts | None = None
    failed: Mapping[str, str] = {}
    """Probe → what it failed with, though nobody has expected that it can."""
    left: str = ""
    """What was made to try it in, and could not be removed."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: _plain(value) for name, value in self._asdict().items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return list(value) if isinstance(value, tuple) else value
