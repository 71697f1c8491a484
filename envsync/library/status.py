"""`envsync status`: what is known of an environment, without taking a lock that disturbs anybody.

Neither the environment lock nor the in-use lock is touched: even to hold one shared for a moment could send a launch
to the slow path or make a leader wait. Whether somebody leads is asked of a file that only leaders lock, who waits of
the waiters' own files; who runs in the environment is read from /proc, which knows this host's processes only, and from
the names that jobs have left (`envsync.locks.named`). So what is told is how it was a moment ago.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from envsync.errors import EnvsyncError, FilesystemError
from envsync.errors.redact import everything_redacted
from envsync.installed import leftovers
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.request import Request
from envsync.locks import named
from envsync.system import atomic, core, paths, processes, records, schedulers
from envsync.waiting import failures, queue

CHANGED = "somebody else has changed it since it was synced"


class Syncer(NamedTuple):
    """Who syncs, as it says itself."""

    pid: int
    host: str
    command: str
    since: float
    """Unix time in seconds, by its host's clock."""
    phase: str
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    """0 if it is not known."""
    detail: str
    """Which download is the slowest, and how far it is."""
    silent: float
    """Seconds since its last sign of life."""
    stopped: bool
    """Known only of processes here."""
    job: str = ""
    """What its job of a scheduler is called, as in `Slurm job 17`; empty if it is of none."""
    end: str = ""
    """The command that ends that job."""


class Waiter(NamedTuple):
    """One who waits, as it says itself. Those who have waited for less than a second have not said anything yet."""

    pid: int
    host: str
    command: str
    lock: str
    """The lock file that it waits for."""
    since: float
    job: str = ""
    """As of who syncs, as is the next."""
    end: str = ""


class Occupant(NamedTuple):
    """A process here that keeps the environment from being changed."""

    pid: int
    command: str
    job: str = ""
    """What its job of a scheduler is called, as in `Slurm job 17`; empty if it is of none, or that is not known."""
    end: str = ""
    """The command that ends that job."""


class Job(NamedTuple):
    """A name that the first command of a scheduler's job has left, on whatever node. Nothing depends on it."""

    scheduler: str
    """"slurm", "pbs", "lsf", "flux", "grid-engine", "kubernetes", "job" if it is not known which; "host" if there is
    none, and all that a user runs on a host counts as one."""
    job: str
    """Its id; that of the array, if it is of one; of a pod, namespace and name; empty for "host"."""
    host: str
    pid: int
    command: str
    """The name of the program."""
    since: float
    user: int
    """Whose it is: a user id."""
    proved: bool
    """It is seen to run, on this node; if not, it may still run."""
    ask: str
    """The command that says whether it runs; empty if none is known, as is the next."""
    end: str


class Failure(NamedTuple):
    """How an attempt at a sync ended."""

    kind: str
    """"fatal", "passing", "interrupted" or "died"."""
    pid: int
    host: str
    time: float
    message: str
    error: str
    """The name of the class of the error, as in "FetchError"; empty if it was none, or is not known."""
    retryable: bool
    """The same may succeed later."""


class SourceTree(NamedTuple):
    """A directory that something is linked to or was built of."""

    path: str
    editable: bool
    """It is linked to."""
    changed: bool
    """It is not as it was at the last sync, in what only a sync looks at."""


class Status(NamedTuple):
    """What is known of an environment."""

    env: str
    current: bool | None
    """None if nobody said for which lock file."""
    reason: str
    """Why it is not current; empty if it is."""
    digest: str
    """What it is current for, or was synced to; empty if that is not known."""
    leader: Syncer | None
    holders: tuple[Occupant, ...]
    """Who holds the environment lock without being a leader of ours: uv, say. Known only of processes here."""
    waiters: tuple[Waiter, ...]
    commands: tuple[Occupant, ...]
    """Who runs in it. Known only of processes here."""
    jobs: tuple[Job, ...]
    """Who has left word to run in it, on whatever node."""
    failure: Failure | None
    leftovers: tuple[str, ...]
    """What a dead leader left, for the next sync to finish or to throw away."""
    unverified: tuple[str, ...]
    """The names of what was installed without a hash in the lock file."""
    trees: tuple[SourceTree, ...]
    """Directories that something is linked to or was built of, of which a launch does not see all that counts."""
    pythonpath: str
    """The variable: what a command started from here would see before the environment's own modules."""

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {name: everything_redacted(_plain(value)) for name, value in self._asdict().items()}


