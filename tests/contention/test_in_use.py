"""The in-use lock: which processes keep an environment in use, and which do not.

Whoever has the descriptor holds the lock: the command, its forks, and what is started without closing descriptors.
The kernel is asked whether it is held, by trying to take it exclusively; for some, `sync --busy fail` is asked, too.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.contention.test_many_processes import Barrier, envsync, wait_for_line
from tests.environments import FIXTURES, leftovers

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""


def is_held(env: Path) -> bool:
    """Ask the kernel whether anybody holds the in-use lock."""
    with (env / ".envsync" / "in-use").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_until_free(env: Path) -> None:
    """Return as soon as the kernel grants the in-use lock."""
    with (env / ".envsync" / "in-use").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def wait_for_file(path: Path) -> None:
    limit = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < limit, f"{path} never came"
        time.sleep(0.005)


def left_over(env: Path) -> list[str]:
    """Name what should have been cleared away. The directory of those who wait stays, and nobody waits any more."""
    waiting = env / ".envsync" / "waiting"
    names = [path.name for path in waiting.iterdir()] if waiting.is_dir() else []
    return [name for name in leftovers(env) if name != waiting.name] + names


def run_words(env: Path, *words: str) -> list[str]:
    return [*envsync_command(), "run", "--quiet", "--lock", LOCK, "--env", str(env), "--", *words]


def busy_fail(env: Path) -> int:
    """Ask for other packages in the environment, and refuse to wait."""
    return envsync(env.parent, "sync", "--quiet", "--lock", NEXT, "--env", str(env), "--busy", "fail").returncode


class Command:
    """A process that says lines on its stdout, ends when its stdin does, and may leave others behind."""

    def __init__(self, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            words,
            env={**os.environ, "TMPDIR": os.environ["HOME"]},  # multiprocessing leaves sockets there
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.left: list[int] = []

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def child(self) -> int:
        """Read the pid of a process that it started."""
        self.left.append(int(self.line()))
        return self.left[-1]

    def end(self) -> int:
        """Let the command end by itself, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS)

    def clear(self) -> None:
        """Kill the command and what it left behind."""
        for pid in self.left:
            kill(pid)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # a test has killed it


def is_alive(pid: int) -> bool:
    """Tell whether a process runs still: it is there, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Return a function that starts words; whatever is left is killed afterwards."""
    started: list[Command] = []

    def start(*words: str) -> Command:
        started.append(Command(words))
        return started[-1]

    yield start
    for command in started:
        command.clear()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all environments here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """An environment that is current for LOCK, and stays so."""
    path = tmp_path_factory.mktemp("in-use") / "env"
    assert envsync(path.parent, "sync", "--lock", LOCK, "--env", "env", "--cache-dir", str(cache)).returncode == 0
    return path


@pytest.fixture
def own_env(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that is current for LOCK, and may be changed."""
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(cache))
    assert envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env").returncode == 0
    return tmp_path / "env"


Start = Callable[..., Command]


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGKILL", "SIGINT"])
def test_the_lock_lasts_as_long_as_the_command(env: Path, start: Start, how: str) -> None:
    """From before the command's first instruction until its end, whichever that is."""
    command = start(*run_words(env, "sh", "-c", "echo up; read line"))
    assert command.line() == "up"
    assert is_held(env)
    if how == "exit":
        command.end()
    else:
        command.process.send_signal(signal.Signals[how])
        assert command.process.wait(SECONDS) == -signal.Signals[how]
    assert not is_held(env)


def test_the_lock_outlasts_a_stop(env: Path, start: Start) -> None:
    """A command that was stopped runs still."""
    command = start(*run_words(env, "sh", "-c", "echo up; read line"))
    assert command.line() == "up"
    command.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, command.process.pid, os.WSTOPPED)
    assert is_held(env)
    command.process.send_signal(signal.SIGCONT)
    command.end()
    assert not is_held(env)


