"""Clusters of Dask that start `dask worker` by a line: dask-jobqueue and SSHCluster, as docs/runners.md says.

SSHCluster logs in to this machine, by an sshd that is made for the test: its keys, port and configuration are its own.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.conftest import SECONDS, Bench, version
from tests.engines.standing import standing

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

SSH = """
    import shlex
    from distributed import SSHCluster
    import envsync

    def cluster():
        return SSHCluster(
            ["127.0.0.1"] * 3,
            connect_options=CONNECT,
            worker_options={"nthreads": 1},
            scheduler_options={"port": 0, "dashboard": False},
            remote_python=shlex.join([*envsync.command(LOCK, env=ENV), "python"]),
        )
"""
JOBS = """
    import shlex
    from dask_jobqueue.local import LocalCluster
    import envsync

    def cluster():
        return LocalCluster(
            n_workers=2,
            cores=1,
            processes=1,
            memory="1GiB",
            log_directory=HERE,
            scheduler_options={"dashboard_address": ":0"},
            python=shlex.join([*envsync.command(LOCK, env=ENV), "python"]),
        )
"""
MAIN = """
    from distributed import Client

    for _ in range(int(os.environ.get("ROUNDS", "1"))):
        with cluster() as two, Client(two) as client:
            client.wait_for_workers(2, timeout=60)
            seen = [*client.run(probe).values()]
            assert len(seen) == 2
            if WRAPPED_SCHEDULER:
                seen.append(client.run_on_scheduler(probe))
            print(json.dumps(seen), flush=True)
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextlib.contextmanager
def _sshd(program: str, directory: Path, variables: dict[str, str]) -> Iterator[dict[str, object]]:
    """Run an sshd for this user, with a key of its own. Gives what `asyncssh.connect` needs.

    :param variables: what it sets for commands
    """
    directory.mkdir()
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    port = _free_port()
    config = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": directory / "host",
        "AuthorizedKeysFile": directory / "user.pub",
        "AuthenticationMethods": "publickey",
        "PidFile": "none",
        "StrictModes": "no",  # of directories above
        "SetEnv": " ".join(f"{name}={value}" for name, value in variables.items()),
    }
    (directory / "config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # the service makes it when it starts
    known = directory / "known"
    known.write_text(f"[127.0.0.1]:{port} {(directory / 'host.pub').read_text()}")
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [program, "-D", "-e", "-f", str(directory / "config")], stdin=subprocess.DEVNULL, stderr=log
        ) as server,
    ):
        try:
            while not _answers(port):
                assert server.poll() is None, (directory / "log").read_text()
                time.sleep(0.05)
            yield {
                "port": port,
                "username": getpass.getuser(),
                "client_keys": [str(directory / "user")],
                "known_hosts": str(known),
                "agent_path": None,
                "config": [],
            }
        finally:
            server.terminate()


@pytest.fixture(params=["dask-jobqueue", "SSHCluster"])
def code(request: pytest.FixtureRequest, bench: Bench) -> Iterator[str]:
    """The program of a user, with two workers, and with SSH a scheduler as well, each started by the words."""
    version("distributed")
    bench.write_lock("distributed")
    if request.param == "dask-jobqueue":
        version("dask-jobqueue")
        yield f"    WRAPPED_SCHEDULER = False{JOBS}{MAIN}"
        return
    version("asyncssh")
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd here: apt-get install openssh-server")
    with _sshd(program, bench.directory / "sshd", {"ENVSYNC_EVENTS": str(bench.events_file)}) as connect:
        yield f"    CONNECT = {connect!r}\n    WRAPPED_SCHEDULER = True{SSH}{MAIN}"


def _check(bench: Bench, said: str, rounds: int = 1) -> None:
    """See that all processes of so many clusters had the environment's modules, and that there was one sync."""
    clusters = [json.loads(line) for line in said.splitlines()]
    assert len(clusters) == rounds
    assert [each for seen in clusters for each in seen if not bench.is_of_environment(each)] == []
    assert len(bench.events("synced")) == 1


def test_two_workers(bench: Bench, code: str) -> None:
    """One sync for all; each is a process that is wrapped."""
    done = bench.run(code)
    assert done.returncode == 0, done.stderr
    _check(bench, done.stdout)
    assert len(bench.events("launched")) == len(json.loads(done.stdout))


def test_a_wrong_hash(bench: Bench, code: str) -> None:
    """The program fails, and has said why: dask-jobqueue's own cluster of this machine shows the first line."""
    bench.write_lock("distributed", wrong=True)
    done = bench.run(code)
    assert done.returncode == 1
    assert "refusing wheel `greet-2.0-py3-none-any.whl`" in done.stderr
    if "SSHCluster" in code:
        assert "hint: " in done.stderr
    assert not bench.events("launched")


def test_a_leader_killed_in_mid_sync(bench: Bench, code: str) -> None:
    """The cluster has lost what it was starting, and raises; the next one goes on with what there is."""
    with standing(bench.lock, bench.env) as sync:
        with bench.start(code) as program:
            killed = sync.kill(program)
            _, err = program.communicate(timeout=SECONDS)
        assert program.returncode == 1, err
        done = bench.run(code)
    assert done.returncode == 0, done.stderr
    _check(bench, done.stdout)
    assert [each["from_pid"] for each in bench.events("took_over")] == [killed]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_clusters(bench: Bench, code: str) -> None:
    """None hangs, and there is one sync for all."""
    with bench.start(code, env={**bench.variables, "ROUNDS": "20"}) as program:
        out, err = program.communicate(timeout=1500)
    assert program.returncode == 0, err
    _check(bench, out, 20)
