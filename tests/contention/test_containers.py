"""Containers that share one environment and one cache: each has its own host name, pids, /proc, /tmp and /dev/shm.

A container is what the kernel makes of it: `unshare` with new namespaces, and a shell as the first process. Pids begin
at 1 in each, so that different processes have equal pids, and nobody sees the processes of another container.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.contention.test_in_use import is_held, left_over, wait_for_file
from tests.contention.test_many_processes import envsync, finish, wait_for_line
from tests.contention.test_uv_excludes import half_a_wheel, is_locked
from tests.environments import FIXTURES, unverified

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
SECONDS = 60
NAMESPACES = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
ROOTLESS = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]

HIDDEN = ("/root", "/tmp") if os.geteuid() == 0 else ("/tmp",)
"""In this order: what hides them is below /tmp."""
ENTER = """\
set -e
name=$1 shared=$2 private=$3 hidden=$4 script=$5
shift 5
hostname "$name"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs "$private"
for place in $hidden "$@"; do
    mkdir -p "$private$place"
done
chmod 1777 "$private/tmp"
for kept; do
    mount --rbind "$kept" "$private$kept"
done
for place in $hidden; do
    mount --rbind "$private$place" "$place"
done
cd "$shared"
echo 1 >/proc/sys/kernel/ns_last_pid
set +e
eval "$script"
"""
"""What the first process of a container does: names the host, hides /tmp but for what it needs of it, runs a script.

So with /root, into which other users may not look, and where this Python may be. The next pid is 2 then, as if nothing
had been started yet.
"""


class Containers:
    """A directory and the containers that share it. They are killed when the test ends."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.env = shared / "env"
        self.events = shared / "events.jsonl"
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self,
        name: str,
        script: str,
        *,
        inside: Sequence[str] = (),
        proc: bool = True,
        stdin: int = subprocess.PIPE,
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start a container that runs a shell script in the shared directory.

        :param inside: words that run the script's shell, for another user namespace, say
        :param proc: give it a /proc of its own
        """
        private = self.shared.parent / f"tmp-{len(self.started)}"
        private.mkdir()
        needed = {str(self.shared), str(ROOT), sys.prefix, sys.base_prefix}
        kept = sorted(
            path for path in map(os.path.realpath, needed) if path.startswith(tuple(f"{place}/" for place in HIDDEN))
        )
        if inside:
            script = "exec " + shlex.join([*inside, "sh", "-c", script])
        unshare = ["unshare", *ROOTLESS, *NAMESPACES, *(["--mount-proc"] if proc else [])]
        process = subprocess.Popen(
            [*unshare, "sh", "-c", ENTER, "sh", name, str(self.shared), str(private), " ".join(HIDDEN), script, *kept],
            cwd=self.shared,
            env={
                **os.environ,
                "ENVSYNC_EVENTS": str(self.events),
                "ENVSYNC_CACHE_DIR": str(self.shared / "cache"),
                **variables,
            },
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def at_once(self, scripts: dict[str, str], inside: dict[str, Sequence[str]]) -> list[tuple[int, str, str]]:
        """Run scripts in containers of these names. They begin when all have been started."""
        reading, writing = os.pipe()
        processes = [
            self.start(name, f"read line; {script}", inside=inside.get(name, ()), stdin=reading)
            for name, script in scripts.items()
        ]
        os.close(writing)
        os.close(reading)
        return [finish(process) for process in processes]

    def said(self, event: str) -> list[dict[str, object]]:
        """Return the events of one kind."""
        lines = map(json.loads, self.events.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def sync(self, lock: str = LOCK) -> None:
        """Make the environment current from outside of all containers."""
        done = envsync(self.shared, "sync", "--lock", lock, "--env", "env", "--cache-dir", str(self.shared / "cache"))
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        for process in self.started:
            kill(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def kill(container: subprocess.Popen[str]) -> None:
    """Kill all processes of a container at once, by its first one."""
    if container.poll() is None:
        with suppress(ValueError, ProcessLookupError):  # it has just ended, or has not begun
            os.kill(first_process(container), signal.SIGKILL)
        container.kill()
    container.wait(SECONDS)


def first_process(container: subprocess.Popen[str]) -> int:
    """Return the pid that a container's first process has outside."""
    return int(Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text())


