"""`run` when the fast lane did not know: wait for the leader or be it, then become the command.

Still without `site` and libraries: they are loaded by whoever leads, and by nobody else.
"""

from __future__ import annotations

import errno
import os
import time

from envsync import fastlane
from envsync.coordination import waiter
from envsync.coordination.events import record
from envsync.coordination.messages import say
from envsync.errors import FilesystemError

REPLACED_TIMES = 10
"""How often an environment may be replaced beneath us (`rm -rf`, `uv venv --clear`) before we give up."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from envsync.coordination.flock import Flock
    from envsync.coordination.outcome import Outcome
    from envsync.environment import Environment
    from envsync.progress import Report
    from envsync.request import Request


def run(request: Request, environment: Environment | None, words: Sequence[str], *, distrust: bool = False) -> NoReturn:
    """Make the environment current and become the command.

    :param environment: None if its name takes facts that only a leader's imports can give
    :param distrust: the stamp fits, and yet the command does not run
    :raises EnvsyncError: it could not be made current, or the command could not be executed
    """
    if os.environ.get("PYTHONPATH") and not request.flag("quiet"):
        say("PYTHONPATH is set and kept: modules it names come before those of the environment")
    outcome = reach(request, environment, launching=True, distrust=distrust)
    assert outcome.entry is not None
    fastlane.become(outcome.entry, words, os.environ, certain=True)
    raise AssertionError("unreachable")


def reach(
    request: Request,
    environment: Environment | None,
    *,
    launching: bool,
    report: Report | None = None,
    distrust: bool = False,
) -> Outcome:
    """Make the environment current, by leading or by waiting for whoever leads.

    :param launching: a command follows: hand out a shared hold on the environment
    :param report: where to say how far it is; default: on stderr
    """
    if environment is None:
        environment = _named_by_digest(request)
    began = time.monotonic()
    for _ in range(REPLACED_TIMES):
        outcome: Outcome | None
        try:
            held = waiter.lead_or_wait(request, environment)
        except FilesystemError as error:
            outcome = _unchangeable(request, environment, error, launching=launching)
        else:
            if isinstance(held, fastlane.Entry):
                return _followed(held, began, launching=launching)
            lead = _leader(report, launching=launching, distrust=distrust, began=began)
            outcome = lead(request, environment, held)
        if outcome is not None:
            return outcome
    raise FilesystemError(
        "sync", environment.path, OSError(errno.EBUSY, "somebody keeps replacing the directory while it is locked")
    )


def _leader(
    report: Report | None, *, launching: bool, distrust: bool, began: float
) -> Callable[[Request, Environment, Flock], Outcome | None]:
    load_site()
    from envsync.coordination.leader import lead

    def run(request: Request, environment: Environment, held: Flock) -> Outcome | None:
        if report is not None:
            return lead(request, environment, held, report=report, launching=launching, distrust=distrust, began=began)
        from envsync.display import Display

        with Display(request) as display:
            outcome = lead(
                request, environment, held, report=display, launching=launching, distrust=distrust, began=began
            )
            if outcome is not None:
                display.conclude(outcome)
            return outcome

    return run


def _followed(held: fastlane.Entry, began: float, *, launching: bool) -> Outcome:
    seconds = round(time.monotonic() - began, 3)
    env, digest = held.stamp.environment, held.stamp.digest
    record("waited", env=env, digest=digest, seconds=seconds)
    if not launching:
        os.close(held.fd)
    from envsync.coordination.outcome import Outcome

    return Outcome("waited", env, digest, seconds=seconds, entry=held if launching else None)


def _named_by_digest(request: Request) -> Environment:
    load_site()
    from envsync.coordination.goal import environment_by_digest
    from envsync.coordination.leader import cache_directory

    return environment_by_digest(request, cache_directory(request))


def _unchangeable(request: Request, environment: Environment, error: FilesystemError, *, launching: bool) -> Outcome:
    """An environment that cannot be locked cannot be changed, but it may be what is asked for."""
    if not error.is_refusal:
        raise error
    load_site()
    from envsync.coordination.readonly import compare

    return compare(request, environment, error, launching=launching)


def load_site() -> None:
    """Make the libraries importable: what the launcher's `-S` left out at start-up."""
    import sys

    if sys.flags.no_site and "site" not in sys.modules:
        import site

        ours = sys.path.pop(0)
        site.main()
        if ours not in sys.path:
            sys.path.append(ours)
