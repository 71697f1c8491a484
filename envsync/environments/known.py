"""What is known of one environment, and why it would never be removed: looked at without a lock that disturbs anybody.

The last use is the time of the in-use lock. A launch sets that once a day (`envsync.launch.fast_lane`), so it may have
been used up to a day later; and a command that ran for long began then.
"""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from envsync.environments import within
from envsync.environments.size import Size
from envsync.environments.template import Found
from envsync.errors import EnvsyncError, FilesystemError
from envsync.launch import Environment, stamp
from envsync.library import status
from envsync.library.status import Job, Occupant, Syncer
from envsync.locks import kind, named
from envsync.system import atomic, mounts, paths, processes
from envsync.waiting import bare, queue
from envsync.waiting.directory import OUR_OWN

RUNS = "commands run in it"


class Surroundings(NamedTuple):
    """What is the same for all environments that are looked at.

    :ivar own: those that this process is in
    :ivar programs: processes that were started by a path into one
    """

    own: set[within.Identity]
    programs: dict[within.Identity, list[int]]

    @classmethod
    def here(cls) -> Surroundings:
        return cls(within.own(), within.programs())


class Known(NamedTuple):
    """What is known of an environment. Times are in seconds since the epoch.

    :ivar digest: that of its name
    :ivar python: what it was synced for, as in `cpython 3.11 x86_64 glibc`; empty if that is not known, as is the next
    :ivar lock: the name of the lock file
    :ivar current: by its stamp, for the digest of its name
    :ivar reason: why it is not
    :ivar made: when it was made
    :ivar used: when it was used last, to a day
    :ivar size: None if nobody has measured it
    :ivar leader: who syncs it
    :ivar commands: who runs in it, or holds its lock, of this host
    :ivar jobs: who has left word to run in it, on whatever node; that keeps nothing
    :ivar waiters: how many wait for it
    :ivar stranger: why it is none of ours; empty if it is
    :ivar kept: why it would not be removed now; empty if it would, as far as that is seen without locks
    """

    path: str
    digest: str
    owner: int
    python: str = ""
    lock: str = ""
    current: bool = False
    reason: str = ""
    made: float = 0.0
    used: float = 0.0
    size: Size | None = None
    leader: Syncer | None = None
    commands: tuple[Occupant, ...] = ()
    jobs: tuple[Job, ...] = ()
    waiters: int = 0
    stranger: str = ""
    kept: str = ""
    between: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        size = {"files": None, "bytes": None, "free": None} if self.size is None else self.size._asdict()
        kept = {"kept": self.stranger or self.kept}
        plain = {name: value for name, value in self._asdict().items() if name not in ("size", "between", "stranger")}
        leader = None if self.leader is None else self.leader._asdict()
        who = {"commands": [each._asdict() for each in self.commands], "jobs": [each._asdict() for each in self.jobs]}
        return {**plain, **size, "leader": leader, **who, **kept}


def look(found: Found, surroundings: Surroundings) -> Known | None:
    """Look at what a template names; None if it is gone."""
    try:
        itself = os.lstat(found.path)
    except OSError:
        return None
    known = Known(paths.abspath(found.path), found.digest, itself.st_uid, between=found.between)
    environment = Environment(found.path)
    if stranger := why_stranger(environment, is_link=found.is_link):
        return known._replace(stranger=stranger, made=itself.st_mtime, used=itself.st_mtime)
    vouched = _vouched(environment)
    reason, _ = status.doubt(environment, None)
    commands, jobs = status.running(environment)
    there = [each.pid for each in commands]
    identity = itself.st_dev, itself.st_ino
    programs = surroundings.programs.get(identity, [])
    others = [pid for pid in dict.fromkeys((*processes.holders(environment.lock), *programs)) if pid not in there]
    known = known._replace(
        python=vouched.python if vouched is not None else "",
        lock=vouched.lock if vouched is not None else "",
        reason=_named_otherwise(found, vouched, reason) or reason,
        made=_time(environment.locking) or itself.st_mtime,
        used=used(environment) or itself.st_mtime,
        leader=status.leader_of(environment),
        commands=(*commands, *status.occupants(others)),
        jobs=jobs,
        waiters=len(queue.waiting(environment)),
    )
    return known._replace(current=not known.reason, kept=why_kept(environment, surroundings) or _busy(known))


