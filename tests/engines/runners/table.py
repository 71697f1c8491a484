"""The runners of docs/runners.md that start processes: what each needs in a scene, and the words that run its jobs.

What wraps each job has its file of docs/examples/runners. What has workers of its own is in the lock file, too.
"""

from __future__ import annotations

import functools
import shlex
import sys
import textwrap
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import pytest

from tests.engines.runners.scene import Scene, program, version


class Runner(NamedTuple):
    """What runs jobs.

    :ivar prepare: writes into a scene what it needs, or skips the test; returns what starts it
    :ivar jobs: how many it runs each time
    :ivar status: with which it ends if the environment cannot be had; None: with any but 0
    :ivar traceback: it shows one then
    :ivar shows: what its user sees if a process that syncs is killed
    :ivar lost: how many jobs do not run then; 0: it goes on by itself
    :ivar again: how many run when its user starts it once more
    :ivar at_once: how many of it want the environment at once when one of them is killed
    :ivar slow: twenty rounds of it take minutes
    """

    prepare: Callable[[Scene], list[str]]
    jobs: int
    status: int | None = None
    traceback: bool = False
    shows: str = ""
    lost: int = 0
    again: int = 0
    at_once: int = 1
    slow: bool = False


# What starts each job as a process of its own


def _wrapped(scene: Scene, *, words: str, package: str = "", file: str = "") -> list[str]:
    """Put the runner's file in place.

    :param words: `JOB` is replaced by what runs a job
    :param package: that it comes in, if it is not installed by pip
    """
    found = program(words.split(maxsplit=1)[0], package)
    if file:
        for line in scene.recipe(file).read_text().splitlines():
            if line.startswith("# Once before: "):
                scene.run(["sh", "-c", line.partition(": ")[2]])
    job = shlex.join([*scene.wrapped, "python", "job.py"])
    return ["sh", "-c", f"exec {found} {words.partition(' ')[2].replace('JOB', job)}"]


# tox and nox

TOX = """\
[tox]
env_list = tests

[testenv]
runner = envsync
lock = pylock.toml
commands = python job.py {env_name}
"""
NOX = """\
import nox
from envsync.integrations.nox import register
register()

@nox.session(venv_backend="envsync", venv_params=["--lock", "pylock.toml"])
def tests(session):
    session.run("python", "job.py", *session.posargs)
"""


def tox(scene: Scene) -> list[str]:
    """Return what runs the session `tests`, whose environment is then the scene's."""
    version("tox")
    if not any(each.value == "envsync.integrations.tox" for each in metadata.entry_points(group="tox")):
        pytest.skip("envsync was installed before it had a plugin for tox: python -m pip install -e .")
    scene.write("tox.ini", TOX)
    scene.env = scene.directory / ".tox/tests/env"
    return [program("tox"), "run", "-e", "tests"]


def nox(scene: Scene) -> list[str]:
    """Return what runs the session `tests`, whose environment is then the scene's."""
    version("nox")
    scene.write("noxfile.py", NOX)
    scene.env = scene.directory / ".nox/tests/env"
    return [program("nox"), "-s", "tests"]


# What has workers: the program of its user

LOOK = """\
def look(number):
    import json, os, sys
    import almanac.days, greet
    told = {"prefix": sys.prefix, "greet": greet.__version__, "files": [greet.__file__, almanac.days.__file__]}
    with open(os.path.join(os.path.dirname(sys.prefix), "witness.jsonl"), "a") as file:
        file.write(json.dumps(told) + "\\n")
    return number, greet.__version__
"""
"""A job: it notes where its modules are from."""


def _write(scene: Scene, text: str, name: str = "program.py") -> None:
    """Write a program, which has `LOCK`, `ENV` and `look`."""
    head = f"LOCK, ENV = {str(scene.lock)!r}, {str(scene.env)!r}\n"
    scene.write(name, f"{head}{LOOK}\n{textwrap.dedent(text)}")


