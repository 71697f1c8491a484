"""The names of those who hold the in-use lock: who leaves one, how many there are, and who removes them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.errors import FilesystemError
from envsync.launch import Environment, fast_lane
from envsync.launch.stamp import Site, Stamp
from envsync.locks import holders
from envsync.system import atomic, core, processes, records
from tests import needs

Begin = Callable[..., None]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /tmp of this test's own."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)
    monkeypatch.setattr(core, "NODE", str(tmp))
    return tmp


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    environment = Environment(str(tmp_path / "env"))
    os.makedirs(environment.state)
    return environment


@pytest.fixture
def vouched(environment: Environment) -> Stamp:
    vouched = Stamp()
    vouched.environment, vouched.in_use, vouched.digest = environment.path, 7, "0123"
    vouched.sites = [Site("site", 1, 2)]
    return vouched


def begin(vouched: Stamp, program: str = "/opt/bin/train", **variables: str) -> None:
    """Do what a launch does that holds the in-use lock."""
    fast_lane.be_named(vouched, program, variables)


def names(environment: Environment) -> list[str]:
    try:
        return sorted(os.listdir(environment.holders))
    except FileNotFoundError:
        return []


def marks(node: Path) -> list[str]:
    return sorted(path.name for path in node.glob("envsync-*/held.*"))


class TestLeft:
    """A name is left."""

    @needs.PROC
    def test_what_it_says(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Scheduler, job, host, pid, the program's name and no more of the command line, since when, until when."""
        begin(vouched, SLURM_JOB_ID="17", SLURM_JOB_END_TIME="1795750229")
        (name,) = names(environment)
        assert name.startswith(f"slurm.17.{os.uname().nodename.replace('.', '-')}.")
        said = records.load(f"{environment.holders}/{name}")
        assert (said["scheduler"], said["job"], said["host"]) == ("slurm", "17", os.uname().nodename)
        assert (said["pid"], said["program"], said["until"]) == (os.getpid(), "train", 1795750229)
        assert abs(records.number(said, "since") - time.time()) < 60
        assert (said["place"], said["started"]) == (processes.here(), processes.started())

    def test_once(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """The next command of the job on this node leaves nothing, whatever became of the name."""
        begin(vouched, SLURM_JOB_ID="17")
        holders.clear(environment)
        begin(vouched, SLURM_JOB_ID="17")
        assert names(environment) == []
        assert len(marks(node)) == 1

    def test_anew(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """After a sync it does, and so does another job."""
        begin(vouched, SLURM_JOB_ID="17")
        holders.clear(environment)
        vouched.sites[0].mtime_ns += 1
        begin(vouched, SLURM_JOB_ID="17")
        begin(vouched, SLURM_JOB_ID="18")
        assert len(names(environment)) == 2

    def test_an_array(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Ten thousand jobs of an array leave one name on a node; so with PBS."""
        for number in range(3):
            begin(vouched, SLURM_JOB_ID=f"{18 + number}", SLURM_ARRAY_JOB_ID="17")
            begin(vouched, PBS_JOBID=f"27[{number}].server")
        assert [name.rpartition(".")[0].partition(".")[0] for name in names(environment)] == ["pbs", "slurm"]
        assert len(marks(node)) == 2

    def test_not_outside(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Where there is neither a job nor a network filesystem, nothing is made, not even looked at."""
        begin(vouched, PATH="/bin", SLURM_JOB_ID="")
        assert names(environment) == []
        assert list(node.iterdir()) == []

    def test_on_a_network_filesystem(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Without a scheduler a host and user have one name."""
        vouched.network = True
        begin(vouched)
        begin(vouched)
        (name,) = names(environment)
        said = records.load(f"{environment.holders}/{name}")
        assert (said["scheduler"], said["job"], said["pid"]) == ("host", "", os.getpid())

    def test_two_at_once(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Of two that find no directory for marks, one leaves the name."""
        begin(vouched, SLURM_JOB_ID="17")
        mark = next(node.glob("envsync-*/held.*"))
        holders.clear(environment)
        holders.name(environment.path, "train", {"SLURM_JOB_ID": "17"}, str(mark), made=False)
        assert names(environment) == []

    def test_in_a_group(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Where a group shares the directory, all of it may remove names, whatever the umask."""
        os.chmod(environment.state, 0o2770)
        umask = os.umask(0o077)
        try:
            begin(vouched, SLURM_JOB_ID="17")
        finally:
            os.umask(umask)
        assert stat.S_IMODE(os.stat(environment.holders).st_mode) & 0o777 == 0o770
        (name,) = names(environment)
        assert stat.S_IMODE(os.stat(f"{environment.holders}/{name}").st_mode) == 0o660


HOSTILE = ["../../x", "..", ".", "/etc/passwd", "a\nb", "\x1b[2J", "é" * 300, "x" * 4096, "a.b.c", "\udcff", "%s{}"]


class TestHostile:
    """Names of jobs and hosts come from the environment's variables."""

    @pytest.mark.parametrize("job", HOSTILE, ids=ascii)
    def test_a_job(self, environment: Environment, vouched: Stamp, node: Path, job: str) -> None:
        """Whatever a job is called, its name is one file in the directory, and found there."""
        begin(vouched, job, SLURM_JOB_ID=job)
        (name,) = names(environment)
        assert len(name) < 150
        assert name.isascii()
        assert holders.is_name(name)
        assert sorted(os.listdir(environment.state)) == ["holders"]
        said, _ = holders.read(f"{environment.holders}/{name}")
        assert said["scheduler"] == "slurm"
        holders.clear(environment)
        assert names(environment) == []

    def test_names_are_told_apart(self) -> None:
        """By a checksum, for what is not said of them."""
        made = {holders.file_name("slurm", job, host) for job in HOSTILE for host in HOSTILE}
        assert len(made) == len(HOSTILE) ** 2
        assert all("/" not in name and not name.startswith(".") for name in made)

    def test_what_is_no_record(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """A pipe, a directory, a link, a large file and what makes no sense count as absent."""
        begin(vouched, SLURM_JOB_ID="17")
        (name,) = names(environment)
        good = Path(environment.holders) / name
        there = Path(environment.holders)
        os.mkfifo(there / "slurm.1.h.0")
        (there / "slurm.2.h.0").mkdir()
        (there / "slurm.3.h.0").symlink_to(good)
        (there / "slurm.4.h.0").write_bytes(good.read_bytes() + b" " * 10_000_000)
        (there / "slurm.5.h.0").write_bytes(good.read_bytes()[:-3])
        found = [each for each in names(environment) if holders.read(f"{environment.holders}/{each}")[0]]
        assert found == [name]


class TestRefused:
    """Where nothing can be written, the launch goes on, and says nothing."""

    def test_an_environment_that_is_read_only(
        self, environment: Environment, vouched: Stamp, node: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Its name is not left, and the mark keeps the next launch from trying."""
        Path(environment.holders).write_text("in the way")
        begin(vouched, SLURM_JOB_ID="17")
        assert Path(environment.holders).read_text() == "in the way"
        assert len(marks(node)) == 1
        assert capfd.readouterr() == ("", "")

    def test_a_full_disk(
        self, environment: Environment, vouched: Stamp, node: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be written is no name."""

        def refuse(path: str, data: bytes, **options: object) -> None:
            raise FilesystemError("write", path, OSError(28, "No space left on device"))

        monkeypatch.setattr(atomic, "write", refuse)
        begin(vouched, SLURM_JOB_ID="17")
        assert names(environment) == []

    @pytest.mark.parametrize("mode", [0o777, 0o755])
    def test_marks_where_others_may_write(
        self, environment: Environment, vouched: Stamp, node: Path, mode: int
    ) -> None:
        """A directory for marks that is not ours alone is not gone by, and not tidied."""
        directory = node / f"envsync-{os.geteuid()}"
        directory.mkdir()
        directory.chmod(mode)
        begin(vouched, SLURM_JOB_ID="17")
        assert names(environment) == []

    def test_no_tmp(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Without a place for marks nobody is named: else each launch would write."""
        node.rmdir()
        begin(vouched, SLURM_JOB_ID="17")
        assert names(environment) == []


class TestBounds:
    """Neither names nor marks grow without end."""

    def test_marks(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Of many, those that are older than a day go when a new one is made; what else is there stays."""
        begin(vouched, SLURM_JOB_ID="0")
        directory = next(node.glob("envsync-*"))
        (directory / "abc.place").touch()
        for number in range(holders.MARKS + 10):
            (directory / f"held.{number}").mkdir()
        for number in range(holders.MARKS):
            os.utime(directory / f"held.{number}", (1, 1))
        begin(vouched, SLURM_JOB_ID="17")
        assert len(marks(node)) == 12
        assert (directory / "abc.place").exists()

    def test_one_job_on_many_nodes(
        self, environment: Environment, vouched: Stamp, node: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has some names, and not one for each of a thousand nodes; another job has its own."""
        for number in range(holders.OF_ONE_JOB + 5):
            monkeypatch.setattr(processes, "host", lambda number=number: f"node{number}")
            holders._write(environment, "train", {"SLURM_JOB_ID": "17"})
        holders._write(environment, "train", {"SLURM_JOB_ID": "18"})
        assert len([name for name in names(environment) if name.startswith("slurm.17.")]) == holders.OF_ONE_JOB
        assert len(names(environment)) == holders.OF_ONE_JOB + 1

    def test_many_jobs(
        self, environment: Environment, vouched: Stamp, node: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of too many, those go that end first: a long job keeps its name through a thousand short ones."""
        monkeypatch.setattr(holders, "MOST", 32)
        now = time.time()
        holders._write(environment, "train", {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": f"{now + 1e6:.0f}"})
        for number in range(2, 200):
            holders._write(environment, "train", {"SLURM_JOB_ID": f"{number}", "SLURM_JOB_END_TIME": f"{now:.0f}"})
            assert len(names(environment)) <= 34
        assert names(environment)[0].startswith("slurm.1.")
        assert any(name.startswith("slurm.199.") for name in names(environment))
        holders.clear(environment)
        assert not os.path.lexists(environment.holders)


class TestCleared:
    """Whoever is alone removes all."""

    def test_what_is_not_ours_stays(self, environment: Environment, vouched: Stamp, node: Path) -> None:
        """Something else that was put there is left, and a name that is being written goes."""
        begin(vouched, SLURM_JOB_ID="17")
        (name,) = names(environment)
        (Path(environment.holders) / f"{name}.1.2{atomic.SUFFIX}").touch()
        (Path(environment.holders) / "notes.txt").touch()
        holders.clear(environment)
        assert names(environment) == ["notes.txt"]

    def test_a_link(self, environment: Environment, tmp_path: Path) -> None:
        """A link in its place leads nowhere that anything is removed."""
        (tmp_path / "else").mkdir()
        (tmp_path / "else/slurm.1.h.0").touch()
        Path(environment.holders).symlink_to(tmp_path / "else")
        holders.clear(environment)
        assert (tmp_path / "else/slurm.1.h.0").exists()

    def test_nobody_has_left_any(self, environment: Environment) -> None:
        """Then nothing is done."""
        holders.clear(environment)
        assert os.listdir(environment.state) == []
