"""Processes of multiprocessing in an environment: real ones, started by programs whose own packages are others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import envsync
from envsync import errors
from envsync.integrations.multiprocessing import context
from envsync.leading.result import SyncResult
from tests import needs
from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES
from tests.unit.library.program import is_free

LOCK = FIXTURES / "pylock.toml"
LOOK = """\
def look(number=0):
    import greet, importlib.util, os, shutil, sys
    found = importlib.util.find_spec
    return {
        "prefix": sys.prefix,
        "version": greet.__version__,
        "file": greet.__file__,
        "found": [name for name in ("envsync", "driver_only", "sibling") if found(name)],
        "command": shutil.which("greet"),
        "variable": os.environ["VIRTUAL_ENV"],
        "first": sys.path[0],
    }
"""
"""What a process sees. The program has another version of `greet`, and `driver_only`."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that is current, for programs that use it."""
    directory = tmp_path_factory.mktemp("environment")
    words = ["sync", "--quiet", "--lock", LOCK, "--env", directory / "env", "--cache-dir", directory / "cache"]
    subprocess.run([*envsync_command(), *words], env={**os.environ, "HOME": str(directory)}, check=True)
    return directory / "env"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory for programs, with a module beside them; and the packages that only the programs have."""
    packages = tmp_path / "packages"
    for wheel in ("greet-2.0-py3-none-any.whl", "shout-1.0-py3-none-any.whl"):
        zipfile.ZipFile(FIXTURES / "wheels" / wheel).extractall(packages)
    (packages / "driver_only.py").touch()
    (tmp_path / "sibling.py").touch()
    return tmp_path


def program(here: Path, env: Path, main: str, *, before: str = "", name: str = "program.py") -> list[str]:
    """Write a program whose main part has `LOCK`, a `hold` and the modules that it needs. Returns how to start it."""
    text = f"""{LOOK}
{before}
if __name__ == "__main__":
    import sys
    sys.path[:0] = [{str(ROOT)!r}, {str(here / "packages")!r}]
    import concurrent.futures, json, os, signal, greet, driver_only, envsync
    assert greet.__version__ == "2.0"
    from envsync.integrations.multiprocessing import context
    with envsync.use({str(LOCK)!r}, env={str(env)!r}) as hold:
{textwrap.indent(textwrap.dedent(main), " " * 8)}
"""
    (here / name).write_text(text)
    return [sys.executable, "-W", "error", str(here / name)]


def run(words: list[str], cwd: Path, *, status: int = 0) -> str:
    """Run a program to its end, which may take no longer than a test. Returns what it has printed."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == status, done.stderr
    if status == 0:
        assert done.stderr == ""
    return done.stdout


WAYS = {
    "executor": """
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context(hold)) as pool:
            print(json.dumps(list(pool.map(look, range(4)))))
    """,
    "pool": """
        with context(hold).Pool(2) as pool:
            print(json.dumps(pool.map(look, range(4))))
    """,
    "process": """
        made = context(hold)
        queue, lock = made.SimpleQueue(), made.Lock()
        with lock:
            process = made.Process(target=put, args=(queue, lock))
            process.start()
        print(json.dumps([queue.get()]))
        process.join()
        assert process.exitcode == 0
    """,
    "manager": """
        with context(hold).Manager() as manager:
            shared = manager.list()
            process = context(hold).Process(target=append, args=(shared,))
            process.start()
            process.join()
            print(json.dumps(list(shared)))
    """,
}
FUNCTIONS = """
def put(queue, lock):
    with lock:
        queue.put(look())

def append(shared):
    shared.append(look())
"""


@pytest.mark.parametrize("way", WAYS)
def test_they_have_the_packages_of_the_environment(here: Path, env: Path, way: str) -> None:
    """And its variables and commands, and the modules beside the program; what the program alone has they have not."""
    seen = json.loads(run(program(here, env, WAYS[way], before=FUNCTIONS), here))
    assert seen
    for each in seen:
        assert each.pop("file").startswith(f"{env}/lib/")
        assert each == {
            "prefix": str(env),
            "version": "1.0",
            "found": ["sibling"],
            "command": f"{env}/bin/greet",
            "variable": str(env),
            "first": str(here),
        }


