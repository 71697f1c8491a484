"""Leaders that fail, die, are ended or wait in a circle, and those who wait for them: real processes."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.system.records import load
from tests.conftest import envsync_command
from tests.contention.test_many_processes import events, finish, locked, wait_for_line
from tests.environments import FIXTURES, unverified
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
HOST = os.uname().nodename
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""
DRAINING = "waiting for commands"

Process = subprocess.Popen[str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return a function that starts `envsync run` with some arguments; what is left of it is killed afterwards."""
    started: list[Process] = []

    def start(*arguments: str, shell: str = "") -> Process:
        """Start one.

        :param shell: a script that ends with `exec "$@"`
        """
        words = [*envsync_command(), "run", *arguments]
        started.append(
            subprocess.Popen(
                ["sh", "-c", shell, "sh", *words] if shell else words,
                cwd=tmp_path,
                env={**os.environ, "ENVSYNC_EVENTS": str(tmp_path / "events.jsonl")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def in_use(env: Path) -> Iterator[None]:
    """Keep a leader from committing, as a command that runs in the environment does."""
    path = env / ".envsync" / "in-use"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for(what: Callable[[], object], name: str) -> None:
    limit = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < limit, f"{name} never came"
        time.sleep(0.01)


def progress(env: Path) -> dict[str, object]:
    """Read what the leader says."""
    return load(str(env / ".envsync" / "progress.json"))


def wait_for_phase(env: Path, phase: str, *, besides: tuple[int, ...] = ()) -> int:
    """Return the pid of a leader once it is in a phase."""

    def is_there() -> bool:
        said = progress(env)
        return str(said.get("phase")).startswith(phase) and said["pid"] not in besides

    wait_for(is_there, phase)
    pid = progress(env)["pid"]
    assert isinstance(pid, int)
    return pid


def names_of_waiters(env: Path) -> list[str]:
    waiting = env / ".envsync" / "waiting"
    return os.listdir(waiting) if waiting.exists() else []


def records(tmp_path: Path, event: str) -> list[dict[str, object]]:
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    return [value for value in map(json.loads, lines) if value["event"] == event]


def spoil(tmp_path: Path) -> str:
    """Write a lock file with a wheel that has another hash than it says."""
    text = Path(LOCK).read_text().replace('path = "wheels/', f'path = "{FIXTURES}/wheels/')
    lines = [
        line[: line.index("sha256 = ") + 10] + "0" * 64 + '" } }]' if "greet-1.0" in line else line
        for line in text.splitlines()
    ]
    path = tmp_path / "pylock.toml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def remote(tmp_path: Path, url: str, wheel: str) -> str:
    """Write a lock file with one more wheel, which has to be downloaded."""
    path = tmp_path / "pylock.toml"
    name = os.path.basename(wheel)
    path.write_text(
        Path(LOCK).read_text().replace('path = "wheels/', f'path = "{FIXTURES}/wheels/')
        + f'\n[[packages]]\nname = "{name.partition("-")[0]}"\nversion = "1.0"\n'
        + f'wheels = [{{ url = "{url}/{name}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]\n'
    )
    return str(path)


class TestFailures:
    """What a leader fails with."""

    def test_twenty_runs_and_a_wrong_hash(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """It is tried once, and all fail in the same words; those who waited name the one that tried."""
        lock = spoil(tmp_path)
        env = tmp_path / "env"
        with locked(env / ".lock"):
            processes = [start("--lock", lock, "--env", "env", "--", "greet") for _ in range(20)]
            for process in processes:
                wait_for_line(process, "waiting for")
        outcomes = [finish(process) for process in processes]
        assert [status for status, _, _ in outcomes] == [125] * 20
        (failed,) = records(tmp_path, "failed")
        first = f"error: {failed['message']}"
        assert all(first in err for _, _, err in outcomes), outcomes
        named = f"(the sync by pid {failed['pid']} on {HOST}, which this process waited for)"
        assert sorted(named in err for _, _, err in outcomes) == [False] + [True] * 19
        assert [process.pid for process, (_, _, err) in zip(processes, outcomes, strict=True) if named not in err] == [
            failed["pid"]
        ]
        assert names_of_waiters(env) == []

    def test_who_comes_later_tries_afresh(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """What failed before is tried again by whoever starts after it, and succeeds if it has been put right."""
        lock = spoil(tmp_path)
        for _ in range(2):
            assert finish(start("--lock", lock, "--env", "env", "--", "greet"))[0] == 125
        assert events(tmp_path / "events.jsonl").count("failed") == 2
        assert finish(start("--lock", LOCK, "--env", "env", "--", "greet"))[:2] == (0, "HELLO, WORLD!\n")

    def test_what_may_pass_is_tried_three_times(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """An index that does not answer is asked by three of those who wait, and the rest share the last one's word."""
        with serving() as server:
            lock = remote(tmp_path, server.url, build_wheel(tmp_path))  # it has no such file
            with locked(tmp_path / "env" / ".lock"):
                processes = [start("--lock", lock, "--env", "env", "--", "greet") for _ in range(7)]
                for process in processes:
                    wait_for_line(process, "waiting for")
            outcomes = [finish(process) for process in processes]
        assert [status for status, _, _ in outcomes] == [125] * 7
        assert len(records(tmp_path, "failed")) == 3
        assert sum("; it was tried 3 times)" in err for _, _, err in outcomes) == 4


class TestDeaths:
    """Leaders that are killed."""

    def test_three_in_a_row(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """After three leaders of one digest have been killed, the rest fail and name them; a later run succeeds."""
        env = tmp_path / "env"
        with in_use(env):
            with locked(env / ".lock"):
                processes = [start("--lock", LOCK, "--env", "env", "--", "greet") for _ in range(7)]
                for process in processes:
                    wait_for_line(process, "waiting for")
            dead: tuple[int, ...] = ()
            while len(dead) < 3:
                dead += (wait_for_phase(env, DRAINING, besides=dead),)
                os.kill(dead[-1], signal.SIGKILL)
            outcomes = {process.pid: finish(process) for process in processes}
        assert sorted(outcomes[pid][0] for pid in dead) == [-signal.SIGKILL] * 3
        rest = [outcome for pid, outcome in outcomes.items() if pid not in dead]
        assert [status for status, _, _ in rest] == [125] * 4
        for _, _, err in rest:
            assert f"3 processes died one after the other while they synced environment `{env.name}`" in err or (
                f"3 processes died one after the other while they synced environment `{env}`" in err
            )
            assert ", ".join(f"pid {pid} on {HOST}" for pid in dead) in err
        assert sum("which this process waited for" in err for _, _, err in rest) == 3
        taken = [(value["pid"], value["from_pid"], value["from_host"]) for value in records(tmp_path, "took_over")]
        assert taken == [(dead[1], dead[0], HOST), (dead[2], dead[1], HOST)]
        assert finish(start("--lock", LOCK, "--env", "env", "--", "greet"))[:2] == (0, "HELLO, WORLD!\n")
        assert unverified(env) == []
        assert not (env / ".envsync" / "failure.json").exists()

    def test_one_is_succeeded_by_one(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """Of those who wait for a leader that is killed exactly one takes over, and all are served by its sync."""
        env = tmp_path / "env"
        with in_use(env):
            leader = start("--lock", LOCK, "--env", "env", "--", "greet")
            assert wait_for_phase(env, DRAINING) == leader.pid
            others = [start("--lock", LOCK, "--env", "env", "--", "greet") for _ in range(5)]
            for process in others:
                wait_for_line(process, f"waiting for pid {leader.pid} on {HOST}")
            leader.kill()
            successor = wait_for_phase(env, DRAINING, besides=(leader.pid,))
        outcomes = {process.pid: finish(process) for process in others}
        assert [outcome[:2] for outcome in outcomes.values()] == [(0, "HELLO, WORLD!\n")] * 5
        (took_over,) = records(tmp_path, "took_over")
        assert (took_over["pid"], took_over["from_pid"], took_over["from_host"]) == (successor, leader.pid, HOST)
        said = [pid for pid, (_, _, err) in outcomes.items() if f"took over from pid {leader.pid} on {HOST}" in err]
        assert said == [successor]
        assert len(records(tmp_path, "synced")) == 1


class TestTerminated:
    """SIGTERM, which schedulers send before they kill."""

    def test_while_waiting(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """It ends a wait at once, by the signal, and the name is off the list."""
        env = tmp_path / "env"
        with locked(env / ".lock"):
            process = start("--lock", LOCK, "--env", "env", "--", "greet")
            wait_for_line(process, "waiting for")
            assert len(names_of_waiters(env)) == 1
            process.send_signal(signal.SIGTERM)
            assert finish(process)[0] == -signal.SIGTERM
            assert names_of_waiters(env) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_while_leading(self, tmp_path: Path, start: Callable[..., Process], number: signal.Signals) -> None:
        """It ends a leader at work at once, by the signal, and exactly one of the waiting says that it took over."""
        env = tmp_path / "env"
        wheel = build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)})
        with serving() as server:
            file = File(Path(wheel).read_bytes(), hold=threading.Event())
            server.files[f"/{os.path.basename(wheel)}"] = file
            lock = remote(tmp_path, server.url, wheel)
            leader = start("--lock", lock, "--env", "env", "--", "greet")
            assert server.began.wait(SECONDS)
            others = [start("--lock", lock, "--env", "env", "--", "greet") for _ in range(4)]
            for process in others:
                wait_for_line(process, f"waiting for pid {leader.pid} on {HOST}")
            leader.send_signal(number)
            assert finish(leader)[0] == -number
            assert file.hold is not None
            file.hold.set()
            outcomes = [finish(process) for process in others]
        assert [(status, out) for status, out, _ in outcomes] == [(0, "HELLO, WORLD!\n")] * 4
        assert sum(f"took over from pid {leader.pid} on {HOST}" in err for _, _, err in outcomes) == 1
        (took_over,) = records(tmp_path, "took_over")
        assert took_over["from_pid"] == leader.pid
        assert len(records(tmp_path, "synced")) == 1
        assert names_of_waiters(env) == []
        assert unverified(env) == []

    def test_while_others_commands_run(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """A leader that only waited for commands gives up as one that asks for less: nobody takes it for a death."""
        env = tmp_path / "env"
        with in_use(env):
            leader = start("--lock", LOCK, "--env", "env", "--", "greet")
            assert wait_for_phase(env, DRAINING) == leader.pid
            other = start("--lock", LOCK, "--env", "env", "--", "greet")
            wait_for_line(other, "waiting for")
            leader.send_signal(signal.SIGTERM)
            assert finish(leader)[0] == -signal.SIGTERM
            assert wait_for_phase(env, DRAINING, besides=(leader.pid,)) == other.pid
        assert finish(other)[:2] == (0, "HELLO, WORLD!\n")
        assert records(tmp_path, "took_over") == []

    def test_ignored(self, tmp_path: Path, start: Callable[..., Process]) -> None:
        """Whoever was started with it ignored waits on, and so does its command."""
        with locked(tmp_path / "env" / ".lock"):
            script = "kill -TERM $$ && greet"
            process = start("--lock", LOCK, "--env", "env", "--", "sh", "-c", script, shell='trap "" TERM; exec "$@"')
            wait_for_line(process, "waiting for")
            process.send_signal(signal.SIGTERM)
        assert finish(process)[:2] == (0, "HELLO, WORLD!\n")


class TestCircles:
    """Commands that wait for each other's environments."""

    @pytest.fixture
    def current(self, tmp_path: Path, start: Callable[..., Process]) -> Callable[[str], None]:
        """Return a function that makes an environment current."""

        def make(name: str) -> None:
            assert finish(start("--quiet", "--lock", LOCK, "--env", name, "--", "true"))[0] == 0

        return make

    def nested(self, start: Callable[..., Process], outer: str, inner: str) -> Process:
        """Start a command in one environment that, when told to, becomes a `run` in another that has to change."""
        words = [*envsync_command(), "run", "--lock", NEXT, "--env", inner, "--", "greet"]
        process = start("--lock", LOCK, "--env", outer, "--", "sh", "-c", f"echo up; read x; exec {shlex.join(words)}")
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def go(self, process: Process) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    @pytest.mark.parametrize("names", ["AB", "ABC", "ABCD"])
    def test_a_circle_is_broken(
        self, tmp_path: Path, start: Callable[..., Process], current: Callable[[str], None], names: str
    ) -> None:
        """Each in one environment waits for the next: who would close the circle is refused, the rest go on."""
        for name in names:
            current(name)
        processes = [self.nested(start, outer, inner) for outer, inner in zip(names, names[1:] + names[0], strict=True)]
        for process, inner in zip(processes[:-1], names[1:], strict=True):
            self.go(process)
            wait_for_phase(tmp_path / inner, DRAINING)
        self.go(processes[-1])
        outcomes = [finish(process) for process in processes]
        assert [status for status, _, _ in outcomes] == [0] * (len(names) - 1) + [124]
        assert [out for _, out, _ in outcomes[:-1]] == ["HOWDY, PARTNER!\n"] * (len(names) - 1)
        assert "neither would ever end" in outcomes[-1][2]
        assert "{digest}" in outcomes[-1][2]

    def test_a_circle_that_closes_at_once(
        self, tmp_path: Path, start: Callable[..., Process], current: Callable[[str], None]
    ) -> None:
        """If both begin at the same time, at least one is refused, and what is left of the circle goes on."""
        for name in "AB":
            current(name)
        processes = [self.nested(start, "A", "B"), self.nested(start, "B", "A")]
        for process in processes:
            self.go(process)
        statuses = [finish(process)[0] for process in processes]
        assert 124 in statuses
        assert set(statuses) <= {0, 124}

    def test_a_waiter_that_would_close_it(
        self, tmp_path: Path, start: Callable[..., Process], current: Callable[[str], None]
    ) -> None:
        """It does not matter that one of them waits behind another leader: it is refused all the same."""
        for name in "AB":
            current(name)
        inside_a, inside_b = self.nested(start, "A", "B"), self.nested(start, "B", "A")
        outside = start("--lock", NEXT, "--env", "A", "--", "greet")
        wait_for_phase(tmp_path / "A", DRAINING)  # of the one in A
        self.go(inside_b)
        wait_for(lambda: names_of_waiters(tmp_path / "A"), "a waiter")  # behind the leader in A
        self.go(inside_a)
        outcomes = [finish(process) for process in (inside_a, inside_b, outside)]
        assert [status for status, _, _ in outcomes][2] == 0
        assert 124 in [status for status, _, _ in outcomes[:2]]

    def test_a_line_is_none(
        self, tmp_path: Path, start: Callable[..., Process], current: Callable[[str], None]
    ) -> None:
        """A command in A that waits for B, and one in B that waits for nobody: both come to their end."""
        for name in "AB":
            current(name)
        inside_a = self.nested(start, "A", "B")
        inside_b = start("--lock", LOCK, "--env", "B", "--", "sh", "-c", "echo up; read x; greet")
        assert inside_b.stdout is not None
        assert inside_b.stdout.readline() == "up\n"
        self.go(inside_a)
        wait_for_phase(tmp_path / "B", DRAINING)
        third = self.nested(start, "A", "B")
        self.go(third)
        wait_for_line(third, "waiting for")
        self.go(inside_b)
        assert finish(inside_b)[:2] == (0, "HELLO, WORLD!\n")
        for process in (inside_a, third):
            assert finish(process)[:2] == (0, "HOWDY, PARTNER!\n")
