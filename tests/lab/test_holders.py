"""Which jobs run in an environment, told on a node on which they do not run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.launch import stamp
from tests.lab.conftest import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

HOLD = "envsync run --lock pylock.toml --env .venv --"


@contextmanager
def held(cluster: Cluster, *words: str, tasks: int) -> Iterator[str]:
    """Let a job run in the environment until the end of the block, or its own."""
    (cluster.here / "hold").touch()
    command = (
        f"srun --overcommit {HOLD} sh -c 'touch up.$SLURM_JOB_ID.$SLURM_PROCID; while [ -e hold ]; do sleep .1; done'"
    )
    job = cluster.submit(*words, "-o", f"{cluster.there}/job-%j.out", "--wrap", command)
    try:
        cluster.until(lambda: len(list(cluster.here.glob("up.*"))) == tasks)
        yield job
    finally:
        (cluster.here / "hold").unlink(missing_ok=True)
        subprocess.run(["scancel", job], env=cluster.variables, check=True)
        cluster.wait(job)
        for path in cluster.here.glob("up.*"):
            path.unlink()


def names(cluster: Cluster) -> list[Path]:
    return sorted((cluster.here / ".venv/.envsync").glob("holders/*"))


def test_a_job_on_two_nodes(cluster: Cluster) -> None:
    """One name a node for eight tasks; told on each node: its own tasks are proved, the others may still run.

    Who has to change the environment names the job; once that is cancelled, as was said, it does, and there is no name.
    """
    cluster.srun("-n1", "envsync", "sync", "--lock", "pylock.toml", "--env", ".venv")
    with held(cluster, "-N2", "-n8", tasks=8) as job:
        assert len(names(cluster)) == 2
        hosts = cluster.srun("-N2", "-n2", "--overlap", "hostname").stdout.split()
        for host in hosts:
            ask = ["-w", host, "-n1", "envsync", "status", "--env", ".venv", "--json"]
            said = json.loads(cluster.srun(*ask).stdout)
            assert {each["job"] for each in said["jobs"]} == {job}
            assert [each["host"] for each in said["jobs"] if not each["proved"]] == [
                each for each in hosts if each != host
            ]
            assert {each["job"] for each in said["commands"]} == {f"Slurm job {job}"}
            assert {each["ask"] for each in said["jobs"]} == {f"squeue -j {job}"}
            end = {each["end"] for each in said["jobs"]}
        change = ["-n1", "-w", hosts[0], "envsync", "sync", "--lock", "pylock.next.toml", "--env", ".venv"]
        done = cluster.srun(*change, "--busy", "fail", check=False)
        assert done.returncode != 0
        assert (
            f"Slurm job {job} on {hosts[1]} (`sh`) may still run: `squeue -j {job}` tells, `scancel {job}`"
            in done.stderr
        )
        assert end == {f"scancel {job}"}
        subprocess.run([*end.pop().split()], env=cluster.variables, check=True)
        cluster.wait(job)
        cluster.srun(*change)
        assert names(cluster) == []


def test_an_array(cluster: Cluster) -> None:
    """Its jobs have one name for each node that they run on, by the id of the array, which ends them all."""
    cluster.srun("-n1", "envsync", "sync", "--lock", "pylock.toml", "--env", ".venv")
    with held(cluster, "--array=0-5", "-n1", tasks=6) as array:
        hosts = set(cluster.squeue("-j", array, "-o", "%N"))
        assert len(names(cluster)) == len(hosts)
        assert all(path.name.startswith(f"slurm.{array}.") for path in names(cluster))
        said = json.loads(cluster.srun("-n1", "envsync", "status", "--env", ".venv", "--json").stdout)
        assert {each["end"] for each in said["jobs"]} == {f"scancel {array}"}


def test_without_a_scheduler(cluster: Cluster) -> None:
    """On a filesystem that other hosts share, a host leaves a name without one: it is asked by ssh."""
    words = ["--lock", "pylock.toml", "--env", ".venv"]
    cluster.srun("-n1", "envsync", "sync", *words)
    here = [sys.executable, "-m", "envsync"]
    variables = {**cluster.variables, "ENVSYNC_CACHE_DIR": str(cluster.here / "cache")}
    vouched = stamp.load((cluster.here / ".venv/.envsync/stamp").read_bytes())
    assert vouched is not None
    assert vouched.network
    run = [*here, "run", "--no-sync", "--env", ".venv", "--", "sh", "-c", "echo up; read line"]
    with subprocess.Popen(
        run, cwd=cluster.here, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        (name,) = names(cluster)
        assert name.name.startswith("host.")
        said = json.loads(cluster.srun("-n1", "envsync", "status", "--env", ".venv", "--json").stdout)
        assert command.pid in {each["pid"] for each in (*said["jobs"], *said["commands"])}
        command.communicate("\n")
