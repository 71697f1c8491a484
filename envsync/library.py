"""The library: `envsync.sync` for scripts and task runners."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from envsync import fastlane, options, request
from envsync.coordination.slowlane import reach
from envsync.environment import Environment
from envsync.progress import Report, quiet


class SyncResult(NamedTuple):
    """What became of a sync."""

    outcome: str
    """"synced" (something was changed), "current" (nothing had to be) or "waited" (another process did it)."""
    env: str
    """The environment, absolute."""
    digest: str
    installed: tuple[str, ...]
    """As in `name==version`, sorted."""
    removed: tuple[str, ...]
    """Likewise; an upgrade is in both."""
    seconds: float
    notes: tuple[str, ...] = ()
    """What the caller may want to know, a sentence each."""

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return f"{self.env}/bin/python"


def sync(
    lock: str | os.PathLike[str],
    *,
    env: str | os.PathLike[str] | None = None,
    python: str | None = None,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    exact: bool = True,
    index_urls: Sequence[str] = (),
    find_links: Sequence[str | os.PathLike[str]] = (),
    no_index: bool = False,
    offline: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    link_mode: str = "auto",
    timeout: float | None = None,
    busy: str = "wait",
    report: Report = quiet,
) -> SyncResult:
    """Make an environment match its lock file. Waits if another process, on any host, is at it already.

    `ENVSYNC_*` and `[tool.envsync]` beside the lock file count for what is not given here. Can be interrupted by
    KeyboardInterrupt at any time: the environment is then as it was, or the next sync finishes it.

    :param env: the environment; default: `.venv` beside the lock file
    :param timeout: seconds to wait for others
    :param busy: what to do while commands run in it: "wait", "fail" or "ignore"
    :param report: is told how far it is
    :raises EnvsyncError: its leaves tell a time-out, a refusal, bad input and a failure apart
    """
    given: dict[str, object] = {
        "lock": os.fspath(lock),
        "env": None if env is None else os.fspath(env),
        "python": python,
        "extra": list(extras),
        "group": list(groups),
        "inexact": not exact,
        "index_url": list(index_urls),
        "find_links": [os.fspath(place) for place in find_links],
        "no_index": no_index,
        "offline": offline,
        "cache_dir": None if cache_dir is None else os.fspath(cache_dir),
        "link_mode": link_mode,
        "timeout": timeout,
        "busy": busy,
        "quiet": True,
    }
    asked = request.resolve(options.checked(given), os.environ)
    return run(asked, report)


def _has_leftovers(environment: Environment, entry: fastlane.Entry) -> bool:
    """Tell whether a leader that was killed after its stamp, or could not remove something, left it to be swept."""
    if os.path.lexists(environment.progress):  # the last thing that a leader removes
        return True
    for directory in (f"{environment.state}/work", *(f"{site.path}/.envsync" for site in entry.stamp.sites)):
        try:
            if os.listdir(directory):
                return True
        except OSError:
            pass  # it is not there, so nothing is in it
    return False


def run(asked: request.Request, report: Report | None) -> SyncResult:
    """Make the environment of a resolved request current."""
    environment = fastlane.environment_of(asked)
    entry = fastlane.enter(asked, environment) if environment is not None else None
    if entry is not None:
        os.close(entry.fd)
    runs = environment is not None and os.access(environment.python, os.X_OK)
    if environment is not None and entry is not None and runs and not _has_leftovers(environment, entry):
        return SyncResult("current", entry.stamp.environment, entry.stamp.digest, (), (), 0.0)
    done = reach(asked, environment, launching=False, report=report, distrust=entry is not None and not runs)
    return SyncResult(done.outcome, done.env, done.digest, done.installed, done.removed, done.seconds, done.notes)
