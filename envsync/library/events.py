"""What a `Coordinator` tells a task runner, as it happens. Plain frozen data; times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from envsync.errors import EnvsyncError
from envsync.leading.result import SyncResult


@dataclass(frozen=True, slots=True)
class Event:
    """Something about one environment.

    :ivar env: the environment, absolute
    """

    env: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """Somebody else holds the environment, or as many environments are being synced as may be; at most one a second.

    :ivar message: for whom one waits, since when and how far that is, in one line for people
    """

    message: str


@dataclass(frozen=True, slots=True)
class Started(Event):
    """This process begins to change the environment: all it needs has been fetched."""

    digest: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far the sync is that this process does; at most a few times a second.

    :ivar phase: what is being done: "resolving", "downloading", "unpacking", "staging", "committing", ...
    :ivar done: how many of the phase's items are done, of `total`
    :ivar bytes_done: bytes done, of `bytes_total`, where the phase counts bytes
    """

    phase: str
    done: int
    total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class TookOver(Event):
    """This process goes on for a leader that died over the same request."""

    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Recovered(Event):
    """A commit that a dead leader had decided was finished.

    :ivar steps: how many steps it had
    """

    steps: int


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The environment is current: this process synced it, another did, or it was so already (`result.outcome`)."""

    result: SyncResult


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The environment could not be made current."""

    error: EnvsyncError


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """Nobody waited any more, so the sync was given up before its commit."""


for _event in (Event, Waiting, Started, Progress, TookOver, Recovered, Finished, Failed, Cancelled):
    _event.__module__ = "envsync.events"  # what is pickled has the name that stays