@pytest.fixture(scope="session")
def unshare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Try once whether containers can be made here. Returns why not."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "there is no `unshare` here"
    containers = Containers(tmp_path_factory.mktemp("probe") / "shared")
    containers.shared.mkdir()
    try:
        status, _, err = finish(containers.start("probe", "true"))
    finally:
        containers.close()
    return f"containers cannot be made here: {err.strip()}" if status else ""


@pytest.fixture
def containers(unshare: str, tmp_path: Path) -> Iterator[Containers]:
    """What the containers of one test share."""
    if unshare:
        pytest.skip(unshare)
    found = Containers(tmp_path / "shared")
    found.shared.mkdir()
    yield found
    found.close()


def words(*arguments: str) -> str:
    """Return an envsync command line for a script."""
    return shlex.join([*envsync_command(), *arguments])


def run(lock: str, *command: str) -> str:
    return words("run", "--lock", lock, "--env", "env", "--", *command)


def several(count: int, command: str) -> str:
    """Return the script that runs a command several times at once, and fails if one of them does."""
    return (
        f'pids=; for number in $(seq {count}); do {command} & pids="$pids $!"; done; '
        'for pid in $pids; do wait "$pid" || exit; done'
    )


def test_a_container_is_one(containers: Containers) -> None:
    """What these tests stand on: other host name, same pids, own /proc and /tmp, a shared directory."""
    (containers.shared / "shared.txt").write_text("shared\n")
    script = "sh -c 'echo $$'; uname -n; echo /proc/[0-9]*; touch /tmp/mine; cat shared.txt"
    seen = [finish(containers.start(name, script)) for name in ("a", "b")]
    assert [(status, out.split()) for status, out, _ in seen] == [
        (0, ["2", "a", "/proc/1", "shared"]),
        (0, ["2", "b", "/proc/1", "shared"]),
    ]
    assert not Path("/tmp/mine").exists()


def test_runs_at_once_in_four_containers(containers: Containers) -> None:
    """On a missing environment: one sync in total, and everybody's command runs in it."""
    names = ("a", "b", "c", "d")
    outcomes = containers.at_once(dict.fromkeys(names, several(3, run(LOCK, "greet"))), {})
    assert [(status, out) for status, out, _ in outcomes] == [(0, "HELLO, WORLD!\n" * 3)] * 4, outcomes
    assert len(containers.said("synced")) == 1
    launched = containers.said("launched")
    assert len(launched) == 12
    assert {event["host"] for event in launched} == set(names)
    assert len({event["pid"] for event in launched}) < 12, "pids were to be equal"
    assert unverified(containers.env) == []
    assert left_over(containers.env) == []


def test_two_digests_at_once_in_four_containers(containers: Containers) -> None:
    """Commands of one digest hold the environment against the other digest's leader in the other container."""
    scripts = {
        name: several(2, run(lock, "sh", "-c", "greet; greet"))
        for name, lock in (("a", LOCK), ("b", NEXT), ("c", LOCK), ("d", NEXT))
    }
    outcomes = containers.at_once(scripts, {})
    assert [status for status, _, _ in outcomes] == [0] * 4, outcomes
    assert [out for _, out, _ in outcomes] == ["HELLO, WORLD!\n" * 4, "HOWDY, PARTNER!\n" * 4] * 2
    assert unverified(containers.env) == []


def test_nothing_is_left_in_private_places(containers: Containers) -> None:
    """/tmp and /dev/shm of a container are as they were after a sync: nothing depends on what others cannot see."""
    look = "ls -A /tmp /dev/shm"
    script = f"{look}; {words('sync', '--quiet', '--lock', LOCK, '--env', 'env')} || exit; echo after; {look}"
    status, out, err = finish(containers.start("a", script))
    assert status == 0, err
    before, after = out.split("after\n")
    assert before == after


FIRST_PIDS = {"pid 1": "exec ", "pid 2": "", "pid 4": ":& wait; :& wait; "}
"""How to start what is to have a pid: as the first process, or as one of the next."""


