"""Tasks of one step that wait on nodes of their own, on a filesystem that all share."""

from __future__ import annotations

import fcntl
import os

import pytest

from envsync.launch import Environment
from tests.lab.conftest import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TASKS, NODES = 16, 2


def test_one_task_of_a_node_speaks(cluster: Cluster) -> None:
    """Sixteen wait on two nodes: two lines; all start."""
    cluster.run("-n1", "-o", f"{cluster.there}/first.out", "--wrap", "envsync sync --lock pylock.toml --env .venv")
    environment = Environment(str(cluster.here / ".venv"))
    step = f"srun --overcommit envsync run --lock pylock.toml --env {cluster.there}/.venv -- greet"
    with open(environment.lock, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(environment.stamp, environment.draining)
        job = cluster.submit(f"-N{NODES}", f"-n{TASKS}", "-o", f"{cluster.there}/job-%j.out", "--wrap", step)
        output = cluster.here / f"job-{job}.out"
        cluster.until(lambda: output.exists() and output.read_text().count("waiting for") >= NODES)
        os.rename(environment.draining, environment.stamp)
    said = cluster.wait(job)
    assert said.count("waiting for") == NODES
    assert said.count("HELLO, WORLD!") == TASKS


def test_a_step_that_would_wait_for_its_command(cluster: Cluster) -> None:
    """It is refused at once, for the command waits for it; one of the same lock file enters."""
    run = "envsync run --env .venv --lock"
    inner = f"srun --overlap --overcommit -n1 {run}"
    for lock, said in (("pylock.toml", "HELLO, WORLD!"), ("pylock.next.toml", "waiting would be for itself")):
        words = f"{run} pylock.toml -- {inner} {lock} -- greet"
        output = cluster.run("-n1", "-o", f"{cluster.there}/job-%j.out", "--wrap", words)
        assert said in output
