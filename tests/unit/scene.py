"""What the tests of coordination are played with: a clock, an environment that nobody made, requests and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envsync.launch import Environment, stamp
from envsync.launch.fast_lane import Entry
from envsync.launch.progress import Report, quiet
from envsync.launch.request import Request, describe_python
from envsync.launch.stamp import Stamp, checksum
from envsync.leading.held import Held
from envsync.leading.in_use import Occupancy
from envsync.leading.progress_file import ProgressFile
from envsync.leading.session import Limit, Session
from envsync.locks import kind
from envsync.locks.flock import Flock
from envsync.python.facts import Layout
from envsync.system import atomic
from envsync.transaction import stamping

ROOT = Path(__file__).parent.parent.parent
SITE = "lib/python3.11/site-packages"
LAYOUT = Layout(SITE, SITE, "bin", "include/site/python3.11")
START = 1_000_000.0
"""What the clock says when a test begins."""
LIVENESS_SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""


class Clock:
    """Time that passes by sleeping alone, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = START
        self.naps: list[float] = []
        self.events: list[tuple[float, Callable[[], object]]] = []

    @property
    def passed(self) -> float:
        return self.now - START

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        assert len(self.naps) < 10_000, "it waits for ever"
        self.naps.append(seconds)
        self.now += max(seconds, 1e-4)
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen while somebody sleeps."""
        self.events.append((self.now + seconds, event))
        self.events.sort(key=lambda item: item[0])


def make_environment(path: Path) -> Environment:
    """Make what looks like an environment and is current for nothing yet."""
    for below in (SITE, "bin", ".envsync"):
        (path / below).mkdir(parents=True)
    (path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (path / ".envsync" / "in-use").touch()
    return Environment(str(path))


def make_request(tmp_path: Path, content: bytes = b"lock", **settings: object) -> Request:
    path = tmp_path / "pylock.toml"
    path.write_bytes(content)
    return Request(dict(settings), str(path), checksum(content), str(tmp_path / "env"))


def write_stamp(environment: Environment, request: Request, *, racy: bool = False) -> None:
    """Make the environment current for a request."""
    vouched = Stamp()
    vouched.environment = environment.path
    vouched.python = describe_python("cpython", "3.11")
    vouched.digest = request.digest(vouched.python)
    stamping.observe(vouched, environment, LAYOUT, os.stat(environment.in_use).st_ino)
    stamping.write(vouched, environment)
    if racy:
        vouched.racy = True
        atomic.write(environment.stamp, stamp.dump(vouched))


def write_progress(environment: Environment, **said: object) -> None:
    """Say something as a leader would; by default one on another host, for ten seconds by the clock of the tests."""
    value = {"host": "n7", "pid": 4711, "since": START - 10, **said}
    atomic.write(environment.progress, json.dumps(value).encode())


def names_of_waiters(environment: Environment) -> list[str]:
    """Return the files in the list of those who wait."""
    try:
        return sorted(os.listdir(environment.waiting))
    except FileNotFoundError:
        return []


def leave(held: Flock | Entry) -> None:
    if isinstance(held, Entry):
        os.close(held.fd)
    else:
        held.release()


def descriptors() -> list[int]:
    """Return this process's open descriptors, of those that tests come to."""
    return [number for number in range(1024) if _is_open(number)]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class Helper:
    """A process that runs a few lines of Python with envsync importable, says lines, and is told lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def helper(code: str, *arguments: str) -> Iterator[Helper]:
    """Start a helper. Its standard input ends, and it is killed, with the block."""
    words = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Helper(process)
        finally:
            process.kill()


HOLD = """\
import fcntl, os
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, (fcntl.LOCK_SH if sys.argv[2:] == ["shared"] else fcntl.LOCK_EX) | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
"""A helper that holds a lock, as any program may."""
if sys.platform == "win32":
    HOLD = """\
from envsync.locks import flock
assert flock.acquire_nowait(sys.argv[1], shared=sys.argv[2:] == ["shared"], renew=False)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: str, *kind: str) -> Iterator[Helper]:
    """Start a process that holds a lock."""
    with helper(HOLD, path, *kind) as process:
        assert process.hear() == "held"
        yield process


def occupancy(environment: Environment, request: Request, began: float = 0.0, report: Report = quiet) -> Occupancy:
    """Make the hold of who leads in an environment, whose lock nobody else takes meanwhile."""
    limit = Limit(request.timeout, None if request.timeout is None else began + request.timeout)
    progress = ProgressFile(environment, request.key, report, limit=limit)
    held = Held(environment, Flock(environment.lock, -1, shared=False), progress, kind.WORKS)
    return Occupancy(held, Session(request, environment, report, limit=limit))
