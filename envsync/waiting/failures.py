"""`failure.json`: which attempts at a sync came to nothing, so that nobody who waited for one repeats it in vain.

Each entry is for one request (its `key`) and says who failed, when and how. What it means for others is its kind:

- `fatal`: it would fail for everybody (a wrong hash, no wheel that fits, bad input, a full disk). Whoever waited for
  that attempt fails at once, with the same words and the same exit status.
- `passing`: it may succeed for the next (the network, or limits of one process). A waiter tries again, until
  `PASSING_TIMES` attempts have failed.
- `interrupted`: a signal ended the leader (Ctrl-C, scancel), and it could still say so. That says nothing about the
  next: whoever waited takes over, and says from whom.
- `died`: a leader that ended without a word, written down by whoever took over. After `DEAD_LEADERS` of them, it is
  the sync that kills its leaders: the rest fail, and name them.

An attempt concerns those whose wait or process began before it ended, and nobody else: who starts later tries afresh.
A waiter knows the ids that were there when its wait began. A process that comes late to the lock, though it was
started before the failure, compares times, by the clock since boot and only if both saw the same boot of one kernel:
clocks are never compared across hosts.

An entry is dropped when a sync for the same request succeeds, and when it is too old to concern anybody. What a newer
envsync has written is left alone for as long: those who wait for it find it, and those who wait for us find out for
themselves.
"""

from __future__ import annotations

import time

from envsync.system import core, processes, records

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from envsync.errors import EnvsyncError
    from envsync.launch import Environment

    Failure = Mapping[str, object]

FATAL, PASSING, INTERRUPTED, DIED = "fatal", "passing", "interrupted", "died"
PASSING_TIMES = 3
DEAD_LEADERS = 3
KEPT_SECONDS = 3600.0
KEPT = 32
EXEC_SECONDS = 10.0
"""A process that is older than this when envsync starts in it was something else before (`exec envsync run`)."""

TICK_SECONDS = 0.01
"""In which the kernel counts when a process was started (proc(5), USER_HZ)."""


class Arrival:
    """When a process began to want an environment, and which failures were known by then.

    :param whole_process: the process was started for this, so its own start counts
    """

    __slots__ = ("began", "known", "seen", "when", "whole_process")

    def __init__(self, *, whole_process: bool) -> None:
        self.when = processes.clock()
        self.began = time.monotonic()
        self.whole_process = whole_process
        self.seen = (0, 0)
        self.known: frozenset[str] = frozenset()

    def look(self, environment: Environment) -> None:
        """Note what is known when the wait begins."""
        self.seen = identity(environment.failure)
        if self.seen != (0, 0):
            self.known = frozenset(_id(failure) for failure in load(environment))

    def sees_anew(self, latest: tuple[int, int]) -> bool:
        """Take note of the file's identity. False: it is what was seen last."""
        before, self.seen = self.seen, latest
        return latest != before

    def concerns(self, failure: Failure, boot: str) -> bool:
        """Tell whether an attempt ended after we began to want what it was for."""
        if _id(failure) not in self.known:
            return True
        when = failure.get("boottime")
        return bool(boot) and failure.get("boot") == boot and isinstance(when, float) and when > self._began()

    def _began(self) -> float:
        if not self.whole_process:
            return self.when
        # The kernel rounds down: who is started just after a failure must not seem to have been there before.
        started = min(processes.started() + TICK_SECONDS, self.when)
        return started if self.when - started < EXEC_SECONDS else self.when


