"""What the tests of the coordinator are played with: gates for its threads, ears for its events, other processes.

Nothing here sleeps: tests wait until something has happened, with a limit so that a failure ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

import envsync
from envsync import events
from envsync.system import core, native
from tests.conftest import envsync_command
from tests.environments import FIXTURES, leftovers
from tests.wheels import sha256_of

LOCK = FIXTURES / "pylock.toml"
NEXT = FIXTURES / "pylock.next.toml"
SECONDS = 60
"""A limit on what takes milliseconds."""


class Gate:
    """Holds threads back wherever it is put, and counts them.

    :ivar now: how many are inside
    :ivar most: how many were, at most
    :ivar reached: how many came so far
    """

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.arrival = threading.Condition()
        self.now = self.most = self.reached = 0

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function that waits for the gate first."""

        def held(*arguments: Any, **options: Any) -> Any:
            with self.arrival:
                self.now += 1
                self.reached += 1
                self.most = max(self.most, self.now)
                self.arrival.notify_all()
            try:
                assert self.opened.wait(SECONDS / 2)
                return function(*arguments, **options)
            finally:
                self.now -= 1

        return held

    def open(self) -> None:
        self.opened.set()

    async def reach(self, count: int = 1) -> None:
        """Wait until so many have come."""

        def wait() -> bool:
            with self.arrival:
                return self.arrival.wait_for(lambda: self.reached >= count, SECONDS / 4)

        assert await to_thread.run_sync(wait)


class Ear:
    """Hears a coordinator's events. Make it in the event loop."""

    def __init__(self) -> None:
        self.heard: list[events.Event] = []
        self.threads: set[int] = set()
        self._changed = anyio.Event()

    def __call__(self, event: events.Event) -> None:
        self.heard.append(event)
        self.threads.add(threading.get_ident())
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def of(self, kind: type[events.Event], **fields: str) -> list[Any]:
        """Return the events of a kind whose fields begin so."""
        return [
            event
            for event in self.heard
            if isinstance(event, kind) and all(getattr(event, name).startswith(text) for name, text in fields.items())
        ]

    async def until(self, kind: type[events.Event], count: int = 1, **fields: str) -> Any:
        """Wait for so many of them; return the last."""
        with anyio.fail_after(SECONDS):
            while len(found := self.of(kind, **fields)) < count:
                await self._changed.wait()
        return found[-1]


class Process:
    """An envsync command in a process of its own."""

    def __init__(self, *arguments: str | os.PathLike[str], **options: Any) -> None:
        self.popen = subprocess.Popen(
            [*envsync_command(), *(os.fspath(argument) for argument in arguments)],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            text=True,
        )

    async def says(self, text: str) -> None:
        """Wait until it says something on stderr."""

        def wait() -> bool:
            assert self.popen.stderr is not None
            return any(text in line for line in self.popen.stderr)

        assert await to_thread.run_sync(wait), text

    async def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit status and what it said."""
        out, err = await to_thread.run_sync(lambda: self.popen.communicate(timeout=SECONDS))
        return self.popen.returncode, out, err


async def sync_in_thread(lock: Path, env: Path) -> envsync.SyncResult:
    """Sync without a coordinator."""
    return await to_thread.run_sync(lambda: envsync.sync(lock, env=env))


async def sync_in_task(coordinator: envsync.Coordinator, env: Path, lock: Path = LOCK) -> None:
    """Sync by a coordinator, for a task group to start."""
    await coordinator.sync(lock, env=env)


async def envsync_process(*arguments: str | os.PathLike[str], **options: Any) -> tuple[int, str, str]:
    """Run an envsync command to its end."""
    return await Process(*arguments, **options).end()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells: a file that another process makes, say."""
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.005)


async def until_shared(coordinator: envsync.Coordinator, callers: int) -> None:
    """Wait until so many callers share the one sync that goes on."""
    await until(lambda: [flight.callers for flight in coordinator._flights.values()] == [callers])


@contextlib.contextmanager
def locked(env: Path) -> Iterator[None]:
    """Hold an environment lock as another program would."""
    env.mkdir(parents=True, exist_ok=True)
    with opened(env / ".lock", os.O_RDWR | os.O_CREAT) as fd:
        core.lock(fd, str(env / ".lock"), shared=False)
        yield


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file as envsync opens what it locks."""
    fd = core.open_file(str(path), flags)
    try:
        yield fd
    finally:
        os.close(fd)


def is_free(path: Path) -> bool:
    """Ask the kernel whether a lock can be had; a lock file that is not there yet is free."""
    if not path.exists():
        return True
    with opened(path, os.O_RDWR) as fd:
        try:
            core.lock(fd, str(path), shared=False)
        except BlockingIOError:
            return False
    return True


def write_lock(path: Path, wheels: Sequence[str], *, url: str = "", sha256: str = "") -> Path:
    """Write a lock file for wheels.

    :param url: where they are served; default: taken from their paths
    :param sha256: instead of the right one
    """
    lines = ['lock-version = "1.0"', 'created-by = "tests"']
    for wheel in wheels:
        name, version = Path(wheel).name.split("-")[:2]
        place = f'url = "{url}/{Path(wheel).name}"' if url else f'path = "{Path(wheel).as_posix()}"'
        hashes = f'hashes = {{ sha256 = "{sha256 or sha256_of(wheel)}" }}'
        lines += ["[[packages]]", f'name = "{name.replace("_", "-")}"', f'version = "{version}"']
        lines += [f"wheels = [{{ {place}, {hashes} }}]"]
    path.write_text("\n".join(lines) + "\n")
    return path


def told(path: Path) -> list[str]:
    """Return the names of what ENVSYNC_EVENTS was told."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def snapshot(env: Path) -> dict[str, object]:
    """Describe all that is in an environment but for what others may have noted in `.envsync` and bytecode."""
    found: dict[str, object] = {"stamp": (env / ".envsync" / "stamp").read_bytes()}
    for directory, names, files in os.walk(env):
        names[:] = [name for name in names if name not in (".envsync", "__pycache__")]
        for name in files:
            status = (Path(directory) / name).lstat()
            found[f"{directory}/{name}"] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
    return found


def left_over(env: Path) -> list[str]:
    """Name what should have been cleared away, those who wait included; also of an environment that is not made yet."""
    if not env.exists():
        return []
    waiting = env / ".envsync" / "waiting"
    made = any((env / each).is_dir() for each in native.site_packages(str(env)))
    names = leftovers(env) if made else [path.name for path in (env / ".envsync").iterdir() if path.name != "locking"]
    return [name for name in names if name != waiting.name] + [path.name for path in waiting.glob("*")]


def our_threads() -> list[str]:
    """Name the threads, but for this one, that are somewhere in envsync's code."""
    found = []
    for ident, frame in sys._current_frames().items():
        inner: Any = frame
        while inner is not None and ident != threading.get_ident():
            if str(inner.f_globals.get("__package__")).partition(".")[0] == "envsync":
                found.append(f"{ident}: {inner.f_code.co_qualname}")
                break
            inner = inner.f_back
    return found


def descriptors() -> dict[int, str]:
    """Return what this process has open, of the descriptors that tests come to; by name, where /proc has it."""
    found = {}
    for number in range(1024):
        with contextlib.suppress(OSError):
            found[number] = str(os.fstat(number).st_ino)
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """No descriptor, no busy thread and no task is left of what happened in the block. For use in an event loop."""
    before = descriptors(), {task.id for task in anyio.get_running_tasks()}
    yield
    after = descriptors(), {task.id for task in anyio.get_running_tasks()}
    assert after == before
    assert our_threads() == []
