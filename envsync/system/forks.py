"""What a fork does with descriptors that are locked: a child has those of this process only if it is ours.

Imports built-in modules alone: all that lock import it.
"""

from __future__ import annotations

import _thread
import sys

from envsync.launch import command
from envsync.system import core, native

os = core.os

FORK_TRIES = 50
TRY_SECONDS = 0.02
"""How often and how long a fork waits until descriptors that are just being opened are noted: that may hang, a fork
must not. Often, for a process that was stopped meanwhile finds that the time of one try is over."""


class _Forks:
    """What happens at a fork. A signal's handler may raise at the begin of each step, so each is taken twice.

    :ivar ours: the threads whose child is ours, and is to have all locks
    :ivar guarding: the threads that fork and wait for the guard, or have it
    """

    def __init__(self) -> None:
        self.ours: set[int] = set()
        self.guarding: set[int] = set()

    def before(self) -> None:
        me = _thread.get_ident()
        if me in command.forking:
            return  # taken before
        if command.guard._is_owned():  # type: ignore[attr-defined]
            if me in self.guarding:
                return  # likewise
        else:
            self.guarding.add(me)
            for _ in range(FORK_TRIES):
                if command.guard.acquire(timeout=TRY_SECONDS):
                    return
            self.guarding.discard(me)
        command.forking.add(me)
        command.last_fork = object()

    def in_parent(self) -> None:
        me = _thread.get_ident()
        if me in command.forking:
            command.last_fork = object()
            command.forking.discard(me)
        self._release(me)

    def in_child(self) -> None:
        """Close what is held; whoever has gone by the number of a descriptor finds none any more."""
        me = _thread.get_ident()
        self._release(me)
        if not command.guard._is_owned():  # type: ignore[attr-defined]
            command.guard._at_fork_reinit()  # type: ignore[attr-defined]  # its thread is not here
        self.guarding.clear()
        command.forking.clear()
        if me in self.ours:
            return
        for fd, held in list(command.held.items()):
            if held.owner is not None:
                held.owner.fd = -1
            try:
                if os.fstat(fd).st_ino == held.inode:
                    os.close(fd)
            except OSError:
                pass  # it is closed
            command.held.pop(fd, None)

    def _release(self, me: int) -> None:
        if me in self.guarding and command.guard._is_owned():  # type: ignore[attr-defined]
            command.guard.release()
        self.guarding.discard(me)


_forks = _Forks()
if sys.platform != "win32":
    for _ in range(2):
        os.register_at_fork(before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child)


def fork() -> int:
    """Fork a child that has all the locks of this process, as long as it lives."""
    me = _thread.get_ident()
    _forks.ours.add(me)
    try:
        return native.fork()
    finally:
        _forks.ours.discard(me)
