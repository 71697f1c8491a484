"""Who holds the in-use lock, told to people: the processes of this node, and the names that jobs have left.

What is told of this node is proved: /proc/locks says who holds the lock, or, where the kernel leaves locks to a server,
who has its file open. A name that was left here (same boot, same pid namespace) is that of a process which was started
at the same instant and still is one of them, or whose files are not ours to see; else it has ended, and is not told.

A name of another node "may still run", and the scheduler can be asked. None decides anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from envsync.errors.redact import redacted
from envsync.launch import Environment
from envsync.locks import holders
from envsync.system import mounts, native, processes, records, schedulers

SHOWN = 3
"""How many processes, jobs, and hosts of a job, a message names."""
CUT = "…"
"""What follows the first characters of what is too long; no job's id has it."""

Said = tuple[dict[str, object], int]
"""A record, and whose file it is."""


class Local(NamedTuple):
    """A process here that holds the lock.

    :ivar job: what its job is called, as in `Slurm job 17`; empty if it is of none
    :ivar end: the command that ends that
    """

    pid: int
    command: str
    job: str = ""
    end: str = ""


class Holder(NamedTuple):
    """A name that was left: the first command of a job on a node, as it was then.

    :ivar kind: of the scheduler (`envsync.system.schedulers`)
    :ivar job: its id; empty without a scheduler
    :ivar since: by the clock of its host, in seconds since the epoch
    :ivar user: whose it is
    :ivar proved: it is seen to run, here
    """

    kind: str
    job: str
    host: str
    pid: int
    program: str
    since: float
    user: int
    proved: bool

    @property
    def called(self) -> str:
        """What people call the job."""
        return schedulers.called(self.kind, self.job) if self.kind != schedulers.NONE else ""

    @property
    def ask(self) -> str:
        """The command that says whether it still runs; empty if none can be named."""
        return asking(self.kind, [self])

    @property
    def end(self) -> str:
        """The command that ends the job; empty if none can be named."""
        return schedulers.end(self.kind, [self.job]) if self.kind != schedulers.NONE else ""


class Seen(NamedTuple):
    """What is known on this node of those who hold an in-use lock."""

    here: tuple[Local, ...] = ()
    named: tuple[Holder, ...] = ()
    """The longest first."""

    @property
    def elsewhere(self) -> list[Holder]:
        """Those who may still run."""
        return [each for each in self.named if not each.proved]


def look(environment: Environment, left: Sequence[Said] | None = None) -> Seen:
    """Look who holds an in-use lock. Takes no lock that disturbs anybody.

    :param left: the names that were left, if they have been read
    """
    is_network, pids = mounts.is_network(environment.path), _pids(environment)
    place = processes.here()
    found: list[Holder] = []
    for record, user in names_in(environment) if left is None else left:
        proved: bool | None = False
        if records.text(record, "place") == place != "":
            proved = _is_proved(record, pids, is_complete=not is_network or processes.user() in (0, user))
        if proved is not None:
            found.append(_holder(record, user, proved=proved))
    found.sort(key=lambda each: each.since)
    ours = {each.pid: each for each in found if each.proved}
    here = (_local(pid, ours.get(pid)) for pid in sorted({*pids, *ours}))
    there = (each for each in here if each.command or processes.is_alive(each.pid))  # the others have ended meanwhile
    return Seen(tuple(there), tuple(found))


def _pids(environment: Environment) -> list[int]:
    pids = processes.holders(environment.in_use)
    return pids if pids or not mounts.is_network(environment.path) else processes.users_of(environment.in_use)


def names_in(environment: Environment) -> list[Said]:
    """Read the names that were left. While a leader waits to be alone, nobody enters, and no name is added."""
    try:
        names = sorted(each for each in os.listdir(environment.holders) if holders.is_name(each))
    except OSError:
        return []
    found = (holders.read(f"{environment.holders}/{each}") for each in names[: 2 * holders.MOST])
    return [said for said in found if said[0]]


def _is_proved(record: dict[str, object], pids: Sequence[int], *, is_complete: bool) -> bool | None:
    """Tell whether who has left a name here runs; None: it has ended, and whoever else is of its job is seen.

    :param pids: who is seen here to hold the lock
    :param is_complete: they are all there are
    """
    pid = int(records.number(record, "pid"))
    started = records.number(record, "started")
    is_it = started > 0 and abs(processes.started_of(pid) - started) < native.START_SECONDS and processes.is_alive(pid)
    if is_it and (pid in pids or not processes.may_look_into(pid)):
        return True
    return None if is_complete else False


