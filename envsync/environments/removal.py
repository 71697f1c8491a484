"""Remove an environment: only if nobody syncs it or runs in it, and so that nobody ever finds half of it.

In this order:

1. the environment lock, as a leader takes it. Who holds it syncs, or is uv. Whoever is blocked on it would be left with
   the lock of a directory that is gone: then it stays
2. `wanted`, exclusively, if the environment was never served (`envsync.waiting.bare`): who holds it waits for it
3. the in-use lock, exclusively, without waiting: who holds it runs in it. What was lost of it counts, too
4. `stamp` → `stamp.draining`: the environment is not current any more
5. the directory is renamed to `.envsync-trash.*` beside itself: no template and no request names that
6. the trash is deleted, `.envsync` first and `.lock` last, and then the locks are let go: other clients of a network
   filesystem find what was renamed by its old name for a while (MooseFS: a second), and nobody is to enter or to lead
   in trash. Who finds nothing by that name does not wait for this

What others see. A launch that has opened the in-use lock cannot share it, or finds no stamp behind it: it "does not
know", and goes the slow way. A waiter, or a newcomer, that has opened `.lock` finds that its path does not name it any
more, or nothing, makes the directory anew, and leads there. `envsync.waiting` does all that for whoever says `rm -rf`,
who does not ask; here, it is asked first.

Killed in between: before 4 nothing has changed; before 5 the environment is whole and not current, and the next sync
makes it current again; after that it is trash, which the next `prune` or `remove` deletes. Trash belongs to whoever
owned the environment.

A filesystem that does not rename directories (docs/filesystems.md), or has no room for that: what is in it is deleted
in its place, packages first, pyvenv.cfg and our own files last. It has the mark `making` as soon as there is room for
it, so that the next leader makes a new skeleton of whatever is left. Before that, it finds what is missing of the
packages.

Not covered: commands that were started past envsync are seen on this host alone (`envsync.environments.within`).
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from envsync.environments import known
from envsync.environments.known import Known, Surroundings
from envsync.environments.size import Size, measure
from envsync.environments.template import TRASH, Template
from envsync.errors import EnvsyncError, FilesystemError
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment
from envsync.leading import lost
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.store import trash
from envsync.system import atomic, mounts, native, processes
from envsync.waiting import bare, queue

PAUSE_SECONDS = 0.05
"""Between two tries at an environment lock that somebody holds."""
CHANGED = "it was used, or made anew, meanwhile"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a rename is answered where a quota is used up, as on btrfs; to delete is allowed."""
FIRST, LAST = native.LIBRARIES[:1], ("pyvenv.cfg", ".envsync", ".lock")
"""What goes first, and last, where a directory cannot be renamed."""


class Removal(NamedTuple):
    """What became of an environment that was to be removed.

    :ivar kept: why it stays; empty: it is gone
    :ivar size: what it took, if it was removed
    :ivar left: what could not be deleted of it; empty: nothing
    """

    path: str
    digest: str
    kept: str = ""
    size: Size = Size()
    left: str = ""


class _Kept(Exception):  # noqa: N818  # not an error: it says why an environment stays
    """It is not to be removed."""


def remove(wanted: Known, surroundings: Surroundings, deadline: float) -> Removal | None:
    """Remove an environment, unless somebody needs it. Returns None if it is gone already.

    :param wanted: what was known of it when it was chosen: if it is another one by now, or was used since, it stays
    :param deadline: until when to wait for who syncs it, by time.monotonic()
    :raises FilesystemError: it cannot be renamed; then it is as it was
    """
    environment = Environment(wanted.path)
    removal = Removal(wanted.path, wanted.digest)
    try:
        if reason := wanted.stranger or known.why_kept(environment, surroundings):
            return removal._replace(kept=reason)
        size = measure(wanted.path)
        with ExitStack() as locks:
            _be_alone(environment, wanted, deadline, locks)
            aside = _set_aside(environment)
            if aside != wanted.path:
                _delete(aside)
    except _Kept as kept:
        return removal._replace(kept=str(kept))
    except FilesystemError:
        if os.path.lexists(wanted.path):
            raise
        return None  # somebody else has removed it
    except EnvsyncError as error:  # it cannot be locked from here, or a newer envsync keeps it
        return removal._replace(kept=error.message)
    remove_directories(wanted.between)
    return removal._replace(size=size, left=aside if os.path.lexists(aside) else "")


def sweep(template: Template) -> None:
    """Delete what is left of environments that were being removed, if it is ours. Nobody reads any of it."""
    for found in [*template.trash()]:
        if _is_own(found.path) and not mounts.mounted_in(found.path):
            trash.remove_tree(found.path)
    for _, between in template.parents():
        remove_directories(between)


