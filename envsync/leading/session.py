"""What one sync is about: decided before it is led, and handed down as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from envsync.launch import Environment
from envsync.launch.progress import Report
from envsync.launch.request import Request

if TYPE_CHECKING:
    from envsync.launch.events_file import Listener
    from envsync.waiting.waiter import Wait


class Limit(NamedTuple):
    """How long a leader may wait for others.

    :ivar timeout: seconds, None without limit
    :ivar deadline: when to give up, by time.monotonic(); None: never
    """

    timeout: float | None = None
    deadline: float | None = None

    @property
    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


UNLIMITED = Limit()


class Session(NamedTuple):
    """One sync that we lead."""

    request: Request
    environment: Environment
    report: Report
    """Is told how far it is."""
    launching: bool = False
    """A command follows: hand out a shared hold that nobody can have broken in between."""
    distrust: bool = False
    """Something is wrong that the stamp does not see: count the files."""
    limit: Limit = UNLIMITED
    predecessor: Mapping[str, object] = {}
    """What the leader said that died with the lock, if one did."""
    idle: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while it waits for others and does no work."""
    listener: Listener | None = None
    """Is told each event, besides the events file."""

    @property
    def durable(self) -> bool:
        """Force what is written to the disk: a lost node leaves no more than a killed process does."""
        return self.request.flag("durable")

    @property
    def busy(self) -> str:
        """What to do while commands run in the environment: wait, fail or ignore."""
        return self.request.text("busy") or "wait"

    @property
    def link_mode(self) -> str:
        """How files come from the store: one of `envsync.staging.link_modes.MODES`."""
        return self.request.text("link_mode") or "auto"

    @classmethod
    def after(cls, wait: Wait, request: Request, report: Report) -> Session:
        """Return the session of who has waited and leads now."""
        limit, predecessor = Limit(wait.demand.timeout, wait.deadline), wait.bid.predecessor
        return cls(request, wait.environment, report, distrust=wait.distrust, limit=limit, predecessor=predecessor)