def _holder(record: dict[str, object], user: int, *, proved: bool) -> Holder:
    return Holder(
        kind=shown(records.text(record, "scheduler")),
        job=shown(records.text(record, "job")),
        host=shown(records.text(record, "host")),
        pid=int(records.number(record, "pid")),
        program=shown(records.text(record, "program")),
        since=records.number(record, "since"),
        user=user,
        proved=proved,
    )


def shown(text: str) -> str:
    """Leave out what a terminal would obey, and what is secret: anybody of a group may have written it."""
    line = "".join(each if each.isprintable() else "?" for each in redacted(text))
    return line if len(line) <= schedulers.LONGEST else line[: schedulers.LONGEST - 1] + CUT


def _local(pid: int, holder: Holder | None) -> Local:
    if holder is not None and holder.job:
        kind, job = holder.kind, holder.job
    else:
        kind, job = schedulers.job_of(processes.variables_of(pid), processes.host())
    if not job:
        return Local(pid, processes.command_of(pid))
    return Local(pid, processes.command_of(pid), schedulers.called(kind, shown(job)), schedulers.end(kind, [job]))


def jobs_of(found: Iterable[Holder]) -> list[list[Holder]]:
    """Put together the names of each job, or without a scheduler of each host and user."""
    jobs: dict[tuple[object, ...], list[Holder]] = {}
    for each in found:
        who = (each.kind, each.job) if each.job else (each.kind, each.host, each.user)
        jobs.setdefault(who, []).append(each)
    return list(jobs.values())


def asking(kind: str, found: Sequence[Holder]) -> str:
    """Return the command that says whether jobs still run; empty if none can be named."""
    if kind != schedulers.NONE:
        return schedulers.ask(kind, [each.job for each in found])
    host, pids = found[0].host, [str(each.pid) for each in found if each.host == found[0].host and each.pid > 0]
    return f"ssh {host} ps -fp {','.join(pids)}" if schedulers.is_plain(host) and pids else ""


def described(job: Sequence[Holder]) -> str:
    """Say in some words what has left its names: the job, on which hosts, the program."""
    first = job[0]
    hosts = list(dict.fromkeys(each.host for each in job))
    more = f" and {len(hosts) - SHOWN} more hosts" if len(hosts) > SHOWN else ""
    where = f" on {', '.join(hosts[:SHOWN])}{more}"
    if first.kind == schedulers.NONE:
        return f"a command{where} (`{first.program}`, pid {first.pid})"
    is_its_host = first.kind == schedulers.KUBERNETES and len(hosts) == 1 and first.job.endswith(hosts[0])
    return f"{first.called}{'' if is_its_host else where} (`{first.program}`)"


def remedy(found: Sequence[Holder]) -> str:
    """Say how to ask after jobs of one scheduler, and how to end them; empty if that is not known."""
    kind, jobs = found[0].kind, list(dict.fromkeys(each.job for each in found))
    ask = asking(kind, [found[0]] if kind == schedulers.NONE else list({each.job: each for each in found}.values()))
    end = schedulers.end(kind, jobs) if kind != schedulers.NONE else ""
    ending = f", `{end}` ends {'it' if len(jobs) == 1 else 'them'}" if end else ""
    return f": `{ask}` tells{ending}" if ask else ""


def told(seen: Seen) -> str:
    """Say in a clause who holds the lock; empty if nobody is known."""
    names = [of_here(each) for each in seen.here[:SHOWN]]
    more = [f"{len(seen.here) - SHOWN} more"] if len(seen.here) > SHOWN else []
    return "; ".join(filter(None, [", ".join(names + more), maybe(seen)]))


def of_here(local: Local) -> str:
    """Name a process here, and its job."""
    end = f", which `{local.end}` ends" if local.end else ""
    return f"pid {local.pid} (`{local.command}`)" + (f" of {local.job}{end}" if local.job else "")


def maybe(seen: Seen) -> str:
    """Say in a clause who may still run elsewhere, and how to find out; empty if nobody."""
    asked: dict[tuple[str, str], list[list[Holder]]] = {}
    for job in jobs_of(seen.elsewhere):
        asked.setdefault(_asked_at(job[0]), []).append(job)
    clauses = []
    for jobs in asked.values():
        named = ", ".join(map(described, jobs[:SHOWN]))
        more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
        clauses.append(f"{named}{more} may still run{remedy([job[0] for job in jobs[:SHOWN]])}")
    rest = [f"{len(clauses) - SHOWN} more"] if len(clauses) > SHOWN else []
    return "; ".join(clauses[:SHOWN] + rest)


def _asked_at(holder: Holder) -> tuple[str, str]:
    """Return who is asked: one command asks after all of whom that is the same."""
    if holder.kind == schedulers.NONE:
        return holder.kind, f"{holder.host} {holder.user}"
    return holder.kind, holder.job.rpartition("/")[0] if holder.kind == schedulers.KUBERNETES else ""