XDIST = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test(number):
    assert look(number) == (number, "2.0")
"""


def xdist(scene: Scene) -> list[str]:
    """Return the words of a wrapped pytest, so that its workers are the environment's, too."""
    scene.lock_engine("pytest", "pytest-xdist")
    _write(scene, XDIST, "test_it.py")
    return [*scene.wrapped, "python", "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "test_it.py"]


JOBLIB = """
import sys
import joblib

if __name__ == "__main__":
    with joblib.parallel_config(backend=sys.argv[1], n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(look)(n) for n in range(4)) == [(n, "2.0") for n in range(4)]
"""


def joblib(scene: Scene, *, backend: str) -> list[str]:
    """Return the words of a wrapped program, so that its workers are the environment's."""
    scene.lock_engine("joblib")
    _write(scene, JOBLIB)
    return [*scene.wrapped, "python", "program.py", backend]


POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    import envsync
    from envsync.integrations.multiprocessing import context

    try:
        with envsync.use(LOCK, env=ENV) as hold, ProcessPoolExecutor(2, mp_context=context(hold)) as pool:
            assert list(pool.map(look, range(4))) == [(n, "2.0") for n in range(4)]
    except envsync.EnvsyncError as error:
        sys.exit(f"{error}\\nhint: {error.hint}")
"""


def process_pool(scene: Scene) -> list[str]:
    """Return the words of a program that syncs by itself, and has a pool of processes in the environment."""
    _write(scene, POOL)
    return [sys.executable, "program.py"]


PARSL = """
import shlex
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.providers import LocalProvider
import envsync

if __name__ == "__main__":
    words = shlex.join(envsync.command(LOCK, env=ENV)).replace("{", "{{").replace("}", "}}")
    config = Config(executors=[HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        launch_cmd=f"{words} {DEFAULT_LAUNCH_CMD}",
        max_workers_per_node=2,
        provider=LocalProvider(init_blocks=2, max_blocks=2),
        encrypted=False,
    )])
    app = parsl.python_app(look)
    with parsl.load(config):
        assert [each.result() for each in [app(n) for n in range(4)]] == [(n, "2.0") for n in range(4)]
"""


def parsl(scene: Scene) -> list[str]:
    """Return the words of a program with two blocks of workers. It has envsync, and the environment has parsl."""
    scene.lock_engine("parsl")
    _write(scene, PARSL)
    return [sys.executable, "program.py"]


SUBMITIT = """
import shlex
import submitit
from submitit.core.utils import UncompletedJobError
import envsync

if __name__ == "__main__":
    python = shlex.join([*envsync.command(LOCK, env=ENV), "python"])
    executor = submitit.LocalExecutor("logs", python=python)
    executor.update_parameters(timeout_min=2)
    jobs = executor.map_array(look, range(4))
    for number, job in enumerate(jobs):
        try:
            result = job.result()
        except UncompletedJobError as error:
            print(error)
            result = executor.submit(look, number).result()
        assert result == (number, "2.0")
"""


def submitit(scene: Scene) -> list[str]:
    """Return the words of a program each of whose jobs is wrapped. What ends without a result is submitted again."""
    scene.lock_engine("submitit")
    _write(scene, SUBMITIT)
    return [sys.executable, "program.py"]


JUPYTER = """
from jupyter_client.manager import KernelManager

CODE = "exec(open('program.py').read().partition('from jupyter')[0]); print(look(1))"

if __name__ == "__main__":
    managers = [KernelManager(kernel_name="job") for _ in range(2)]
    try:
        for manager in managers:
            manager.start_kernel()
        for manager in managers:
            client = manager.client()
            client.start_channels()
            try:
                client.wait_for_ready(timeout=60)
            except RuntimeError as error:
                print(error)
                manager.restart_kernel(now=True)
                client.wait_for_ready(timeout=60)
            client.execute_interactive(CODE, timeout=60)
            client.stop_channels()
    finally:
        for manager in managers:
            manager.shutdown_kernel(now=True)
