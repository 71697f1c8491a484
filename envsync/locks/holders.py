"""The names of those who hold the in-use lock, for people on other nodes: `<env>/.envsync/holders/`, a record each.

The kernel knows of a lock's holders on its own node. So the first command of a job on a node leaves its name: the
scheduler, the job, host and pid, the program, since when. It is written with the in-use lock held and before the
command starts. What follows of that job on that node leaves none (`envsync.launch.fast_lane.be_named`): a mark on the
node's own disk says that it has been done. Where there is no scheduler, but a network filesystem, a host has one name,
anew every day.

Names name, and decide nothing. Whoever holds the in-use lock exclusively removes all of them (`clear`), for all who
left one have ended. Until then nobody knows whether they have: a name "may still run", and the scheduler can be asked
(`envsync.locks.named`).

- Killed between mark and name, a full disk, an environment that is read-only or somebody else's: there is no name, and
  the command starts. It is not tried again.
- An array of jobs has one name a node, and a job not more than `OF_ONE_JOB`. Of `MOST` names and more, the half goes
  that ends first by what is known: jobs that are over, or have been there longest.
- A mark stands for the environment as it was synced. So the commands after the next sync leave their names anew.
- Marks go when a new one is made and they are older than a day, if there are many. So the name of a long job may be
  written once more.
- What host and job are called is in the environment's variables: it becomes part of a file name only as letters and
  digits, with a checksum of what it was.

A record is written beside and renamed over, as all state is (`envsync.system.atomic`).
"""

from __future__ import annotations

import time

from envsync.errors import EnvsyncError
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.reading import again_if_refused, content
from envsync.system import atomic, core, node_local, processes, records, schedulers

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 512
"""Names in one environment; as many more are there for a moment if a thousand nodes come at once."""
OF_ONE_JOB = 64
"""Names of one job, on as many nodes."""
MARKS, MARK_SECONDS = 64, 86400.0
"""How many marks may be as old as they are, and from which age on they go if there are more."""
LONGEST = 48
"""Characters of a job's and of a host's name in a file name."""
DAY = 86400.0
"""For how long a job is believed to last that does not say so."""
THINNING = "thinning"
"""A file that is locked by whoever removes names since there are too many."""
LARGEST = 1 << 13
"""Bytes of a record; anybody may have put something else there."""
REGULAR, SET_GROUP_ID = 0o100000, 0o2000
END = 8
"""Digits of the checksum that a name ends with."""


def name(path: str, program: str, variables: Mapping[str, str], mark: str, *, made: bool) -> None:
    """Leave the name of this process's job, and the mark that it is done. What fails is not done, and not said.

    :param path: absolute path of the environment, whose in-use lock is held
    :param program: what is run
    :param variables: by which the scheduler says what job it is
    :param mark: a directory on this node's disk
    :param made: it has just been made; if not, the directory was missing in which it is to be
    """
    try:
        if _marks(mark, made=made):
            _write(Environment(path), program, variables)
    except (OSError, EnvsyncError, ValueError):
        pass  # a read-only or a full disk, somebody else's environment: there is no name


def _marks(mark: str, *, made: bool) -> bool:
    """Make the mark, and remove old ones. Returns whether it is ours: else another task has made it just now.

    :raises OSError: it cannot be made
    """
    directory, _, own = mark.rpartition("/")
    if node_local.temporary() != directory:
        return False
    if not made:
        try:
            os.mkdir(mark, 0o700)
        except FileExistsError:
            return False
    marks = [each for each in os.listdir(directory) if each.startswith(fast_lane.MARK) and each != own]
    for each in marks if len(marks) > MARKS else ():
        try:
            if time.time() - os.stat(f"{directory}/{each}").st_mtime > MARK_SECONDS:
                os.rmdir(f"{directory}/{each}")
        except OSError:
            continue  # somebody else was faster
    return True


