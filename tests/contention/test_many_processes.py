"""Real processes at once: one sync, everybody served, nobody disturbed."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, site_packages, unverified
from tests.wheels import build_wheel

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")


class Barrier:
    """Holds processes back until all are there: they read a pipe that is closed at the start."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def start(self, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", 'read x; exec "$@"', "sh", *envsync_command(), *arguments],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=self.reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lift(self) -> None:
        os.close(self.writing)
        os.close(self.reading)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock as another program would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"never said: {text}")


def test_ten_runs_at_once_in_a_missing_environment(tmp_path: Path) -> None:
    """The case that started this: all succeed, one of them synced, each saw the whole environment."""
    barrier = Barrier()
    log = tmp_path / "events.jsonl"
    command = ["run", "--lock", LOCK, "--env", "env", "--", "greet"]
    processes = [barrier.start(*command, cwd=tmp_path, env={"ENVSYNC_EVENTS": str(log)}) for _ in range(10)]
    barrier.lift()
    outcomes = [finish(process) for process in processes]
    assert [(status, out) for status, out, _ in outcomes] == [(0, "HELLO, WORLD!\n")] * 10
    assert events(log).count("synced") == 1
    assert events(log).count("launched") == 10
    assert unverified(tmp_path / "env") == []


def test_two_digests_at_once_are_both_served(tmp_path: Path) -> None:
    """Each command sees exactly its own target, one digest after the other."""
    barrier = Barrier()
    processes = [
        (said, barrier.start("run", "--lock", lock, "--env", "env", "--", "greet", cwd=tmp_path))
        for _ in range(3)
        for lock, said in ((LOCK, "HELLO, WORLD!\n"), (NEXT, "HOWDY, PARTNER!\n"))
    ]
    barrier.lift()
    for said, process in processes:
        status, out, err = finish(process)
        assert (status, out) == (0, said), err


