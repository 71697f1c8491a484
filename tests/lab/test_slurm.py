"""The scripts of docs/slurm.md, on a Slurm: each as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.lab.conftest import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def tasks(output: str) -> list[list[str]]:
    """Return what each task has said of itself: its rank, its host, its prefix, where a module is from."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("script", ["sync-then-run", "run-only"])
def test_one_environment_for_all(cluster: Cluster, script: str) -> None:
    """One sync, eight launches on two nodes, all with the environment's modules; the next job finds it current."""
    said = tasks(cluster.run(f"{script}.sbatch"))
    assert sorted(rank for rank, *_ in said) == [str(rank) for rank in range(8)]
    assert len({host for _, host, *_ in said}) == 2
    assert {prefix for *_, prefix, _ in said} == {f"{cluster.there}/.venv"}
    assert all(module.startswith(f"{cluster.there}/.venv/") for *_, module in said)
    assert (len(cluster.happened("synced")), len(cluster.happened("launched"))) == (1, 8)
    assert len(tasks(cluster.run(f"{script}.sbatch"))) == 8
    assert len(cluster.happened("synced")) == 1


def test_an_array_with_two_lock_files(cluster: Cluster) -> None:
    """Two syncs, two environments, eight jobs."""
    said = tasks(cluster.run("array.sbatch"))
    assert (len(said), len({prefix for *_, prefix, _ in said})) == (8, 2)
    assert len(cluster.happened("synced")) == 2


def test_on_the_disk_of_each_node(cluster: Cluster) -> None:
    """One sync a node; the environment is nowhere on the shared filesystem."""
    said = tasks(cluster.run("node-local.sbatch"))
    assert len(said) == 8
    local = cluster.variables["LOCAL"]
    assert all(module.startswith(f"{local}/") for *_, module in said)
    assert len(cluster.happened("synced")) == 2
    assert not list(cluster.here.glob("**/pyvenv.cfg"))
    cluster.srun("-N2", "rm", "-rf", local)


def test_a_requeued_job(cluster: Cluster) -> None:
    """Its command is ended and begins anew, in an environment that was synced once."""
    (cluster.here / "job.py").write_text(
        "import os, time\n"
        "print('attempt', os.environ.get('SLURM_RESTART_COUNT', '0'), flush=True)\n"
        "time.sleep(0 if os.environ.get('SLURM_RESTART_COUNT') else 600)\n"
    )
    job = cluster.submit("requeue.sbatch")
    output = cluster.here / f"job-{job}.out"
    cluster.until(lambda: output.exists() and "attempt 0" in output.read_text())
    subprocess.run(["scontrol", "requeue", job], env=cluster.variables, check=True)
    cluster.until(lambda: cluster.squeue("-j", job, "-o", "%T") == ["PENDING"])
    # Else it waits for two minutes; a node refuses for some seconds to start a job that it has just killed.
    time.sleep(5)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=cluster.variables, check=True)
    assert re.findall(r"attempt \d", cluster.wait(job)) == ["attempt 0", "attempt 1"]
    assert len(cluster.happened("synced")) == 1


def test_a_task_prolog(cluster: Cluster) -> None:
    """The tasks run in the environment, though nothing wraps them; a prolog that fails says why, and fails the step."""
    prolog = f"--task-prolog={cluster.there}/task-prolog.sh"
    said = tasks(cluster.srun("-n4", "-N2", prolog, "python", "job.py").stdout)
    assert len(said) == 4
    assert all(module.startswith(f"{cluster.there}/envs/") for *_, module in said)
    assert len(cluster.happened("synced")) == 1
    (cluster.here / "pylock.toml").write_text("nonsense")
    done = cluster.srun("-n1", prolog, "python", "job.py", check=False)
    assert done.returncode != 0
    assert "pylock.toml" in done.stderr + done.stdout


VERSION = (
    "import importlib.metadata, time\nprint('greet', importlib.metadata.version('greet'), flush=True)\ntime.sleep(2)\n"
)


def test_several_steps(cluster: Cluster) -> None:
    """Both steps have the same packages, though a job of another lock file wants the environment in between."""
    (cluster.here / "job.py").write_text(VERSION)
    first = cluster.submit("hold.sbatch")
    output = cluster.here / f"job-{first}.out"
    cluster.until(lambda: output.exists() and "greet 1.0" in output.read_text())
    other = f"envsync run --lock pylock.next.toml --env {cluster.there}/.venv -- python job.py"
    second = cluster.submit("-n1", "-o", f"{cluster.there}/job-%j.out", "--wrap", other)
    assert re.findall(r"greet \S+", cluster.wait(first)) == ["greet 1.0"] * 4
    assert re.findall(r"greet \S+", cluster.wait(second)) == ["greet 2.0"]
    assert len(cluster.happened("synced")) == 2


def test_a_time_limit(cluster: Cluster) -> None:
    """A wait ends by itself before it, or by Slurm at it; either way, the next job finds nothing in its way."""
    (cluster.here / "job.py").write_text("import time\nprint('began', flush=True)\ntime.sleep(600)\n")
    holder = cluster.submit("run-only.sbatch")
    output = cluster.here / f"job-{holder}.out"
    cluster.until(lambda: output.exists() and "began" in output.read_text())
    cluster.variables |= {"ENVSYNC_LOCK": "pylock.next.toml", "ENVSYNC_ENV": f"{cluster.there}/.venv"}
    cluster.variables["WAIT"] = "5"
    assert "gave up after 5 s" in cluster.run("time-limit.sbatch")
    cluster.variables["WAIT"] = "600"
    assert "DUE TO TIME LIMIT" in cluster.wait(cluster.submit("time-limit.sbatch"), 200)
    subprocess.run(["scancel", holder], env=cluster.variables, check=True)
    (cluster.here / "job.py").write_text(VERSION)
    assert "greet 2.0" in cluster.run("time-limit.sbatch")


IN_THE_PLACE_OF_APPTAINER = """\
#!/bin/sh
# A root that cannot be written to, but for /tmp and what is bound.
[ "$1 $2 $4 $6" = "exec --bind --pwd job.sif" ] || exit 2
bind=$3 directory=$5
shift 6
exec unshare --mount sh -c '
    mount --rbind /tmp /tmp && mount --bind "$1" "$1" && mount -o remount,ro,bind / && cd "$2" || exit
    shift 2
    exec "$@"
' sh "$bind" "$directory" "$@"
"""


def test_an_environment_beside_an_image(cluster: Cluster) -> None:
    """docs/containers.md: one sync, by tasks whose root cannot be written to. Apptainer itself is not here."""
    shutil.copy(ROOT / "docs/examples/containers/apptainer-outside.sbatch", cluster.here)
    (cluster.here / "bin").mkdir()
    (cluster.here / "bin/apptainer").write_text(IN_THE_PLACE_OF_APPTAINER)
    (cluster.here / "bin/apptainer").chmod(0o755)
    cluster.variables["PATH"] = f"{cluster.there}/bin:{cluster.variables['PATH']}"
    output = cluster.run("apptainer-outside.sbatch")
    said = tasks(output)
    assert len(said) == 8, output
    assert all(module.startswith(f"{cluster.there}/envs/") for *_, module in said)
    assert len(cluster.happened("synced")) == 1