def why_stranger(environment: Environment, *, is_link: bool = False) -> str:
    """Say why something is no environment of ours; empty if it is one.

    :param is_link: a directory above it is a symbolic link
    """
    try:
        itself = os.lstat(environment.path)
    except OSError:
        return "it is gone"
    if is_link or stat.S_ISLNK(itself.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(itself.st_mode):
        return "it is no directory"
    if itself.st_uid != processes.user():
        return f"it belongs to another user ({itself.st_uid})"
    return "" if _looks_ours(environment) else "it does not look like an environment that envsync has made"


def _looks_ours(environment: Environment) -> bool:
    """Tell whether envsync has led there: by files of ours and a skeleton, or as there is nothing else."""
    try:
        has_nothing = set(os.listdir(environment.path)) <= OUR_OWN
    except OSError:
        return False
    if not _is(environment.state, stat.S_ISDIR):
        return has_nothing and not os.path.lexists(environment.state)
    if has_nothing:
        return True
    marks = (environment.locking, environment.in_use)
    if not any(_is(path, stat.S_ISREG) for path in marks) and not _is(environment.bare, stat.S_ISDIR):
        return False
    skeleton = (environment.config, environment.making)
    return any(_is(path, stat.S_ISREG) for path in skeleton) or bare.is_marked(environment)


def why_kept(environment: Environment, surroundings: Surroundings) -> str:
    """Say why an environment of ours must not be removed, whoever runs in it; empty: nothing is against it."""
    identity = within.identity_of(environment.path)
    if identity in surroundings.own:
        return "this command runs in it"
    if reason := why_unseen(environment):
        return reason
    if pids := surroundings.programs.get(identity or (0, 0), []):
        return f"{RUNS}: {_named(within.named(pids))}"
    if point := mounts.mounted_in(environment.path):
        return f"something is mounted on `{point}`"
    parent = os.path.dirname(environment.path) or "."
    return "" if os.access(parent, os.W_OK | os.X_OK) else f"`{parent}` cannot be written to"


def why_unseen(environment: Environment) -> str:
    """Say why nobody here can tell whether commands run in it; empty if that can be told."""
    try:
        recorded = kind.read(environment)
    except EnvsyncError as error:
        return error.message
    if recorded is not None and not recorded.in_use:
        locked = "it is locked by a lease" if recorded.kind == kind.LEASE else "it has no shared locks"
        return f"{locked}, so nobody can tell whether commands run in it"
    if local := mounts.mount_of(environment.path).local_flock:
        return f"flock stays within the node ({local}), so nobody can tell whether commands run in it"
    return ""


def used(environment: Environment) -> float:
    """Return when an environment was used last; 0 if that is not known."""
    return _time(environment.in_use)


def running(environment: Environment) -> str:
    """Say who runs in an environment whose in-use lock is held."""
    who = named.told(named.look(environment))
    return f"{RUNS}: {who}" if who else f"{RUNS}, of {_unseen()}"


def syncing(environment: Environment) -> str:
    """Say who syncs an environment whose lock is held."""
    leader = status.leader_of(environment)
    if leader is not None:
        return _synced_by(leader)
    there = tuple(status.occupants(processes.holders(environment.lock)))
    return f"its lock is held by {_named(there) if there else _unseen()}"


def _busy(known: Known) -> str:
    if known.leader is not None:
        return _synced_by(known.leader)
    if known.commands:
        return f"{RUNS}: {_named(known.commands)}"
    return f"{known.waiters} wait for it" if known.waiters else ""


def _synced_by(leader: Syncer) -> str:
    job = f" of {leader.job}" if leader.job else ""
    return f"it is being synced by pid {leader.pid} on {leader.host}{job}"


def _named(occupants: tuple[Occupant, ...]) -> str:
    more = f" and {len(occupants) - 3} more" if len(occupants) > 3 else ""
    return ", ".join(named.of_here(named.Local(*each)) for each in occupants[:3]) + more


def _named_otherwise(found: Found, vouched: stamp.Stamp | None, reason: str) -> str:
    """Say so if the directory was renamed: no request that leads to its name is what it was synced for."""
    if vouched is None:
        return ""
    if reason and not os.path.lexists(vouched.environment):
        return f"it was moved here from `{vouched.environment}`"
    return f"it was synced for digest {vouched.digest}" if found.digest not in ("", vouched.digest) else ""


def _vouched(environment: Environment) -> stamp.Stamp | None:
    try:
        data = atomic.read_if_there(environment.stamp) or atomic.read_if_there(environment.draining)
    except FilesystemError:
        return None
    return stamp.load(data) if data else None


def _is(path: str, of_kind: object) -> bool:
    try:
        return bool(of_kind(os.lstat(path).st_mode))  # type: ignore[operator]
    except OSError:
        return False


def _time(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def age(since: float) -> float:
    """Return how many seconds ago something was."""
    return max(0.0, time.time() - since)


def _unseen() -> str:
    """Say who it is whom nobody here is seen to be."""
    return "another host or another container" if processes.has_proc() else "a process that this system does not name"