@pytest.mark.parametrize(
    ("words", "first"),
    [(["-m", "program"], "here"), (["-m", "inside.program"], "here"), (["inside"], "inside"), (["-P", "inside"], "-")],
    ids=" ".join,
)
def test_what_stands_first_is_what_python_puts_there(here: Path, env: Path, words: list[str], first: str) -> None:
    """For a module the directory where the program was started; for a directory itself; and nothing with `-P`."""
    (here / "inside").mkdir()
    before = "from sibling import *" if first == "here" else ""
    for name in ("program.py", "inside/program.py", "inside/__main__.py"):
        main = f"""
            with context(hold, main={"__main__" not in name}).Pool(1) as pool:
                print(pool.apply(eval, ("__import__('sys').path[0]",)))
        """
        program(here, env, main, before=before, name=name)
    said = run([sys.executable, "-W", "error", *words], here).strip()
    if first == "-":
        assert said.endswith(".zip")
    else:
        assert said == {"here": str(here), "inside": str(here / "inside")}[first]


def test_other_paths_and_no_main_module(here: Path, env: Path) -> None:
    """Without the main module, which they cannot import, they do what is in another one, where they are told it is."""
    (here / "elsewhere").mkdir()
    (here / "elsewhere/looking.py").write_text(LOOK)
    main = """
        sys.path.append("elsewhere")
        from looking import look
        with context(hold, paths=["elsewhere"], main=False).Pool(1) as pool:
            print(json.dumps(pool.apply(look)))
    """
    seen = json.loads(run(program(here, env, main, before="__import__('envsync')"), here))
    assert (seen["first"], seen["version"], seen["found"]) == (str(here / "elsewhere"), "1.0", [])


def test_a_main_module_that_they_cannot_import(here: Path, env: Path) -> None:
    """An executor says that its pool is broken, and the worker why."""
    main = """
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context(hold)) as pool:
            pool.submit(look).result()
    """
    words = program(here, env, main, before="import envsync.errors")
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'envsync'" in done.stderr
    assert "BrokenProcessPool" in done.stderr.splitlines()[-1]


def test_a_worker_that_is_killed(here: Path, env: Path) -> None:
    """Nobody waits for it, and the signal is told."""
    main = """
        try:
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context(hold)) as pool:
                pool.submit(os.kill, 0, 0).result()
                pool.submit(signal.raise_signal, signal.SIGKILL).result()
        except concurrent.futures.BrokenExecutor:
            print("broken")
        process = context(hold).Process(target=signal.raise_signal, args=(signal.SIGTERM,))
        process.start()
        process.join()
        print(process.exitcode)
    """
    assert run(program(here, env, main), here) == f"broken\n{-signal.SIGTERM}\n"


@needs.PROC
def test_twenty_pools_one_after_the_other(here: Path, env: Path) -> None:
    """None hangs, nothing is left open, and the environment is free at the end."""
    main = """
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context(hold)) as pool:
                assert {each["version"] for each in pool.map(look, range(4))} == {"1.0"}
            del pool
            after = len(os.listdir("/proc/self/fd"))
            assert after <= before + 1, (number, before, after)  # the tracker of resources stays
    """
    run(program(here, env, main), here)
    assert is_free(env / ".envsync/in-use")


def test_each_keeps_the_hold(here: Path, env: Path) -> None:
    """Until it ends: the environment is in use though the hold was released. No other one is started then."""
    main = """
        made = context(hold)
        begun, end = made.Event(), made.Event()
        process = made.Process(target=meet, args=(begun, end))
        process.start()
        begun.wait()
        hold.release()
        try:
            made.Process(target=look).start()
        except ValueError as error:
            print(error, flush=True)
        input()
        end.set()
        process.join()
        print(process.exitcode, flush=True)
        input()
    """
    meet = "def meet(begun, end):\n    begun.set()\n    end.wait()\n"
    words = program(here, env, main, before=meet)
    with subprocess.Popen(words, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        assert driver.stdout.readline() == f"the hold on environment `{env}` is released\n"
        assert not is_free(env / ".envsync/in-use")
        driver.stdin.write("\n")
        driver.stdin.flush()
        assert driver.stdout.readline() == "0\n"
        assert is_free(env / ".envsync/in-use")
        driver.communicate("\n")
    assert driver.returncode == 0


def test_what_is_no_hold_is_refused(tmp_path: Path) -> None:
    """So is one that is released, and the environment of another version of Python."""
    result = SyncResult("current", str(tmp_path), "digest")
    with pytest.raises(TypeError, match=re.escape("with envsync.use(...) as hold")):
        context(result)  # type: ignore[arg-type]
    hold = envsync.Hold(result, -1)
    with pytest.raises(errors.InterpreterError, match="is not of version 3") as caught:
        context(hold)
    assert "`envsync sync --python 3." in caught.value.hint
    hold.release()
    with pytest.raises(ValueError, match="is released"):
        context(hold)
