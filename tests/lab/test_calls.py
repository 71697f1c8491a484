"""What a shared filesystem gets to see: calls that name a directory on it, counted on the nodes by `count-calls`.

envsync is on the node's own disk or on the shared filesystem, as a site may have it. The command is `true`.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.lab.conftest import Cluster, Told
from tests.lab.judged import Judged

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

COUNTED = re.compile(r"^(\d+) calls: ", re.MULTILINE)
WAITED_SECONDS = 10
CACHED_SECONDS = 3
"""For longer than that no client of the filesystem takes a name for being there that another one has moved."""


@pytest.fixture
def counter(cluster: Cluster) -> str:
    """What counts the calls of a command on a node, for a shell."""
    scripts = os.environ.get("LAB_SCRIPTS")
    if not scripts or shutil.which("strace") is None:
        pytest.skip("LAB_SCRIPTS does not name the lab's directory, or there is no strace")
    return f"{sys.executable} {scripts}/count-calls {cluster.there} --"


def install(cluster: Cluster) -> str:
    """Install envsync on the shared filesystem, for all nodes. Returns its launcher, as they see it."""
    for words in (
        [sys.executable, "-m", "venv", f"{cluster.there}/tool"],
        [f"{cluster.there}/tool/bin/python", "-m", "pip", "install", "-q", str(ROOT)],
    ):
        cluster.srun("-n1", *words)
    return f"{cluster.there}/tool/bin/envsync"


class Counting:
    """Counts what commands on the nodes ask of the shared directory, and keeps it for the table.

    :param counter: what counts, for a shell
    :param where: where envsync is
    """

    def __init__(self, cluster: Cluster, told: Told, counter: str, where: str) -> None:
        self.cluster = cluster
        self.told = told
        self.counter = counter.split()
        self.where = where
        self.envsync = "envsync" if where == "its own disk" else install(cluster)

    def words(self, *words: str) -> tuple[str, ...]:
        """Return what becomes `true` in an environment, counted."""
        return (*self.counter, self.envsync, "run", *words, "--", "true")

    def keep(self, case: str, output: str) -> list[int]:
        """Read what was counted, and return it: a number for each task."""
        found = list(map(int, COUNTED.findall(output)))
        for number in found:
            self.told(f"calls: {case} (envsync on {self.where})", seconds=number, what="calls")
        return found

    def __call__(self, case: str, *words: str, nodes: int = 1) -> list[int]:
        """Count one task on each of some nodes, the first one of its job there."""
        done = self.cluster.srun(f"-N{nodes}", "--ntasks-per-node=1", *self.words("-q", *words))
        found = self.keep(case, done.stdout)
        assert len(found) == nodes
        return found

    def next(self, case: str, *words: str) -> list[int]:
        """Count a task of a job that is not its first one on its node, which leaves a name for other nodes."""
        command = shlex.join(self.words("-q", *words))
        done = self.cluster.srun("-n1", "sh", "-c", f"{command} >/dev/null; {command}")
        return self.keep(case, done.stdout)


@pytest.mark.parametrize("where", ["its own disk", "the shared filesystem"])
def test_calls(cluster: Cluster, told: Told, counter: str, where: str) -> None:
    """A launch asks for little, and so does a wait; of a bundle, one task of each node reads each wheel once."""
    judged = Judged(cluster, ("large",))
    count = Counting(cluster, told, counter, where)
    bundle, local = f"{cluster.there}/bundle", cluster.variables["LOCAL"]
    lock = ("--lock", f"{cluster.there}/sets/pylock.large.toml")
    on_node = ("--lock", f"{bundle}/pylock.toml", "--env", f"{local}/env", "--cache-dir", f"{local}/cache")
    nodes = cluster.nodes
    try:
        cluster.srun("-n1", "envsync", "cache", "add", "-q", *lock)
        leads = count("lead, from a shared cache", *lock)
        first = count("launch, current, first of its job on the node", *lock)
        later = count.next("launch, current", *lock)
        assert judged.count("synced") == 1
        waits = count_a_wait(count, judged, lock)
        cluster.srun("-n1", "envsync", "bundle", "-q", *lock, "--to", bundle)
        from_bundle = count("lead on each node's own disk, from a bundle", *on_node, nodes=nodes)
        assert judged.count("synced") == 1 + nodes
        local_later = count.next("launch, current, on the node's own disk", *on_node)
        assert judged.count("synced") == 1 + nodes
        assert max(later + local_later) < min(first + waits) < min(from_bundle) < min(leads)
    finally:
        cluster.srun(f"-N{nodes}", "--ntasks-per-node=1", "rm", "-rf", local)


def count_a_wait(count: Counting, judged: Judged, lock: tuple[str, ...]) -> list[int]:
    """Count what one task asks for that waits for some seconds, and then starts. This host leads."""
    cluster, env = judged.cluster, judged.env
    with open(env.lock, "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rename(env.stamp, env.draining)
        words = ["srun", "--overcommit", "-D", cluster.there, "-n1", *count.words(*lock)]
        time.sleep(CACHED_SECONDS)
        with subprocess.Popen(words, env=cluster.variables, stdout=subprocess.PIPE, text=True) as waiter:
            try:
                cluster.until(lambda: glob.glob(f"{env.state}/waiting/*"))
                time.sleep(WAITED_SECONDS)
                os.rename(env.draining, env.stamp)
                output, _ = waiter.communicate(timeout=60)
            finally:
                waiter.kill()
    return count.keep(f"launch that waits for {WAITED_SECONDS} s", output)
