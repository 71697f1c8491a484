"""Which job a process is of, by its variables, and the commands that people are told."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from envsync.launch import command
from envsync.system import schedulers

JOBS = {
    "none": ({"PATH": "/bin", "SLURM_JOB_ID": ""}, ("host", "")),
    "slurm": ({"SLURM_JOB_ID": "17"}, ("slurm", "17")),
    "slurm array": ({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}, ("slurm", "17")),
    "pbs": ({"PBS_JOBID": "17.server"}, ("pbs", "17.server")),
    "pbs array": ({"PBS_JOBID": "17[4].server"}, ("pbs", "17[].server")),
    "lsf": ({"LSB_JOBID": "17", "LSB_JOBINDEX": "4"}, ("lsf", "17")),
    "flux": ({"FLUX_JOB_ID": "ƒ2xYz"}, ("flux", "ƒ2xYz")),
    "grid engine": ({"JOB_ID": "17", "SGE_TASK_ID": "4"}, ("grid-engine", "17")),
    "somebody's": ({"JOB_ID": "17"}, ("job", "17")),
    "pod": ({command.POD: "10.0.0.1"}, ("kubernetes", "node7")),
    "named pod": (
        {command.POD: "10.0.0.1", "POD_NAME": "train-0", "POD_NAMESPACE": "lab"},
        ("kubernetes", "lab/train-0"),
    ),
    "slurm in a pod": ({command.POD: "10.0.0.1", "SLURM_JOB_ID": "17"}, ("slurm", "17")),
}


@pytest.mark.parametrize("case", JOBS)
def test_a_job(case: str) -> None:
    """Each scheduler by its own variables; an array counts as one job."""
    variables, expected = JOBS[case]
    assert schedulers.job_of(variables, "node7") == expected


def test_the_namespace_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in a file of the pod's service account, where there is one."""
    (tmp_path / "namespace").write_text("lab")
    monkeypatch.setattr(schedulers, "NAMESPACE", str(tmp_path / "namespace"))
    assert schedulers.job_of({command.POD: "10.0.0.1"}, "train-0") == ("kubernetes", "lab/train-0")


COMMANDS = {
    "slurm": (["17", "18"], "squeue -j 17,18", "scancel 17 18"),
    "pbs": (["17[].server"], "qstat '17[].server'", "qdel '17[].server'"),
    "lsf": (["17"], "bjobs 17", "bkill 17"),
    "flux": (["f2xYz"], "flux jobs f2xYz", "flux cancel f2xYz"),
    "grid-engine": (["17", "18"], "qstat -j 17,18", "qdel 17 18"),
    "kubernetes": (
        ["lab/train-0", "lab/train-1", "other/train-2"],
        "kubectl --namespace lab get pod train-0 train-1",
        "kubectl --namespace lab delete pod train-0 train-1",
    ),
    "job": (["17"], "", ""),
    "unheard of": (["17"], "", ""),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_what_people_are_told(kind: str) -> None:
    """How to ask after jobs, and how to end them, as each scheduler has it; nothing where it is not known which."""
    jobs, ask, end = COMMANDS[kind]
    assert (schedulers.ask(kind, jobs), schedulers.end(kind, jobs)) == (ask, end)


@pytest.mark.parametrize("job", ["$(reboot)", "17; reboot", "-u", "--me", "17\nreboot", "", "1" * 200, "\udc80", "1 2"])
def test_no_command_with_what_is_no_id(job: str) -> None:
    """Whatever the variable was set to: people run what they are told."""
    for kind in schedulers.COMMANDS:
        assert schedulers.ask(kind, [job]) == schedulers.end(kind, [job]) == ""
    assert schedulers.end("slurm", [job, "17"]) == "scancel 17"


@pytest.mark.parametrize("kind", schedulers.COMMANDS)
def test_a_command_has_its_ids_as_words(kind: str) -> None:
    """A shell takes nothing in them for anything else."""
    for told in (schedulers.ask(kind, ["a[]"]), schedulers.end(kind, ["a[]"])):
        assert not told or shlex.split(told)[-1] == "a[]"


def test_when_a_job_ends() -> None:
    """By Slurm's word; anything else is no time."""
    assert schedulers.end_of({"SLURM_JOB_END_TIME": "1795750229"}) == 1795750229
    assert [schedulers.end_of({"SLURM_JOB_END_TIME": text}) for text in ("", "x", "-1", "9" * 400, "٣")] == [0] * 5


def test_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of jobs it says nothing of them; what it says is told with what ends the job, if it makes sense."""
    assert schedulers.own() == {}
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert schedulers.own() == {"scheduler": "slurm", "job": "17"}
    assert schedulers.of_record(schedulers.own()) == ("Slurm job 17", "scancel 17")
    assert schedulers.of_record({}) == schedulers.of_record({"scheduler": "slurm", "job": 5}) == ("", "")
    assert schedulers.of_record({"scheduler": "slurm", "job": "$(reboot)"})[1] == ""