def identity(path: str) -> tuple[int, int]:
    """Return what changes whenever a state file is replaced; zeros if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def load(environment: Environment) -> list[Failure]:
    """Return the failures, the latest last; none if the file is missing or damaged."""
    failures = records.load(environment.failure).get("failures")
    return [failure for failure in failures if isinstance(failure, dict)] if isinstance(failures, list) else []


def check(environment: Environment, key: str, arrival: Arrival, *, leading: bool) -> None:
    """Raise what others failed with, if it is ours, too.

    :param leading: we are about to lead
    :raises SharedFailureError: the attempt that we waited for failed, or passing failures were too many
    :raises DeadLeadersError: we are about to lead, and the leaders before us died one after the other
    """
    latest = identity(environment.failure)
    is_new = arrival.sees_anew(latest)
    if latest == (0, 0) or not (is_new or leading):
        return
    boot = processes.boot()
    ours = [each for each in load(environment) if each.get("key") == key and arrival.concerns(each, boot)]
    for failure in ours:
        if failure.get("kind") == FATAL:
            raise _shared(failure)
    passing = [failure for failure in ours if failure.get("kind") == PASSING]
    if len(passing) >= PASSING_TIMES:
        raise _shared(passing[-1], times=len(passing))
    dead = [failure for failure in ours if failure.get("kind") == DIED]
    if leading and len(dead) >= DEAD_LEADERS:
        raise _dead(environment, dead)


def _shared(failure: Failure, *, times: int = 1) -> EnvsyncError:
    from envsync.errors import SharedFailureError

    message, hint = failure.get("message"), failure.get("hint")
    exit_code = failure.get("exit_code")
    tried = f"; it was tried {times} times" if times > 1 else ""
    error = SharedFailureError(
        f"{message} (the sync by pid {failure.get('pid')} on {failure.get('host')}, which this process waited for"
        f"{tried})",
        hint=str(hint) if hint else None,
    )
    who = f"pid {failure.get('pid')} on {failure.get('host')}"
    error.original = records.text(failure, "error")
    error.retryable = failure.get("retryable") is True
    error.brief = (
        f"the sync by {who} failed (failure {_id(failure)[:8]}): another task of this step on this node says how"
    )
    if isinstance(exit_code, int) and 1 < exit_code < 256:  # 0 would be a success, and 1 the command's own
        error.exit_code = exit_code
    return error


def _dead(environment: Environment, dead: Iterable[Failure]) -> EnvsyncError:
    from envsync.errors import DeadLeadersError

    return DeadLeadersError(environment.path, tuple(f"pid {each.get('pid')} on {each.get('host')}" for each in dead))


def _id(failure: Failure) -> str:
    return str(failure.get("id"))


def is_passing(error: EnvsyncError) -> bool:
    """Tell whether the same attempt may succeed for another process: on the network, or within other limits."""
    import errno

    from envsync.errors import FetchError, FilesystemError

    own = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE)
    return isinstance(error, FetchError) or (isinstance(error, FilesystemError) and error.errno in own)


def tell(environment: Environment, key: str, error: EnvsyncError, *, digest: str = "", passes: bool = False) -> None:
    """Leave word of an error for those who wait for the same. The caller holds the environment lock.

    :param passes: it is known to be one that may not meet the next
    """
    details = {
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
        "error": getattr(error, "original", "") or type(error).__name__,
        "retryable": error.retryable,
        "digest": digest,
        "host": processes.host(),
        "pid": os.getpid(),
    }
    record(environment, key, PASSING if passes or is_passing(error) else FATAL, details)


def tell_interruption(environment: Environment, key: str, phase: str) -> None:
    """Leave word that a signal has ended the leader. The caller holds the environment lock."""
    record(environment, key, INTERRUPTED, {"host": processes.host(), "pid": os.getpid(), "phase": phase})


def interrupted(environment: Environment, key: str, arrival: Arrival) -> dict[str, object]:
    """Return what the leader said that we waited for, if it was the last one and was interrupted; else nothing."""
    if identity(environment.failure) == (0, 0):
        return {}
    ours = [each for each in load(environment) if each.get("key") == key]
    if ours and ours[-1].get("kind") == INTERRUPTED and arrival.concerns(ours[-1], processes.boot()):
        return dict(ours[-1])
    return {}


def record(environment: Environment, key: str, kind: str, details: Mapping[str, object]) -> None:
    """Add one failure. The caller holds the environment lock. Never fails: then every waiter finds out for itself.

    :param details: at least who it was: `host` and `pid`; with an `id`, a failure that is known already is not added
        once more
    """
    entry = {
        "id": details.get("id") or os.urandom(8).hex(),
        "key": key,
        "kind": kind,
        "time": time.time(),
        "boot": processes.boot(),
        "boottime": processes.clock(),
        **{name: value for name, value in details.items() if name != "id"},
    }
    others = [failure for failure in load(environment) if _id(failure) != entry["id"]]
    _store(environment, [*others, entry])


def forgive(environment: Environment, key: str) -> None:
    """Forget the failures of a request, now that it succeeded. The caller holds the environment lock."""
    if identity(environment.failure) != (0, 0):
        _store(environment, [failure for failure in load(environment) if failure.get("key") != key])


def _store(environment: Environment, failures: list[Failure]) -> None:
    from envsync.errors import FilesystemError
    from envsync.system import atomic

    now = time.time()
    if abs(now - identity(environment.failure)[1] / 1e9) < KEPT_SECONDS and records.is_newer(environment.failure):
        return
    kept = [each for each in failures if isinstance(t := each.get("time"), float) and abs(now - t) < KEPT_SECONDS]
    if not kept:
        atomic.discard(environment.failure)
        return
    try:
        atomic.write(environment.failure, records.dump({"failures": kept[-KEPT:]}))
    except FilesystemError:
        pass  # a full disk, say: then every waiter finds out for itself


def fate(said: Mapping[str, object]) -> str:
    """Say what became of one who leads no more: it has ended, unless only its lease has run out.

    :param said: what it said of itself last
    """
    pid, is_here = int(records.number(said, "pid")), records.text(said, "place") == processes.here() != ""
    if is_here and processes.is_stopped(pid):
        return "was stopped"
    if records.text(said, "token") and not (is_here and not processes.is_alive(pid)):
        return "was not heard of any more"
    return "ended"


def bury(environment: Environment) -> dict[str, object]:
    """Write down the death of a leader that left its progress behind. The caller holds the environment lock.

    :returns: what that leader last said; empty if there was none
    """
    if identity(environment.progress) == (0, 0):
        return {}
    said = records.load(environment.progress)
    if "pid" not in said:
        return {}
    of_interest = ("id", "host", "pid", "command", "phase", "since")
    # With its id: whoever buries it may die, too, before the progress is gone.
    known: dict[str, object] = {name: said[name] for name in of_interest if name in said}
    known["fate"] = said["fate"] = fate(said)
    record(environment, records.text(said, "key"), DIED, known)
    try:
        os.unlink(environment.progress)
    except OSError:
        pass  # the next progress replaces it
    return said
