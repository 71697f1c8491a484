"""A directory of this user's own on this node's own disk, for what only saves work.

`$XDG_RUNTIME_DIR/envsync`, or `/tmp/envsync-UID` where there is no such place. Not `TMPDIR`: each job may have another
one. What is in here may be lost at any time, and nobody may need it: containers and jobs often have a `/tmp` of
their own, and then they do without each other.

It is used only if nobody else can have put anything there: it is a directory and no link, ours, of mode 0700, and in
one in which others cannot rename it (theirs is neither the one above, nor may they write in it, unless it is sticky).
So whoever opens a file in it by its path opens what one of our own processes has made. And it has to be on a local
filesystem, for a lock in it is meant for this node alone.
"""

from __future__ import annotations

from envsync.system import core, mounts, processes

os = core.os

KIND, DIRECTORY = 0o170000, 0o040000
STICKY, WRITABLE_BY_OTHERS = 0o1000, 0o022
OPEN = frozenset({0o002, 0o020, 0o022})
"""Of these bits, those by which others may rename what is not theirs."""


def directory() -> str:
    """Return the directory, made if it was missing; empty if there is none that can be trusted."""
    runtime = core.variable("XDG_RUNTIME_DIR")
    if core.NODE and runtime.startswith("/") and _is_sound(runtime, f"{runtime}/envsync"):
        return f"{runtime}/envsync"
    return temporary()


def temporary() -> str:
    """Return the directory in `/tmp`, made if it was missing; empty if it cannot be trusted.

    For what is found without a look (`envsync.launch.fast_lane.be_named`): XDG_RUNTIME_DIR may name, in a job, what is
    there on the node alone from which the job was submitted.
    """
    path = f"{core.NODE}/envsync-{processes.user()}"
    return path if core.NODE and _is_sound(core.NODE, path) else ""


def _is_sound(above: str, path: str) -> bool:
    user = processes.user()
    try:
        status = os.stat(above)
        if status.st_uid not in (0, user) or status.st_mode & (WRITABLE_BY_OTHERS | STICKY) in OPEN:
            return False
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(path)
    except OSError:
        return False
    is_ours = found.st_mode & KIND == DIRECTORY and found.st_uid == user and found.st_mode & 0o777 == 0o700
    return is_ours and not mounts.is_network(path)