def look(environment: Environment, request: Request | None) -> Status:
    """Look at an environment.

    :param request: what it ought to be current for, if that is known
    """
    leader = leader_of(environment)
    lockers = processes.holders(environment.lock)
    commands, jobs = running(environment)
    reason, digest = doubt(environment, request)
    return Status(
        env=paths.abspath(environment.path),
        current=None if request is None and not reason else not reason,
        reason=reason,
        digest=digest,
        leader=leader,
        holders=() if leader is not None else tuple(occupants(lockers)),
        waiters=tuple(_waiter(waiter.said) for waiter in queue.waiting(environment)),
        commands=tuple(each for each in commands if each.pid not in lockers),
        jobs=jobs,
        failure=_failure(environment),
        leftovers=() if leader is not None or lockers else tuple(_leftovers(environment)),
        unverified=_unverified(environment),
        trees=tuple(_trees(environment)),
        pythonpath="" if request is not None and request.flag("isolated") else core.variable("PYTHONPATH"),
    )


def running(environment: Environment) -> tuple[tuple[Occupant, ...], tuple[Job, ...]]:
    """Say who runs in an environment: the processes here, and who has left word, on whatever node."""
    seen = named.look(environment)
    return tuple(Occupant(*each) for each in seen.here), tuple(map(_job, seen.named))


def _job(holder: named.Holder) -> Job:
    who = (holder.kind, holder.job, holder.host, holder.pid, holder.program, holder.since, holder.user)
    return Job(*who, proved=holder.proved, ask=holder.ask, end=holder.end)


def _unverified(environment: Environment) -> tuple[str, ...]:
    try:
        return load_ledger(environment).unverified
    except EnvsyncError:
        return ()  # a newer envsync keeps it, as is said


def _trees(environment: Environment) -> Iterator[SourceTree]:
    try:
        data = atomic.read_if_there(environment.stamp)
    except FilesystemError:
        return  # as is said
    vouched = stamp.load(data) if data is not None else None
    if vouched is not None and vouched.trees:
        from envsync.leading.tree_inputs import have_changed

        for tree in vouched.trees:
            yield SourceTree(tree.path, tree.editable, have_changed([tree]))


def leader_of(environment: Environment) -> Syncer | None:
    """Say who syncs; None: nobody."""
    if not is_led(environment):
        return None
    said = records.load(environment.progress)
    pid = int(records.number(said, "pid"))
    try:
        silent = max(0.0, time.time() - os.stat(environment.progress).st_mtime)
    except OSError:
        silent = 0.0
    return Syncer(
        pid=pid,
        host=records.text(said, "host"),
        command=records.text(said, "command"),
        since=records.number(said, "since"),
        phase=records.text(said, "phase"),
        done=int(records.number(said, "done")),
        total=int(records.number(said, "total")),
        bytes_done=int(records.number(said, "bytes_done")),
        bytes_total=int(records.number(said, "bytes_total")),
        detail=records.text(said, "detail"),
        silent=round(silent, 1),
        stopped=records.text(said, "place") == processes.here() != "" and processes.is_stopped(pid),
        **_its_job(said),
    )


def _its_job(said: dict[str, object]) -> dict[str, str]:
    job, end = schedulers.of_record(said)
    return {"job": named.shown(job), "end": end}


def is_led(environment: Environment) -> bool:
    """Tell whether somebody leads.

    Of a lease's holder on another host it is not known whether it lives: its silence shows that.
    """
    return queue.is_held(environment.leading) or _is_leased(environment)


def _is_leased(environment: Environment) -> bool:
    try:
        lease = atomic.read_if_there(environment.lease)
    except FilesystemError:
        return True
    if lease is None:
        return False
    said = records.load(environment.progress)
    is_its = f"token={records.text(said, 'token')}" in lease.decode(errors="replace").splitlines()
    is_here = records.text(said, "place") == processes.here() != ""
    return not (is_its and is_here and not processes.is_alive(int(records.number(said, "pid"))))


def _waiter(said: dict[str, object]) -> Waiter:
    return Waiter(
        pid=int(records.number(said, "pid")),
        host=records.text(said, "host"),
        command=records.text(said, "command"),
        lock=records.text(said, "lock"),
        since=records.number(said, "since"),
        **_its_job(said),
    )


def occupants(pids: Iterable[int]) -> Iterator[Occupant]:
    """Name processes of this host."""
    for pid in pids:
        yield Occupant(pid, processes.command_of(pid))


