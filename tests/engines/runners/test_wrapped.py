"""What starts each job as a process of its own, with `envsync run` before it: the files of docs/examples/runners."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.engines.runners.scene import RUNNERS, WHEELS, WRONG, Scene, program
from tests.environments import FIXTURES
from tests.unit.fetching.server import File, serving

pytestmark = pytest.mark.engines
GREET = "greet-2.0-py3-none-any.whl"
JOBS = 4


class Runner(NamedTuple):
    """What runs four jobs. One that makes files makes the missing ones when it runs again.

    :param words: `JOB` is replaced by what runs a job, in one word; the first word is a program
    :param package: that it comes in, if it is not installed by pip
    :param files: of docs/examples/runners
    :param goes_on: makes it go on with other jobs where one has failed
    :param makes: it makes files
    """

    words: tuple[str, ...]
    package: str = ""
    files: tuple[str, ...] = ()
    goes_on: tuple[str, ...] = ()
    makes: bool = True


RUN = {
    "make": Runner(("make", "-j4"), "make", ("Makefile",), ("-k",)),
    "ninja": Runner(("ninja", "-j4"), "ninja-build", ("build.ninja",), ("-k0",)),
    "parallel": Runner(("parallel", "-j4", "JOB", ":::", *"1234"), "parallel", makes=False),
    "xargs": Runner(("sh", "-c", "printf '%s\\n' 1 2 3 4 | xargs -P4 -n1 JOB"), "findutils", makes=False),
    "snakemake": Runner(("snakemake", "--cores=4", "--quiet"), "", ("Snakefile",), ("-k",)),
}


@pytest.fixture(params=RUN)
def runner(request: pytest.FixtureRequest, scene: Scene) -> tuple[list[str], bool]:
    """The words that run four jobs, with their files in place; all go on where one has failed. And whether it makes."""
    case = RUN[request.param]
    words = [program(case.words[0], case.package), *case.goes_on, *case.words[1:]]
    for file in case.files:
        text = scene.recipe(file).read_text()
        for line in text.splitlines():
            if line.startswith("# Once before: "):
                scene.run(["sh", "-c", line.partition(": ")[2]])
    return [word.replace("JOB", f"{scene.words} python job.py") for word in words], case.makes


def test_four_jobs(scene: Scene, runner: tuple[list[str], bool]) -> None:
    """All have the modules of the lock file, and one of them has synced."""
    scene.run(runner[0])
    scene.check_jobs(JOBS)


def test_a_wrong_hash(scene: Scene, runner: tuple[list[str], bool]) -> None:
    """The runner fails, and in what it shows stands which wheel it is."""
    scene.write_lock(wrong=True)
    said = scene.run(runner[0], status=None)
    assert GREET in said
    assert WRONG[:8] in said
    assert scene.count("synced") == 0


def test_a_job_that_is_killed_in_mid_sync(scene: Scene, runner: tuple[list[str], bool]) -> None:
    """Another one takes over, and only that job has to be run again."""
    with serving() as server:
        for wheel in WHEELS:
            name = f"{wheel}-py3-none-any.whl"
            server.files[f"/{name}"] = File((FIXTURES / "wheels" / name).read_bytes())
        held = server.files[f"/{GREET}"].hold = threading.Event()
        scene.write_lock(url=server.url)
        words, makes = runner
        first = scene.start(words)
        assert server.began.wait(60)
        os.kill(scene.leader(), signal.SIGKILL)
        held.set()
        said, _ = first.communicate(timeout=100)
        assert first.returncode != 0, said
        if makes:
            scene.run(words)
    scene.check_jobs(JOBS if makes else JOBS - 1)
    assert scene.count("took_over") == 1


def test_make_runs_each_round_without_a_sync(scene: Scene) -> None:
    """Twenty rounds of four jobs: one sync."""
    scene.recipe("Makefile")
    make = program("make", "make")
    for _ in range(20):
        scene.run([make, "-j4"])
        for number in range(1, 5):
            (scene.directory / f"{number}.txt").unlink()
    scene.check_jobs(20 * JOBS)


# What starts programs by their path

HOSTS_OWN = ("/usr/local/bin/envsync", "/srv/job")
"""Paths in files of the documentation, which are the reader's."""


def adapted(scene: Scene, name: str) -> str:
    """Return the text of a recipe with paths of the scene."""
    text = (RUNNERS / name).read_text()
    for path, ours in zip(HOSTS_OWN, (f"{scene.directory}/commands/envsync", str(scene.directory)), strict=True):
        assert path in text
        text = text.replace(path, ours)
    return text


def test_a_service_of_systemd(scene: Scene) -> None:
    """systemd finds no fault with the unit; what it would start runs with nothing of ours in its variables."""
    unit = scene.write("job.service", adapted(scene, "job.service"))
    analyze = program("systemd-analyze", "systemd")
    said = scene.run([analyze, "verify", "--man=no", str(unit)], env={"SYSTEMD_LOG_LEVEL": "warning"})
    assert "job.service" not in said, said
    start = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
    words = shlex.split(start.partition("=")[2])
    kept = {name: scene.variables[name] for name in ("ENVSYNC_EVENTS", "ENVSYNC_CACHE_DIR")}
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **kept}
    subprocess.run(words, env=variables, cwd="/", check=True, capture_output=True, timeout=60)
    scene.check_jobs(1)
    scene.write_lock(wrong=True)
    done = subprocess.run(words, env=variables, cwd="/", check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 125, "the status that the unit does not start again for"
    assert GREET in done.stderr, "which goes to the journal"


def test_a_line_of_cron(scene: Scene) -> None:
    """Run as cron runs it: by sh, in the home directory, with cron's own few variables."""
    text = adapted(scene, "job.cron")
    line = next(line for line in text.splitlines() if line.startswith("*/5 "))
    assert "%" not in line, "which is a line's end to cron"
    command = line.split(maxsplit=5)[5]
    kept = {name: scene.variables[name] for name in ("ENVSYNC_EVENTS", "ENVSYNC_CACHE_DIR")}
    home = scene.directory / "home"
    home.mkdir()
    variables = {"HOME": str(home), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", **kept}
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", command], env=variables, cwd=home, check=True, capture_output=True, timeout=60)
    scene.check_jobs(2)
    scene.write_lock(wrong=True)
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=variables, cwd=home, check=False, capture_output=True, text=True, timeout=60
    )
    assert GREET in done.stderr, "which cron mails"


def test_a_file_that_is_a_python(scene: Scene) -> None:
    """For what takes the path of a Python, as Airflow's `python=`: it runs it with a script and arguments.

    Several at once, from elsewhere; it answers what is asked of a Python before it is used.
    """
    python = str(scene.directory / "job-python")
    scene.run(["sh", "-c", f"envsync shim {python} --lock {scene.lock} --env {scene.env}"])
    runs = [scene.start([python, str(scene.directory / "job.py"), str(number)], cwd="/") for number in range(4)]
    for each in runs:
        said, _ = each.communicate(timeout=60)
        assert each.returncode == 0, said
    scene.check_jobs(4)
    asked = scene.run([python, "-c", "import sys; print(sys.version_info[:2], sys.argv[1:])", "a b"], cwd="/")
    assert asked == f"{sys.version_info[:2]} ['a b']\n"


def test_all_files_are_tried() -> None:
    """Whoever adds a recipe tests it."""
    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if "engines" in str(path))
    texts += (ROOT / "tests/cli/test_examples.py").read_text()
    files = [path.relative_to(RUNNERS).as_posix() for path in RUNNERS.rglob("*") if path.is_file()]
    assert len(files) > 7
    assert [file for file in files if file not in texts] == []
