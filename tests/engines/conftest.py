"""A lock file with an engine, two versions of a package, and a program that has the other one of them.

The lock file is made when the tests run, of whatever index uv is set to use:

    python -m pip install --group engines && python -m pytest -m engines tests/engines
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.system import processes
from tests.engines.standing import standing
from tests.environments import FIXTURES
from tests.wheels import build_wheel

SECONDS = 240
"""How long a program of a test may take."""
PROBE = '''
def probe(*_):
    """Say in a worker where its modules come from."""
    import os, sys
    import greet
    import abacus
    of = [greet.__file__, abacus.__file__]
    versions = {"greet": greet.__version__, "abacus": abacus.__version__}
    return {"prefix": sys.prefix, **versions, "of": of, "pid": os.getpid()}
'''


def until(done: Callable[[], object]) -> None:
    """Wait for something, which ends with the test at the latest."""
    while not done():
        time.sleep(0.05)


def version(engine: str) -> str:
    """Return the version of an engine here; without it, the test is skipped."""
    try:
        return importlib.metadata.version(engine)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"there is no {engine} here: python -m pip install --group engines")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests: an engine is downloaded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def lock_texts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that returns the text of a lock file with an engine in the version that is here."""
    directory = tmp_path_factory.mktemp("locks")

    def text(engine: str) -> str:
        path = directory / f"pylock.{engine}.toml"
        if not path.exists():
            words = [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "compile",
                "-",
                "--format",
                "pylock.toml",
                "-q",
                "-o",
                str(path),
            ]
            words += ["--python", sys.executable, "--no-header"]
            requirement = f"{engine}=={version(engine)}\n"
            done = subprocess.run(words, input=requirement, text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
        return path.read_text()

    return text


class Bench:
    """A project with a lock file, and a program beside it that has an engine and `greet` 1.0."""

    def __init__(self, directory: Path, cache: Path, lock_texts: Callable[[str], str]) -> None:
        self.directory = directory
        self.lock = directory / "pylock.toml"
        self.env = directory / "env"
        self.events_file = directory / "events"
        self.variables = {
            **os.environ,
            "ENVSYNC_CACHE_DIR": str(cache),
            "ENVSYNC_EVENTS": str(self.events_file),
            "PYTHONWARNINGS": "ignore",
        }
        self._texts = lock_texts
        shutil.copytree(FIXTURES / "wheels", directory / "wheels")
        code = f'__version__ = "3.1"  # {directory}: no other test has left it in the cache\n'
        self._abacus = Path(build_wheel(directory / "wheels", "abacus", "3.1", {"abacus.py": code}))
        self.python = str(self._program_python())

    def _program_python(self) -> Path:
        """Make the program's own environment: what is installed here, and `greet` 1.0 before it."""
        home = self.directory / "program"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        site = next((home / "lib").glob("python*/site-packages"))
        for name in ("greet-1.0", "shout-1.0", "almanac_words-1.0", "almanac_days-1.0"):
            with zipfile.ZipFile(FIXTURES / f"wheels/{name}-py3-none-any.whl") as wheel:
                wheel.extractall(site)
        (site / "engines.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        return home / "bin/python"

    def write_lock(self, engine: str, *, wrong: bool = False, wheels: str = "greet-2.0 shout-1.0") -> None:
        """Lock an engine, if one is named, with wheels of the fixtures, and one that the program does not have.

        :param wrong: with a hash that greet's wheel has not
        """
        said = []
        for name in ("pylock.toml", "pylock.next.toml"):
            said += (FIXTURES / name).read_text().split("[[packages]]")[1:]
        text = self._texts(engine) if engine else 'lock-version = "1.0"\ncreated-by = "tests"\n'
        for wheel in wheels.split():
            entry = next(each for each in said if f"wheels/{wheel}-" in each).strip()
            if wrong and wheel.startswith("greet"):
                head, _, tail = entry.partition('sha256 = "')
                entry = f'{head}sha256 = "{"0" * 8}{tail[8:]}'
            text += f"\n[[packages]]\n{entry}\n"
        digest = hashlib.sha256(self._abacus.read_bytes()).hexdigest()
        wheel = f'{{ path = "wheels/{self._abacus.name}", hashes = {{ sha256 = "{digest}" }} }}'
        text += f'\n[[packages]]\nname = "abacus"\nversion = "3.1"\nwheels = [{wheel}]\n'
        self.lock.write_text(text)

    def script(self, code: str) -> list[str]:
        """Write a program; its `probe` says where modules come from. Returns the words that start it."""
        path = self.directory / "main" / "program.py"
        path.parent.mkdir(exist_ok=True)
        head = f"LOCK, ENV, HERE = {str(self.lock)!r}, {str(self.env)!r}, {str(self.directory)!r}\n"
        path.write_text("import json, os, sys\n" + head + PROBE + textwrap.dedent(code))
        return [self.python, str(path)]

    def start(self, code: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program."""
        defaults = {"env": self.variables, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            self.script(code),
            cwd=self.directory / "main",
            stdin=subprocess.DEVNULL,
            text=True,
            **{**defaults, **options},
        )

    def run(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        with self.start(code, env={**self.variables, **variables}) as program:
            try:
                out, err = program.communicate(timeout=SECONDS)
            except BaseException:
                program.kill()
                raise
        return subprocess.CompletedProcess(program.args, program.returncode, out, err)

    def answer(self, code: str, **variables: str) -> Any:
        """Run a program that prints one line of JSON, the last, and return that."""
        done = self.run(code, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def answer_past_a_killed_leader(self, code: str) -> Any:
        """Run a program that waits for another process's sync, which is killed in the middle of it, to its end."""
        words = [sys.executable, "-m", "envsync", "sync", "--lock", str(self.lock), "--env", str(self.env)]
        with (
            standing(self.lock, self.env) as sync,
            subprocess.Popen(words, env=self.variables, stderr=subprocess.DEVNULL) as other,
        ):
            assert sync.leader(other) == other.pid
            with self.start(code) as program:
                until(lambda: self.is_waited_for() or program.poll() is not None)
                sync.kill(other)
                out, err = program.communicate(timeout=SECONDS)
        assert program.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a name so far."""
        if not self.events_file.exists():
            return []
        said = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [each for each in said if each["event"] == name]

    def is_waited_for(self) -> bool:
        """Tell whether somebody waits for the environment, which nobody was served yet."""
        return processes.is_waited_for(str(self.env / ".lock")) or bool(
            processes.holders(str(self.env / ".envsync/wanted"))
        )

    def is_of_environment(self, probed: dict[str, Any], env: Path | None = None) -> bool:
        """Tell whether a worker has the modules of the environment, and not those of the program."""
        home = str(env or self.env)
        ours = all(path.startswith(f"{home}/") for path in probed["of"])
        return ours and (probed["prefix"], probed["greet"], probed["abacus"]) == (home, "2.0", "3.1")


@pytest.fixture
def bench(tmp_path: Path, cache: Path, lock_texts: Callable[[str], str]) -> Bench:
    """A project and a program."""
    return Bench(tmp_path, cache, lock_texts)
