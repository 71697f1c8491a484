"""Who holds the in-use lock, as it is told: what is proved, what has ended, what may still run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.locks import flock, holders, named
from envsync.locks.flock import Flock
from envsync.system import atomic, mounts, processes, records
from tests import needs


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    environment = Environment(str(tmp_path / "env"))
    os.makedirs(environment.holders)
    return environment


@pytest.fixture
def lock(environment: Environment) -> Iterator[Flock]:
    """This process runs in the environment."""
    lock = flock.acquire_nowait(environment.in_use, shared=True)
    assert lock is not None
    yield lock
    lock.release()


def leave(environment: Environment, job: str = "17", host: str = "node07", kind: str = "slurm", **said: object) -> None:
    """Leave a name, by default one of another node."""
    value = {"scheduler": kind, "job": job, "host": host, "pid": 811, "place": "elsewhere", "started": 5.0}
    value |= {"program": "train", "since": 1000.0, "until": 0.0, **said}
    name = holders.file_name(kind, ascii(job), ascii(host))
    atomic.write(f"{environment.holders}/{name}", records.dump(value))


def leave_here(environment: Environment, **said: object) -> None:
    """Leave the name of this very process."""
    own = {"pid": os.getpid(), "place": processes.here(), "started": processes.started(), "host": processes.host()}
    leave(environment, **{**own, **said})  # type: ignore[arg-type]


class TestProved:
    """What is known of processes here."""

    @needs.PROC
    def test_it_runs(self, environment: Environment, lock: Flock) -> None:
        """A process that was started then, and holds the lock, is proved, and told with its job."""
        leave_here(environment)
        seen = named.look(environment)
        assert [holder.proved for holder in seen.named] == [True]
        assert [(each.pid, each.job, each.end) for each in seen.here] == [(os.getpid(), "Slurm job 17", "scancel 17")]
        assert "of Slurm job 17, which `scancel 17` ends" in named.told(seen)
        assert "may still run" not in named.told(seen)

    @needs.PROC
    @pytest.mark.parametrize("said", [{"started": 1.0}, {"pid": 2**22 + 5}], ids=["reused", "gone"])
    def test_it_has_ended(self, environment: Environment, lock: Flock, said: dict[str, object]) -> None:
        """A pid that is another process's by now, or nobody's, is nobody to be told of."""
        leave_here(environment, **said)
        seen = named.look(environment)
        assert seen.named == ()
        assert [(each.pid, each.job) for each in seen.here] == [(os.getpid(), "")]

    @needs.PROC
    def test_it_has_let_go(self, environment: Environment) -> None:
        """A process that lives and does not hold the lock any more runs in it no more."""
        leave_here(environment)
        assert named.look(environment) == ((), ())

    @needs.PROC
    def test_where_the_kernel_does_not_know_locks(
        self, environment: Environment, lock: Flock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a network filesystem, who has the file open is asked instead: a process that was started by another."""
        monkeypatch.setattr(mounts, "is_network", lambda path: True)
        monkeypatch.setattr(processes, "holders", lambda path: [])
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fd]) as command:
            assert [each.pid for each in named.look(environment).here] == [command.pid]


class TestElsewhere:
    """What is not known."""

    def test_one(self, environment: Environment) -> None:
        """It may still run: the job, the host, the program, how to ask, and how to end it."""
        leave(environment)
        said = "Slurm job 17 on node07 (`train`) may still run: `squeue -j 17` tells, `scancel 17` ends it"
        assert named.told(named.look(environment)) == said
        (holder,) = named.look(environment).named
        assert (holder.proved, holder.ask, holder.end, holder.user) == (
            False,
            "squeue -j 17",
            "scancel 17",
            os.geteuid(),
        )

    def test_many(self, environment: Environment) -> None:
        """Three jobs and three hosts of each are named, and how many more there are."""
        for job in range(17, 22):
            for number in range(5):
                leave(environment, f"{job}", f"node{number}", since=float(job))
        told = named.told(named.look(environment))
        assert "Slurm job 17 on node0, node1, node2 and 2 more hosts (`train`), Slurm job 18 on" in told
        assert told.endswith("and 2 more may still run: `squeue -j 17,18,19` tells, `scancel 17 18 19` ends them")

    def test_of_several_schedulers(self, environment: Environment) -> None:
        """Each has its own commands; a host without one is asked by ssh; a pod is its host."""
        leave(environment, "17", since=1.0)
        leave(environment, "lab/train-0", "train-0", "kubernetes", since=2.0)
        leave(environment, "", "login1", "host", since=3.0)
        leave(environment, "", "login2", "host", since=4.0)
        assert named.told(named.look(environment)).split("; ") == [
            "Slurm job 17 on node07 (`train`) may still run: `squeue -j 17` tells, `scancel 17` ends it",
            "Kubernetes pod train-0 in lab (`train`) may still run: `kubectl --namespace lab get pod train-0` tells, "
            "`kubectl --namespace lab delete pod train-0` ends it",
            "a command on login1 (`train`, pid 811) may still run: `ssh login1 ps -fp 811` tells",
            "1 more",
        ]

    def test_of_an_unknown_scheduler(self, environment: Environment) -> None:
        """There is nobody to be asked."""
        leave(environment, "5", "node9", "job")
        assert named.told(named.look(environment)) == "job 5 on node9 (`train`) may still run"

    @pytest.mark.parametrize(
        "text", ["\x1b[2J", "$(reboot)", "a`b", "17\n18", "x" * 4000, "\ud800", "-oProxyCommand=x"]
    )
    def test_hostile_words(self, environment: Environment, text: str) -> None:
        """Anybody of a group may write a name: nothing in it is obeyed by a terminal, or gets into a command."""
        leave(environment, text, text, program=text)
        leave(environment, "", text, "host", program=text)
        told = named.told(named.look(environment))
        assert told.isprintable()
        assert len(told) < 2000
        assert "scancel" not in told
        assert "ssh" not in told

    @pytest.mark.parametrize(
        "said", [{"pid": "x"}, {"pid": -5}, {"since": "x"}, {"scheduler": 5}, {"started": []}, {"job": None}]
    )
    def test_senseless_words(self, environment: Environment, said: dict[str, object]) -> None:
        """What is of another type is as good as not said."""
        leave(environment, **said)  # type: ignore[arg-type]
        leave_here(environment, **{"job": "18", **said})
        assert named.told(named.look(environment)).isprintable()

    def test_a_newer_record(self, environment: Environment) -> None:
        """What a newer envsync has written is left out."""
        path = f"{environment.holders}/slurm.1.h.0"
        leave(environment, format=99)
        leave(environment, "18")
        assert [each.job for each in named.look(environment).named] == ["18"]
        assert not os.path.exists(path)

    def test_nobody(self, environment: Environment) -> None:
        """Then nothing is said."""
        assert named.told(named.look(environment)) == ""
