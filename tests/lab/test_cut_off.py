"""A sync that is cut off in its midst, in all ways that a cluster has: others take over, or the next one mends it.

That it was in its midst is seen by what its leader said just before, and by this: it never said that it had synced.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from envsync.launch import Environment
from tests.lab.conftest import Cluster, Told
from tests.lab.judged import POLL_SECONDS, Judged, Record

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

TASKS = 4
"""Of each job."""
UNPACKING, STAGING, COMMITTING = "unpacking", "staging", "committing"
PHASES = [(UNPACKING, 0.0), (STAGING, 0.0), (UNPACKING, 0.2), (COMMITTING, 0.0), (STAGING, 0.1)]
"""What the leader does, and how many seconds later it is struck."""
COPIES = ("--link-mode", "copy")
"""Longer than links, so that it is met."""
OVER: dict[str, tuple[str, ...]] = {"cold": (), "copies": COPIES, "compiled": ("--compile-bytecode",)}
LIMIT_SECONDS = 180.0
LOOKS = 50
TURNS = 3
LAB = str(Path(__file__).parent / "lab")
HANG_SECONDS = 100.0
"""Longer than the filesystem that is asked for here keeps the locks of a client that it does not hear of."""


class Led(NamedTuple):
    """A sync under way.

    :ivar jobs: the nodes of the jobs that want it, by their ids
    :ivar synced: how many syncs there were before
    :ivar leader: what the leader said of itself
    :ivar struck: when that was, in seconds since the epoch
    """

    want: str
    jobs: dict[str, str]
    synced: int
    leader: Record
    struck: float


class Cut(Judged):
    """An environment whose sync takes a while, and what is seen of who leads."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, ("large", "larger"))

    def prepare(self, phase: str) -> str:
        """See that the next sync takes a while in a phase. Returns what it is to sync."""
        if phase == UNPACKING:
            return "large"
        # What it needs is in the cache.
        for want in ("large", "larger") if phase == COMMITTING else ("large",):
            self.cluster.srun("-n1", "envsync", "cache", "add", "-q", "--lock", f"sets/pylock.{want}.toml")
        if phase != COMMITTING:
            return "large"
        # Directories in which there is something else go file by file.
        self.cluster.srun("-n1", "envsync", "sync", "-q", "--lock", "sets/pylock.large.toml")
        for path in self.site.glob("soak_many_*/**/__init__.py"):
            (path.parent / "of_somebody_else.pyc").touch()
        return "larger"

    def begin(self, want: str, phase: str, nodes: Sequence[str]) -> dict[str, str]:
        """Submit a job for each node. Returns their nodes by their ids."""
        options = COPIES if phase == STAGING else ()
        return {self.submit(want, "-w", node, "-n", str(TASKS), options=options): node for node in nodes}

    @property
    def site(self) -> Path:
        return next(Path(self.env.path, "lib").glob("python*/site-packages"))

    def lead(self, phase: str, then: float, nodes: Sequence[str]) -> Led:
        """Have a job on each node want the same, until one of them leads and is in a phase."""
        want = self.prepare(phase)
        jobs = self.begin(want, phase, nodes)
        synced = self.count("synced")
        leader = self.until_leads(phase, then)
        return Led(want, jobs, synced, leader, time.time())

    def conclude(self, told: Told, case: str, led: Led, verdicts: list[Record], *, seconds: float, what: str) -> None:
        """Tell what came of it, and see that it was right.

        :param seconds: which are `what`
        """
        violations, syncs = self.violations(verdicts), self.count("synced") - led.synced
        told(case, tasks=len(verdicts), syncs=syncs, violations=len(violations), seconds=seconds, what=what)
        assert violations == []
        assert self.ended(led.synced)

    def job_of(self, leader: Record, jobs: dict[str, str]) -> str:
        """Return which of the jobs a leader is of."""
        assert str(leader["job"]) in jobs
        return str(leader["job"])

    def ended(self, before: int, recovered: int = 0) -> bool:
        """Tell whether one sync came to its end since then, or the commit of one that was cut off was completed."""
        ends = self.count("synced") - before, self.count("recovered") - recovered
        return ends in {(1, 0), (1, 1), (0, 1)}

    def cut(self, leader: Record) -> None:
        """See that a leader never came to its end."""
        ends = {(each["host"], each["pid"]) for each in self.events("synced")}
        assert (leader["host"], int(str(leader["pid"]))) not in ends


@pytest.fixture
def nodes(cluster: Cluster) -> list[str]:
    """The names of the nodes."""
    done = subprocess.run(["sinfo", "-h", "-N", "-o", "%n"], capture_output=True, text=True, check=True)
    return sorted(set(done.stdout.split()))