@pytest.mark.parametrize("who", ["the leader", "a waiter"])
def test_whoever_synced_or_waited_holds_it_just_the_same(tmp_path: Path, start: Start, who: str) -> None:
    """A command that was launched by the slow path holds the lock as one that was launched at once does."""
    env = tmp_path / "env"
    barrier = Barrier()
    words = ["run", "--quiet", "--lock", LOCK, "--env", str(env), "--", "sh", "-c", "echo up; exec sleep 600"]
    processes = [barrier.start(*words, cwd=tmp_path) for _ in range(1 if who == "the leader" else 4)]
    barrier.lift()
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        for process in processes:  # one of them led, the others waited or came after it: each one's is enough
            assert is_held(env)
            process.kill()
            process.communicate()
        assert not is_held(env)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


SHELLS = {
    "bash, redirections": ("bash", "exec 3>&1; exec 4<&0; exec 5>/dev/null 6<&4; echo up >&3; read line <&4"),
    "sh, redirections": ("sh", "exec 3>&1; exec 4<&0; exec 5>/dev/null 6<&4; echo up >&3; read line <&4"),
    "bash, closes": ("bash", 'for fd in {3..199}; do eval "exec $fd>&-"; done; echo up; read line'),
    "sh, closes": ("sh", 'for fd in 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done; echo up; read line'),
    "bash, names descriptors": ("bash", "exec {a}>&1 {b}<&0; echo up >&$a; read line <&$b"),
    "bash, a pipe": ("bash", "{ echo up; read line; } | cat; true"),
    "sh, a chain": ("sh", "exec nice env sh -c 'echo up; exec cat >/dev/null'"),
}


@pytest.mark.parametrize("which", SHELLS)
def test_shells_leave_the_lock_alone(env: Path, start: Start, which: str) -> None:
    """What scripts do to low descriptors is no matter."""
    shell, script = SHELLS[which]
    command = start(*run_words(env, shell, "-c", script))
    assert command.line() == "up"
    assert is_held(env)
    command.end()
    assert not is_held(env)


def test_a_script_file_leaves_the_lock_alone(env: Path, start: Start, tmp_path: Path) -> None:
    """bash keeps the script that it reads on a high descriptor of its own."""
    (tmp_path / "script").write_text("#!/usr/bin/env bash\nexec 3>&1\necho up >&3\nread line\n")
    (tmp_path / "script").chmod(0o755)
    command = start(*run_words(env, str(tmp_path / "script")))
    assert command.line() == "up"
    assert is_held(env)
    command.end()
    assert not is_held(env)


PRELUDE = "import multiprocessing, os, signal, subprocess, sys\nsleep = ['sleep', '600']\n"
EPILOGUE = "\nsys.stdin.read()\nos._exit(0)\n"
DAEMON = """\
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {}
        print(os.getpid(), flush=True)
        signal.pause()
    os._exit(0)
os.wait()
"""
WORKER = """\
process = multiprocessing.get_context({!r}).Process(target=signal.pause)
process.start()
print(process.pid, flush=True)
"""


def python(body: str) -> list[str]:
    return ["python", "-c", PRELUDE + body + EPILOGUE]


def shell(name: str, script: str) -> list[str]:
    return [name, "-c", f"{script}\nread line"]


HOLDING = {
    "os.fork": python("pid = os.fork()\nif pid == 0: signal.pause()\nprint(pid, flush=True)"),
    "os.fork, exec": python("pid = os.fork()\nif pid == 0: os.execvp('sleep', sleep)\nprint(pid, flush=True)"),
    "os.spawnvp": python("print(os.spawnvp(os.P_NOWAIT, 'sleep', sleep), flush=True)"),
    "os.posix_spawnp": python("print(os.posix_spawnp('sleep', sleep, os.environ), flush=True)"),
    "os.system": python("os.system('sleep 600 & echo $!')"),
    "a daemon that keeps descriptors": python(DAEMON.format("pass")),
    "Popen(close_fds=False)": python("print(subprocess.Popen(sleep, close_fds=False).pid, flush=True)"),
    "multiprocessing, fork": python(WORKER.format("fork")),
    "sh, background": shell("sh", "sleep 600 & echo $!"),
    "bash, background": shell("bash", "sleep 600 & echo $!"),
    "bash, background and disowned": shell("bash", "sleep 600 & disown; echo $!"),
    "sh, a subshell": shell("sh", "(exec 3>&1 4<&0; sh -c 'echo $$; exec sleep 600'; true) &"),
    "sh, nohup": shell("sh", "nohup sleep 600 </dev/null >/dev/null 2>&1 & echo $!"),
    "sh, setsid": shell("sh", "setsid sleep 600 & echo $!"),
}
NOT_HOLDING = {
    "Popen": python("print(subprocess.Popen(sleep).pid, flush=True)"),
    "Popen(shell=True)": python("subprocess.Popen('sleep 600 & echo $!', shell=True).wait()"),
    "Popen(start_new_session=True)": python("print(subprocess.Popen(sleep, start_new_session=True).pid, flush=True)"),
    "asyncio": python(
        "import asyncio\n"
        "async def main():\n"
        "    process = await asyncio.create_subprocess_exec(*sleep)\n"
        "    print(process.pid, flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "asyncio.run(main())"
    ),
    "a daemon that closes descriptors": python(DAEMON.format("os.closerange(3, 1024)")),
    "multiprocessing, spawn": python(WORKER.format("spawn")),
    "multiprocessing, forkserver": python(WORKER.format("forkserver")),
    "bash, closed by its number": shell("bash", "sh -c 'echo $$; exec sleep 600' 200>&- &"),
}


