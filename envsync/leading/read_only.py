"""An environment that is not to be changed: it cannot be written to, or a command takes it as it is."""

from __future__ import annotations

import os

from envsync.errors import EnvironmentRefusedError, FilesystemError, LockingError, NoEnvironmentError
from envsync.errors.hints import AGAIN
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.fast_lane import Entry
from envsync.launch.messages import say
from envsync.launch.progress import quiet
from envsync.launch.reading import content
from envsync.launch.request import Request
from envsync.launch.stamp import Stamp
from envsync.leading.goal import renewed
from envsync.leading.planning import spare_of
from envsync.leading.preview import look
from envsync.leading.result import SyncResult
from envsync.locks import flock
from envsync.system import atomic, paths
from envsync.transaction import journal


def compare(
    request: Request, environment: Environment, cause: FilesystemError, *, launching: bool
) -> SyncResult | Entry:
    """Compare the names and versions of what is installed with what is wanted, unless the stamp tells.

    Says what this is worth: nobody can change a read-only environment from here, but nobody vouches for its files.

    :param cause: why it cannot be locked
    :raises EnvironmentRefusedError: it is not what is asked for
    :raises FilesystemError: there is no environment
    """
    fd = share(environment) if launching else -1
    try:
        return _compare(request, environment, cause, fd, launching=launching)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise


def _compare(
    request: Request, environment: Environment, cause: FilesystemError, fd: int, *, launching: bool
) -> SyncResult | Entry:
    if not os.path.isfile(environment.config):
        raise cause
    if (former := _vouched(request, environment)) is not None:
        return Entry(fd, former) if launching else SyncResult("current", former.environment, former.digest)
    goal, found = look(request, environment, quiet)
    python, installed = goal.python, {(item.name, item.version) for item in found}
    missing = sorted(f"{w.name}=={w.version}" for w in goal.wanted if (w.name, w.version) not in installed)
    extra: list[str] = []
    if not request.flag("inexact"):
        wanted = {want.name for want in goal.wanted} | spare_of(goal)
        extra = sorted(f"{name}=={version}" for name, version in installed if name not in wanted)
    if python.make or missing or extra or journal.read(environment) is not None:
        lacks = "it is broken"
        if missing or extra:
            names = missing or extra
            verb = "lacks" if missing else "has, though nobody asks for it,"
            lacks = f"it {verb} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        raise EnvironmentRefusedError(
            environment.path,
            f"{lacks}, and it cannot be written to ({cause.message})",
            hint="sync it where it can be written to: `envsync sync`",
        ) from cause
    if not request.flag("quiet"):
        say(f"environment `{environment.path}` cannot be written to; it has the right versions, unverified")
    vouched = Stamp()
    vouched.environment, vouched.digest = python.env, goal.digest
    return Entry(fd, vouched) if launching else SyncResult("current", python.env, goal.digest)


def as_it_is(environment: Environment) -> Entry:
    """Enter an environment whatever is in it. Nobody changes it while the command runs, if envsync has ever synced it.

    :raises NoEnvironmentError: there is none
    :raises EnvironmentRefusedError: it is being changed, or a change of it was interrupted half way
    """
    if not os.path.isfile(environment.config):
        raise NoEnvironmentError(environment.path)
    fd = share(environment)
    try:
        if journal.read(environment) is not None:
            problem = "a sync of it was interrupted half way"
            raise EnvironmentRefusedError(environment.path, problem, hint="`envsync sync` completes it")
        found = atomic.read_if_there(environment.stamp)
        entered = (stamp.load(found) if found else None) or Stamp()
        entered.environment = paths.abspath(environment.path)
        entered.in_use = os.fstat(fd).st_ino if fd >= 0 else 0
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return Entry(fd, entered)


def _vouched(request: Request, environment: Environment) -> Stamp | None:
    """Return the stamp if nothing that counts has changed since, though it cannot be renewed here."""
    try:
        former = stamp.load(content(environment.stamp))
        found = renewed(request, former) if former is not None else None
        if found is None or found.racy or found.in_use != os.stat(environment.in_use).st_ino:
            return None
        return found if fast_lane.fits(found, request, environment.config) else None
    except OSError:
        return None  # nobody vouches for what cannot be looked at


def share(environment: Environment) -> int:
    """Share the in-use lock, so that nobody who can write changes the environment beneath the command.

    :returns: its descriptor, or -1 if this environment has no in-use lock: no envsync has ever changed it
    :raises EnvironmentRefusedError: it is being changed
    """
    try:
        lock = flock.acquire_nowait(environment.in_use, shared=True, create=False)
    except (FilesystemError, LockingError):
        return -1
    if lock is None:
        raise EnvironmentRefusedError(environment.path, "it is being changed from elsewhere", hint=AGAIN)
    return lock.fd
