"""Who runs in environments without their in-use lock: by a path to their Python, or in a shell that has activated one.

That is seen of processes of this host alone, by the program that they were started with. It keeps from removing what is
plainly in use here; what it does not see (other hosts, other users' processes behind hidepid, a Python that gave its
command line another look) is in nobody's word but that of who removes.
"""

from __future__ import annotations

import os
import sys

from envsync.library.status import Occupant
from envsync.system import core, processes

BIN = f"/{core.BIN}/"
Identity = tuple[int, int]
"""Device and inode of the directory of an environment."""


def programs() -> dict[Identity, list[int]]:
    """Return the processes here whose program is in the `bin` of some directory, by that directory."""
    found: dict[Identity, list[int]] = {}
    if not processes.is_proc_ours():
        return found
    prefixes: dict[str, Identity | None] = {}
    for pid in processes.everybody():
        program = processes.read_proc(f"/proc/{pid}/cmdline").partition("\0")[0]
        above, is_in_bin, _ = program.rpartition(BIN)
        if not is_in_bin:
            continue
        if not core.is_absolute(above):
            above = f"/proc/{pid}/cwd/{above}"  # as it was started, if it has not gone elsewhere since
        if above not in prefixes:
            prefixes[above] = identity_of(above)
        identity = prefixes[above]
        if identity is not None:
            found.setdefault(identity, []).append(pid)
    return found


def own() -> set[Identity]:
    """Return the environments that this very process is in: its own, and the one that its shell has activated."""
    found = (identity_of(path) for path in (sys.prefix, core.variable("VIRTUAL_ENV")) if path)
    return {identity for identity in found if identity is not None}


def identity_of(path: str) -> Identity | None:
    """Return by what a directory is known, through links; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def named(pids: list[int]) -> tuple[Occupant, ...]:
    """Name processes."""
    return tuple(Occupant(pid, processes.command_of(pid)) for pid in pids)
