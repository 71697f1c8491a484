"""Strike a command at its N-th change of a filesystem: kill it, send it a signal, or let the change fail.

The command runs in a forked child, where an audit hook counts every change before it is made: create, open for writing,
rename, link, symlink, mkdir, remove, rmdir, truncate, chmod, chown, utime; in the environment, the cache and anywhere
else. The count is kept in a pipe: a byte for each change, and the N-th says that it is due. So it goes over all
processes that the command forks, and whatever runs in threads.

A strike comes before the change, or right after it: then a file that was just created is empty, for instance. Strikes
within downloads (`DOWNLOADING`) count what their threads do instead: each wait for the network, and each write of
what has come.

What the hook does not see are write, fsync, close and copy_file_range, which raise no audit events, and what is changed
by children that are not Python or exec another program: for those there is the lab's killer (test_from_outside.py).
"""

from __future__ import annotations

import builtins
import errno
import gc
import io
import json
import os
import posix
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from httpcore2._backends.sync import SyncStream

from envsync.__main__ import main
from envsync.system import native

CHANGES = frozenset(
    {
        "os.rename",
        "os.link",
        "os.symlink",
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.truncate",
        "os.chmod",
        "os.chown",
        "os.utime",
    }
)
REMOVALS = frozenset({"os.remove", "os.rmdir"})
TAKE_SPACE = frozenset({"open", "os.mkdir", "os.link", "os.symlink"})
"""Changes that need space on the disk; a full one lets the others pass."""
CALLS = (
    *("open", "rename", "replace", "link", "symlink", "mkdir", "remove", "unlink", "rmdir"),
    *("truncate", "ftruncate", "chmod", "fchmod", "chown", "fchown", "utime"),
)
DECIDES = "/.envsync/journal"
FETCH_THREAD = "envsync fetch"
"""The threads that download (`envsync.fetching.crew`)."""
SECONDS = 30
"""After which a command that was struck is taken to hang."""
PIPE_BYTES = 60_000


class Kind(NamedTuple):
    """A kind of strike."""

    name: str
    signal: int = 0
    errno: int = 0
    after: bool = False
    """The change happens, and the signal comes before anything else does."""
    alone: bool = False
    """It hits the one process that makes the change, not all that the command has started."""
    lasting: frozenset[str] | None = None
    """Changes that keep failing from then on; None: the next one goes well again."""
    within: bool = False
    """What is counted and struck are the waits and writes of downloads, not the changes."""


KILL = Kind("SIGKILL", signal.SIGKILL)
KILLS = (KILL, Kind("SIGKILL after", signal.SIGKILL, after=True))
KILL_ONE = Kind("SIGKILL one", signal.SIGKILL, alone=True)
SIGNALS = tuple(
    Kind(f"{number.name} {'after' if after else 'before'}", number, after=after)
    for after in (False, True)
    for number in (signal.SIGTERM, signal.SIGINT)
)
DOWNLOADING = tuple(
    Kind(f"{number.name} in a download, {'after' if after else 'before'}", number, after=after, within=True)
    for after in (False, True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)
ERRORS = tuple(
    Kind(errno.errorcode[number], errno=number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EMFILE, errno.EROFS)
)
LASTING = (
    Kind("disk stays full", errno=errno.ENOSPC, lasting=TAKE_SPACE),
    Kind("turns read-only", errno=errno.EROFS, lasting=CHANGES | {"open"}),
)


class Change(NamedTuple):
    """A change that was struck: the audit event and its paths."""

    event: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.event} {' '.join(self.paths)}".rstrip()


class Blow(NamedTuple):
    """What became of a command."""

    status: int
    """As waitpid(2) has it."""
    struck: tuple[Change, ...]
    """More than one if an error lasts. Empty: it made fewer changes than that."""
    decided: bool
    """The journal was renamed into place."""
    said: str
    """Its stdout and stderr."""
    held: tuple[str, ...]
    """Locks that it still held when it was done; unknown if it was killed."""
    changes: int
    """How many changes it made, the one that was struck included."""


Striker = Callable[[Sequence[str], int, Kind], Blow]


