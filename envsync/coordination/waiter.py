"""Lead or wait: how a process that found the environment not current goes on.

Whoever gets the environment lock without waiting is the leader. Everybody else is a waiter and follows the stamp:
as soon as it fits, the waiter enters, all waiters at once, none of them ever holding the exclusive lock. A waiter
tries that lock only now and then, to succeed a leader that died; the kernel frees a dead leader's lock. If the
leader fails, it leaves `failure.json`, and whoever waited for the same request fails with the same words: what
failed there was tried once, not once a waiter.

Nothing here imports more than the fast lane does, since fifty waiters start at once on two cores; reports of
progress and failures are parsed only when there is one to show.

Polling is the only thing that works on every filesystem: flock(2) cannot wait with a time limit, is not fair, and
would wake the waiters one after another; inotify(7) does not see what other clients of a network filesystem do.
"""

from __future__ import annotations

import os
import time

from envsync import fastlane
from envsync.coordination import flock
from envsync.coordination.messages import say
from envsync.errors import (
    EnvironmentRefusedError,
    FilesystemError,
    RefusedError,
    SharedFailureError,
    WaitTimeoutError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.coordination.flock import Flock
    from envsync.environment import Environment
    from envsync.fastlane import Entry
    from envsync.request import Request

POLL_SECONDS = 0.05
LOCK_SECONDS = 0.4
"""How often a waiter tries the environment lock."""
FIRST_LINE_SECONDS = 0.7
LINE_SECONDS = 60.0
OUR_OWN = frozenset({".lock", ".envsync", ".gitignore", "CACHEDIR.TAG"})


def lead_or_wait(request: Request, environment: Environment) -> Flock | Entry:
    """Take the environment lock, or wait until somebody else has made the environment current.

    Makes the environment's directory and `.envsync` in it if they are missing, nothing else. Can be interrupted
    at any time; then nothing is held.

    :returns: the held environment lock: we lead; or a shared hold on the current environment
    :raises EnvironmentRefusedError: the directory is not one that envsync may fill
    :raises WaitTimeoutError: `--timeout` is over
    :raises RefusedError: waiting would be for ourselves
    :raises SharedFailureError: the process that synced for us failed
    """
    prepare(environment)
    lock = flock.acquire_nowait(environment.lock, shared=False)
    if lock is not None:
        return lock
    if is_inside(environment):
        raise RefusedError(
            f"environment `{environment.path}` is being changed for others, and this command runs within it: "
            "waiting would be for itself",
            hint="give each its own environment: --env '.venvs/{digest}'",
        )
    return _wait(request, environment)


def prepare(environment: Environment) -> None:
    """Make the environment's directory and `.envsync` in it.

    :raises EnvironmentRefusedError: something that is not an environment is in the way
    :raises FilesystemError: it cannot be made
    """
    if not os.path.isdir(environment.state):
        try:
            names = set(os.listdir(environment.path))
        except FileNotFoundError:
            names = set()
        except NotADirectoryError:
            raise EnvironmentRefusedError(environment.path, "it is not a directory") from None
        except OSError as error:
            raise FilesystemError("read", environment.path, error) from error
        if ":" in environment.path:
            raise EnvironmentRefusedError(environment.path, "its path has a `:`, which PATH cannot hold")
        if names - OUR_OWN and "pyvenv.cfg" not in names and not was_environment(environment):
            raise EnvironmentRefusedError(
                environment.path,
                "the directory is not empty and not a virtual environment",
                hint="choose another directory with --env DIR",
            )
        try:
            os.makedirs(environment.state, exist_ok=True)
        except OSError as error:
            raise FilesystemError("make directory", environment.state, error) from error


def was_environment(environment: Environment) -> bool:
    """Tell whether a directory without pyvenv.cfg has been a virtual environment: its python leads out of it.

    That of a base installation, and of conda, does not. Those are never touched.
    """
    python = environment.python
    inside = os.path.realpath(environment.path) + "/"
    return os.path.islink(python) and not os.path.realpath(python).startswith(inside)


def is_inside(environment: Environment) -> bool:
    """Tell whether this process descends from a command that runs in this environment: it would wait for itself.

    The variable that `run` sets is not enough: it outlives the command in whatever inherits the variables only (a
    batch job, a terminal multiplexer). Either the descriptor of the in-use lock is inherited, or a process that
    locked it is an ancestor.
    """
    token = os.environ.get("ENVSYNC_IN", "").partition(":")[0]
    try:
        in_use = os.stat(environment.in_use)
    except OSError:
        return False
    if token != str(in_use.st_ino):
        return False
    for fd in range(3, 256):
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == (in_use.st_dev, in_use.st_ino):
            return True
    return not _ancestors().isdisjoint(_holders(in_use))


def _holders(in_use: os.stat_result) -> set[int]:
    """Return who locked a file, by /proc/locks (proc(5)); empty where there is none."""
    device = f"{os.major(in_use.st_dev):02x}:{os.minor(in_use.st_dev):02x}:{in_use.st_ino}"
    holders = set()
    for fields in map(str.split, _lines("/proc/locks")):
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == device:
            holders.add(int(fields[4]))
    return holders


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        parents = [line.split()[1] for line in _lines(f"/proc/{pid}/status") if line.startswith("PPid:")]
        pid = int(parents[0]) if parents else 0
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _wait(request: Request, environment: Environment) -> Flock | Entry:
    began = time.monotonic()
    deadline = None if request.timeout is None else began + request.timeout
    failure = _identity(environment.failure)
    next_line = began + FIRST_LINE_SECONDS
    next_try = began + LOCK_SECONDS
    while True:
        # Looking for the stamp first keeps waiters off the in-use lock, which the leader wants for itself.
        if os.path.exists(environment.stamp):
            entry = fastlane.enter(request, environment, accept_racy=True)
            if entry is not None:
                return entry
        latest = _identity(environment.failure)
        if latest != failure:
            _share_failure(request, environment)
            failure = latest
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise WaitTimeoutError(
                f"gave up after {request.timeout:g} s: {describe_holder(environment)}",
                hint="allow more with --timeout SECONDS",
            )
        if now >= next_try:
            next_try = now + LOCK_SECONDS
            lock = flock.acquire_nowait(environment.lock, shared=False)
            if lock is not None:
                if _identity(environment.failure) != failure:
                    lock.release()
                    continue
                return lock
        if now >= next_line:
            next_line = now + LINE_SECONDS
            if not request.flag("quiet"):
                say(describe_holder(environment))
        time.sleep(POLL_SECONDS if deadline is None else max(0.0, min(POLL_SECONDS, deadline - now)))


def _identity(path: str) -> tuple[int, int]:
    """Return what changes whenever a state file is replaced; zeros if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _share_failure(request: Request, environment: Environment) -> None:
    value = read_state(environment.failure)
    if value.get("key") != request.key:
        return
    hint = value.get("hint")
    error = SharedFailureError(
        f"{value.get('message')} (the sync by pid {value.get('pid')} on {value.get('host')}, which this process "
        "waited for)",
        hint=str(hint) if hint else None,
    )
    error.exit_code = int(_number(value.get("exit_code"), 125))
    raise error


def read_state(path: str) -> dict[str, object]:
    """Read a state file that others replace by renaming; empty if there is none or it is damaged."""
    import json

    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object, default: float) -> float:
    return value if isinstance(value, (int, float)) else default


def describe_holder(environment: Environment) -> str:
    """Say for whom this process waits: pid, host, since when, what it is doing and how far it is."""
    value = read_state(environment.progress)
    if not value:
        return f"waiting for whoever holds the environment lock `{environment.lock}` (uv, pip or another tool)"
    now = time.time()
    seconds = max(0.0, now - _number(value.get("since"), now))
    text = f"waiting for pid {value.get('pid')} on {value.get('host')}, syncing for {seconds:.0f} s"
    phase = value.get("phase")
    if phase:
        text += f": {phase}"
        if value.get("total"):
            text += f" {value.get('done')} of {value.get('total')}"
    return text
