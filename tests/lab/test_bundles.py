"""Environments on the disks of all nodes, of one bundle on the shared filesystem."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.lab.conftest import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

TASKS = 4
JOB = """\
import base64, csv, hashlib, importlib.metadata, json, os, pathlib, socket, sys, time

def look():
    # All that RECORD lists, by its hash; then what is installed, and the bytecode that there is.
    site = pathlib.Path(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    damaged = []
    for record in site.glob("*.dist-info/RECORD"):
        for path, expected, _ in csv.reader(record.read_text().splitlines()):
            digest = hashlib.sha256((site / path).read_bytes()).digest()
            if expected and expected != "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode():
                damaged.append(path)
    versions = sorted(f"{each.name}=={each.version}" for each in importlib.metadata.distributions(path=[str(site)]))
    compiled = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in site.rglob("*.pyc")}
    return [damaged, versions, compiled]

before = look()
import greet, shout
gate = pathlib.Path("gate")
pathlib.Path(f"here-{os.environ['SLURM_PROCID']}").touch()
while not gate.exists():
    time.sleep(0.2)
told = {"host": socket.gethostname(), "prefix": sys.prefix, "module": greet.__file__, "start": before, "end": look()}
print(json.dumps(told), flush=True)
"""


def nodes() -> int:
    """Return how many nodes the cluster has."""
    done = subprocess.run(["sinfo", "-h", "-o", "%D"], capture_output=True, text=True, check=True)
    return sum(map(int, done.stdout.split()))


def bundle(cluster: Cluster, lock: str) -> None:
    """Bring the bundle up to date, where there is what the lock file names."""
    words = ("bundle", "-q", "--lock", lock, "--to", "bundle", "--compile-bytecode")
    variables = {**os.environ, "ENVSYNC_CACHE_DIR": f"{cluster.here}/bundling"}
    subprocess.run([*envsync_command(), *words], cwd=cluster.here, env=variables, check=True)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_one_sync_a_node(cluster: Cluster) -> None:
    """On all nodes, several tasks each; the bundle is updated while they run, and each has its version whole all along.

    Nothing is written to the bundle, and no environment is on the shared filesystem.
    """
    count = nodes()
    bundle(cluster, "pylock.toml")
    shutil.rmtree(cluster.here / "bundling")
    before = tree(cluster.here / "bundle")
    (cluster.here / "job.py").write_text(JOB)
    job = cluster.submit(f"-N{count}", f"--ntasks-per-node={TASKS}", "from-bundle.sbatch")
    cluster.until(lambda: len(list(cluster.here.glob("here-*"))) == count * TASKS, 300)
    assert tree(cluster.here / "bundle") == before
    bundle(cluster, "pylock.next.toml")
    (cluster.here / "gate").touch()
    said = [json.loads(line) for line in cluster.wait(job).splitlines() if line.startswith("{")]
    local = cluster.variables["LOCAL"]
    try:
        assert len(said) == count * TASKS
        assert len({each["host"] for each in said}) == count
        assert len(cluster.happened("synced")) == count
        assert len({each["prefix"] for each in said}) == 1
        assert all(each["module"].startswith(f"{local}/") for each in said)
        for each in said:
            assert each["start"] == each["end"] == said[0]["start"]
        damaged, versions, compiled = said[0]["start"]
        assert damaged == []
        assert "greet==1.0" in versions
        assert len(compiled) >= 5
        again = cluster.wait(cluster.submit(f"-N{count}", f"--ntasks-per-node={TASKS}", "from-bundle.sbatch"), 300)
        later = [json.loads(line) for line in again.splitlines() if line.startswith("{")]
        assert len(later) == count * TASKS
        assert {"greet==2.0" in each["end"][1] for each in later} == {True}
        assert len(cluster.happened("synced")) == 2 * count
        assert not list(cluster.here.glob("**/pyvenv.cfg"))
    finally:
        cluster.srun(f"-N{count}", "--ntasks-per-node=1", "rm", "-rf", local)
