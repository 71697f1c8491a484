"""project: a project of uv as it is, a clean clone with pyproject.toml and uv.lock, and nothing else.

Many runs at once on an environment that is missing, as in `burst`, and launches in one that is current. Both are given
nothing but the command: no lock file is named. `uv run` gets `--frozen`, without which it looks at the whole project.
"""

from __future__ import annotations

import os
import shutil
from functools import partial

from burst import burst_of, seen_by
from contenders import ENVSYNC, UV, Bench, Envsync, Uv
from measure import Command, Row, alternate, rows_of, run
from operations import count_operations, has_strace
from tasks import Contender

COUNT = 50
WORDS = ("python", "-I", "-c", "pass")


class InProjectOfUv(Envsync):
    """envsync in a copy of uv's project.

    :param uv: whose project it is
    """

    def __init__(self, bench: Bench, uv: Uv) -> None:
        self.bench = bench
        self.wheels = bench.wheels
        self.project = bench.place.fresh_directory("project-of-uv")
        self.cache = bench.place.fresh("envsync-cache")
        for name in ("pyproject.toml", "uv.lock"):
            shutil.copy(os.path.join(uv.project, name), self.project)

    def run(self, environment: str, *words: str) -> Command:
        return self._command("run", "--env", environment, "--", *words)

    def _request(self, environment: str, mode: str = "hardlink") -> tuple[str, ...]:
        return ("--env", environment, "--link-mode", mode)


def project(bench: Bench) -> list[Row]:
    """Time and count bursts and launches."""
    uv = Uv(bench)
    made: dict[str, Contender] = {ENVSYNC: InProjectOfUv(bench, uv), UV: uv}
    contenders = {who: contender for who, contender in made.items() if who in bench.chosen}
    rows = burst_of(bench, COUNT, contenders, seen_by(bench, contenders), "project: ")
    commands, places = {}, []
    for who, contender in contenders.items():
        environment = os.path.join(contender.project, ".venv")
        bench.prepare(contender.sync(environment))
        places += [contender.project, environment]
        commands[who] = contender.run(environment, *WORDS)
    timed = {who: partial(run, command, bench.time_limit) for who, command in commands.items()}
    rows += rows_of("project: launch", alternate("project: launch", timed, bench.rounds or 40, warm_up=3), "ms")
    if has_strace("project: file operations"):
        counts = {
            who: [count_operations(command, places, bench.place.fresh("trace"), bench.time_limit).inside]
            for who, command in commands.items()
        }
        rows.append(Row("project: file operations of a launch in environment and project", "n", counts))
    return rows
