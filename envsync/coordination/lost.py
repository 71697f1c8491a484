"""In-use locks that were lost: the file was purged or replaced while commands may hold the old one.

Commands open the in-use lock and never read it, so a purge of a scratch filesystem takes it early. Whoever has locked
it still holds it, under no name, and nobody finds it there. So the inode is kept in the stamp and in `installed.json`.
If the file is another one now, a leader cannot be alone by locking it. On a local filesystem it looks who holds the old
one; elsewhere, that may be somebody on another host.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from envsync import replace, stamp
from envsync.coordination import pace, processes
from envsync.environment import Environment
from envsync.errors import RefusedError
from envsync.installed import load_ledger

MOST = 8
"""Inodes that are kept of locks that were lost."""


def former(environment: Environment) -> set[int]:
    """Return the inodes of in-use locks that commands may hold, by what was recorded of this environment."""
    env = os.path.abspath(environment.path)
    found: set[int] = set()
    for path in (environment.stamp, environment.draining):
        data = replace.read(path)
        vouched = stamp.load(data) if data else None
        if vouched is not None and vouched.environment == env:
            found.add(vouched.in_use)
    ledger = load_ledger(environment)
    if ledger.path == env:  # else it was copied: the locks are those of the other
        found.update(ledger.in_use)
    return found - {0}


def check(environment: Environment) -> None:
    """Make sure that nobody runs in an environment by an in-use lock that was lost.

    :raises RefusedError: somebody does, or may
    """
    try:
        present = os.stat(environment.in_use).st_ino
    except OSError:
        present = 0
    gone = former(environment) - {present}
    if not gone:
        return
    if pace.is_network(environment.path) or not processes.is_proc_ours() or not os.path.isdir("/proc/self/fd"):
        raise _refusal(environment, "it cannot be seen from here who holds the one before", [])
    pids = sorted(_holders(environment, gone))
    if pids:
        raise _refusal(environment, "commands hold the one before", pids)


def _holders(environment: Environment, inodes: Iterable[int]) -> set[int]:
    """Name the processes that hold a file without a name, by the locks of this host (proc(5)).

    The number of an inode that nobody holds may be another file's by now. Whom we may not look into is believed to hold
    the one that is meant.
    """
    device = os.stat(environment.path).st_dev
    shown = f"{os.major(device):02x}:{os.minor(device):02x}"
    wanted = {str(inode) for inode in inodes}
    suspects: dict[int, set[str]] = {}
    for fields in map(str.split, processes.read("/proc/locks").splitlines()):
        if len(fields) >= 6 and fields[1] == "FLOCK":
            held_on, _, inode = fields[5].rpartition(":")
            if inode in wanted:
                suspects.setdefault(int(fields[4]), set()).add(held_on)
    if not suspects:
        return set()
    found = {pid for pid in _everybody() if _has(pid, device, wanted) is True}
    for pid, devices in suspects.items():
        looked = _has(pid, device, wanted)
        if looked is None and shown in devices and processes.is_alive(pid):
            found.add(pid)
    return found


def _has(pid: int, device: int, wanted: Iterable[str]) -> bool | None:
    """Tell whether a process has such a file open that has no name any more; None if we may not look."""
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None
    for fd in fds:
        try:
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            if status.st_dev == device and str(status.st_ino) in wanted and not status.st_nlink:
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _refusal(environment: Environment, why: str, pids: list[int]) -> RefusedError:
    names = [f"pid {pid} (`{processes.command_of(pid)}`)" for pid in pids[:3]]
    more = [f"{len(pids) - 3} more"] if len(pids) > 3 else []
    who = f": {', '.join(names + more)}" if names else ""
    return RefusedError(
        f"the in-use lock `{environment.in_use}` was purged or replaced since commands could start in the environment, "
        f"and {why}{who}",
        hint="once nothing runs in it any more: `envsync sync --busy ignore`; or have the environment made elsewhere: "
        "`envsync sync --env '.venvs/{digest}'`",
    )
