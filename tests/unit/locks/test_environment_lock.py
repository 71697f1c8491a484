"""Deciding how an environment is locked."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from envsync.errors import LockingError
from envsync.launch import Environment
from envsync.locks import environment_lock, flock
from envsync.locks.flock import Flock
from envsync.locks.kind import FLOCK, LEASE, Locking, read
from envsync.system import mounts
from tests import needs


@pytest.mark.parametrize(("times", "kind"), [(1, FLOCK), (3, FLOCK), (4, LEASE)])
def test_no_locks_left_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, kind: str) -> None:
    """An NFS server that starts anew says ENOLCK; a lease for good is not what follows from that."""
    import fcntl

    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    environment = Environment(f"{tmp_path}/env")
    original, said = fcntl.flock, 0

    def answer(fd: int, how: int) -> None:
        nonlocal said
        if said < times and how != fcntl.LOCK_UN:
            said += 1
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        original(fd, how)

    monkeypatch.setattr(fcntl, "flock", answer)
    monkeypatch.setattr(environment_lock, "NO_LOCKS_SECONDS", 0.01)
    lock = environment_lock.Locks(environment, unseen=True).acquire_nowait()
    assert lock is not None
    lock.release()
    recorded = read(environment)
    assert recorded is not None
    assert recorded.kind == kind


@needs.GONE_AT_ONCE
def test_a_lock_that_was_removed_while_it_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who was refused: then nothing is found out, decided or said; whoever has it sees that it is gone."""
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    environment = Environment(f"{tmp_path}/env")

    def remove(lock: Flock) -> bool:
        os.unlink(lock.path)
        return False

    monkeypatch.setattr(flock, "grants_twice", remove)
    monkeypatch.setattr(environment_lock, "probe", lambda _: Locking(FLOCK, in_use=False, reason="odd"))
    lock = environment_lock.Locks(environment, unseen=False).acquire_nowait()
    assert lock is not None
    assert not lock.is_in_place()
    lock.release()
    assert read(environment) is None


@needs.PROC
def test_what_the_mount_says_is_asked_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is refused removes what it has made, and nothing is known of a path that is gone: not "all well"."""
    environment = Environment(f"{tmp_path}/env")
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    number = os.stat(tmp_path).st_dev
    table = f"30 1 {os.major(number)}:{os.minor(number)} / / rw - nfs server:/ rw,local_lock=flock\n"
    monkeypatch.setattr(mounts, "read_proc", lambda _: table)
    original = flock.acquire_nowait

    def acquire(path: str, *, shared: bool) -> Flock | None:
        lock = original(path, shared=shared)
        (tmp_path / "env" / ".envsync").rmdir()
        return lock

    monkeypatch.setattr(flock, "acquire_nowait", acquire)
    with pytest.raises(LockingError, match=r"flock stays within the node \(nfs, local_lock=flock\)"):
        environment_lock.Locks(environment, unseen=False).acquire_nowait()
    assert read(environment) is None