@pytest.mark.parametrize("number", range(10))
def test_cancelled(cluster: Cluster, told: Told, nodes: list[str], number: int) -> None:
    """Of a job on each node, the one that leads is cancelled: another leads on, and all others see it whole."""
    judged = Cut(cluster)
    phase, then = PHASES[number % len(PHASES)]
    led = judged.lead(phase, then, nodes)
    job = judged.job_of(led.leader, led.jobs)
    subprocess.run(["scancel", job], env=cluster.variables, check=True)
    successor = judged.after(led.struck, "started", "took_over", "recovered", but=led.leader)
    verdicts = judged.verdicts(*(other for other in led.jobs if other != job))
    case, seconds = f"scancel of the leader while {led.leader['phase']}", successor["time"] - led.struck
    judged.conclude(told, case, led, verdicts, seconds=seconds, what="until another led")
    judged.cut(led.leader)
    assert len(verdicts) == TASKS * (len(nodes) - 1)


class Nodes:
    """What happens to nodes, by the scripts of the lab; all of them are as they were in the end."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.undo: list[tuple[str, str]] = []

    def lose(self, node: str) -> None:
        """End all of a node at once, its client of the filesystem, too."""
        self.undo.append(("return", node))
        self.do("lose", node)

    def freeze(self, node: str) -> None:
        """Stop a node's client: whatever asks the filesystem there stands still."""
        self.undo.append(("thaw", node))
        self.do("freeze", node)

    def take_back(self) -> None:
        """Take all of it back."""
        while self.undo:
            self.do(*self.undo.pop())

    def restore(self) -> None:
        """Take all of it back, and wait until the nodes are there, and idle."""
        self.take_back()
        self.cluster.until(lambda: len(self.idle()) == self.cluster.nodes, 180)

    def idle(self) -> list[str]:
        words = ["sinfo", "-h", "-N", "-o", "%n", "-t", "idle"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    def do(self, what: str, node: str) -> None:
        done = subprocess.run([LAB, what, node], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Nodes]:
    """The nodes, if the scripts of the lab are at hand."""
    if "LAB_SCRIPTS" not in os.environ:
        pytest.skip("LAB_SCRIPTS does not name the lab's directory")
    faults = Nodes(cluster)
    yield faults
    cluster.cancel()
    faults.restore()


@pytest.mark.parametrize(("phase", "then"), [(UNPACKING, 0.0), (STAGING, 0.0), (COMMITTING, 0.0)])
def test_a_node_is_lost(cluster: Cluster, told: Told, nodes: list[str], faults: Nodes, phase: str, then: float) -> None:
    """The node that leads loses its power: one of another node takes over as soon as the filesystem lets the lock go.

    When the node is back, it finds the environment current.
    """
    judged = Cut(cluster)
    led = judged.lead(phase, then, nodes)
    job = judged.job_of(led.leader, led.jobs)
    faults.lose(led.jobs[job])
    successor = judged.after(led.struck, "started", "took_over", "recovered", but=led.leader)
    verdicts = judged.verdicts(*(other for other in led.jobs if other != job))
    subprocess.run(["scancel", job], env=cluster.variables, check=True)
    faults.restore()
    verdicts += judged.verdicts(judged.submit(led.want, "-w", led.jobs[job], "-n", str(TASKS)))
    case, seconds = f"power loss of the node that leads while {led.leader['phase']}", successor["time"] - led.struck
    judged.conclude(told, case, led, verdicts, seconds=seconds, what="until another led")
    judged.cut(led.leader)
    assert len(verdicts) == TASKS * len(nodes)


@pytest.mark.parametrize(("phase", "then"), [(UNPACKING, 0.0), (STAGING, 0.0), (COMMITTING, 0.0)])
def test_a_node_hangs(cluster: Cluster, told: Told, nodes: list[str], faults: Nodes, phase: str, then: float) -> None:
    """The client of the node that leads stands still and goes on later, with its lock or without.

    Others lead meanwhile if the filesystem takes the lock away, and else they wait; either way all tasks see it whole,
    those of the node that hung, too.
    """
    judged = Cut(cluster)
    led = judged.lead(phase, then, nodes)
    faults.freeze(led.jobs[judged.job_of(led.leader, led.jobs)])
    assert judged.count("synced") == led.synced
    while time.time() < led.struck + HANG_SECONDS and not judged.ended(led.synced):
        time.sleep(0.5)
    meanwhile = judged.ended(led.synced)
    faults.take_back()
    verdicts = judged.verdicts(*led.jobs)
    then_what = "another leads" if meanwhile else "the others wait"
    case = f"hang of the node that leads while {led.leader['phase']}: {then_what}"
    seconds = judged.after(led.struck, "synced", "recovered")["time"] - led.struck
    judged.conclude(told, case, led, verdicts, seconds=seconds, what="until it was synced")
    assert len(verdicts) == TASKS * len(nodes)


OVER_AND_OVER = """\
#!/bin/bash
# One sync after the other, each of an environment of its own: so the time is over in the midst of one. All of them are
# of one step, since a step takes seconds to begin.
if [[ -z ${SLURM_STEP_ID:-} ]]; then exec srun --overcommit bash "$0" "$@"; fi
for ((number = 0; ; number++)); do
    export ENVSYNC_ENV=$PWD/$1-$number
    if [[ $1 != copies* ]]; then export ENVSYNC_CACHE_DIR=$PWD/cache-$1-$number; fi
    envsync sync -q --lock sets/pylock.large.toml "${@:2}" || exit
done
"""


class Watched:
    """The syncs of one job, one after the other, and what was seen last of each.

    :param name: what their environments are called, but for a number
    """

    def __init__(self, judged: Judged, name: str, job: str) -> None:
        self.judged = judged
        self.name = name
        self.job = job
        self.number = 0
        self.said: Record = {}

    @property
    def env(self) -> Environment:
        return self._env(self.number)

    def _env(self, number: int) -> Environment:
        return Environment(str(self.judged.cluster.here / f"{self.name}-{number}"))

    def look(self) -> None:
        """See what the present sync says of itself."""
        while os.path.exists(self._env(self.number + 1).path):
            self.number += 1
            self.said = {}
        self.said = self.judged.leader(self.env) or self.said

    def was_hit(self) -> bool:
        """Tell whether the last one was under way when the job ended, and never came to its end."""
        ended = {os.path.basename(each["env"]) for each in self.judged.events("synced")}
        return bool(self.said) and f"{self.name}-{self.number}" not in ended


def run_out_of_time(judged: Judged, nodes: list[str], kinds: Sequence[str], turn: int) -> Iterator[tuple[str, Watched]]:
    """Let jobs sync until their time limit; yield those that it has struck in the midst of one."""
    cluster, watched = judged.cluster, {}
    for kind, node in zip(kinds, nodes, strict=False):
        name = f"{kind}{turn}"
        words = ("--no-requeue", "--time=1", "-n1", "-w", node, "-o", f"{cluster.there}/job-%j.out")
        watched[kind] = Watched(judged, name, cluster.submit(*words, "over.sh", name, *OVER[kind]))
    look_until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < look_until and cluster.squeue("-j", ",".join(each.job for each in watched.values())):
        for _ in range(LOOKS):
            for each in watched.values():
                each.look()
            time.sleep(POLL_SECONDS)
    for kind, each in watched.items():
        if "DUE TO TIME LIMIT" in cluster.wait(each.job) and each.was_hit():
            yield kind, each


def test_time_is_over(cluster: Cluster, told: Told, nodes: list[str]) -> None:
    """The time limit strikes three jobs in the midst of a sync: what is left is not current, and the next mends it.

    Whichever it strikes between two syncs tries once more.
    """
    judged = Cut(cluster)
    judged.prepare(STAGING)
    (cluster.here / "over.sh").write_text(OVER_AND_OVER)
    hit: dict[str, Watched] = {}
    for turn in range(TURNS):
        hit |= run_out_of_time(judged, nodes, sorted(OVER.keys() - hit), turn)
    assert hit.keys() == OVER.keys()
    for each in hit.values():
        judged.env = each.env
        assert not os.path.exists(judged.env.stamp)
        env = f"{cluster.there}/{each.name}-{each.number}"
        request = ("--lock", "sets/pylock.large.toml", "--env", env)
        assert cluster.srun("-n1", "envsync", "status", "--exit-code", *request, check=False).returncode == 1
        cluster.variables |= {"ENVSYNC_ENV": env}
        before, recovered, begun = judged.count("synced"), judged.count("recovered"), time.time()
        verdicts = judged.verdicts(judged.submit("large", f"-N{cluster.nodes}", f"-n{TASKS * cluster.nodes}"))
        told(
            f"time limit while {each.said['phase']}",
            tasks=len(verdicts),
            syncs=judged.count("synced") - before,
            violations=len(judged.violations(verdicts)),
            seconds=max(each["time"] for each in judged.events("launched")) - begun,
            what="until all tasks of the next job have started",
        )
        assert judged.violations(verdicts) == []
        assert len(verdicts) == TASKS * cluster.nodes
        assert judged.ended(before, recovered)
