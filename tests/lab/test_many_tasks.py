"""Many tasks on all nodes at once: how many syncs there are, and what each task sees at its start and at its end."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.lab.conftest import Cluster, Told
from tests.lab.judged import Judged

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

TASKS = 64
JOBS = 100


@pytest.mark.parametrize("number", range(3))
def test_sixty_four_tasks(cluster: Cluster, told: Told, number: int) -> None:
    """One sync if it is missing, one if it is stale, none if it is current: for all tasks on all nodes together."""
    judged = Judged(cluster, "ab")
    for state, want, syncs in (("missing", "a", 1), ("current", "a", 0), ("stale", "b", 1), ("current", "b", 0)):
        before, begun = judged.count("synced"), time.time()
        verdicts = judged.verdicts(judged.submit(want, f"-N{cluster.nodes}", f"-n{TASKS}"))
        starts = [each["time"] for each in judged.events("launched") if each["time"] > begun]
        found = judged.count("synced") - before
        told(
            f"{TASKS} tasks on {cluster.nodes} nodes, environment {state}",
            tasks=len(verdicts),
            syncs=found,
            violations=len(judged.violations(verdicts)),
            seconds=max(starts) - begun,
            what="until the last has started",
        )
        assert (len(verdicts), len({each["host"] for each in verdicts})) == (TASKS, cluster.nodes)
        assert judged.violations(verdicts) == []
        assert (found, len(starts)) == (syncs, TASKS)


def test_two_lock_files_of_one_environment(cluster: Cluster, told: Told) -> None:
    """An array of a hundred jobs, every other one with another lock file: each sees its own, from start to end."""
    judged = Judged(cluster, "ab")
    script = cluster.here / "array.sh"
    one, other = (f"srun --overcommit {judged.words(want)}" for want in "ab")
    script.write_text(f"#!/bin/bash\nif ((SLURM_ARRAY_TASK_ID % 2)); then\n    {one}\nelse\n    {other}\nfi\n")
    begun = time.time()
    output = f"{cluster.there}/job-%A-%a.out"
    job = cluster.submit("--no-requeue", f"--array=0-{JOBS - 1}", "-n1", "-o", output, str(script))
    verdicts = judged.verdicts(job, seconds=800)
    wants = [each["want"] for each in sorted(verdicts, key=lambda each: each["began"])]
    told(
        f"array of {JOBS}, two lock files, one environment",
        tasks=len(verdicts),
        syncs=judged.count("synced"),
        violations=len(judged.violations(verdicts)),
        seconds=max(each["ended"] for each in verdicts) - begun,
        what="until the last has ended",
    )
    assert judged.violations(verdicts) == []
    assert sorted(wants) == ["a"] * (JOBS // 2) + ["b"] * (JOBS // 2)
    turns = 1 + sum(this != last for last, this in itertools.pairwise(wants))
    assert judged.count("synced") == turns
