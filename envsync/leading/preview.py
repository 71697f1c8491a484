"""`sync --dry-run`: what a sync would do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from envsync.installed.ledger import load_ledger
from envsync.installed.plan import Installed, named
from envsync.installed.scan import scan
from envsync.launch import command, fast_lane, stamp
from envsync.leading.goal import Goal, Seeker
from envsync.leading.planning import make_plan, may_adopt, refuse_to_empty, refuse_to_replace
from envsync.leading.result import WOULD_SYNC, SyncResult
from envsync.leading.sync_cache import cache_directory
from envsync.store.store import Store
from envsync.system import atomic
from envsync.transaction import skeleton

if TYPE_CHECKING:
    from envsync.launch import Environment
    from envsync.launch.progress import Report
    from envsync.launch.request import Request


def preview(request: Request, environment: Environment, report: Report) -> SyncResult:
    """Say what a sync would do. Takes no lock, may ask an index, fetches and changes nothing."""
    began = time.monotonic()
    entry = fast_lane.enter(request, environment)
    if entry is not None:
        command.close_lock(entry.fd)
        return SyncResult("current", entry.stamp.environment, entry.stamp.digest)
    goal, installed = look(request, environment, report)
    refuse_to_empty(request, environment, goal)
    refuse_to_replace(request, environment, goal, _former(environment))
    python = goal.python
    planned = make_plan(request, goal, installed)
    return SyncResult(
        "current" if planned.is_empty and not python.make else WOULD_SYNC,
        python.env,
        goal.digest,
        installed=named(planned.install),
        removed=named(planned.remove),
        seconds=round(time.monotonic() - began, 3),
    )


def _former(environment: Environment) -> str:
    """Name the lock file that the environment was synced with last; empty if nobody knows."""
    data = atomic.read_if_there(environment.stamp)
    known = stamp.load(data) if data else None
    return known.lock if known is not None else ""


def look(request: Request, environment: Environment, report: Report) -> tuple[Goal, list[Installed]]:
    """Return what is wanted and what is installed, without fetching anything or taking a lock."""
    ledger, store = load_ledger(environment), Store(cache_directory(request))
    goal = Seeker(request, environment, store, report).preview(ledger)
    if goal.python.make:
        return goal, []
    layout = skeleton.layout_of(environment, goal.python.interpreter)
    installed = scan(environment, layout, ledger)
    if not may_adopt(ledger, installed):
        return goal, installed
    from envsync.leading.adopt import adopt

    found = {want.name: store.get(want.origin.sha256) for want in goal.wanted if want.origin.sha256}
    manifests = {name: manifest for name, manifest in found.items() if manifest is not None}
    return goal, scan(
        environment, layout, adopt(environment, layout, ledger, installed, goal.wanted, manifests, goal.python.env)
    )
