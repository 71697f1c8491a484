"""Deciding how an environment is locked."""

from __future__ import annotations

import errno
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from envsync.errors import FilesystemError, LockingError
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


@pytest.mark.parametrize("is_there", [pytest.param(False, marks=needs.GONE_AT_ONCE), True])
def test_a_lock_that_seems_to_be_gone_while_it_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """By somebody who was refused, or as a server says for a moment: nothing is decided, recorded or kept locked."""
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    environment = Environment(f"{tmp_path}/env")

    def remove(lock: Flock) -> bool:
        if not is_there:
            os.unlink(lock.path)
        return False

    monkeypatch.setattr(flock, "grants_twice", remove)
    monkeypatch.setattr(environment_lock, "probe", lambda _: Locking(FLOCK, in_use=False, reason="odd"))
    locks = environment_lock.Locks(environment, unseen=False)
    with monkeypatch.context() as patch:
        patch.setattr(Flock, "is_in_place", lambda _: False)
        assert locks.acquire_nowait() is None
    assert read(environment) is None
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("sound", [0, 1], ids=["lock", "probe"])
@pytest.mark.parametrize(("number", "is_removed"), [(errno.ESTALE, True), (errno.EIO, False)])
def test_an_open_lock_of_which_the_server_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_removed: bool, sound: int
) -> None:
    """Another node has removed it: there is a next try. Else it is an error that names it, and nothing is kept."""
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    environment = Environment(f"{tmp_path}/env")

    answers = [""] * sound

    def fail(_: object) -> str:
        if answers:
            return answers.pop()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts, "local_flock", fail)
    locks = environment_lock.Locks(environment, unseen=False)
    with (
        nullcontext()
        if is_removed
        else pytest.raises(FilesystemError, match=re.escape(f"cannot look at `{environment.path}/"))
    ):
        assert locks.acquire_nowait() is None
    assert read(environment) is None
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    lock.release()


@needs.PROC
def test_a_lock_file_that_is_a_link_to_another_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That flock excludes there says nothing of the in-use lock, which is where the environment is."""
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    environment = Environment(f"{tmp_path}/env")
    inode = os.open(environment.lock, os.O_RDWR | os.O_CREAT)

    def told(file: str | int) -> str:
        return "" if os.path.samestat(os.stat(file), os.fstat(inode)) else "nfs, local_lock=flock"

    monkeypatch.setattr(mounts, "local_flock", told)
    with pytest.raises(LockingError, match=r"flock stays within the node \(nfs, local_lock=flock\)"):
        environment_lock.Locks(environment, unseen=False).acquire_nowait()
    os.close(inode)


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
