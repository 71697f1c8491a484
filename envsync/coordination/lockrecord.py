"""`<env>/.envsync/locking`: how an environment is locked, as its first leader has decided for all hosts.

The record is made by link(2), which fails if another one is there, or where there are no links by O_EXCL. One that was
torn by a crash of the latter kind is taken away after a while, by a rename that only one can win.

Imports what a waiter may.
"""

from __future__ import annotations

import errno
import sys
import time

if sys.platform == "win32":
    import os
else:
    import posix as os

from envsync.coordination import processes, statefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.environment import Environment

FLOCK, LEASE = "flock", "lease"
SUFFIX = ".new"
"""Of temporary files; a later leader sweeps what a dead process left."""
TORN_SECONDS = 2.0
"""After which a record without its content is one that nobody is writing any more."""
PASSING = frozenset({errno.ESTALE, errno.EEXIST})
"""What network filesystems answer for a moment."""


class Locking:
    """How an environment is locked.

    :ivar kind: FLOCK or LEASE
    :ivar in_use: shared locks work, so that one can tell whether commands run in it
    :ivar reason: what is wrong with flock here; empty if nothing is
    """

    __slots__ = ("in_use", "kind", "reason")

    def __init__(self, kind: str = FLOCK, *, in_use: bool = True, reason: str = "") -> None:
        self.kind = kind
        self.in_use = in_use
        self.reason = reason


WORKS = Locking()


def read(environment: Environment) -> Locking | None:
    """Read how an environment is locked; None if nobody has decided yet, or the record is torn.

    :raises LockingError: a newer envsync has decided in a way that this one does not know
    :raises FilesystemError: it cannot be read
    """
    data = b""
    for attempt in range(20):
        try:
            fd = os.open(environment.locking, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(fd, 1 << 16)
            finally:
                os.close(fd)
            break
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in PASSING or attempt == 19:
                from envsync.errors import FilesystemError

                raise FilesystemError("read", environment.locking, error) from error
            time.sleep(0.05)
    value = statefile.parse(data)
    kind, in_use = value.get("kind"), value.get("in_use")
    if value.get("format", statefile.FORMAT) != statefile.FORMAT or (value and kind not in (FLOCK, LEASE)):
        from envsync.errors import LockingError

        raise LockingError(
            f"environment `{environment.path}` is locked in a way that this envsync does not know",
            hint="use the newer envsync that has made it",
        )
    if not value:
        return None
    return Locking(str(kind), in_use=in_use is True, reason=statefile.text(value, "reason"))


def record(environment: Environment, found: Locking) -> Locking:
    """Record how an environment is locked, unless somebody has done so. The lock of the kind found is held.

    :returns: what is recorded now
    :raises FilesystemError: it cannot be written
    """
    from envsync.errors import FilesystemError

    data = statefile.dump(
        {"kind": found.kind, "in_use": found.in_use, "reason": found.reason, "host": processes.host()}
    )
    deadline = time.monotonic() + TORN_SECONDS
    try:
        while True:
            _create(environment.locking, data)
            recorded = read(environment)
            if recorded is not None:
                return recorded
            if time.monotonic() >= deadline:
                _take_away_torn(environment.locking)
                deadline += TORN_SECONDS
            time.sleep(0.02)
    except OSError as error:
        raise FilesystemError("write", environment.locking, error) from error


def _create(path: str, data: bytes) -> None:
    """Make a file with its content, all at once where there are links. Leaves one that is there alone."""
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    try:
        _write_new(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # somebody else has recorded
        except OSError:
            try:
                _write_new(path, data)
            except FileExistsError:
                pass  # as above
    finally:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was never made, or is swept later


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _take_away_torn(path: str) -> None:
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    try:
        os.rename(path, aside)
        fd = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            whole = statefile.parse(os.read(fd, 1 << 16))
        finally:
            os.close(fd)
        if whole:
            os.rename(aside, path)  # it was replaced by a good one just before
        else:
            os.unlink(aside)
    except FileNotFoundError:
        pass  # another one did it