def _write(environment: Environment, program: str, variables: Mapping[str, str]) -> None:
    host = processes.host()
    kind, job = schedulers.job_of(variables, host)
    own = file_name(kind, job or str(processes.user()), host)
    names = _names(environment)
    if names is None:
        names = _begin(environment)
    if own not in names:
        of_job = own[: -END - 1].rpartition(".")[0] + "."
        if sum(each.startswith(of_job) for each in names) >= OF_ONE_JOB:
            return
        if len(names) >= MOST:
            _thin(environment)
        if len(names) >= 2 * MOST:
            return
    said = {
        "scheduler": kind,
        "job": job[: schedulers.LONGEST + 1],
        "host": host,
        "pid": os.getpid(),
        "place": processes.here(),
        "started": processes.started(),
        "program": processes.shown([program]),
        "since": time.time(),
        "until": schedulers.end_of(variables),
    }
    path = f"{environment.holders}/{own}"
    atomic.write(path, records.dump(said))
    _grant(environment, path)


def _names(environment: Environment) -> list[str] | None:
    try:
        return os.listdir(environment.holders)
    except FileNotFoundError:
        return None


def _begin(environment: Environment) -> list[str]:
    try:
        os.mkdir(environment.holders)
        _grant(environment, environment.holders)
    except FileExistsError:
        pass  # another node was faster
    return []


def _grant(environment: Environment, path: str) -> None:
    """Let a group that shares the environment remove what is made, whatever the umask."""
    if os.stat(environment.state).st_mode & SET_GROUP_ID:
        from envsync.system import groups  # it takes 6 ms to load, which most need not spend

        groups.grant(path, groups.bits(environment.state))


def file_name(kind: str, job: str, host: str) -> str:
    """Return what the record of a job on a host is called. Nothing that a job or a host is called leads out of it."""
    exactly = stamp.checksum(f"{kind}\n{job}\n{host}".encode("utf-8", "surrogateescape"))
    return f"{kind}.{_plain(job)}.{_plain(host)}.{exactly[:END]}"


def _plain(text: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in text[:LONGEST])


def is_name(each: str) -> bool:
    """Tell whether a file is called as a name is, or as one that is being written."""
    kind, *rest = each.split(".")
    return each == THINNING or (kind in (*schedulers.COMMANDS, schedulers.NONE) and len(rest) >= 3)


def clear(environment: Environment) -> None:
    """Remove all names: the in-use lock is held exclusively, so that all who have left one have ended."""
    try:
        if os.lstat(environment.holders).st_mode & node_local.KIND != node_local.DIRECTORY:
            return
        names = os.listdir(environment.holders)
    except OSError:
        return  # nobody has left one
    for each in names:
        if is_name(each):
            atomic.discard(f"{environment.holders}/{each}")
    try:
        os.rmdir(environment.holders)
    except OSError:
        pass  # something else is in it, or it is not ours


def _thin(environment: Environment) -> None:
    """Remove the half of the names, those that end first. One process does it; others write all the same."""
    from envsync.locks import flock

    lock = flock.acquire_nowait(f"{environment.holders}/{THINNING}", shared=False)
    if lock is None:
        return  # somebody else does it
    try:
        names = [each for each in os.listdir(environment.holders) if each != THINNING and is_name(each)]
        if len(names) >= MOST:
            for each in ending_first(names, environment)[: -MOST // 2]:
                atomic.discard(f"{environment.holders}/{each}")
    finally:
        lock.release()


def ending_first(names: Sequence[str], environment: Environment) -> list[str]:
    """Return names in the order in which their jobs end, by what is known of them. What says nothing comes first."""
    said = {each: read(f"{environment.holders}/{each}")[0] for each in names}
    since = {each: records.number(record, "since") for each, record in said.items()}
    return sorted(names, key=lambda each: records.number(said[each], "until") or since[each] + DAY)


def read(path: str) -> tuple[dict[str, object], int]:
    """Read a record, and whose file it is. It is empty if there is none, or not one that makes sense."""
    try:
        data, owner = again_if_refused(_content, path)
    except OSError:
        return {}, -1
    record = records.parse(data)
    return (record if record.get("format") == records.FORMAT else {}), owner


def _content(path: str) -> tuple[bytes, int]:
    status = os.lstat(path)
    is_record = status.st_mode & node_local.KIND == REGULAR and status.st_size <= LARGEST
    return content(path) if is_record else b"", status.st_uid