@pytest.mark.parametrize("which", HOLDING)
def test_what_inherits_the_descriptor_keeps_the_environment_in_use(env: Path, start: Start, which: str) -> None:
    """A process that outlives the command holds the lock, if it was started without closing descriptors."""
    command = start(*run_words(env, *HOLDING[which]))
    child = command.child()
    assert command.end() in (0, 1)  # a shell's `read` at the end of its input says 1
    assert is_alive(child)
    assert is_held(env)
    kill(child)
    wait_until_free(env)


@pytest.mark.parametrize("which", NOT_HOLDING)
def test_what_was_started_without_descriptors_does_not(env: Path, start: Start, which: str) -> None:
    """While the command runs it holds the lock; what outlives it without the descriptor does not."""
    command = start(*run_words(env, *NOT_HOLDING[which]))
    child = command.child()
    assert is_held(env)
    assert command.end() in (0, 1)
    assert is_alive(child)
    assert not is_held(env)
    assert is_alive(child)


def test_what_is_started_past_envsync_is_not_covered(env: Path, start: Start) -> None:
    """The environment's own Python, started by its path, holds nothing."""
    command = start(str(env / "bin" / "python"), "-c", "print('up', flush=True); input()")
    assert command.line() == "up"
    assert not is_held(env)


@pytest.mark.parametrize("which", ["os.fork", "sh, background", "sh, setsid", "multiprocessing, fork"])
def test_nothing_changes_beneath_what_outlives_its_command(own_env: Path, start: Start, which: str) -> None:
    """`sync --busy fail` of other packages is refused while such a process runs, and succeeds when it has ended."""
    command = start(*run_words(own_env, *HOLDING[which]))
    child = command.child()
    command.end()
    assert busy_fail(own_env) == 124
    assert is_alive(child)
    assert (own_env / ".envsync" / "stamp").exists()
    kill(child)
    wait_until_free(own_env)
    assert busy_fail(own_env) == 0


@pytest.mark.parametrize("which", ["Popen", "a daemon that closes descriptors"])
def test_what_dropped_the_descriptor_does_not_delay_a_change(own_env: Path, start: Start, which: str) -> None:
    """The known gap, pinned down: such a process sees the environment change beneath it."""
    command = start(*run_words(own_env, *NOT_HOLDING[which]))
    child = command.child()
    assert busy_fail(own_env) == 124
    command.end()
    assert busy_fail(own_env) == 0
    assert is_alive(child)


def nested(env: Path, *words: str, lock: str = LOCK) -> str:
    """Return the Python that starts an `envsync run` without our descriptors, as subprocess does."""
    inner = [*envsync_command(), "run", "--quiet", "--lock", lock, "--env", str(env), "--timeout", "30", "--", *words]
    return f"inner = subprocess.Popen({inner!r})\n"


def test_a_run_of_its_own_covers_what_popen_starts(own_env: Path, start: Start) -> None:
    """A nested `envsync run` inherits the variable only, takes a hold of its own, and outlives the first."""
    command = start(*run_words(own_env, *python(nested(own_env, "sh", "-c", "echo $$; exec sleep 600"))))
    child = command.child()
    assert command.end() == 0
    assert is_held(own_env)
    assert busy_fail(own_env) == 124
    kill(child)
    wait_until_free(own_env)
    assert busy_fail(own_env) == 0