"""


def jupyter(scene: Scene) -> list[str]:
    """Return the words of a program with two kernels, each of which is wrapped. One that dies is restarted."""
    version("jupyter-client")
    scene.lock_engine("ipykernel")
    scene.variables["JUPYTER_DATA_DIR"] = str(scene.directory / "jupyter")
    scene.run(["envsync", "shim", "--jupyter", "job", "--lock", scene.lock, "--env", scene.env])
    _write(scene, JUPYTER)
    return [sys.executable, "program.py"]


DAG = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.python import ExternalPythonOperator

with DAG("job", schedule=None):
    for number in range(3):
        ExternalPythonOperator(
            task_id=f"look{number}",
            python=PYTHON,
            python_callable=look,
            op_args=[number],
            expect_airflow=False,
            expect_pendulum=False,
        )
"""


def airflow(scene: Scene) -> list[str]:
    """Return the words that run a DAG whose tasks have a file that is a Python.

    Airflow asks that Python for some versions before a task runs, and goes on without an answer: so that syncs.
    """
    command = program("airflow")
    scene.variables.update(
        AIRFLOW_HOME=str(scene.directory / "airflow"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(scene.directory / "dags"),
    )
    python = scene.directory / "job-python"
    scene.run(["envsync", "shim", python, "--lock", scene.lock, "--env", scene.env])
    scene.write("dags/job.py", f"PYTHON = {str(python)!r}\n{LOOK}\n{DAG}")
    for words in (["db", "migrate"], ["dags", "reserialize"]):
        scene.run([command, *words], seconds=300)
    return [command, "dags", "test", "job"]


def _four(words: str, *, package: str = "", file: str = "", **what: Any) -> Runner:
    """Describe what starts each of four jobs as a process of its own."""
    prepare = functools.partial(_wrapped, words=words, package=package, file=file)
    return Runner(prepare, jobs=4, lost=1, **what)


def _program(prepare: Callable[[Scene], list[str]], jobs: int, **what: Any) -> Runner:
    """Describe a program that is itself wrapped, or syncs itself: killed meanwhile, it has not begun."""
    return Runner(prepare, jobs, lost=jobs, again=jobs, at_once=2, **what)


_END = "terminated by signal 9"
_NUMBERS = "<<END\n1\n2\n3\n4\nEND\n"
RUNNERS = {
    # Those that make files make the missing one when they are started again.
    "make": _four("make -j4 -k", package="make", file="Makefile", status=2, shows="Killed", again=1),
    "ninja": _four("ninja -j4 -k0", package="ninja-build", file="build.ninja", status=1, shows="FAILED: ", again=1),
    "snakemake": _four(
        "snakemake --cores=4 --quiet -k", file="Snakefile", status=1, shows="died with <Signals.SIGKILL", again=1
    ),
    "parallel": _four("parallel -j4 JOB ::: 1 2 3 4", package="parallel", status=4, again=4),
    "xargs": _four(f"xargs -P4 -n1 JOB {_NUMBERS}", package="findutils", status=123, shows=_END, again=4),
    "tox": _program(tox, 1),
    "nox": _program(nox, 1),
    "pytest-xdist": _program(xdist, 8, status=125),
    "joblib loky": _program(functools.partial(joblib, backend="loky"), 4, status=125),
    "joblib multiprocessing": _program(functools.partial(joblib, backend="multiprocessing"), 4, status=125),
    "multiprocessing": _program(process_pool, 4, status=1),
    "Parsl": Runner(parsl, 4, traceback=True, slow=True),
    "submitit": Runner(submitit, 4, traceback=True, shows="has not produced any output", slow=True),
    "Jupyter": Runner(jupyter, 2, traceback=True, shows="Kernel died before replying to kernel_info"),
    "Airflow": Runner(airflow, 3, traceback=True, slow=True),
}
