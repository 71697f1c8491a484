"""One lock per wheel: who has it, who waits, and who goes on without."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.fetching import compiling
from envsync.locks import wheel_lock
from envsync.locks.wheel_lock import Turn
from envsync.store.store import Store
from tests import needs
from tests.unit.fetching.server import File, serving
from tests.unit.library.program import write_lock
from tests.wheels import build_wheel, sha256_of

ROOT = Path(__file__).parent.parent.parent.parent
KEY = "ab" * 32
HOLD = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.store.store import Store
from envsync.locks.wheel_lock import Turn
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
def holder(store: Store, key: str = KEY) -> Iterator[subprocess.Popen[str]]:
    """Another process at the wheel, killed in the end."""
    words = [sys.executable, "-c", HOLD, store.root, key]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@needs.PROC
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
    monkeypatch.setattr(wheel_lock.time, "monotonic", lambda: now)
    part = Path(store.tmp) / f"{KEY}.part"
    with holder(store):
        turn = Turn(store, KEY)
        for size in range(1, 4):
            part.write_bytes(b"x" * size)
            now += wheel_lock.PATIENCE - 1
            assert turn.take() is None
        now += wheel_lock.PATIENCE - 1
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


@needs.PROC
@pytest.mark.parametrize("place", ["file", "network"])
def test_a_wait_for_a_wheel_is_bounded(
    store: Store, tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]], place: str
) -> None:
    """--timeout bounds the wait for a process that fetches a wheel, as it does any other; who that is, is said."""
    wheel = build_wheel(tmp_path)
    with serving() as server:
        server.files[f"/{os.path.basename(wheel)}"] = File(Path(wheel).read_bytes())
        lock = write_lock(tmp_path / "pylock.toml", [wheel], url=server.url if place == "network" else "")
        words = ["sync", "--lock", lock, "--env", "env", "--cache-dir", store.root, "--timeout", "0.5"]
        with holder(store, sha256_of(wheel)) as process:
            done = run_envsync(*words)
        assert done.returncode == 124
        assert f"gave up after 0.5 s: waiting for pid {process.pid}, which fetches demo" in done.stderr
        assert run_envsync(*words).returncode == 0


def test_a_wait_for_a_compiler_is_bounded(
    store: Store, tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """So is the wait for a process that compiles a wheel."""
    import fcntl

    wheel = build_wheel(tmp_path, files={"demo.py": "x = 1\n"})
    lock = write_lock(tmp_path / "pylock.toml", [wheel])
    name = f"bytecode-{int(sha256_of(wheel)[:8], 16) % compiling.LOCKS}"
    with open(f"{store.locks}/{name}", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = ["sync", "--lock", lock, "--env", "env", "--cache-dir", store.root, "--compile-bytecode"]
        done = run_envsync(*words, "--timeout", "0.5")
    assert done.returncode == 124
    assert "to compile" in done.stderr