def strike(arguments: Sequence[str], nth: int, kind: Kind) -> Blow:
    """Run a command line in a child, and strike at its N-th change.

    :param nth: counted from 1; 0 does not strike at all
    """
    tokens, filling = os.pipe()
    data = b"." * (nth - 1 if nth else PIPE_BYTES)
    if nth:
        data += b"X" * (PIPE_BYTES if kind.lasting else 1)
    os.set_blocking(filling, False)  # never more than it holds
    given = os.write(filling, data[:PIPE_BYTES])
    os.close(filling)
    reading, telling = os.pipe()
    said = os.memfd_create("said")
    pid = os.fork()
    if not pid:
        os.close(reading)
        _be_struck(arguments, tokens, telling, said, kind)
    os.close(telling)
    status = os.waitpid(pid, 0)[1]
    told = _read_all(reading)  # to the end of all that it has started
    left = len(_read_all(tokens))
    text = os.pread(said, 1 << 20, 0).decode(errors="replace")
    os.close(said)
    lines = [json.loads(line) for line in told.splitlines()]
    struck = tuple(Change(line[1], tuple(line[2])) for line in lines if line[0] == "struck")
    held = next((tuple(line[1]) for line in lines if line[0] == "held"), ())
    return Blow(status, struck, ["decided"] in lines, text, held, given - left)


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def _be_struck(arguments: Sequence[str], tokens: int, telling: int, said: int, kind: Kind) -> NoReturn:
    status = 70
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
        signal.alarm(SECONDS)
        gc.disable()  # as the command line does
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        sys.dont_write_bytecode = True
        Hook(tokens, telling, kind).arm()
        try:
            status = main(arguments)
        except Exception:  # noqa: BLE001  # as the interpreter would show it
            traceback.print_exc()
        _tell(telling, "held", _held())
    finally:
        os._exit(status)


def _tell(telling: int, *what: object) -> None:
    os.write(telling, json.dumps(what).encode() + b"\n")


def _held() -> list[str]:
    """Name the locks that this process still has open: once a command has failed, there should be none."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if path.endswith(("/.lock", "/.envsync/in-use", "/.envsync/leading", "/.envsync-build/lock")) or (
            "/v1/locks/" in path
        ):
            found.append(path)
    return found


class Hook:
    """The audit hook of a child that is to be struck."""

    def __init__(self, tokens: int, telling: int, kind: Kind) -> None:
        self.tokens = tokens
        self.telling = telling
        self.kind = kind
        self.pid = os.getpid()
        self.due = False

    def arm(self) -> None:
        """Begin to count. There is no way back."""
        if self.kind.within:
            self._arm_downloads()
        elif self.kind.after:
            for module in (os, posix, native):
                for name in CALLS:
                    if hasattr(module, name):
                        setattr(module, name, self._struck_after(getattr(module, name)))
            builtins.open = io.open = self._struck_after(open)
        sys.addaudithook(self._audit)

    def _arm_downloads(self) -> None:
        os.write = self._struck_in_download("write", os.write)
        SyncStream.read = self._struck_in_download("wait", SyncStream.read)  # type: ignore[method-assign]

    def _struck_in_download(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*args: Any, **options: Any) -> Any:
            if not threading.current_thread().name.startswith(FETCH_THREAD):
                return call(*args, **options)
            due = os.read(self.tokens, 1) == b"X"
            if due:
                _tell(self.telling, "struck", name, ())
            if due and not self.kind.after:
                self._strike()
            try:
                return call(*args, **options)
            finally:
                if due and self.kind.after:
                    self._strike()

        return struck

    def _struck_after(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*args: Any, **options: Any) -> Any:
            try:
                return call(*args, **options)
            finally:
                if self.due:
                    self.due = False
                    self._strike()

        return struck

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and writes(args)):
            return
        due = not self.kind.within and os.read(self.tokens, 1) == b"X"
        named = args[:1] if event == "open" else args[:2]
        change = Change(event, tuple(os.fsdecode(arg) for arg in named if isinstance(arg, str | bytes)))
        if due and self.kind.lasting is not None and event not in self.kind.lasting:
            due = False
        if event == "os.rename" and change.paths[-1].endswith(DECIDES) and (not due or self.kind.after):
            _tell(self.telling, "decided")
        if not due:
            return
        _tell(self.telling, "struck", *change)
        if self.kind.errno:
            raise OSError(self.kind.errno, os.strerror(self.kind.errno), *_named(event, args))
        if self.kind.after:
            self.due = True
        else:
            self._strike()

    def _strike(self) -> None:
        if self.kind.alone:
            os.kill(os.getpid(), self.kind.signal)
        else:
            os.killpg(self.pid, self.kind.signal)


def writes(args: tuple[Any, ...]) -> bool:
    """Tell whether an `open` is for writing, to anything but a terminal and the like."""
    path, _, flags = args[:3]
    if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        return False
    return path not in (os.devnull, "/dev/tty")


def _named(event: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what the error of a system call names: one path, or two, or none where a descriptor was given."""
    if event in ("os.rename", "os.link", "os.symlink"):
        return (args[0], None, args[1])
    return args[:1] if isinstance(args[0], str | bytes) else ()