def remove_directories(between: tuple[str, ...]) -> None:
    """Remove the directories that belong to one environment alone, if they are ours and nothing is in them any more.

    Whoever makes the environment anew just now makes them anew as well (`envsync.waiting.directory`).
    """
    for path in between:
        try:
            if not _is_own(path):
                return
            os.rmdir(path)
        except OSError:
            return  # something is in it, or somebody else was faster


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == processes.user()
    except OSError:
        return False


def _be_alone(environment: Environment, wanted: Known, deadline: float, locks: ExitStack) -> None:
    """Take all locks.

    :raises _Kept: somebody has one of them, or the environment is another one by now
    :raises EnvsyncError: one cannot be had, or somebody may run in it by one that was lost
    """
    lock = _lead(environment, deadline)
    locks.callback(lock.release)
    if flock.grants_twice(lock):
        raise _Kept("flock grants what somebody holds, so nobody can tell whether commands run in it")
    if processes.is_waited_for(environment.lock) or queue.waiting(environment):
        raise _Kept("somebody waits for it")
    if bare.is_marked(environment):
        locks.callback(_take(environment.wanted, "somebody waits for it").release)
    was_there = os.path.lexists(environment.in_use)
    if os.path.isdir(environment.state):  # else somebody was killed who removed it, or has not begun to make it
        recorded = lost.former(environment, load_ledger(environment))
        in_use = _take(environment.in_use, "")
        locks.callback(in_use.release)
        lost.check(environment, recorded, in_use.inode)
    if reason := known.why_unseen(environment):
        raise _Kept(reason)
    if stranger := known.why_stranger(environment):
        raise _Kept(stranger)
    if not lock.is_in_place() or (was_there and known.used(environment) > wanted.used):
        raise _Kept(CHANGED)


def _lead(environment: Environment, deadline: float) -> Flock:
    """Take the environment lock, as a leader does."""
    while True:
        lock = flock.acquire_nowait(environment.lock, shared=False)
        if lock is not None:
            if lock.is_in_place():
                return lock
            lock.release()
        if time.monotonic() >= deadline:
            raise _Kept(CHANGED if lock is not None else known.syncing(environment))
        time.sleep(PAUSE_SECONDS)


def _take(path: str, reason: str) -> Flock:
    """Take a lock exclusively, without waiting, and without a change of its time."""
    lock = flock.acquire_nowait(path, shared=False, renew=False)
    if lock is None:
        raise _Kept(reason or known.running(Environment(os.path.dirname(os.path.dirname(path)))))
    if not lock.is_in_place():
        lock.release()
        raise _Kept(CHANGED)
    return lock


def _set_aside(environment: Environment) -> str:
    """Take the environment out of everybody's sight. All locks are held.

    :returns: where it is now; its own path if it had to be deleted in its place
    :raises FilesystemError: it cannot be renamed, and is current again if it was
    """
    aside = f"{os.path.dirname(environment.path)}/{TRASH}{os.urandom(8).hex()}"
    was_current = _withdraw(environment)
    try:
        atomic.move(environment.path, aside)
    except OSError as error:
        if error.errno in NO_ROOM or atomic.is_refused_directory(environment.path, error):
            _empty(environment)
            return environment.path
        if was_current:
            atomic.rename_if_there(environment.draining, environment.stamp)
        raise FilesystemError("remove", environment.path, error) from error
    return aside


def _delete(aside: str) -> None:
    """Delete trash, as far as that is possible. Its locks are held, and the environment lock goes last."""
    try:
        names = set(os.listdir(aside)) - {".envsync", ".lock"}
    except OSError:
        names = set()  # somebody who sweeps was faster
    for name in (".envsync", *sorted(names)):
        trash.remove_tree(f"{aside}/{name}")
    trash.remove_tree(aside)


def _withdraw(environment: Environment) -> bool:
    """Let the environment not be current any more. Returns whether that can be taken back."""
    try:
        return atomic.rename_if_there(environment.stamp, environment.draining)
    except FilesystemError as error:
        if error.errno not in NO_ROOM:
            raise
    atomic.remove(environment.stamp)
    return False


def _empty(environment: Environment) -> None:
    """Delete an environment that cannot be renamed.

    Once `.lock` is gone others may lead in the directory, which then stays: nothing is done to it from here on.
    """
    atomic.discard(environment.draining)
    names = set(os.listdir(environment.path)) - set(LAST)
    for name in (*FIRST, *sorted(names - set(FIRST)), *LAST):
        with suppress(FilesystemError):  # there is no room for it: what goes next makes some
            if name not in LAST:
                atomic.write(environment.making, b"")
        trash.remove_tree(f"{environment.path}/{name}")
    remove_directories((environment.path,))
