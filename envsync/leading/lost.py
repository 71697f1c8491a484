"""In-use locks that were lost: the file was purged or replaced while commands may hold the old one.

Commands open the in-use lock and never read it, so a purge of a scratch filesystem takes it early. Whoever has locked
it still holds it, under no name, and nobody finds it there. So the inode is kept in the stamp and in `installed.json`.
If the file is another one now, a leader cannot be alone by locking it. On a local filesystem it looks who holds the old
one; elsewhere, that may be somebody on another host.

What an operator says (`--busy ignore`) is for one sync. Inodes that are seen to be held at that time are kept in
`installed.json`, so the next sync without it is refused as before, until nobody holds them. All others are dropped:

- An inode that nobody holds: its number may be another file's soon.
- Where it cannot be seen who holds one, the operator has answered that. It would be asked for ever otherwise.

Whom we may not look into is believed to hold what has the number of the lost one: then another user's lock of another
file may keep a sync out. Not covered: if `installed.json` is lost as well, the stamp names only the last one; of more
than `MOST` that are held at once, the oldest are forgotten; an environment that was moved is taken for a copy, which
has no former locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from envsync.errors import EnvironmentRefusedError, RefusedError
from envsync.errors.hints import UPGRADE
from envsync.installed.ledger import Ledger, load_ledger
from envsync.launch import Environment, stamp
from envsync.locks import named
from envsync.system import atomic, mounts, paths, processes
from envsync.transaction import journal

MOST = 8
"""Inodes that `installed.json` keeps: the present one, and those before it."""


def former(environment: Environment, ledger: Ledger) -> tuple[int, ...]:
    """Return the inodes of in-use locks that commands may hold, by what was recorded of this environment.

    The oldest come first. What is recorded of another place does not count: it was copied, with the locks of the other.

    :param ledger: what `installed.json` says
    :raises EnvironmentRefusedError: a newer envsync keeps the environment
    """
    found: list[int] = []
    ledger = _decided(environment) or ledger
    if ledger.in_use and _is_of(environment, ledger.path):
        found += ledger.in_use
    for path in (environment.draining, environment.stamp):
        data = atomic.read_if_there(path)
        vouched = stamp.load(data) if data else None
        refuse_newer(environment, data or b"")
        if vouched is not None and _is_of(environment, vouched.environment):
            found.append(vouched.in_use)
    return tuple(inode for inode in dict.fromkeys(found) if inode)


def refuse_newer(environment: Environment, data: bytes) -> None:
    """Leave an environment alone whose stamp is a newer envsync's.

    :param data: the stamp
    :raises EnvironmentRefusedError: it is
    """
    if stamp.load(data) is None and stamp.is_newer(data):
        raise EnvironmentRefusedError(environment.path, "a newer envsync keeps it", hint=UPGRADE)


def _decided(environment: Environment) -> Ledger | None:
    """Read the `installed.json` of a commit that was decided, whose leader has died and taken the stamp away.

    It was alone when it decided, or an operator went on: what was recorded before does not count any more.
    """
    decided = journal.read(environment)
    ledger = decided and load_ledger(environment, journal.ledger_path(environment, decided))
    return ledger if ledger and ledger.path else None


def _is_of(environment: Environment, path: str) -> bool:
    """Tell whether a recorded path is this environment's, also if it is named through a symbolic link now."""
    if path == paths.abspath(environment.path):
        return True
    try:
        return os.path.samefile(path, environment.path)
    except OSError:
        return False


def check(environment: Environment, recorded: Iterable[int], ours: int = 0) -> None:
    """Make sure that nobody runs in an environment by an in-use lock that was lost.

    :param recorded: what `former` returns
    :param ours: the inode of the in-use lock that this process has exclusively, so that nobody else holds it
    :raises RefusedError: somebody does, or may
    """
    gone = _gone(environment, recorded, ours)
    if not gone:
        return
    if not _is_seen(environment):
        raise _refusal(environment, "it cannot be seen from here who holds the one before", [])
    pids = sorted(set().union(*_holders(environment, gone).values()))
    if pids:
        raise _refusal(environment, "commands hold the one before", pids)


