"""One sync, from a resolved request to its result: what the command line and the library have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envsync.launch import command, fast_lane, signals
from envsync.launch.progress import quiet
from envsync.leading.result import SyncResult
from envsync.library.reach import named_by_digest, reach, remember
from envsync.system import forks
from envsync.waiting import cancelling, failures

FORKS = forks.fork
"""Imported before anything is locked: from then on, what a program forks meanwhile has none of it."""

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from envsync.launch import Environment
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.launch.stamp import Tree
    from envsync.library.reach import Show


def run(
    asked: Request, *, report: Report = quiet, show: Show | None = None, check: Callable[[], None] | None = None
) -> SyncResult:
    """Make the environment of a resolved request current.

    :param report: is told how far it is
    :param show: leads for us instead, with a report of its own: the process has nothing else to do
    :param check: called now and then; what it raises ends the sync. Default: it ends with the task that waits for this
        thread
    """
    arrival = failures.Arrival(whole_process=show is not None)
    result, environment, distrust = glance(asked)
    if result is not None:
        return result
    if show is not None:
        check = signals.heed
    else:
        check = check or cancelling.checkpoint()
        heeding = cancelling.heeding(report, check)
        show = lambda lead: lead(heeding)  # noqa: E731
    done = reach(asked, environment, launching=False, show=show, distrust=distrust, arrival=arrival, check=check)
    assert isinstance(done, SyncResult)
    return done


def glance(asked: Request) -> tuple[SyncResult | None, Environment, bool]:
    """Look whether there is anything to do.

    :returns: the result if there is not; the environment; and whether its stamp fits and yet cannot be trusted
    """
    environment = fast_lane.environment_of(asked) or named_by_digest(asked)
    entry = fast_lane.enter(asked, environment)
    if entry is None:
        return None, environment, False
    command.close_lock(entry.fd)
    runs = os.access(environment.python, os.X_OK) and not _have_changed(entry.stamp.trees)
    if runs and not _has_leftovers(environment, entry):
        result = SyncResult("current", entry.stamp.environment, entry.stamp.digest)
        return remember(asked, result), environment, False
    return None, environment, not runs


def _have_changed(known: Sequence[Tree]) -> bool:
    """Tell whether directories are not as they were, in what no launch looks at, and only a sync does."""
    if not known:
        return False
    from envsync.leading import tree_inputs

    return tree_inputs.have_changed(known)


def _has_leftovers(environment: Environment, entry: fast_lane.Entry) -> bool:
    """Tell whether a leader that was killed after its stamp, or could not remove something, left it to be swept."""
    if os.path.lexists(environment.progress) or os.path.lexists(environment.leading):
        return True  # the last things that a leader removes
    for directory in (f"{environment.state}/work", *(f"{site.path}/.envsync" for site in entry.stamp.sites)):
        try:
            if os.listdir(directory):
                return True
        except OSError:
            pass  # it is not there, so nothing is in it
    return False
