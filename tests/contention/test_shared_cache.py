"""One cache for all: processes, containers and users populate, use and clean it at once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.contention.test_containers import Containers, containers, unshare
from tests.contention.test_many_processes import LOCK, NEXT, envsync, finish
from tests.contention.test_uv_excludes import half_a_wheel, is_locked
from tests.environments import FIXTURES, files, leftovers, unowned, unverified
from tests.rooms import inside
from tests.rooms.conftest import shared
from tests.unit.fetching.server import File, Server, serving
from tests.wheels import build_wheel, sha256_of

__all__ = ["containers", "shared", "unshare"]
SECONDS = 100
GROUP = 4321
USERS = ((12345, "022"), (23456, "077"))


def tmp_of(cache: Path) -> list[str]:
    return os.listdir(cache / "v1" / "tmp")


# Cleaning beside syncs


class Cleaners:
    """Loops that clean and prune a cache until the block ends; what they answered."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.answers: list[tuple[int, str]] = []
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=self._loop, args=("clean",)),
            threading.Thread(target=self._loop, args=("prune", "--older-than", "0")),
        ]

    def _loop(self, *arguments: str) -> None:
        while not self.over.is_set():
            done = envsync(self.cache.parent, "cache", *arguments, "--cache-dir", str(self.cache))
            self.answers.append((done.returncode, done.stderr))

    def __enter__(self) -> Cleaners:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_twelve_syncs_beside_cleaners(tmp_path: Path, rounds: int) -> None:
    """None fails, every environment is whole, no cleaner fails either, and they have their turns in between."""
    cache = tmp_path / "cache"
    with Cleaners(cache) as cleaners:
        processes = []
        for each in range(12):
            run = shlex.join(
                [*envsync_command(), "run", "-q", "--lock", (LOCK, NEXT)[each % 2], "--cache-dir", "cache"]
            )
            script = f"for number in $(seq {rounds}); do {run} --env $number-{each} -- greet || exit; done"
            processes.append(
                subprocess.Popen(
                    ["sh", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
        outcomes = [process.communicate(timeout=1000) for process in processes]
    for each, (out, err) in enumerate(outcomes):
        assert (out, err) == (("HELLO, WORLD!\n", "HOWDY, PARTNER!\n")[each % 2] * rounds, "")
    for env in tmp_path.glob("*-*"):
        assert unverified(env) == []
        assert leftovers(env) == []
    assert [answer for answer in cleaners.answers if answer[0]] == []
    assert len(cleaners.answers) >= rounds
    done = envsync(tmp_path, "cache", "clean", "--cache-dir", str(cache))
    assert done.returncode == 0, done.stderr
    assert sorted(cache.glob("v1/*/*")) == []


def test_a_command_that_runs_keeps_nobody_from_cleaning(tmp_path: Path) -> None:
    """Nor does one that waits for it to end: the cache is let go before."""
    options = ["--cache-dir", str(tmp_path / "cache")]
    words = [*envsync_command(), "run", "--lock", LOCK, "--env", "env", *options, "--", "sh", "-c", "echo up; read x"]
    job = subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "up\n"
    other = [*envsync_command(), "run", "--lock", NEXT, "--env", "env", *options, "--", "greet"]
    waiter = subprocess.Popen(other, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiter.stderr is not None
    assert any("commands that run in the environment" in line for line in waiter.stderr)
    done = envsync(tmp_path, "cache", "clean", *options, "--timeout", "20")
    assert (done.returncode, done.stderr) == (0, "")
    job.communicate("\n", timeout=SECONDS)
    status, out, err = finish(waiter)
    assert (status, out) == (0, "HOWDY, PARTNER!\n"), err
    assert unverified(tmp_path / "env") == []


# Fetched once


class Index:
    """Wheels on a local server, and lock files that name them."""

    def __init__(self, server: Server, directory: Path, count: int) -> None:
        self.server = server
        self.entries = []
        for number in range(count):
            wheel = build_wheel(directory, f"w{number}", files={f"w{number}/data.bin": os.urandom(100_000)})
            name = os.path.basename(wheel)
            server.files[f"/{name}"] = File(Path(wheel).read_bytes())
            self.entries.append(
                f'[[packages]]\nname = "w{number}"\nversion = "1.0"\nwheels = [{{ name = "{name}", '
                f'url = "{server.url}/{name}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]\n'
            )

    def lock(self, path: Path, which: Sequence[int]) -> str:
        header = 'lock-version = "1.0"\ncreated-by = "tests"\n\n'
        path.write_text(header + "\n".join(self.entries[number] for number in which))
        return str(path)

    @property
    def asked(self) -> dict[str, int]:
        paths = [path for path, _ in self.server.requests]
        return {path: paths.count(path) for path in paths}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Eight wheels."""
    (tmp_path / "wheels").mkdir()
    with serving() as server:
        yield Index(server, tmp_path / "wheels", 8)


ONCE = {f"/w{number}-1.0-py3-none-any.whl": 1 for number in range(8)}
LOG_UNPACKS = f"""\
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.wheel import unpack
original = unpack.unpack
def logged(*arguments, **options):
    with open(os.environ["UNPACKED"], "a") as file:
        file.write(arguments[1] + "\\n")
    return original(*arguments, **options)
unpack.unpack = logged
from envsync.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def logging_unpacks(*arguments: str) -> str:
    return shlex.join([sys.executable, "-c", LOG_UNPACKS, *arguments])


def test_containers_fetch_and_unpack_each_wheel_once(containers: Containers, index: Index) -> None:
    """Two containers and six environments with one cold cache; some want more than others."""
    lock = index.lock(containers.shared / "pylock.toml", range(8))
    some = index.lock(containers.shared / "pylock.some.toml", range(2, 6))
    syncs = [
        f"UNPACKED=$PWD/unpacked {logging_unpacks('sync', '-q', '--lock', wanted)} --env $(hostname)-{number} &"
        for number, wanted in enumerate((lock, lock, some))
    ]
    script = "\n".join(f'{sync}\npids="$pids $!"' for sync in syncs) + "\nfor pid in $pids; do wait $pid || exit; done"
    outcomes = containers.at_once({"a": script, "b": script}, {})
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert index.asked == ONCE
    unpacked = (containers.shared / "unpacked").read_text().splitlines()
    assert sorted(unpacked) == sorted(name.removeprefix("/") for name in ONCE)
    for name in ("a-0", "a-1", "a-2", "b-0", "b-1", "b-2"):
        assert unverified(containers.shared / name) == []
        assert leftovers(containers.shared / name) == []
    assert tmp_of(containers.shared / "cache") == []


def test_a_killed_process_leaves_its_wheel_to_the_next(tmp_path: Path) -> None:
    """The one that waits for a wheel goes on where the download broke off; nobody is told of an error."""
    with half_a_wheel(tmp_path) as (server, let_go, lock):
        sync = [*envsync_command(), "sync", "--lock", lock, "--cache-dir", "cache", "--env"]
        first = subprocess.Popen([*sync, "one"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        assert server.began.wait(SECONDS)
        second = subprocess.Popen([*sync, "two"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        third = subprocess.Popen([*sync, "two"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        assert third.stderr is not None
        said = next(line for line in third.stderr if f"waiting for pid {first.pid}, which fetches big" in line)
        assert f"pid {second.pid}" in said or "pid" in said
        assert len(server.requests) == 1
        first.send_signal(signal.SIGKILL)
        first.wait()
        let_go()
        for process in (second, third):
            status, _, err = finish(process)
            assert status == 0, err
        assert len(server.requests) == 2
        assert server.ranges()[0] is None
        assert str(server.ranges()[1]).startswith("bytes=")
        assert server.answers == [200, 206]
    assert unverified(tmp_path / "two") == []
    assert tmp_of(tmp_path / "cache") == []
    status, _, err = finish(subprocess.Popen([*sync, "one"], cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    assert status == 0, err
    assert leftovers(tmp_path / "one") == []


STALL = f"""\
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from envsync.store import store
store.Store._publish = lambda *_: (os.write(1, b"unpacked\\n"), time.sleep(1000))
from envsync.__main__ import main
main(sys.argv[1:])
"""


def test_an_interrupted_unpack_is_thrown_away(tmp_path: Path) -> None:
    """Killed before its entry had a name, it leaves the lock free, and what nobody reads; a clean removes that."""
    wheel = build_wheel(tmp_path)
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"demo @ file://{wheel} --hash=sha256:{sha256_of(wheel)}\n")
    options = ["sync", "--lock", str(lock), "--cache-dir", "cache", "--env"]
    first = subprocess.Popen(
        [sys.executable, "-c", STALL, *options, "one"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "unpacked\n"
    key = tmp_path / "cache" / "v1" / "locks" / sha256_of(wheel)
    assert is_locked(key)
    second = subprocess.Popen([*envsync_command(), *options, "two"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    first.communicate()
    status, _, err = finish(second)
    assert status == 0, err
    assert unverified(tmp_path / "two") == []
    (left,) = tmp_of(tmp_path / "cache")
    assert left.startswith("unpack-")
    assert envsync(tmp_path, "cache", "clean", "--cache-dir", "cache").returncode == 0
    assert tmp_of(tmp_path / "cache") == []


# Two users


@pytest.fixture
def cache(shared: Path) -> Path:
    """The cache of a group, in a directory where all may make environments."""
    made = shared / "work" / "cache"
    made.mkdir()
    os.chown(made, -1, GROUP)
    made.chmod(0o2770)
    return made


As = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_member(shared: Path, cache: Path) -> As:
    """Run envsync as one of two users of the group, who have different umasks."""

    def call(who: int, *arguments: object, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
        user, umask = USERS[who]
        command = inside.words(*arguments, "--cache-dir", cache)
        return inside.as_user(user, command, group=GROUP, umask=umask, cwd=shared)

    return call


def modes(cache: Path) -> set[tuple[bool, int]]:
    """Return the group's bits of all directories and files of a cache."""
    return {(path.is_dir(), path.stat().st_mode >> 3 & 7) for path in cache.rglob("*")}


def sync(shared: Path, lock: str, env: str) -> list[object]:
    return ["sync", "--lock", shared / "fixtures" / lock, "--env", shared / "work" / env]


def test_two_users_populate_use_and_clean(shared: Path, cache: Path, as_member: As) -> None:
    """Each uses what the other has made, adds to it, verifies it, and removes it, whatever the umask."""
    for first in (0, 1):
        second = 1 - first
        done = as_member(first, *sync(shared, "pylock.toml", f"first-{first}"))
        assert (done.returncode, "cannot be written" in done.stderr) == (0, False), done.stderr
        before = {path.name: path.stat().st_uid for path in (cache / "v1" / "wheels").iterdir()}
        assert set(before.values()) == {USERS[first][0]}
        done = as_member(second, *sync(shared, "pylock.next.toml", f"second-{first}"))
        assert (done.returncode, "cannot be written" in done.stderr) == (0, False), done.stderr
        assert "files were copied" in done.stderr  # fs.protected_hardlinks
        after = {path.name: path.stat().st_uid for path in (cache / "v1" / "wheels").iterdir()}
        assert before.items() <= after.items()
        assert set(after.values()) == {user for user, _ in USERS}
        assert modes(cache) <= {(True, 7), (False, 6), (False, 4), (False, 5)}
        for env in (f"first-{first}", f"second-{first}"):
            assert unverified(shared / "work" / env) == []
            assert unowned(shared / "work" / env) == set()
        assert as_member(second, "cache", "verify").stdout.endswith(f"{len(after)} wheels verified, 0 removed\n")
        done = as_member(second, "cache", ("clean", "prune")[first], *([], ["--older-than", "0"])[first])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"removed {len(after)} wheels")
        assert list((cache / "v1" / "wheels").iterdir()) == []
        assert [name for name in tmp_of(cache) if not name.endswith(".part")] == []


def test_two_users_fetch_each_wheel_once(shared: Path, cache: Path, as_member: As, index: Index) -> None:
    """Both begin at once with a cold cache, in four environments."""
    lock = index.lock(shared / "fixtures" / "pylock.index.toml", range(8))
    outcomes: list[subprocess.CompletedProcess[str]] = []

    def call(number: int) -> None:
        outcomes.append(as_member(number % 2, *sync(shared, os.path.basename(lock), f"env-{number}")))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in outcomes] == [0] * 4, outcomes
    assert not any("cannot be written" in done.stderr for done in outcomes)
    assert index.asked == ONCE
    for number in range(4):
        assert unverified(shared / "work" / f"env-{number}") == []
    assert modes(cache) <= {(True, 7), (False, 6), (False, 4), (False, 5)}
    assert tmp_of(cache) == []


def test_what_another_user_left_unfinished_is_no_obstacle(shared: Path, cache: Path, as_member: As) -> None:
    """A download of another's is continued by anybody, a private unpack is left to its owner: said, and no error."""
    assert as_member(0, *sync(shared, "pylock.toml", "env")).returncode == 0
    left = cache / "v1" / "tmp" / "unpack-left"
    (left / "purelib").mkdir(parents=True)
    for path in (left, left / "purelib"):
        os.chown(path, USERS[1][0], GROUP)
        path.chmod(0o700)
    done = as_member(0, "cache", "clean")
    (trash,) = tmp_of(cache)
    told = f"envsync: some of that is still in `{cache}/v1/tmp/{trash}`: only its owner can remove it\n"
    assert (done.returncode, done.stderr) == (0, told)
    assert as_member(1, "cache", "clean").returncode == 0
    assert tmp_of(cache) == []


def test_a_damaged_entry_of_another_user_is_fetched_again(shared: Path, cache: Path, as_member: As) -> None:
    """Who belongs to the group may remove it."""
    assert as_member(0, *sync(shared, "pylock.toml", "env")).returncode == 0
    module = next(cache.glob("v1/wheels/*/purelib/greet/__init__.py"))
    module.write_text("poison = 1\n")
    done = as_member(1, "sync", "--lock", FIXTURES / "pylock.toml", "--env", shared / "work" / "other", "--json")
    assert done.returncode == 0, done.stderr
    assert "the cached files of `greet-1.0-py3-none-any.whl` have been changed" in done.stderr
    assert json.loads(done.stdout)["outcome"] == "synced"
    assert unverified(shared / "work" / "other") == []
    assert files(shared / "work" / "other")