@pytest.mark.parametrize("other", ["b", "a"], ids=["another host name", "the same host name"])
@pytest.mark.parametrize("which", FIRST_PIDS)
def test_a_waiter_with_the_leaders_pid_waits(containers: Containers, which: str, other: str) -> None:
    """A pid means nothing across containers: the leader is not taken for the waiter itself, nor for dead."""
    with half_a_wheel(containers.shared) as (server, let_go, lock):
        sync = FIRST_PIDS[which] + words("sync", "--lock", lock, "--env", "env") + "\n:"  # not the last: sh would exec
        leader = containers.start("a", sync)
        assert server.began.wait(SECONDS)
        waiter = containers.start(other, sync)
        line = wait_for_line(waiter, "waiting for")
        assert f"{which} on a" in line
        assert (leader.poll(), waiter.poll()) == (None, None)
        assert len(server.requests) == 1
        let_go()
        for process in (leader, waiter):
            status, _, err = finish(process)
            assert status == 0, err
    assert len(containers.said("synced")) == 1
    pids = {event["pid"] for event in containers.said("synced") + containers.said("waited")}
    assert pids == {int(which.split()[1])}
    assert unverified(containers.env) == []
    assert left_over(containers.env) == []


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("who", ["waiter", "leader"])
def test_the_first_process_of_a_container_can_be_ended(containers: Containers, who: str, how: str) -> None:
    """The kernel keeps from pid 1 what it has no handler for, its own signals included: it ends all the same."""
    with half_a_wheel(containers.shared) as (server, let_go, lock):
        sync = "exec " + words("sync", "--lock", lock, "--env", "env")
        leader = waiter = containers.start("a", sync)
        assert server.began.wait(SECONDS)
        if who == "waiter":
            waiter = containers.start("b", sync)
            wait_for_line(waiter, "waiting for")
        os.kill(first_process(waiter), signal.Signals[how])
        assert waiter.wait(SECONDS) == 128 + signal.Signals[how]
        let_go()
        if who == "waiter":
            status, _, err = finish(leader)
            assert status == 0, err
            assert not is_locked(containers.env / ".lock")
        else:  # of a first sync that was interrupted nothing stays
            assert not containers.env.exists()


def test_a_leader_is_succeeded_by_one_in_another_container(containers: Containers) -> None:
    """A container that is killed with all its processes while it downloads leaves the sync to exactly one other."""
    with half_a_wheel(containers.shared) as (server, let_go, lock):
        command = run(lock, "python", "-c", "import big")
        leader = containers.start("a", several(2, command))
        assert server.began.wait(SECONDS)
        waiters = [containers.start(name, several(2, command)) for name in ("b", "c")]
        for waiter in waiters:
            wait_for_line(waiter, "waiting for")
        kill(leader)
        let_go()
        for waiter in waiters:
            status, _, err = finish(waiter)
            assert status == 0, err
    assert [event["host"] in ("b", "c") for event in containers.said("synced")] == [True]
    assert len(containers.said("launched")) == 4
    assert unverified(containers.env) == []
    assert left_over(containers.env) == []


def test_a_leader_that_waited_for_commands_is_succeeded(containers: Containers) -> None:
    """It was killed with all staged and the stamp set aside: one other goes on waiting for the command to end."""
    containers.sync()
    command = containers.start("a", run(LOCK, "sh", "-c", "echo up; read line; greet"))
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    leader = containers.start("b", run(NEXT, "greet"))
    wait_for_file(containers.env / ".envsync" / "stamp.draining")
    waiters = [containers.start(name, several(2, run(NEXT, "greet"))) for name in ("c", "d")]
    for waiter in waiters:
        wait_for_line(waiter, "waiting for")
    kill(leader)
    assert [process.poll() for process in (command, *waiters)] == [None] * 3
    assert finish_with(command, "\n")[:2] == (0, "HELLO, WORLD!\n")
    for waiter in waiters:
        status, out, err = finish(waiter)
        assert (status, out) == (0, "HOWDY, PARTNER!\n" * 2), err
    assert [event["host"] in ("c", "d") for event in containers.said("synced")] == [True]
    assert unverified(containers.env) == []
    assert left_over(containers.env) == []