def test_a_nested_run_enters_while_others_wait_for_the_command(own_env: Path, start: Start) -> None:
    """A command may start more of its kind although a leader waits for it to end; the leader goes on afterwards."""
    body = "sys.stdin.readline()\n" + nested(own_env, "sh", "-c", "echo $$; exec sleep 600")
    command = start(*run_words(own_env, *python("print('up', flush=True)\n" + body)))
    assert command.line() == "up"
    leader = start(*envsync_command(), "sync", "--quiet", "--lock", NEXT, "--env", str(own_env))
    wait_for_file(own_env / ".envsync" / "stamp.draining")
    assert command.process.stdin is not None
    command.process.stdin.write("\n")
    command.process.stdin.flush()
    child = command.child()
    command.end()
    assert leader.process.poll() is None
    assert is_held(own_env)
    kill(child)
    assert leader.process.wait(SECONDS) == 0
    assert envsync(own_env.parent, "run", "--lock", NEXT, "--env", "env", "--", "greet").stdout == "HOWDY, PARTNER!\n"


def test_a_nested_run_of_another_digest_is_refused_even_without_the_descriptor(own_env: Path, start: Start) -> None:
    """It would wait for the command that started it, which waits for it: refused at once, and nothing changes."""
    body = nested(own_env, "greet", lock=NEXT) + "print(inner.wait(), flush=True)\n"
    command = start(*run_words(own_env, *python(body)))
    assert command.line() == "124"
    command.end()
    assert (own_env / ".envsync" / "stamp").exists()


def test_what_outlives_the_command_may_change_the_environment(own_env: Path, start: Start) -> None:
    """The variable alone, inherited by what is no descendant any more, does not keep anybody from a sync."""
    inner = shlex.join(
        [*envsync_command(), "run", "--quiet", "--lock", NEXT, "--env", str(own_env), "--timeout", "30", "--", "greet"]
    )
    script = f"read line <{shlex.quote(str(own_env.parent / 'go'))}; {inner}"
    os.mkfifo(own_env.parent / "go")
    command = start(*run_words(own_env, *python(f"print(subprocess.Popen(['sh', '-c', {script!r}]).pid, flush=True)")))
    command.child()
    assert command.end() == 0
    with (own_env.parent / "go").open("w") as go:
        go.write("\n")
    assert command.line() == "HOWDY, PARTNER!"


def test_whoever_waits_for_commands_to_end_says_so(own_env: Path, start: Start) -> None:
    """A leader that waits for running commands is not silent about it: a line within seconds, on a pipe as well."""
    command = start(*run_words(own_env, "sh", "-c", "echo up; read line"))
    assert command.line() == "up"
    leader = subprocess.Popen(
        [*envsync_command(), "sync", "--lock", NEXT, "--env", str(own_env)], stderr=subprocess.PIPE, text=True
    )
    with leader:
        wait_for_file(own_env / ".envsync" / "stamp.draining")
        began = time.monotonic()
        wait_for_line(leader, "waiting for")
        took = time.monotonic() - began
        command.end()
        leader.communicate(timeout=SECONDS)
    assert leader.returncode == 0
    assert took < 6, "README: within a second"


@pytest.mark.parametrize("synced", [True, False], ids=["current", "missing"])
@pytest.mark.parametrize("limit", [64, 200, 201])
def test_a_low_limit_on_descriptors_is_no_matter(
    env: Path, tmp_path: Path, start: Start, limit: int, synced: bool
) -> None:
    """Where there is no descriptor 200, the lock is on another one, and held as long."""
    where = env if synced else tmp_path / "env"
    limited = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash"]
    command = start(*limited, *run_words(where, "sh", "-c", "echo up; read line"))
    assert command.line() == "up"
    assert is_held(where)
    command.end()
    assert not is_held(where)


def test_shells_leave_the_lock_alone_under_a_low_limit_on_descriptors(env: Path, start: Start) -> None:
    """There is room out of the way of redirections below a limit of 64, too."""
    limited = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash"]
    command = start(*limited, *run_words(env, *SHELLS["sh, redirections"][:1], "-c", SHELLS["sh, redirections"][1]))
    assert command.line() == "up"
    assert is_held(env)
    command.end()
    assert not is_held(env)
