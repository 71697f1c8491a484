"""Jobs of a scheduler that run in an environment, as everybody sees them who has to do with it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envsync.launch import fast_lane, stamp
from envsync.system import records
from tests.cli.test_status import running, until
from tests.conftest import envsync_command
from tests.environments import FIXTURES

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, run_envsync: Run) -> Path:
    """A current environment."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    return tmp_path / "env"


@pytest.fixture
def job(env: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that runs a command in the environment as a job, until the end of a block."""
    marks = set()

    @contextmanager
    def run(**variables: str) -> Iterator[subprocess.Popen[str]]:
        vouched = stamp.load((env / ".envsync/stamp").read_bytes())
        assert vouched is not None
        marks.update(fast_lane.mark_of(vouched, each) for each in variables.values())
        words = [*envsync_command(), "run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", "echo in; read end"]
        with subprocess.Popen(
            words,
            cwd=env.parent,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            yield process
            process.communicate()

    yield run
    for mark in marks:
        if os.path.isdir(mark):
            os.rmdir(mark)


def names(env: Path) -> list[Path]:
    return sorted((env / ".envsync").glob("holders/*"))


def move_elsewhere(env: Path, host: str) -> None:
    """Let the names be those of another node, as a record of one is."""
    for path in names(env):
        said = {**records.load(str(path)), "host": host, "place": "elsewhere"}
        path.write_bytes(records.dump({name: value for name, value in said.items() if name != "format"}))


def test_two_jobs(env: Path, job: Callable[..., Any], run_envsync: Run) -> None:
    """Each is told with what ends it, by all who ask; what is started later of a job leaves no other name."""
    with job(SLURM_JOB_ID="4000017") as first, job(PBS_JOBID="18.server") as second, job(SLURM_JOB_ID="4000017"):
        assert len(names(env)) == 2
        said = json.loads(run_envsync("status", "--lock", LOCK, "--env", "env", "--json").stdout)
        assert {(each["job"], each["pid"], each["proved"], each["end"]) for each in said["jobs"]} == {
            ("4000017", first.pid, True, "scancel 4000017"),
            ("18.server", second.pid, True, "qdel 18.server"),
        }
        assert {each["job"] for each in said["commands"]} == {"Slurm job 4000017", "PBS job 18.server"}
        assert len(said["commands"]) == 3
        text = run_envsync("status", "--lock", LOCK, "--env", "env").stdout
        line = (
            f"running here: pid {first.pid} (`sh -c echo in; read end`) of Slurm job 4000017, which `scancel 4000017`"
        )
        assert line in text
        refused = run_envsync("sync", "--lock", NEXT, "--env", "env", "--busy", "fail")
        assert refused.returncode == 124
        assert f"pid {second.pid} (`sh -c echo in; read end`) of PBS job 18.server" in refused.stderr


def test_jobs_of_another_node(env: Path, job: Callable[..., Any], run_envsync: Run) -> None:
    """They may still run: so say `status`, who waits, whose time is over, and who asks after environments."""
    told = "Slurm job 4000017 on node07 (`sh`)"
    remedy = "`squeue -j 4000017` tells, `scancel 4000017` ends it"
    with job(SLURM_JOB_ID="4000017"):
        pass
    move_elsewhere(env, "node07")
    with job():
        text = run_envsync("status", "--lock", LOCK, "--env", "env").stdout
        assert f"may still run: {told}, begun " in text
        assert remedy in text
        for words, status in ((["--busy", "fail"], 124), (["--timeout", "0.1"], 124)):
            done = run_envsync("sync", "--lock", NEXT, "--env", "env", *words)
            assert done.returncode == status
            assert f"; {told} may still run: {remedy}" in done.stderr
        said = json.loads(run_envsync("status", "--env", "env", "--json").stdout)
        assert [(each["host"], each["proved"], each["ask"]) for each in said["jobs"]] == [
            ("node07", False, "squeue -j 4000017")
        ]
        assert said["current"] is None


def test_whoever_is_alone_removes_them(env: Path, job: Callable[..., Any], run_envsync: Run) -> None:
    """A name keeps nobody out; after a sync there is none, and a job that goes on leaves its name anew."""
    with job(SLURM_JOB_ID="4000017"):
        pass
    move_elsewhere(env, "node07")
    run_envsync("sync", "--lock", NEXT, "--env", "env", "--busy", "fail", check=True)
    assert not (env / ".envsync/holders").exists()
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    with job(SLURM_JOB_ID="4000017"):
        assert len(names(env)) == 1


def test_who_leads_and_who_waits(
    env: Path, job: Callable[..., Any], run_envsync: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told with their jobs as well: by each other, and by `status`."""
    with job():
        monkeypatch.setenv("SLURM_JOB_ID", "4000020")
        with running("sync", "--lock", NEXT, "--env", "env", cwd=env.parent):
            until((env / ".envsync/stamp.draining").exists)
            monkeypatch.setenv("SLURM_JOB_ID", "4000021")
            with running("run", "--lock", NEXT, "--env", "env", "--", "true", cwd=env.parent) as waiter:
                until(lambda: bool(list((env / ".envsync").glob("waiting/*"))))
                said = json.loads(run_envsync("status", "--env", "env", "--json").stdout)
                text = run_envsync("status", "--env", "env").stdout
                waiter.kill()
                assert waiter.stderr is not None
                assert " of Slurm job 4000020, syncing for " in waiter.stderr.read()
    assert (said["leader"]["job"], said["leader"]["end"]) == ("Slurm job 4000020", "scancel 4000020")
    assert [(each["job"], each["end"]) for each in said["waiters"]] == [("Slurm job 4000021", "scancel 4000021")]
    assert " of Slurm job 4000020 for " in text
    assert " of Slurm job 4000021 for " in text
    assert "`scancel 4000020` ends its job" in text


def test_by_digest(run_envsync: Run, tmp_path: Path, job: Callable[..., Any], env: Path) -> None:
    """`env list` and `env show` say in use by whom, and a name keeps nothing from being removed."""
    done = run_envsync("sync", "--lock", LOCK, "--env", "envs/{digest}", "--json", check=True)
    made = Path(json.loads(done.stdout)["env"])
    with job(SLURM_JOB_ID="4000017"):
        pass
    (made / ".envsync/holders").mkdir()
    for path in names(env):
        path.rename(made / ".envsync/holders" / path.name)
    move_elsewhere(made, "node07")
    assert "in use?" in run_envsync("env", "list", "envs/{digest}").stdout
    for words in (["show", str(made)], ["list", "envs/{digest}", "--verbose"]):
        text = run_envsync("env", *words).stdout
        assert "may still run: Slurm job 4000017 on node07 (`sh`), begun " in text
    (listed,) = json.loads(run_envsync("env", "list", "envs/{digest}", "--json").stdout)["environments"]
    assert [each["end"] for each in listed["jobs"]] == ["scancel 4000017"]
    run_envsync("env", "prune", "envs/{digest}", "--yes", check=True)
    assert not made.exists()


def test_the_library_leaves_a_name(env: Path, tmp_path: Path, job: Callable[..., Any]) -> None:
    """A program that holds the environment is named as well, by its script."""
    (tmp_path / "runner.py").write_text(
        "import envsync, os\n"
        f"with envsync.use({LOCK!r}, env='env') as hold:\n"
        "    print(*os.listdir('env/.envsync/holders'))\n"
    )
    with job(LSB_JOBID="4000019"):  # so that its mark is removed in the end
        pass
    for path in names(env):
        path.unlink()
    vouched = stamp.load((env / ".envsync/stamp").read_bytes())
    assert vouched is not None
    os.rmdir(fast_lane.mark_of(vouched, "4000019"))
    words = [envsync_command()[0], "runner.py"]
    variables = {**os.environ, "LSB_JOBID": "4000019"}
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lsf.4000019.")
    (path,) = names(env)
    assert records.load(str(path))["program"] == "runner.py"


@pytest.mark.parametrize(
    "value", ["../../../x", "a\nb\x1b[2J", "x" * 4096, "$(touch gone)"], ids=["path", "lines", "long", "shell"]
)
def test_hostile_jobs(env: Path, job: Callable[..., Any], run_envsync: Run, value: str) -> None:
    """Whatever a variable says, it leads nowhere, and nothing obeys it."""
    with job(SLURM_JOB_ID=value):
        (path,) = names(env)
        assert path.parent == env / ".envsync/holders"
        text = run_envsync("status", "--lock", LOCK, "--env", "env").stdout
        assert all(line.isprintable() for line in text.splitlines())
        assert len(text) < 1000
        assert "scancel" not in text
        assert "of Slurm job" in text
