"""In-use locks that were lost: what is known of them, and who is seen to hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.errors import RefusedError
from envsync.installed.ledger import Ledger, dump_ledger, load_ledger
from envsync.launch import Environment
from envsync.launch.request import Request
from envsync.leading import lost
from envsync.leading.in_use import Occupancy
from envsync.locks.flock import Flock, acquire_nowait
from envsync.system import atomic, mounts
from envsync.transaction import journal, skeleton
from envsync.transaction.journal import Journal
from tests import needs
from tests.unit.scene import Clock, make_environment, occupancy


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment whose `installed.json` names its in-use lock."""
    environment = make_environment(tmp_path / "env")
    record(environment, os.stat(environment.in_use).st_ino)
    return environment


@pytest.fixture
def command(environment: Environment) -> Iterator[Flock]:
    """A command that runs in the environment."""
    lock = acquire_nowait(environment.in_use, shared=True)
    assert lock is not None
    yield lock
    lock.release()


def record(environment: Environment, *inodes: int) -> None:
    atomic.write(environment.installed, dump_ledger(Ledger(environment.path, "", {}, inodes)))


def recorded(environment: Environment) -> tuple[int, ...]:
    return lost.former(environment, load_ledger(environment))


def occupy(environment: Environment, busy: str) -> Occupancy:
    return occupancy(environment, Request({"busy": busy}, "x", "x", environment.path))


def purge(environment: Environment) -> None:
    os.unlink(environment.in_use)


@needs.PROC
def test_who_is_about_to_commit_looks_again(environment: Environment, command: Flock, clock: Clock) -> None:
    """The lock is lost while the stamp is left in place for a while, after the first look."""
    Path(environment.stamp).write_bytes(b"stamp")
    os.utime(environment.stamp, (clock.now, clock.now))
    clock.after(0.01, lambda: purge(environment))
    hold = occupy(environment, "fail")
    with pytest.raises(RefusedError, match="purged or replaced"):
        hold.drain()
    hold.close()
    assert os.path.exists(environment.stamp)
    assert lost.held(environment, recorded(environment)) == (command.inode,)


@needs.GONE_AT_ONCE
def test_our_own_hold_is_nobody_elses(environment: Environment) -> None:
    """What this process has exclusively is held by no command, also if it is purged just then."""
    lock = acquire_nowait(environment.in_use, shared=False)
    assert lock is not None
    purge(environment)
    with pytest.raises(RefusedError):
        lost.check(environment, recorded(environment))
    lost.check(environment, recorded(environment), lock.inode)
    assert lost.held(environment, recorded(environment), lock.inode) == ()
    lock.release()


@needs.PROC
@pytest.mark.parametrize("is_remade", [False, True])
def test_a_decided_commit_knows_it(environment: Environment, command: Flock, *, is_remade: bool) -> None:
    """Its leader went on with `--busy ignore` and died, and the stamp is gone; the other `installed.json` waits."""
    purge(environment)
    hold = occupy(environment, "ignore")
    hold.drain()
    hold.close()
    record(environment, 1)  # of before
    if is_remade:
        with pytest.raises(InterruptedError):
            skeleton.take_away(environment, ".envsync/work/1", hold.inodes(), checkpoint=interrupt)
    else:
        decided = Journal(".envsync/work/1", ())
        os.makedirs(f"{environment.path}/{decided.workspace}")
        ledger = Ledger(environment.path, "", {}, hold.inodes())
        atomic.write(journal.ledger_path(environment, decided), dump_ledger(ledger))
        journal.write(environment, decided)
    assert load_ledger(environment).in_use == (1,)
    assert recorded(environment) == hold.inodes()
    assert lost.held(environment, recorded(environment)) == (command.inode,)
    with pytest.raises(RefusedError, match=f"pid {os.getpid()} "):
        lost.check(environment, recorded(environment))


def interrupt() -> None:
    raise InterruptedError


@needs.PROC
def test_what_is_kept_is_bounded(environment: Environment) -> None:
    """Of those that are held, the oldest are forgotten; the present one has its place."""
    locks = []
    for _ in range(lost.MOST + 1):
        lock = acquire_nowait(environment.in_use, shared=True)
        assert lock is not None
        locks.append(lock)
        purge(environment)
    numbers = [lock.inode for lock in locks]
    record(environment, *numbers)
    hold = occupy(environment, "ignore")
    hold.drain()
    assert hold.inodes() == (*numbers[1 - lost.MOST :], os.stat(environment.in_use).st_ino)
    hold.close()
    for lock in locks:
        lock.release()


@needs.PROC
def test_a_number_that_is_another_files_is_not_held(environment: Environment) -> None:
    """A lost inode that nobody held was given to a file that has a name, and that somebody has locked."""
    path = f"{environment.path}/other"
    other = acquire_nowait(path, shared=True)
    assert other is not None
    record(environment, other.inode)
    lost.check(environment, recorded(environment))
    assert lost.held(environment, recorded(environment)) == ()
    other.release()


@needs.GONE_AT_ONCE
def test_where_nobody_is_seen_nothing_is_held(
    environment: Environment, command: Flock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network: what cannot be seen is not kept once an operator goes on, and kept until then."""
    purge(environment)
    monkeypatch.setattr(mounts, "is_network", lambda path: True)
    assert lost.held(environment, recorded(environment)) == ()
    assert recorded(environment) == (command.inode,)
    Path(environment.stamp).write_bytes(b"cut")
    assert lost.remembered(environment, load_ledger(environment), 1) == (command.inode,)
    with pytest.raises(RefusedError, match="cannot be seen from here"):
        lost.check(environment, recorded(environment))


@pytest.mark.parametrize("data", [b"", b"{", b'{"checksum":"0","in_use":[1]}'])
def test_a_damaged_record_names_none(environment: Environment, data: bytes) -> None:
    """It is taken for absent, as for all else."""
    Path(environment.installed).write_bytes(data)
    assert recorded(environment) == ()
    lost.check(environment, recorded(environment))


def test_a_copy_has_none(environment: Environment, tmp_path: Path) -> None:
    """What is recorded of another place is not this one's; through a symbolic link it is the same place."""
    copied = make_environment(tmp_path / "copy")
    Path(copied.installed).write_bytes(Path(environment.installed).read_bytes())
    assert recorded(copied) == ()
    (tmp_path / "link").symlink_to(environment.path)
    assert recorded(Environment(str(tmp_path / "link"))) == (os.stat(environment.in_use).st_ino,)
