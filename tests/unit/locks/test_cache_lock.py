"""The cache lock: cleaners and syncs take turns, between real processes and with shortened times."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from envsync.errors import EnvsyncError, FilesystemError, LockingError, WaitTimeoutError
from envsync.locks import cache_lock, flock
from envsync.locks.cache_lock import exclude, share
from envsync.store.store import Store
from envsync.system import mounts
from tests import needs

ROOT = Path(__file__).parent.parent.parent.parent
START = f"""\
import fcntl, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
import envsync.errors
from envsync.store.store import Store
from envsync.locks import cache_lock
root, cache_lock.CLOSED_SECONDS, cache_lock.POLL_SECONDS = sys.argv[1], 0.5, 0.01
def say(text):
    print(text, flush=True)
"""
HOLD = """\
lock = cache_lock.share(root, lambda what: None)
say("held")
sys.stdin.read()
"""
OVERLAP = """\
while True:
    lock = cache_lock.share(root, lambda what: None)
    say("held")
    time.sleep(0.2)
    following = cache_lock.share(root, lambda what: None) if int(sys.argv[2]) else None
    lock.release()
"""
CLEAN = """\
with cache_lock.exclude(root, say):
    say("alone")
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    path = str(tmp_path / "cache")
    Store(path).prepare()
    return path


