"""A cache that somebody removes (`rm -rf`) while it is used: what is needed is made again, and commands go on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import envsync
from envsync.errors import FilesystemError
from envsync.launch import Environment
from envsync.leading.lead import CACHES, Leader, Led
from envsync.python.venv import Pattern
from envsync.waiting import bare, directory, failures
from tests.conftest import envsync_command
from tests.contention.test_many_processes import finish, wait_for_line
from tests.environments import FIXTURES, leftovers, unverified
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

LOCK = str(FIXTURES / "pylock.toml")
NAMES = ("pyvenv.cfg", "bin/activate")
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""
LOOP = """\
import shutil, sys, time
while True:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    print("removed", flush=True)
    time.sleep(float(sys.argv[2]))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def removing(cache: Path, pause: float) -> Iterator[None]:
    """Remove a cache again and again."""
    words = [sys.executable, "-c", LOOP, str(cache), str(pause)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline()
        reader = threading.Thread(target=loop.stdout.read)
        reader.start()
        try:
            yield
            assert loop.poll() is None
        finally:
            loop.kill()
            reader.join()


def test_during_a_download_that_others_wait_for(tmp_path: Path, cache: Path) -> None:
    """The leader fetches once more, and whoever waits for it is served with it."""
    wheel = Path(build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)}))
    lock = tmp_path / "requirements.txt"
    with serving() as server:
        file = server.files[f"/{wheel.name}"] = File(wheel.read_bytes(), hold=threading.Event())
        lock.write_text(f"demo @ {server.url}/{wheel.name} --hash=sha256:{sha256_of(wheel)}\n")
        words = [*envsync_command(), "sync", "--env", "env"]
        pipe = subprocess.PIPE
        leader = subprocess.Popen(words, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
        assert server.began.wait(SECONDS)
        waiter = subprocess.Popen(words, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
        wait_for_line(waiter, f"waiting for pid {leader.pid}")
        shutil.rmtree(cache)
        assert file.hold is not None
        file.hold.set()
        outcomes = [finish(process) for process in (leader, waiter)]
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert unverified(tmp_path / "env") == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "pause", [0.05, pytest.param(0.003, marks=pytest.mark.slow), pytest.param(0.3, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("options", [(), ("--link-mode", "copy"), ("--compile-bytecode",)])
def test_while_environments_are_made(tmp_path: Path, cache: Path, pause: float, options: tuple[str, ...]) -> None:
    """However often it is removed, each sync ends well, two at once each; what it must have it keeps to itself."""
    with removing(cache, pause):
        for number in range(4):
            words = [*envsync_command(), "sync", "--lock", LOCK, "--env", f"env{number}", *options]
            pipe = subprocess.PIPE
            both = [subprocess.Popen(words, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
            outcomes = [finish(process) for process in both]
            assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    for number in range(4):
        assert unverified(tmp_path / f"env{number}") == []
        assert set(leftovers(tmp_path / f"env{number}")) <= {"waiting"}  # empty, if one waited to the end
        subprocess.run([tmp_path / f"env{number}" / "bin" / "greet"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "words",
    [
        ("cache", "size"),
        ("cache", "prune"),
        ("cache", "clean"),
        ("check", "--env", "env"),
        ("check", "--repair", "--env", "env"),
        ("status", "--env", "env", "--lock", LOCK),
        ("doctor", "--env", "env"),
        ("sync", "--dry-run", "--lock", LOCK, "--env", "other"),
        ("run", "--lock", LOCK, "--env", "env", "--", "greet"),
    ],
    ids=" ".join,
)
def test_while_something_else_is_done(tmp_path: Path, cache: Path, run_envsync: Run, words: tuple[str, ...]) -> None:
    """Nor is any other command bothered."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    with removing(cache, 0.005):
        for _ in range(4):
            done = run_envsync(*words)
            assert done.returncode == 0, done.stderr


def test_a_leader_that_gives_up_lets_others_try(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it was the cache that was gone in the end, too, that says nothing about the next."""
    environment = Environment(str(tmp_path / "env"))
    tried: list[int] = []

    def reach(self: Leader, *_: object) -> Led:
        self.cache.share()
        shutil.rmtree(cache, ignore_errors=True)
        tried.append(1)
        cause = FileNotFoundError(errno.ENOENT, "No such file or directory")
        raise FilesystemError("read", f"{self.cache.store.root}/x", cause)

    monkeypatch.setattr(Leader, "_reach", reach)
    directory.prepare(environment)
    wanted = bare.want_nowait(environment)
    assert wanted is not None
    with pytest.raises(FilesystemError):
        envsync.sync(LOCK, env=environment.path, cache_dir=str(cache))
    (failure,) = failures.load(environment)
    assert failure["kind"] == failures.PASSING
    assert len(tried) == CACHES
    wanted.release()


def test_part_of_a_skeleton_is_no_pattern() -> None:
    """What is left of a model that is being removed is not kept for others."""
    whole = Pattern(["bin", "lib/python3.11/site-packages"], {"bin/python": "x"}, dict.fromkeys(NAMES, (0o644, "")))
    assert whole.is_whole
    assert not whole._replace(directories=["bin"]).is_whole
    assert not whole._replace(links={}).is_whole
    assert not whole._replace(files={"pyvenv.cfg": (0o644, "")}).is_whole