def test_a_waiter_says_for_whom_it_waits_and_goes_on_when_they_end(tmp_path: Path) -> None:
    """A lock that uv or another tool holds is waited for, aloud."""
    barrier = Barrier()
    with locked(tmp_path / "env" / ".lock"):
        process = barrier.start("run", "--lock", LOCK, "--env", "env", "--", "greet", cwd=tmp_path)
        barrier.lift()
        assert "env/.lock" in wait_for_line(process, "waiting for")
    assert finish(process)[:2] == (0, "HELLO, WORLD!\n")


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    """--timeout bounds it: exit status 124, and the message names the lock; nothing was changed."""
    with locked(tmp_path / "env" / ".lock"):
        done = subprocess.run(
            [*envsync_command(), "run", "--lock", LOCK, "--env", "env", "--timeout", "0.2", "--", "greet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 124
    assert "gave up after 0.2 s" in done.stderr
    assert sorted(path.name for path in (tmp_path / "env").iterdir()) == [".envsync", ".lock"]


def test_a_wait_can_be_interrupted(tmp_path: Path) -> None:
    """SIGINT ends it as a signal, at once."""
    barrier = Barrier()
    with locked(tmp_path / "env" / ".lock"):
        process = barrier.start("run", "--lock", LOCK, "--env", "env", "--", "greet", cwd=tmp_path)
        barrier.lift()
        wait_for_line(process, "waiting for")
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == -signal.SIGINT


@contextmanager
def running(cwd: Path, lock: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the environment that lasts as long as the block."""
    process = subprocess.Popen(
        [*envsync_command(), "run", "--lock", lock, "--env", "env", "--", "sh", "-c", "echo up; read x; greet"],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.communicate("\n", timeout=60)


def envsync(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*envsync_command(), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
    )


def test_nothing_changes_beneath_a_running_command(tmp_path: Path) -> None:
    """Another digest waits for the command to end, or gives up, and the environment is open again as it was."""
    with running(tmp_path, LOCK) as process:
        for options in (["--timeout", "0.3"], ["--busy", "fail"]):
            done = envsync(tmp_path, "run", "--lock", NEXT, "--env", "env", *options, "--", "greet")
            assert done.returncode == 124
        assert envsync(tmp_path, "run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
        assert process.poll() is None
    assert envsync(tmp_path, "run", "--lock", NEXT, "--env", "env", "--", "greet").stdout == "HOWDY, PARTNER!\n"


def test_busy_ignore_goes_on_and_says_so(tmp_path: Path) -> None:
    """An operator may force a change beneath running commands."""
    with running(tmp_path, LOCK):
        done = envsync(tmp_path, "run", "--lock", NEXT, "--env", "env", "--busy", "ignore", "--", "greet")
    assert done.stdout == "HOWDY, PARTNER!\n"
    assert "while commands run in it" in done.stderr


def test_a_background_child_keeps_the_environment_in_use(tmp_path: Path) -> None:
    """The in-use lock is inherited, survives a shell's redirections, and ends with the last process that has it."""
    script = "exec 3>&1; (exec sleep 60 >/dev/null 2>&1 3>&-) & echo $!"
    done = envsync(tmp_path, "run", "--lock", LOCK, "--env", "env", "-q", "--", "bash", "-c", script)
    child = int(done.stdout)
    try:
        blocked = envsync(tmp_path, "run", "--lock", NEXT, "--env", "env", "--busy", "fail", "--", "greet")
        assert blocked.returncode == 124
    finally:
        os.kill(child, signal.SIGKILL)
    assert envsync(tmp_path, "run", "--lock", NEXT, "--env", "env", "--", "greet").stdout == "HOWDY, PARTNER!\n"


def test_a_run_within_a_run(tmp_path: Path) -> None:
    """The same digest enters; another one would wait for itself, and is refused at once."""
    for lock, status in ((LOCK, 0), (NEXT, 124)):
        script = shlex.join([*envsync_command(), "run", "--lock", lock, "--env", "env", "--", "greet"])
        done = envsync(tmp_path, "run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", script)
        assert done.returncode == status
    assert "waiting would be for itself" in done.stderr


def test_a_failure_is_shared_with_those_who_waited(tmp_path: Path) -> None:
    """What failed once is not tried again by each waiter in turn."""
    lock = tmp_path / "pylock.toml"
    text = Path(LOCK).read_text().replace('path = "wheels/', f'path = "{FIXTURES}/wheels/')
    lock.write_text(_spoiled(text))
    barrier = Barrier()
    log = tmp_path / "events.jsonl"
    with locked(tmp_path / "env" / ".lock"):
        processes = [
            barrier.start("run", "--env", "env", "--", "greet", cwd=tmp_path, env={"ENVSYNC_EVENTS": str(log)})
            for _ in range(6)
        ]
        barrier.lift()
        for process in processes:
            wait_for_line(process, "waiting for")
    outcomes = [finish(process) for process in processes]
    assert [status for status, _, _ in outcomes] == [125] * 6
    assert all("greet-1.0" in err for _, _, err in outcomes)
    assert events(log).count("failed") == 1


def _spoiled(text: str) -> str:
    """Give one wheel of a lock file a hash that it has not."""
    lines = [
        line[: line.index("sha256 = ") + 10] + "0" * 64 + '" } }]' if "greet-1.0" in line else line
        for line in text.splitlines()
    ]
    return "\n".join(lines) + "\n"


def test_a_replaced_environment_is_noticed_by_whoever_locked_the_old_one(tmp_path: Path) -> None:
    """`rm -rf` does not ask for the lock: the new directory is synced, not the deleted one."""
    envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env")
    barrier = Barrier()
    with locked(tmp_path / "env" / ".lock"):
        process = barrier.start("run", "--lock", NEXT, "--env", "env", "--", "greet", cwd=tmp_path)
        barrier.lift()
        wait_for_line(process, "waiting for")
        (tmp_path / "env").rename(tmp_path / "gone")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    assert finish(process)[:2] == (0, "HOWDY, PARTNER!\n")
    assert not list((tmp_path / "gone").glob("lib/python*/site-packages/greet-2.0*"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_command_inherits_one_descriptor_out_of_the_way(tmp_path: Path) -> None:
    """Only the in-use lock's, at 200 or above."""
    show = "import os; print(*sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
    envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env")
    done = envsync(tmp_path, "run", "--lock", LOCK, "--env", "env", "--", "python", "-c", show)
    descriptors = [int(word) for word in done.stdout.split()]
    assert [fd for fd in descriptors if fd >= 200] == [200]
    assert len(descriptors) <= 5


def test_bytecode_that_comes_while_the_leader_waits_for_a_command(tmp_path: Path) -> None:
    """What goes is decided when nobody runs there any more: else a directory of bytecode would stay importable."""
    gone = build_wheel(tmp_path, "gone", "1.0", {"gone/__init__.py": "", "gone/late.py": "x = 1\n"})
    stays = build_wheel(tmp_path, "stays", "1.0", {"stays.py": ""})
    (tmp_path / "first.txt").write_text(f"{gone}\n{stays}\n")
    (tmp_path / "next.txt").write_text(f"{stays}\n")
    first = ["--lock", "first.txt", "--env", "env"]
    subprocess.run([*envsync_command(), "sync", *first], cwd=tmp_path, check=True, capture_output=True)
    package = site_packages(tmp_path / "env") / "gone"
    (package / "__pycache__").mkdir()
    (package / "scratch").touch()
    script = 'echo in; read x; echo compiled > "$1/__pycache__/late.cpython-311.pyc"; rm "$1/scratch"'
    with subprocess.Popen(
        [*envsync_command(), "run", *first, "--", "sh", "-c", script, "sh", str(package)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "in\n"
        leader = subprocess.Popen(
            [*envsync_command(), "sync", "--lock", "next.txt", "--env", "env"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_line(leader, "waiting")
        command.communicate("go\n", timeout=60)
    assert finish(leader)[0] == 0
    assert not package.exists()