@contextmanager
def process(script: str, root: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script until the block ends."""
    words = [sys.executable, "-c", START + script, root, *arguments]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def until(started: subprocess.Popen[str], text: str) -> None:
    """Read until a process says something."""
    while (said := line(started)) != text:
        assert said, f"it never said: {text}"


def ignore(_what: str) -> None:
    pass


@needs.PROC
def test_a_cleaner_that_waits_too_long_names_who_it_waits_for(root: str) -> None:
    """Who uses the cache keeps it from being cleaned; the wait can be bounded."""
    said: list[str] = []
    with process(HOLD, root) as sync:
        assert line(sync) == "held"
        with (
            pytest.raises(WaitTimeoutError, match=f"gave up waiting .* pid {sync.pid}; nothing was removed"),
            exclude(root, said.append, timeout=0.3),
        ):
            raise AssertionError
    assert said == [f"waiting for whoever uses the cache: pid {sync.pid}"]
    with exclude(root, ignore, timeout=0):
        assert flock.acquire_nowait(cache_lock.lock_path(root), shared=True) is None


@needs.PROC
def test_a_sync_that_waits_too_long_names_who_cleans(root: str) -> None:
    """`--timeout` bounds this wait, too: a cleaner may be stopped."""
    said: list[str] = []
    with process(CLEAN, root) as cleaner:
        assert line(cleaner) == "alone"
        with pytest.raises(WaitTimeoutError, match=f"to be cleaned: pid {cleaner.pid}"):
            share(root, said.append, deadline=time.monotonic() + 0.3)
    assert said == [f"waiting for the cache to be cleaned: pid {cleaner.pid}"]


def test_a_killed_cleaner_keeps_nobody_out(root: str) -> None:
    """SIGKILL opens lock and gate."""
    with process(CLEAN, root) as cleaner:
        assert line(cleaner) == "alone"
        cleaner.kill()
        cleaner.wait()
        held = share(root, ignore, deadline=time.monotonic() + 20)
        assert held is not None
        held.release()


def test_a_cleaner_gets_its_turn_though_syncs_overlap_for_ever(root: str) -> None:
    """Each of three processes holds the lock nearly always; a closed gate lets them come to their end."""
    with process(OVERLAP, root, "0") as one, process(OVERLAP, root, "0") as two, process(OVERLAP, root, "0") as three:
        for sync in (one, two, three):
            assert line(sync) == "held"
        alone = 0
        for _ in range(3):
            with exclude(root, ignore, timeout=60):
                alone += 1
        assert alone == 3


@needs.PROC
@pytest.mark.parametrize("cleaners", [1, 2])
def test_syncs_are_let_in_though_cleaners_wait_for_a_long_one(root: str, cleaners: int) -> None:
    """However long that takes: the gate opens for as long as it was closed, and no other cleaner closes it then."""
    waited: list[float] = []
    with process(HOLD, root) as long:
        assert line(long) == "held"
        with process(CLEAN, root) as one, process(CLEAN, root) if cleaners == 2 else process(HOLD, root) as other:
            assert line(one).startswith("waiting for whoever uses the cache: pid ")
            assert line(other) != ""
            began = time.monotonic()
            while time.monotonic() - began < 6:
                start = time.monotonic()
                held = share(root, ignore, deadline=start + 30)
                assert held is not None
                held.release()
                waited.append(time.monotonic() - start)
            long.kill()
            other.kill()
            until(one, "alone")
    kept_out = [seconds for seconds in waited if seconds > 0.2]
    assert kept_out, "the gate was never closed"
    assert max(kept_out) < 15
    assert len(waited) > 3 * len(kept_out), "the gate was hardly ever open"


def test_the_gate_is_open_for_as_long_as_it_was_closed(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed and open by turns, each time for twice as long."""
    monkeypatch.setattr(cache_lock, "CLOSED_SECONDS", 0.2)
    monkeypatch.setattr(cache_lock, "POLL_SECONDS", 0.01)
    held = share(root, ignore)
    assert held is not None
    changes: list[tuple[bool, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            gate = flock.acquire_nowait(cache_lock.gate_path(root), shared=True)
            if gate is not None:
                gate.release()
            if not changes or changes[-1][0] != (gate is not None):
                changes.append((gate is not None, time.monotonic()))
            time.sleep(0.005)

    with pytest.raises(WaitTimeoutError), exclude(root, ignore, timeout=0):
        raise AssertionError
    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(WaitTimeoutError), exclude(root, ignore, timeout=2.0):
        raise AssertionError
    over.set()
    watcher.join()
    held.release()
    states = [state for state, _ in changes if not (changes[0][0] and (state, _) == changes[0])]
    assert states[:4] == [False, True, False, True]
    times = [when for state, when in changes][1 if changes[0][0] else 0 :]
    lasted = [after - before for before, after in pairwise(times)]
    assert lasted[0] > 0.15
    assert lasted[1] > 0.15
    assert lasted[2] > 0.35


def test_a_lock_file_has_the_groups_bits_whatever_the_umask(tmp_path: Path) -> None:
    """Who comes next belongs to the group, and must be able to take it, even if its maker died at once."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o2770)
    script = "os.umask(0o077)\nStore(root).prepare()\n" + HOLD
    with process(script, str(tmp_path / "cache")) as sync:
        assert line(sync) == "held"
    found = {
        path.name: stat.S_IMODE(path.stat().st_mode) & 0o777
        for path in (tmp_path / "cache").rglob("*")
        if path.parent.name != "locks"
    }
    assert found == {
        **dict.fromkeys((".lock", ".gate", "CACHEDIR.TAG"), 0o660),
        **dict.fromkeys(("v1", "tmp", "locks", "wheels"), 0o770),
    }


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.ENOLCK])
def test_without_flock_a_cache_is_used_and_not_cleaned(root: str, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """Nobody could be kept out of it while it is cleaned; the message says so."""

    def refuse(_fd: int, _kind: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert share(root, ignore) is None
    with pytest.raises(LockingError, match=f"cache `{root}` cannot be cleaned"), exclude(root, ignore):
        raise AssertionError


def test_a_cache_whose_lock_stays_within_the_node_is_not_cleaned(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even tried: the lock would be granted. Who syncs shares it, for the cleaners of this node."""
    device = os.stat(root).st_dev
    table = f"30 1 {os.major(device)}:{os.minor(device)} / /shared rw - {{}} server:/ rw,{{}}\n"
    monkeypatch.setattr(mounts, "read_proc", lambda _: table.format("nfs4", "local_lock=all"))
    with pytest.raises(LockingError, match=r"on its mount \(nfs4, local_lock=all\)") as caught, exclude(root, ignore):
        raise AssertionError
    assert f"cache `{root}` cannot be cleaned" in caught.value.message
    assert "while nothing is being synced" in (caught.value.hint or "")
    held = share(root, ignore)
    assert held is not None
    held.release()
    monkeypatch.setattr(mounts, "read_proc", lambda _: table.format("nfs4", "local_lock=none"))
    with exclude(root, ignore, timeout=0):
        assert flock.acquire_nowait(cache_lock.lock_path(root), shared=True) is None


@pytest.mark.parametrize("error", [LockingError("no locks left"), FilesystemError("lock", "it", OSError(5, "EIO"))])
def test_nothing_is_kept_locked_if_it_cannot_be_told_whether_it_excludes(
    root: str, monkeypatch: pytest.MonkeyPatch, error: EnvsyncError
) -> None:
    """Whoever calls the library would keep all syncs off the cache for as long as it runs."""

    def fail(_: object) -> bool:
        raise error

    monkeypatch.setattr(flock, "grants_twice", fail)
    with pytest.raises(type(error)), exclude(root, ignore):
        raise AssertionError
    held = flock.acquire_nowait(cache_lock.lock_path(root), shared=False)
    assert held is not None
    held.release()


@pytest.mark.parametrize("gate", [True, False])
def test_a_cache_that_may_only_be_read_is_locked_all_the_same(root: str, *, gate: bool) -> None:
    """A shared lock needs no right to write, and an older cache has no gate: its owner cannot clean it meanwhile."""
    with exclude(root, ignore):
        pass
    if not gate:
        os.unlink(cache_lock.gate_path(root))
    if os.geteuid() == 0:
        script = "os.setgid(65534); os.setuid(65534)\n" + HOLD
        for parent in Path(root).parents:
            if not parent.stat().st_mode & 0o001:  # pytest's own directories, however many there are
                parent.chmod(0o755)
    else:
        script = HOLD
        os.chmod(root, 0o555)
    with process(script, root) as sync:
        assert line(sync) == "held"
        assert flock.acquire_nowait(cache_lock.lock_path(root), shared=False) is None
    os.chmod(root, 0o755)
