"""Try flock(2) between this process and others that are started for it.

Two descriptors of one process would tell the same on most filesystems; where locks are kept by process or by client,
only another process tells the truth.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from envsync.doctor.facts import LockFacts
from envsync.doctor.names import attempt, error_name
from envsync.errors import EnvsyncError
from envsync.locks import flock
from envsync.system import core, native

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(core.__file__)))
_ASK = """\
import sys
sys.path.append(sys.argv[3])
from envsync.system import core
shared = sys.argv[2] == "shared"
fd = core.open_file(sys.argv[1], core.os.O_RDONLY if shared else core.os.O_RDWR)
try:
    core.lock(fd, sys.argv[1], shared=shared)
except OSError:
    sys.exit(3)
"""
_KEEP = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
"""Does nothing until it is told to end: what it inherited stays open."""


def examine(directory: str, local: str) -> LockFacts:
    """Try all that envsync relies on, with a file of its own in a directory.

    :param local: why it is known that flock stays within this node, if it is
    """
    path = f"{directory}/lock"
    with open(path, "w", encoding="ascii"):
        pass
    exclusive, shared = attempt(take, path, False), attempt(take, path, True)
    excludes = keeps_out = together = shared_excludes = inherited = freed = None
    if not exclusive:
        with _held(path, shared=False):
            excludes = not _gets(path, "exclusive")
            keeps_out = not _gets(path, "shared") if not shared else None
        if excludes:
            inherited, freed = _over_exec(path)
    if not shared:
        with _held(path, shared=True):
            together = _gets(path, "shared")
            shared_excludes = not _gets(path, "exclusive") if not exclusive else None
    return LockFacts(exclusive, excludes, shared, together, shared_excludes, keeps_out, inherited, freed, local)


def take(path: str, shared: bool) -> None:
    """Take a lock as a sync does, and let it go.

    :raises OSError: it cannot be had
    """
    with _held(path, shared=shared):
        pass


@contextmanager
def _held(path: str, *, shared: bool) -> Iterator[None]:
    try:
        lock = flock.acquire_nowait(path, shared=shared)
    except EnvsyncError as error:
        raise error.__cause__ or error from None
    if lock is None:
        raise BlockingIOError(errno.EWOULDBLOCK, "somebody has it", path)
    try:
        yield
    finally:
        lock.release()


def _gets(path: str, how: str) -> bool:
    """Tell whether another process gets the lock now."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ASK, path, how, _OURS], check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode == 0


def _over_exec(path: str) -> tuple[bool | None, bool | None]:
    """Start a program with the descriptor of a lock, let go, and look whether it is held; kill it, and look again."""
    fd = core.open_file(path, os.O_RDWR)
    try:
        core.lock(fd, path, shared=False)
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _KEEP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **native.inherit([fd]),
        )
    except OSError as error:
        if not error_name(error):
            raise
        return None, None
    finally:
        os.close(fd)
    with keeper:
        assert keeper.stdout is not None
        keeper.stdout.read(1)
        inherited = not _gets(path, "exclusive")
        keeper.kill()
    return inherited, _gets(path, "exclusive")
