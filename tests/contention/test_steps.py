"""The tasks of a parallel step that wait, as real processes: one speaks, and another when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.contention.led import Group, led

NUMBER = 5


class Step(Group):
    """Tasks that wait for an environment that the test leads, all with one log."""

    def __init__(self, project: Path, runtime: Path, *options: str) -> None:
        super().__init__(project, runtime)
        self.log = project / "log"
        variables = {"SLURM_STEP_NUM_TASKS": str(NUMBER), "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}
        with self.log.open("ab") as log:
            self.tasks = [
                subprocess.Popen(
                    [*envsync_command(), "run", *options, "--", "true"],
                    cwd=project,
                    env={**os.environ, **variables, "SLURM_PROCID": str(rank), "XDG_RUNTIME_DIR": str(runtime)},
                    stderr=log,
                )
                for rank in range(NUMBER)
            ]

    @property
    def lines(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "waiting for" in line]

    def speaker(self) -> subprocess.Popen[bytes]:
        """Wait until one speaks and all others hear it. Returns it."""
        self.until(lambda: self.lines and len(self.holders("word")) >= NUMBER - 1)
        return next(task for task in self.tasks if [task.pid] == self.holders("place"))


@pytest.fixture
def begin(
    tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]
) -> Iterator[Callable[..., Step]]:
    """Return a function that starts a step whose environment is led by the test."""
    steps = []

    def begin(*options: str) -> Step:
        steps.append(Step(project, runtime, *options))
        return steps[0]

    with led(tmp_path, run_envsync) as (project, runtime):
        yield begin
        for task in steps[0].tasks:
            task.kill()
            task.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_the_speaker_goes_another_speaks(begin: Callable[..., Step], how: signal.Signals) -> None:
    """One line of one task, then one of another; and all that are left start."""
    step = begin()
    speaker = step.speaker()
    assert len(step.lines) == 1
    speaker.send_signal(how)
    step.until(lambda: len(step.lines) > 1)
    assert len(step.lines) == 2
    step.serve()
    if how == signal.SIGKILL:
        speaker.wait()
    assert [task.wait(60) for task in step.tasks if task is not speaker] == [0] * (NUMBER - 1)
    assert len(step.lines) == 2


def test_all_speak_who_are_to(begin: Callable[..., Step]) -> None:
    """With `--verbose`, each says for whom it waits."""
    step = begin("--verbose")
    step.until(lambda: len(step.lines) == NUMBER)