def _failure(environment: Environment) -> Failure | None:
    known = failures.load(environment)
    if not known:
        return None
    last = dict(known[-1])
    kind = records.text(last, "kind")
    spoken = records.text(last, "message") or f"was interrupted while {last.get('phase')}"
    ended = fate if (fate := records.text(last, "fate")) not in ("", "ended") else "ended without a word"
    died = f"{ended} while {last.get('phase')}"
    return Failure(
        kind=kind,
        pid=int(records.number(last, "pid")),
        host=records.text(last, "host"),
        time=records.number(last, "time"),
        message=died if kind == failures.DIED else spoken,
        error=records.text(last, "error"),
        retryable=last.get("retryable") is True or kind == failures.INTERRUPTED,
    )


def _leftovers(environment: Environment) -> Iterator[str]:
    for path in (environment.progress, environment.journal, environment.draining, environment.making):
        if os.path.lexists(path):
            yield path
    yield from leftovers.find(environment)


def doubt(environment: Environment, request: Request | None) -> tuple[str, str]:
    """Say why the environment is not current, and what digest it has. As the fast lane looks, without its lock.

    What a sync of ours changes while one looks is nobody else's change.
    """
    reason, digest = "", ""
    for _ in range(3):
        before = failures.identity(environment.stamp)
        reason, digest = _doubt_now(environment, request)
        if reason != CHANGED or failures.identity(environment.stamp) == before:
            break
    if reason == CHANGED and is_led(environment):
        return "a sync of it is going on", digest
    if reason == CHANGED and os.path.lexists(environment.progress):
        return "a sync of it did not come to its end", digest
    return reason, digest


def _doubt_now(environment: Environment, request: Request | None) -> tuple[str, str]:
    if not os.path.isdir(environment.path):
        return "it does not exist", ""
    if os.path.lexists(environment.journal):
        return "a commit was decided and is not finished", ""
    try:
        data = atomic.read_if_there(environment.stamp)
    except FilesystemError as error:
        return f"its stamp cannot be read ({error.message})", ""
    if data is None:
        drained = os.path.lexists(environment.draining)
        return "it waits to be changed" if drained else "no sync of it has been completed", ""
    vouched = stamp.load(data)
    if vouched is None:
        return _unread(data), ""
    return _mismatch(environment, request, vouched), vouched.digest


def _unread(data: bytes) -> str:
    """Say why a stamp says nothing to us."""
    if stamp.is_newer(data):
        return "a newer envsync keeps it"
    try:
        stamp.unseal(data)
    except ValueError:
        return "its stamp is damaged"
    return "its stamp is of another version of envsync, and says what this one does not know"


def _mismatch(environment: Environment, request: Request | None, vouched: stamp.Stamp) -> str:
    try:
        if os.stat(environment.in_use).st_ino != vouched.in_use:
            return "its directory was copied or made anew since it was synced"
        if not fast_lane.is_untouched(vouched, environment.config):
            return CHANGED
        if request is not None and (asked := _digest_of(request, vouched)) != vouched.digest:
            if asked is None:
                return _foreign(vouched)
            return "the lock file or the options are not those that it was synced with"
        if request is not None and request.flag("locked") and not fast_lane.was_checked(request, vouched):
            return "it was not checked that the lock file has what the project asks for"
    except OSError as error:
        return f"`{error.filename}` cannot be read: {error.strerror}"
    if not os.access(environment.python, os.X_OK):
        return "its Python is gone"
    return ""


def _digest_of(request: Request, vouched: stamp.Stamp) -> str | None:
    """Compute the request's digest, by a look into further inputs that nobody has parsed as they are.

    Empty if what counts in them is not what it was; None if this host is not as the stamp knows it.
    """
    if fast_lane.are_known(request, vouched):
        return fast_lane.digest_of(request, vouched)
    from envsync.leading.goal import renewed

    try:
        found = renewed(request, vouched)
    except EnvsyncError:
        return ""  # a sync says why
    return fast_lane.digest_of(request, found) if found is not None else ""


def _foreign(vouched: stamp.Stamp) -> str:
    """Say what of this host is not as the stamp knows it."""
    if not fast_lane.is_for_this_host(vouched):
        return f"it was made for {vouched.python}, which is not this host's"
    if not fast_lane.is_for_this_base(vouched):
        return f"the lock file asks for the full version of Python, and `{vouched.base}` is not as it was synced with"
    names = " and ".join(f"`{name}`" for name in vouched.kernel)
    return f"the lock file asks for {names}, and no host with this kernel has synced it"


def _plain(value: object) -> object:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