def finish_with(process: subprocess.Popen[str], line: str) -> tuple[int, str, str]:
    out, err = process.communicate(line, timeout=100)
    return process.returncode, out, err


def test_a_killed_container_frees_the_environment(containers: Containers) -> None:
    """The commands in it, and what they left behind, hold the environment until then."""
    containers.sync()
    container = containers.start("a", run(LOCK, "sh", "-c", "sleep 600 & echo up") + "; sleep 600")
    assert container.stdout is not None
    assert container.stdout.readline() == "up\n"
    assert is_held(containers.env)
    ask = words("sync", "--quiet", "--lock", NEXT, "--env", "env", "--busy", "fail")
    assert finish(containers.start("b", ask))[0] == 124
    kill(container)
    with (containers.env / ".envsync" / "in-use").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    status, _, err = finish(containers.start("b", ask))
    assert status == 0, err


def test_jobs_in_two_containers_are_named(containers: Containers) -> None:
    """As on two nodes: each leaves one name, whoever has to wait for them is told of it, and it decides nothing."""
    containers.sync()
    started = []
    for name, job in (("node07", "17"), ("node08", "17"), ("node09", "18")):
        script = f"{run(LOCK, 'true')}; {run(LOCK, 'true')}; exec {run(LOCK, 'sh', '-c', 'echo up; read line')}"
        started.append(containers.start(name, script, SLURM_JOB_ID=job))
    for container in started:
        assert container.stdout is not None
        assert container.stdout.readline() == "up\n"
    state = containers.env / ".envsync"
    assert len(list((state / "holders").iterdir())) == 3
    said = json.loads(envsync(containers.shared, "status", "--env", "env", "--json").stdout)
    assert {(each["host"], each["job"], each["command"], each["proved"]) for each in said["jobs"]} == {
        (name, job, "true", False) for name, job in (("node07", "17"), ("node08", "17"), ("node09", "18"))
    }
    ask = ["sync", "--lock", NEXT, "--env", "env"]
    done = envsync(containers.shared, *ask, "--busy", "fail")
    assert done.returncode == 124
    assert "Slurm job 17 on node07, node08 (`true`)" in done.stderr or "on node08, node07" in done.stderr
    assert "may still run: `squeue -j " in done.stderr
    with subprocess.Popen(
        [*envsync_command(), *ask], cwd=containers.shared, stderr=subprocess.PIPE, text=True
    ) as waiter:
        wait_for_line(waiter, "waiting for commands that run in the environment to end: ")
        for container in started:
            container.communicate("\n", timeout=SECONDS)
        waiter.communicate(timeout=SECONDS)
    assert waiter.returncode == 0
    assert not (state / "holders").exists()


@pytest.mark.parametrize("proc", [True, False], ids=["own /proc", "outer /proc"])
def test_the_variable_in_another_container_does_not_mean_inside(containers: Containers, proc: bool) -> None:
    """ENVSYNC_IN is inherited into a container where the command's pid is an ancestor's, by chance: it may wait.

    A container may have pids of its own and see the /proc of the host, where the same pid is another process.
    """
    containers.sync()
    show = 'echo "$ENVSYNC_IN $$"; read line; greet'
    command = subprocess.Popen(
        [*envsync_command(), "run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", show],
        cwd=containers.shared,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    containers.started.append(command)
    assert command.stdout is not None
    token, pid = command.stdout.readline().split()
    sync = words("sync", "--lock", NEXT, "--env", "env")
    # The shell in parentheses has the pid of the command, and is the parent of envsync.
    script = f"echo {int(pid) - 1} >/proc/sys/kernel/ns_last_pid; (sh -c 'echo $PPID'; {sync}; exit $?)"
    other = containers.start("b", script, proc=proc, ENVSYNC_IN=token)
    assert other.stdout is not None
    assert other.stdout.readline() == f"{pid}\n"
    draining = containers.env / ".envsync" / "stamp.draining"
    limit = time.monotonic() + SECONDS
    while not draining.exists() and other.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.005)
    out, _ = command.communicate("\n", timeout=SECONDS)
    assert out == "HELLO, WORLD!\n"
    status, _, err = finish(other)
    assert status == 0, err