def held(environment: Environment, recorded: Iterable[int], ours: int = 0) -> tuple[int, ...]:
    """Return the inodes of lost in-use locks that somebody is seen to hold, the oldest first; not more than are kept.

    Call it when no command can enter by the stamp any more. Else one that is just starting may not be seen.

    :param recorded: as for `check`, as is the next one
    """
    gone = _gone(environment, recorded, ours)
    if not gone or not _is_seen(environment):
        return ()
    holders = _holders(environment, gone)
    return tuple(inode for inode in gone if inode in holders)[1 - MOST :]


def remembered(environment: Environment, ledger: Ledger, present: int) -> tuple[int, ...]:
    """Return the inodes to keep if a new stamp names the present in-use lock, and nothing else is changed.

    :param ledger: what `installed.json` says; if one has to go, it is one of its that nobody holds
    """
    known = ledger.in_use
    new = [inode for inode in former(environment, ledger) if inode not in (present, *known)]
    if not new:
        return known
    holders = _holders(environment, known) if _is_seen(environment) else known
    return (*(inode for inode in known if inode in holders or inode == present), *new)[-MOST:]


def _gone(environment: Environment, recorded: Iterable[int], ours: int) -> list[int]:
    try:
        present = os.stat(environment.in_use).st_ino
    except OSError:
        present = 0
    return [inode for inode in recorded if inode not in (present, ours)]


def _is_seen(environment: Environment) -> bool:
    """Tell whether all who may hold a lock of this environment can be seen from here."""
    if mounts.is_network(environment.path):
        return False
    return processes.has_proc() and processes.is_proc_ours()


def _holders(environment: Environment, inodes: Iterable[int]) -> dict[int, set[int]]:
    """Name the processes that hold files without a name, by inode, by the locks of this host (proc(5)).

    The number of an inode that nobody holds may be another file's by now. Whom we may not look into is believed to hold
    the one that is meant.
    """
    status = os.stat(environment.path)
    device, shown = status.st_dev, processes.device_of(status)
    wanted = {str(inode): inode for inode in inodes}
    suspects: dict[int, set[tuple[int, str]]] = {}
    for fields in map(str.split, processes.read_proc("/proc/locks").splitlines()):
        if len(fields) >= 6 and fields[1] == "FLOCK":
            held_on, _, number = fields[5].rpartition(":")
            if number in wanted:
                suspects.setdefault(int(fields[4]), set()).add((wanted[number], held_on))
    locked = {inode for locks in suspects.values() for inode, _ in locks}
    found: dict[int, set[int]] = {}
    for pid in processes.everybody() if locked else ():
        for inode in locked & (_nameless(pid, device) or set()):
            found.setdefault(inode, set()).add(pid)
    for pid, locks in suspects.items():
        if _nameless(pid, device) is None and processes.is_alive(pid):
            for inode, held_on in locks:
                if held_on == shown:
                    found.setdefault(inode, set()).add(pid)
    return found


def _nameless(pid: int, device: int) -> set[int] | None:
    """Return the inodes of files that a process has open and that have no name any more; None if we may not look."""
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None
    found: set[int] = set()
    for fd in fds:
        try:
            status = os.stat(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed meanwhile
        if status.st_dev == device and not status.st_nlink:
            found.add(status.st_ino)
    return found


def _refusal(environment: Environment, why: str, pids: list[int]) -> RefusedError:
    here = tuple(named.Local(pid, processes.command_of(pid)) for pid in pids)
    told = named.told(named.look(environment)._replace(here=here))
    who = f": {told}" if told else ""
    return RefusedError(
        f"the in-use lock `{environment.in_use}` was purged or replaced since commands could start in the environment, "
        f"and {why}{who}",
        hint="once nothing runs in it any more: `envsync sync --busy ignore`; or have the environment made elsewhere: "
        "`envsync sync --env '.venvs/{digest}'`",
    )
