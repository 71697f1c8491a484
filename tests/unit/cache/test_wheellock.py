"""One lock per wheel: who has it, who waits, and who goes on without."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.cache import wheellock
from envsync.cache.store import Store
from envsync.cache.wheellock import Turn

ROOT = Path(__file__).parent.parent.parent.parent
KEY = "ab" * 32
HOLD = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.cache.store import Store
from envsync.cache.wheellock import Turn
lock = Turn(Store(sys.argv[1]), sys.argv[2]).take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@contextmanager
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process at the wheel, killed in the end."""
    words = [sys.executable, "-c", HOLD, store.root, KEY]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_process_is_at_a_wheel(store: Store) -> None:
    """Others are told to wait, and for whom; SIGKILL is enough to let them."""
    with holder(store) as process:
        turn = Turn(store, KEY.upper())
        assert turn.take() is None
        assert turn.holder() == f"pid {process.pid}"
        assert Turn(store, "cd" * 32).take() is not None
        process.kill()
        process.wait()
        lock = turn.take()
        assert lock is not None
        assert Turn(store, KEY).take() is None
        lock.release()
        assert Turn(store, KEY).take() is not None


def test_who_sees_nothing_move_goes_on_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder may be stopped for days. As long as its download grows, it is waited for."""
    now = 100.0
    monkeypatch.setattr(wheellock.time, "monotonic", lambda: now)
    part = Path(store.tmp) / f"{KEY}.part"
    with holder(store):
        turn = Turn(store, KEY)
        for size in range(1, 4):
            part.write_bytes(b"x" * size)
            now += wheellock.PATIENCE - 1
            assert turn.take() is None
        now += wheellock.PATIENCE - 1
        assert turn.take() is None
        now += 2
        lock = turn.take()
        assert lock is not None
        lock.release()


@pytest.mark.parametrize("key", [None, "", "../../../outside", "ab" * 31, "../" * 21 + "a"])
def test_what_is_no_hash_names_no_file(store: Store, tmp_path: Path, key: str | None) -> None:
    """Lock files can say anything: nothing is made, here or elsewhere, and the work is not held up."""
    before = sorted(tmp_path.rglob("*"))
    first, second = Turn(store, key).take(), Turn(store, key).take()
    assert first is not None
    assert second is not None
    first.release()
    assert sorted(tmp_path.rglob("*")) == before


def test_without_locks_the_work_is_done_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flock, or no directory for the locks: losing them costs nothing but time."""

    def refuse(_fd: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", refuse)
        assert Turn(store, KEY).take() is not None
    os.unlink(f"{store.locks}/{KEY}")
    os.rmdir(store.locks)
    assert Turn(store, KEY).take() is not None


@pytest.mark.parametrize(("mode", "expected"), [(0o2770, 0o660), (0o2750, 0o640), (0o700, 0o600)])
def test_a_lock_has_the_groups_bits(store: Store, mode: int, expected: int) -> None:
    """In a cache that a group shares, all of the group can take it, whatever the umask; elsewhere the umask counts."""
    os.chmod(store.root, mode)
    umask = os.umask(0o077)
    try:
        lock = Turn(store, KEY).take()
    finally:
        os.umask(umask)
    assert lock is not None
    assert stat.S_IMODE(os.stat(f"{store.locks}/{KEY}").st_mode) == expected
    assert os.listdir(store.tmp) == []
    lock.release()
