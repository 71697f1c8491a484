"""`<env>/.envsync/locking`: how an environment is locked, as its first leader has decided for all hosts.

The record is made by link(2), which fails if another one is there, or where there are no links by O_EXCL. One that was
torn by a crash of the latter kind is taken away after a while, by a rename that only one can win. It has its beginning,
or nothing. Any other that is not what is written here is damaged, and refused: others may hold a lock by what it said,
and to decide anew could let two lead.

It has no seal (`envsync.system.records`): one that is torn has to be told from one that is damaged, and whoever is of
the version before goes by what it says, too, for as long as the environment is there.
"""

from __future__ import annotations

import errno
import time

from envsync.launch.reading import content
from envsync.system import core, processes, records

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from envsync.errors import LockingError
    from envsync.launch import Environment

FLOCK, LEASE = "flock", "lease"
SUFFIX = ".new"
"""Of temporary files; a later leader sweeps what a dead process left."""
TORN_SECONDS = 2.0
"""After which a record without its content is one that nobody is writing any more."""
FORMAT = 1
BEGINNING = b'{\n"format": '
LINES = 6
"""Of a record, before its last one."""


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

    :raises LockingError: a newer envsync has decided in a way that this one does not know, or the record is damaged
    :raises FilesystemError: it cannot be read
    """
    data = _read(environment.locking)
    if _is_torn(data):
        return None
    value = records.parse_object(data.rstrip(b"\0"))
    if records.number(value, "format") > FORMAT:
        from envsync.errors import LockingError

        raise LockingError(
            f"environment `{environment.path}` is locked in a way that this envsync does not know",
            hint="install the newer envsync that has made it: `pip install --upgrade envsync`",
        )
    locking = _understood(value)
    if locking is None:
        raise _damaged(environment)
    return locking


def _read(path: str) -> bytes:
    """Read a record; empty if there is none, or what was never one: a pipe, a socket, a device."""
    try:
        return content(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        if error.errno in (errno.ESPIPE, errno.ENXIO):
            return b""
        from envsync.errors import FilesystemError

        raise FilesystemError("read", path, error) from error


def _is_torn(data: bytes) -> bool:
    """Tell whether a record is not there, or only its beginning: it is being written, or its writer died over it.

    What a network filesystem or a lost node has not written yet may be zeros.
    """
    begun = data.rstrip(b"\0")
    ended = begun.endswith(b"}\n") or begun.count(b"\n") > LINES
    return not ended and begun[: len(BEGINNING)] == BEGINNING[: len(begun)]


def _understood(value: Mapping[str, object]) -> Locking | None:
    """Return what a record of this format says; None if that is nothing that is ever written."""
    kind, in_use, reason = value.get("kind"), value.get("in_use"), value.get("reason")
    sound = value.get("format") == FORMAT and isinstance(in_use, bool) and isinstance(reason, str)
    if not sound or kind not in (FLOCK, LEASE) or (kind == LEASE and in_use):
        return None
    return Locking(str(kind), in_use=in_use is True, reason=str(reason))


def _damaged(environment: Environment) -> LockingError:
    from shlex import quote

    from envsync.errors import LockingError

    return LockingError(
        f"cannot tell how environment `{environment.path}` is locked: its record `{environment.locking}` is damaged",
        hint=f"once nobody syncs it or runs in it, on any host: `rm {quote(environment.locking)}`; the next sync finds "
        "out anew how to lock it",
    )


def record(environment: Environment, found: Locking) -> Locking:
    """Record how an environment is locked, unless somebody has done so. The lock of the kind found is held.

    :returns: what is recorded now
    :raises FilesystemError: it cannot be written
    """
    from envsync.errors import FilesystemError

    said = {"kind": found.kind, "in_use": found.in_use, "reason": found.reason, "host": processes.host()}
    data = records.dump_object({"format": FORMAT, **said})
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
    fd = core.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _take_away_torn(path: str) -> None:
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}"
    try:
        os.replace(path, aside)
        if _is_torn(_read(aside)):
            os.unlink(aside)
        else:
            os.replace(aside, path)  # it was replaced by a whole one just before
    except FileNotFoundError:
        pass  # another one did it