def test_a_leader_is_not_taken_for_dead_where_proc_is_the_hosts(containers: Containers) -> None:
    """Leader and waiter of one container see the /proc of the host, in which their pids are others' or nobody's."""
    with half_a_wheel(containers.shared) as (server, let_go, lock):
        sync = words("sync", "--lock", lock, "--env", "env")
        # A number that no process of the host has, so that its /proc does not have it either.
        script = f"echo {free_pid() - 1} >/proc/sys/kernel/ns_last_pid; {sync} & read line; {sync} && wait $!"
        container = containers.start("a", script, proc=False)
        assert server.began.wait(SECONDS)
        assert container.stdin is not None
        container.stdin.write("\n")
        container.stdin.flush()
        line = wait_for_line(container, "waiting for")
        let_go()
        status, _, err = finish(container)
        assert status == 0, err
    assert "on a, syncing" in line
    assert "dead" not in line
    assert "stopped" not in line


def free_pid() -> int:
    """Return a number that is no pid here."""
    return next(pid for pid in range(25_000, 32_000) if not Path(f"/proc/{pid}").exists())


def test_the_descriptor_in_another_container_does_mean_inside(containers: Containers) -> None:
    """A container that a command is, with its descriptors, would wait for itself: refused at once."""
    containers.sync()
    inner = words("sync", "--lock", NEXT, "--env", "env", "--timeout", "30")
    unshare = shlex.join(["unshare", *ROOTLESS, *NAMESPACES, "--mount-proc", "sh", "-c", f"{inner}; exit $?"])
    status, _, err = finish(containers.start("a", run(LOCK, "sh", "-c", unshare)))
    assert status == 124
    assert "waiting would be for itself" in err


NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
USERS = {
    "root as user 1000": ["unshare", "--user", "--map-user=1000", "--map-group=1000"],
    "root as root": ["unshare", "--user", "--map-root-user"],
    "nobody as root": [*NOBODY, "unshare", "--user", "--map-root-user"],
    "nobody": NOBODY,
}


def skip_unless_usable(containers: Containers, inside: Sequence[str]) -> None:
    """Skip if such a user cannot be, or cannot use this Python."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    status, _, err = finish(containers.start("probe", f"HOME=/tmp; {words('--version')}", inside=inside))
    if status:
        pytest.skip(f"`{shlex.join(inside)}` does not work here: {err.strip()}")


@pytest.mark.parametrize("who", USERS)
def test_users_that_are_mapped_share_one_sync(containers: Containers, who: str) -> None:
    """A container whose users are others inside, or others altogether, syncs and waits like any other."""
    skip_unless_usable(containers, USERS[who])
    containers.shared.chmod(0o777)
    script = "umask 0; HOME=/tmp; " + several(3, run(LOCK, "greet"))
    scripts = dict.fromkeys(("a", "b", "c"), script)
    outcomes = containers.at_once(scripts, {"a": USERS[who], "b": USERS[who]})
    assert [(status, out) for status, out, _ in outcomes] == [(0, "HELLO, WORLD!\n" * 3)] * 3, outcomes
    assert len(containers.said("synced")) == 1
    assert len(containers.said("launched")) == 9
    assert unverified(containers.env) == []
    assert left_over(containers.env) == []


@pytest.mark.parametrize("who", USERS)
def test_users_that_are_mapped_hold_an_environment(containers: Containers, who: str) -> None:
    """A command in such a container enters an environment that root made, and keeps it from changing."""
    skip_unless_usable(containers, USERS[who])
    containers.sync()
    command = containers.start(
        "a", "HOME=/tmp; " + run(LOCK, "sh", "-c", "echo up; read line; greet"), inside=USERS[who], ENVSYNC_EVENTS=""
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    ask = words("sync", "--quiet", "--lock", NEXT, "--env", "env", "--busy", "fail")
    assert finish(containers.start("b", ask))[0] == 124
    assert finish_with(command, "\n")[:2] == (0, "HELLO, WORLD!\n")
    status, _, err = finish(containers.start("b", ask))
    assert status == 0, err
