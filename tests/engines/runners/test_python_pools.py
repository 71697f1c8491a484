"""Engines of Python that have workers: pytest-xdist, Parsl, submitit, joblib. Each is in the lock file, too."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.engines.runners.scene import WRONG, Scene, version

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
GREET = "greet-2.0-py3-none-any.whl"
FUNCTION = """\
def look(number):
    import json, os, subprocess, sys
    import almanac.days, greet
    told = {"prefix": sys.prefix, "greet": greet.__version__, "files": [greet.__file__, almanac.days.__file__]}
    with open(os.path.join(os.path.dirname(sys.prefix), "witness.jsonl"), "a") as file:
        file.write(json.dumps(told) + "\\n")
    return number, greet.__version__
"""


def script(scene: Scene, text: str) -> list[str]:
    """Write a program of the engine's user, who has `LOCK`, `ENV` and `look`. Returns what starts it."""
    head = f"LOCK, ENV = {str(scene.lock)!r}, {str(scene.env)!r}\n"
    scene.write("program.py", f"{head}{FUNCTION}\n{textwrap.dedent(text)}")
    return ["python", "program.py"]


def test_xdist(scene: Scene) -> None:
    """All of pytest is wrapped, so that its workers are the environment's, too."""
    scene.lock_engine("pytest", "pytest-xdist")
    cases = "import pytest\n\n@pytest.mark.parametrize('number', range(8))\ndef test(number):\n    look(number)\n"
    scene.write("test_it.py", f"{FUNCTION}\n\n{cases}")
    words = ["sh", "-c", f"{scene.words} python -m pytest -q -n 4 -p no:cacheprovider test_it.py"]
    scene.run(words)
    scene.check_jobs(8)
    scene.write_lock(wrong=True)
    assert GREET in scene.run(words, status=125)


PARSL = """
import shlex, sys
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.providers import LocalProvider
import envsync

def config(number):
    words = shlex.join(envsync.command(LOCK, env=ENV)).replace("{", "{{").replace("}", "}}")
    return Config(run_dir=f"runinfo/{number}", executors=[HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        launch_cmd=f"{words} {DEFAULT_LAUNCH_CMD}",
        max_workers_per_node=2,
        provider=LocalProvider(init_blocks=2, max_blocks=2),
        encrypted=False,
    )], retries=0)

if __name__ == "__main__":
    app = parsl.python_app(look)
    for number in range(int(sys.argv[1])):
        with parsl.load(config(number)):
            print([each.result() for each in [app(n) for n in range(4)]], flush=True)
        parsl.clear()
"""


def test_parsl(scene: Scene) -> None:
    """Two blocks of workers, one sync; the driver has envsync, and the environment has parsl."""
    scene.lock_engine("parsl")
    words = [*script(scene, PARSL), "1"]
    words[0] = sys.executable
    said = scene.run(words)
    assert "(3, '2.0')" in said
    scene.check_jobs(4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_parsl_twenty_times(scene: Scene) -> None:
    """None hangs."""
    scene.lock_engine("parsl")
    words = [*script(scene, PARSL), "20"]
    words[0] = sys.executable
    scene.run(words, seconds=1500)
    scene.check_jobs(80)


def test_parsl_and_a_wrong_hash(scene: Scene) -> None:
    """The task's exception says why the blocks have ended."""
    version("parsl")
    scene.write_lock(wrong=True)
    words = [*script(scene, PARSL), "1"]
    words[0] = sys.executable
    said = scene.run(words, status=None)
    assert GREET in said
    assert WRONG[:8] in said


SUBMITIT = """
import shlex, sys
import submitit
import envsync

if __name__ == "__main__":
    python = shlex.join([*envsync.command(LOCK, env=ENV), "python"])
    executor = submitit.LocalExecutor("logs", python=python)
    executor.update_parameters(timeout_min=2)
    for _ in range(int(sys.argv[1])):
        jobs = executor.map_array(look, range(4))
        print([job.result() for job in jobs], flush=True)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_submitit(scene: Scene, rounds: int) -> None:
    """Each task is a process that is wrapped."""
    scene.lock_engine("submitit")
    said = scene.run([sys.executable, *script(scene, SUBMITIT)[1:], str(rounds)], seconds=500)
    assert "(3, '2.0')" in said
    scene.check_jobs(4 * rounds)


def test_submitit_and_a_wrong_hash(scene: Scene) -> None:
    """The exception of `job.result()` shows what the job has written to its log, with the reason."""
    version("submitit")
    scene.write_lock(wrong=True)
    said = scene.run([sys.executable, *script(scene, SUBMITIT)[1:], "1"], status=None)
    assert GREET in said


JOBLIB = """
import sys
import joblib

if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        with joblib.parallel_config(backend=sys.argv[2], n_jobs=2):
            assert len(joblib.Parallel()(joblib.delayed(look)(n) for n in range(4))) == 4
"""


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(scene: Scene, backend: str) -> None:
    """The whole program is wrapped, so that its workers are the environment's: twenty rounds, one sync."""
    scene.lock_engine("joblib")
    script(scene, JOBLIB)
    words = ["sh", "-c", f"{scene.words} python program.py 20 {backend}"]
    scene.run(words)
    scene.check_jobs(80)


JUPYTER = """
import sys
from jupyter_client.manager import start_new_kernel

if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        manager, client = start_new_kernel(kernel_name="job")
        code = "exec(open('program.py').read().partition('import sys')[0]); print(look(1))"
        client.execute_interactive(code, timeout=60)
        client.stop_channels()
        manager.shutdown_kernel()
"""


def test_jupyter(scene: Scene) -> None:
    """Its kernel is wrapped: two of them, one sync."""
    version("jupyter-client")
    scene.lock_engine("ipykernel")
    scene.variables["JUPYTER_DATA_DIR"] = str(scene.directory / "jupyter")
    scene.run(["sh", "-c", f"envsync shim --jupyter job --lock {scene.lock} --env {scene.env}"])
    said = scene.run([sys.executable, *script(scene, JUPYTER)[1:], "2"])
    assert said.count("(1, '2.0')") == 2
    scene.check_jobs(2)
    scene.write_lock(wrong=True)
    assert GREET in scene.run([sys.executable, *script(scene, JUPYTER)[1:], "1"], status=None)
