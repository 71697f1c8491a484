"""A Slurm with two nodes or more, and a directory that all of them share.

    SLURM_SHARED=DIR python -m pytest -m lab tests/lab

DIR is the directory as the nodes see it; `SLURM_SHARED_HERE` is the same one as this host sees it, if that is another
path; `SLURM_LOCAL` is a directory on each node's own disk (default: /tmp). `sbatch` and `srun` have to be on PATH, and
envsync installed where the nodes find it.

Where LAB_SCRIPTS names the directory of scripts that make a cluster of one machine, as root,

    tests/lab/lab up moosefs && tests/lab/lab test; tests/lab/lab down

does all of it: four nodes, each with a client of its own of the network filesystem (`gluster` is another one). Only
there nodes are lost and hang, and calls are counted. What the tests have found is shown as a table at their end.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.environments import FIXTURES

SCRIPTS = ROOT / "docs/examples/slurm"
JOB = """\
import json, os, socket, sys
import greet, shout
print(json.dumps([os.environ["SLURM_PROCID"], socket.gethostname(), sys.prefix, greet.__file__]), flush=True)
"""


class Cluster:
    """A project in a directory that all nodes share.

    :ivar here: the project, as this host sees it
    :ivar there: the same, as the nodes see it
    :ivar jobs: the ids of all that were submitted
    """

    def __init__(self, here: Path, there: str) -> None:
        self.here = here
        self.there = there
        self.jobs: list[str] = []
        self.events = here / "events"
        self.events.mkdir()
        shutil.copytree(FIXTURES / "wheels", here / "wheels")
        for path in (*FIXTURES.glob("pylock*.toml"), *SCRIPTS.iterdir()):
            shutil.copy(path, here)
        (here / "job.py").write_text(JOB)
        self.variables = {
            **os.environ,
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "ENVSYNC_EVENTS": f"{there}/events",
            "ENVSYNC_CACHE_DIR": f"{there}/cache",
            "HOME": there,
            "LOCAL": f"{os.environ.get('SLURM_LOCAL', '/tmp')}/{here.name}",
        }

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        done = subprocess.run(["sinfo", "-h", "-o", "%D"], capture_output=True, text=True, check=True)
        return sum(map(int, done.stdout.split()))

    def submit(self, *words: str) -> str:
        """Submit a job, and return its id."""
        done = subprocess.run(
            ["sbatch", "--parsable", "--overcommit", "-D", self.there, *words],
            cwd=self.here,
            env=self.variables,
            capture_output=True,
            text=True,
            check=True,
        )
        self.jobs.append(done.stdout.strip())
        return self.jobs[-1]

    def cancel(self) -> None:
        """End all jobs that were submitted here and have not ended."""
        if self.jobs:
            subprocess.run(["scancel", "--quiet", *self.jobs], env=self.variables, check=False)

    def wait(self, job: str, seconds: float = 120) -> str:
        """Wait until a job has ended, and return what it has written."""
        self.until(lambda: not self.squeue("-j", job, "-o", "%T"), seconds)
        return "".join(path.read_text() for path in sorted(self.here.glob(f"job-{job}*.out")))

    def run(self, *words: str) -> str:
        """Submit a job, wait for its end, and return what it has written."""
        return self.wait(self.submit(*words))

    def srun(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a step of its own."""
        return subprocess.run(
            ["srun", "--overcommit", "-D", self.there, *words],
            cwd=self.here,
            env=self.variables,
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )

    def squeue(self, *words: str) -> list[str]:
        done = subprocess.run(["squeue", "-h", *words], env=self.variables, capture_output=True, text=True, check=False)
        return done.stdout.split() if done.returncode == 0 else []

    def until(self, done: Callable[[], object], seconds: float = 60) -> None:
        """Wait until something is so: other nodes do it, and nobody tells."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "this did not come about"
            time.sleep(0.1)

    def happened(self, event: str) -> list[str]:
        """Return the events of one kind, as they were written."""
        lines = (line for path in self.events.iterdir() for line in path.read_text().splitlines())
        return [line for line in lines if f'"event": "{event}"' in line]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A project of its own on the shared directory, gone afterwards."""
    there = os.environ.get("SLURM_SHARED")
    if not there or shutil.which("sbatch") is None:
        pytest.skip("SLURM_SHARED names no directory that the nodes of a Slurm share, or there is no sbatch")
    here = Path(os.environ.get("SLURM_SHARED_HERE", there))
    name = f"envsync-{os.urandom(4).hex()}"
    (here / name).mkdir()
    cluster = Cluster(here / name, f"{there}/{name}")
    try:
        yield cluster
    finally:
        cluster.cancel()
        shutil.rmtree(here / name, ignore_errors=True)


class Told:
    """What is to be said of what was tried, in one line for all times that it was."""

    def __init__(self, stash: dict[str, list[dict[str, Any]]]) -> None:
        self.stash = stash

    def __call__(self, case: str, **found: Any) -> None:
        """Keep what one try came to: numbers of tasks, syncs and violations, seconds, and what those are."""
        self.stash.setdefault(case, []).append(found)


FOUND = pytest.StashKey[dict[str, list[dict[str, Any]]]]()


@pytest.fixture
def told(pytestconfig: pytest.Config) -> Told:
    """Say what a try came to: pytest shows it at its end, as a table."""
    return Told(pytestconfig.stash.setdefault(FOUND, {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show all that was tried."""
    found = config.stash.get(FOUND, {})
    if not found:
        return
    mount = [
        "findmnt",
        "-n",
        "-o",
        "FSTYPE,SOURCE",
        "-T",
        os.environ.get("SLURM_SHARED_HERE", os.environ["SLURM_SHARED"]),
    ]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    terminalreporter.section(f"what was tried ({' '.join(done.stdout.split())})")
    terminalreporter.write_line("| tried | times | tasks | syncs | violations | seconds |")
    terminalreporter.write_line("|---|---|---|---|---|---|")
    for case, tries in found.items():
        numbers = [each["seconds"] for each in tries]
        form = "{:.1f}" if any(isinstance(each, float) for each in numbers) else "{:,.0f}"
        middle, *ends = (form.format(each) for each in (statistics.median(numbers), min(numbers), max(numbers)))
        spread = f" ({'-'.join(ends)})" if len(set(ends)) > 1 else ""
        cells = [str(sum(each[name] for each in tries)) if name in tries[0] else "" for name in ("tasks", "violations")]
        syncs = ", ".join(sorted({str(each["syncs"]) for each in tries if "syncs" in each}))
        cells.insert(1, f"{syncs} each" if syncs else "")
        terminalreporter.write_line(
            f"| {case} | {len(tries)} | {' | '.join(cells)} | {middle}{spread} {tries[0]['what']} |"
        )
