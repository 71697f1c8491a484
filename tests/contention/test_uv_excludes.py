"""envsync and the real uv in one environment: they exclude each other, and come out right whoever is first.

uv is held up in the middle by a build backend that reads a FIFO; envsync by a command that runs in the environment,
or by a web server that sends half a wheel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.contention.test_in_use import left_over, wait_for_file
from tests.contention.test_many_processes import envsync, finish, wait_for_line
from tests.environments import FIXTURES, site_packages, unverified
from tests.unit.fetching.server import File, Server, serving
from tests.wheels import build_wheel, sha256_of

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
WHEELS = FIXTURES / "wheels"
WORDS = str(WHEELS / "almanac_words-1.0-py3-none-any.whl")
"""In LOCK, not in NEXT."""
FIRST = {"almanac-days==1.0", "almanac-words==1.0", "greet==1.0", "shout==1.0", "tally==1.0"}
SECOND = {"almanac-days==1.0", "greet==2.0", "shout==1.0", "tally==1.0"}
UV = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))
pytestmark = pytest.mark.skipif(UV is None, reason="uv is neither beside this Python nor on PATH")

BACKEND = """\
import os, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with open({fifo!r}) as fifo:
        fifo.read()
    name = "slow-1.0-py3-none-any.whl"
    files = {{
        "slow_module.py": "",
        "slow-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: slow\\nVersion: 1.0\\n",
        "slow-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files["slow-1.0.dist-info/RECORD"] = "".join(f"{{path}},,\\n" for path in [*files, "slow-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return name
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "slow"
version = "1.0"
requires-python = ">=3.9"
"""


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An environment that is current for LOCK."""
    assert envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env").returncode == 0
    return tmp_path / "env"


def uv_words(env: Path, *words: str) -> list[str]:
    assert UV is not None
    return [UV, *words, "--offline", "--cache-dir", str(env.parent / "uv")]


class Processes:
    """What a test starts in an environment. Whatever is left of it is killed when the test ends."""

    def __init__(self, env: Path) -> None:
        self.env = env
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, stdin: int = subprocess.DEVNULL, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words,
            cwd=self.env.parent,
            env={**os.environ, **variables},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def envsync(self, *words: str) -> subprocess.Popen[str]:
        return self.start(*envsync_command(), *words)

    def uv(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start uv on the environment. It never means another one: without a pyvenv.cfg there it fails."""
        env = str(self.env)
        return self.start(*uv_words(self.env, *words), VIRTUAL_ENV=env, UV_PROJECT_ENVIRONMENT=env, **variables)

    def command(self) -> Callable[[], None]:
        """Run a command in the environment, and return the function that lets it end."""
        words = [*envsync_command(), "run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", "echo up; read line"]
        process = self.start(*words, stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

        def end() -> None:
            assert process.poll() is None
            process.communicate("\n", timeout=60)

        return end

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def start(env: Path) -> Iterator[Processes]:
    processes = Processes(env)
    yield processes
    processes.close()


def succeeded(process: subprocess.Popen[str]) -> str:
    """Wait for a process, which succeeds, and return what it said on stdout."""
    status, out, err = finish(process)
    assert status == 0, err
    return out


def installed(env: Path) -> set[str]:
    """List the distributions as importlib.metadata would find them."""
    found = (re.fullmatch(r"(.+)-(.+)\.dist-info", path.name) for path in site_packages(env).glob("*.dist-info"))
    return {f"{match[1].replace('_', '-')}=={match[2]}" for match in found if match is not None}


def installer(env: Path, dist_info: str) -> str:
    return (site_packages(env) / dist_info / "INSTALLER").read_text().strip()


def snapshot(env: Path) -> dict[str, tuple[int, int]]:
    """Return what changes if anybody changes anything in an environment, our own state apart."""
    found = {}
    for directory, names, entries in os.walk(env):
        names[:] = [name for name in names if name != ".envsync"]
        for name in [*names, *entries]:
            status = (Path(directory) / name).lstat()
            found[f"{directory}/{name}"] = (status.st_ino, status.st_mtime_ns if name in entries else 0)
    return found


def holders(path: Path) -> set[int]:
    """Return the pids that hold a file's flock exclusively, as the kernel tells it."""
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = path.stat().st_ino
    return {int(f[4]) for f in fields if f[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and f[5].endswith(f":{inode}")}


def is_locked(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


UV_COMMANDS = {
    "uv pip install": ["pip", "install", "./project"],
    "uv pip sync": ["pip", "sync", "requirements.txt"],
    "uv sync": ["sync", "--project", "project", "--no-editable"],
}


@contextmanager
def uv_building(start: Processes, *words: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]:
    """Run uv up to where it builds `slow`, and yield it with the function that lets it go on."""
    directory = start.env.parent
    (directory / "project").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "project" / "pyproject.toml").write_text(PROJECT)
    (directory / "project" / "backend.py").write_text(BACKEND.format(fifo=str(directory / "fifo")))
    (directory / "requirements.txt").write_text("./project\n")
    process = start.uv(*words)
    with os.fdopen(open_when_read(directory / "fifo", process), "w") as held:
        yield process, held.close


def open_when_read(fifo: Path, reader: subprocess.Popen[str]) -> int:
    """Open a FIFO for writing as soon as a child of the process has opened it for reading."""
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        assert reader.poll() is None, finish(reader)
        time.sleep(0.005)


@pytest.mark.parametrize("which", UV_COMMANDS)
@pytest.mark.parametrize("command", ["sync", "run"])
def test_envsync_waits_for_uv(start: Processes, env: Path, which: str, command: str) -> None:
    """While uv holds the lock, envsync changes nothing and says that it waits for uv; then it makes all as wanted."""
    with uv_building(start, *UV_COMMANDS[which]) as (uv, go_on):
        assert is_locked(env / ".lock")
        assert holders(env / ".lock") == {uv.pid}
        before = snapshot(env)
        began = time.monotonic()
        words = ["sync"] if command == "sync" else ["run", "greet"]
        process = start.envsync(words[0], "--lock", NEXT, "--env", "env", *words[1:])
        wait_for_line(process, "waiting for")
        took = time.monotonic() - began
        assert snapshot(env) == before
        assert process.poll() is None
        go_on()
        succeeded(uv)
        assert succeeded(process) == ("" if command == "sync" else "HOWDY, PARTNER!\n")
    assert installed(env) == SECOND
    assert unverified(env) == []
    assert left_over(env) == []
    assert took < 6, "README: within a second"


@pytest.mark.parametrize("which", UV_COMMANDS)
def test_a_wait_for_uv_names_it(start: Processes, env: Path, which: str) -> None:
    """Whoever waits for uv is told its pid and its command line."""
    with uv_building(start, *UV_COMMANDS[which]) as (uv, _):
        line = wait_for_line(start.envsync("sync", "--lock", NEXT, "--env", "env"), "waiting for")
        assert f"pid {uv.pid} on {os.uname().nodename}" in line
        assert which in line


def test_uv_that_is_killed_is_not_waited_for(start: Processes, env: Path) -> None:
    """The kernel frees the lock of a uv that was killed in the middle, and the next in line goes on."""
    with uv_building(start, *UV_COMMANDS["uv pip install"]) as (uv, _):
        process = start.envsync("sync", "--lock", NEXT, "--env", "env")
        wait_for_line(process, "waiting for")
        uv.kill()
        succeeded(process)
    assert installed(env) == SECOND
    assert unverified(env) == []


def test_a_wait_for_uv_has_an_end(start: Processes, env: Path) -> None:
    """--timeout bounds it, and the environment is as it was."""
    with uv_building(start, *UV_COMMANDS["uv pip install"]):
        before = snapshot(env)
        done = envsync(env.parent, "sync", "--lock", NEXT, "--env", "env", "--timeout", "0.2")
        assert done.returncode == 124
        assert "gave up after 0.2 s" in done.stderr
        assert snapshot(env) == before
    assert envsync(env.parent, "run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"


WAITING_UV: dict[str, tuple[Sequence[str], set[str]]] = {
    "uv pip install": (["pip", "install", "--no-deps", WORDS], SECOND | {"almanac-words==1.0"}),
    "uv pip sync": (["pip", "sync", LOCK], FIRST),
    "uv pip uninstall": (["pip", "uninstall", "shout"], SECOND - {"shout==1.0"}),
}


@pytest.mark.parametrize("which", WAITING_UV)
def test_uv_waits_for_a_leader_that_waits_for_commands(start: Processes, env: Path, which: str) -> None:
    """uv changes nothing before the sync is done, and then starts from what the sync has made."""
    words, expected = WAITING_UV[which]
    end = start.command()
    leader = start.envsync("sync", "--lock", NEXT, "--env", "env")
    wait_for_file(env / ".envsync" / "stamp.draining")
    before = snapshot(env)
    uv = start.uv(*words, "-v")
    wait_for_line(uv, "Waiting to acquire")
    assert snapshot(env) == before
    assert leader.poll() is None
    end()
    succeeded(leader)
    succeeded(uv)
    assert installed(env) == expected
    assert unverified(env) == []
    if which == "uv pip install":  # it was there when uv began to wait, and is uv's now
        assert installer(env, "almanac_words-1.0.dist-info") == "uv"
    assert envsync(env.parent, "sync", "--lock", NEXT, "--env", "env").returncode == 0
    assert installed(env) == SECOND
    assert unverified(env) == []
    assert left_over(env) == []


@contextmanager
def half_a_wheel(directory: Path) -> Iterator[tuple[Server, Callable[[], None], str]]:
    """Serve a wheel whose second half is held back.

    Yields the server, the function that lets it go on, and the lock file that names the wheel.
    """
    content = os.urandom(200_000)
    wheel = build_wheel(directory, "big", files={"big/__init__.py": "", "big/data.bin": content})
    name = os.path.basename(wheel)
    lock = directory / "pylock.big.toml"
    with serving() as server:
        hold = threading.Event()
        server.files[f"/{name}"] = File(Path(wheel).read_bytes(), hold=hold)
        lock.write_text(
            'lock-version = "1.0"\ncreated-by = "tests"\n\n[[packages]]\nname = "big"\nversion = "1.0"\n'
            f'wheels = [{{ name = "{name}", url = "{server.url}/{name}", '
            f'hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]\n'
        )
        yield server, hold.set, str(lock)


def test_uv_waits_for_a_leader_that_downloads(start: Processes, env: Path) -> None:
    """The lock is held from before the first look until the stamp."""
    with half_a_wheel(env.parent) as (server, let_go, lock):
        leader = start.envsync("sync", "--lock", lock, "--env", "env")
        assert server.began.wait(60)
        before = snapshot(env)
        uv = start.uv("pip", "install", "--no-deps", WORDS, "-v")
        wait_for_line(uv, "Waiting to acquire")
        assert snapshot(env) == before
        assert holders(env / ".lock") == {leader.pid}
        let_go()
        succeeded(leader)
        succeeded(uv)
    assert installed(env) == {"big==1.0", "almanac-words==1.0"}
    assert installer(env, "almanac_words-1.0.dist-info") == "uv"
    assert unverified(env) == []


def test_uv_goes_on_when_the_leader_is_killed(start: Processes, env: Path) -> None:
    """Nobody that a dead leader leaves behind holds its lock; what uv does then is put right by the next sync."""
    with half_a_wheel(env.parent) as (server, _, lock):
        leader = start.envsync("sync", "--lock", lock, "--env", "env")
        assert server.began.wait(60)
        uv = start.uv("pip", "uninstall", "shout", "-v")
        wait_for_line(uv, "Waiting to acquire")
        leader.kill()
        succeeded(uv)
    assert installed(env) == FIRST - {"shout==1.0"}
    assert envsync(env.parent, "sync", "--lock", LOCK, "--env", "env").returncode == 0
    assert installed(env) == FIRST
    assert unverified(env) == []
    assert left_over(env) == []


def test_uv_that_loses_patience_is_noticed(start: Processes, env: Path) -> None:
    """After UV_LOCK_TIMEOUT (300 s by default) uv installs without the lock: the leader plans again, and is exact."""
    stray = build_wheel(env.parent, "stray")
    end = start.command()
    leader = start.envsync("sync", "--lock", NEXT, "--env", "env")
    wait_for_file(env / ".envsync" / "stamp.draining")
    succeeded(start.uv("pip", "install", "--no-deps", stray, UV_LOCK_TIMEOUT="1"))
    assert "stray==1.0" in installed(env)
    assert leader.poll() is None
    end()
    succeeded(leader)
    assert installed(env) == SECOND
    assert unverified(env) == []
    assert left_over(env) == []


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process meanwhile."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield
    process.send_signal(signal.SIGCONT)


def test_uv_venv_clear_does_not_ask_a_leader_that_downloads(start: Processes, env: Path) -> None:
    """An environment that uv replaces beneath a leader is noticed, and the new one is synced.

    `uv venv` takes no lock in the environment: whoever writes there while it clears or makes it makes it fail. So the
    leader is stopped meanwhile.
    """
    with half_a_wheel(env.parent) as (server, let_go, lock):
        leader = start.envsync("sync", "--lock", lock, "--env", "env")
        assert server.began.wait(60)
        with stopped(leader):
            succeeded(start.uv("venv", "--clear", "--python", sys.executable, str(env)))
        let_go()
        succeeded(leader)
    assert installed(env) == {"big==1.0"}
    assert unverified(env) == []
    assert left_over(env) == []


def test_uv_venv_clear_does_not_ask_a_leader_that_waits_for_commands(start: Processes, env: Path) -> None:
    """Nor does it ask the commands; the new environment is synced all the same, before they end."""
    end = start.command()
    leader = start.envsync("sync", "--lock", NEXT, "--env", "env")
    wait_for_file(env / ".envsync" / "stamp.draining")
    with stopped(leader):
        succeeded(start.uv("venv", "--clear", "--python", sys.executable, str(env)))
    succeeded(leader)
    end()
    assert installed(env) == SECOND
    assert unverified(env) == []
    assert left_over(env) == []


@pytest.mark.parametrize("another", [False, True], ids=["the same set", "another set for uv"])
def test_six_of_each_at_once(tmp_path: Path, another: bool) -> None:
    """On an environment that is missing first, in several rounds, all succeed; then a sync makes it exact."""
    start = Processes(tmp_path / "env")
    try:
        for ours, theirs in ((LOCK, NEXT), (NEXT, LOCK)) * 2:
            outcomes = at_once(start, ours, theirs if another else ours)
            assert [status for status, _, _ in outcomes] == [0] * 12, "\n".join(err for _, _, err in outcomes)
            done = envsync(tmp_path, "sync", "--lock", ours, "--env", "env")
            assert done.returncode == 0, done.stderr
            assert installed(start.env) == (FIRST if ours == LOCK else SECOND)
            assert unverified(start.env) == []
            assert left_over(start.env) == []
    finally:
        start.close()


def at_once(start: Processes, ours: str, theirs: str) -> list[tuple[int, str, str]]:
    """Start six of envsync and six of uv, which wait for the same pipe to be closed."""
    reading, writing = os.pipe()
    held_back = ["sh", "-c", 'read line; exec "$@"', "sh"]
    # uv does not make an environment: it comes as soon as one can be seen to be there.
    uv_held_back = ["sh", "-c", 'read line; until [ -f env/pyvenv.cfg ]; do :; done; exec "$@"', "sh"]
    processes = []
    for _ in range(6):
        words = [*envsync_command(), "sync", "--lock", ours, "--env", "env"]
        processes.append(start.start(*held_back, *words, stdin=reading))
        words = uv_words(start.env, "pip", "sync", theirs)
        processes.append(start.start(*uv_held_back, *words, stdin=reading, VIRTUAL_ENV=str(start.env)))
    os.close(writing)
    os.close(reading)
    return [finish(process) for process in processes]
