"""What recipes are tried in: a project with a lock file, and a program `envsync` on PATH, as a user has them.

Locks of engines are made when the tests run, of whatever index uv is set to use.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES, leftovers, unverified

SECONDS = 100
RECIPES = ROOT / "docs/examples/runners"
WITNESS = """\
import json, os, sys
import almanac.days, greet
told = {"prefix": sys.prefix, "greet": greet.__version__, "files": [greet.__file__, almanac.days.__file__]}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "witness.jsonl"), "a") as file:
    file.write(json.dumps(told) + "\\n")
print("greet", greet.__version__)
"""
"""A job: it notes where its modules are from. The lock file has `greet` 2.0 and `almanac-days`."""
WHEELS = ("greet-2.0", "shout-1.0", "almanac_days-1.0")
WRONG = "0" * 64


def version(engine: str) -> str:
    """Return the version of an engine here; without it, the test is skipped."""
    try:
        return importlib.metadata.version(engine)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"there is no {engine} here: python -m pip install --group engines")


def program(name: str, package: str = "") -> str:
    """Return the path of a program; without it, the test is skipped."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here: " + (f"apt-get install {package}" if package else "pip install it"))
    return found


class Scene:
    """A project in a directory, and what happens in it.

    :ivar wrapped: the words that stand before a command which is to run in the environment
    :ivar variables: for what is run in it
    """

    def __init__(self, directory: Path, engines_cache: Path) -> None:
        self.directory = directory
        self._engines_cache = engines_cache
        self.lock = directory / "pylock.toml"
        self.env = directory / ".venv"
        self.wrapped = ["envsync", "run", "--lock", str(self.lock), "--env", str(self.env), "--"]
        self._witness = directory / "witness.jsonl"
        self._events = directory / "events.jsonl"
        commands = directory / "commands"
        commands.mkdir()
        (commands / "envsync").write_text(f'#!/bin/sh\nexec {shlex.join(envsync_command())} "$@"\n')
        (commands / "envsync").chmod(0o755)
        self.variables = {
            **os.environ,
            "PATH": f"{commands}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "ENVSYNC_CACHE_DIR": str(directory / "cache"),
            "ENVSYNC_EVENTS": str(self._events),
        }
        shutil.copytree(FIXTURES / "wheels", directory / "wheels")
        (directory / "job.py").write_text(WITNESS)
        self.write_lock()

    def write_lock(self, *, wrong: bool = False, more: str = "") -> None:
        """Lock `greet` 2.0, `shout` and `almanac-days`.

        :param wrong: with a hash that greet's wheel has not
        :param more: another lock file, whose packages are locked as well
        """
        text = more or 'lock-version = "1.0"\ncreated-by = "tests"\n'
        texts = [(FIXTURES / name).read_text() for name in ("pylock.toml", "pylock.next.toml")]
        said = [each for locked in texts for each in locked.split("[[packages]]")[1:]]
        for wheel in WHEELS:
            name = f"{wheel}-py3-none-any.whl"
            entry = next(each.strip() for each in said if name in each)
            if wrong and wheel == "greet-2.0":
                entry = entry.partition('sha256 = "')[0] + f'sha256 = "{WRONG}" }} }}]'
            text += f"\n[[packages]]\n{entry}\n"
        self.lock.write_text(text)

    def lock_engine(self, *requirements: str) -> None:
        """Lock an engine in the version that is here, and what else is named, with the wheels of before."""
        wanted = [f"{each}=={version(each)}" for each in requirements]
        words = [sys.executable, "-m", "uv", "pip", "compile", "-", "--format", "pylock.toml", "--no-header", "-q"]
        words += ["--python", sys.executable]
        done = subprocess.run(words, input="\n".join(wanted), text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        self.write_lock(more=done.stdout)
        self.variables["ENVSYNC_CACHE_DIR"] = str(self._engines_cache)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def recipe(self, name: str) -> Path:
        """Copy a file of the documentation, whose paths fit: its lock file is beside it."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        return Path(shutil.copy(RECIPES / name, path))

    def start(self, words: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[str]:
        """Start a runner, whose output is one."""
        variables: Mapping[str, str] = {**self.variables, **options.pop("env", {})}
        return subprocess.Popen(
            [os.fspath(word) for word in words],
            cwd=options.pop("cwd", self.directory),
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def run(
        self, words: Sequence[str | os.PathLike[str]], *, status: int | None = 0, seconds: int = SECONDS, **options: Any
    ) -> str:
        """Run a runner to its end. Returns what it has said.

        :param status: with which it ends; None: with any but 0
        :param seconds: how long it may take
        """
        with self.start(words, **options) as runner:
            said, _ = runner.communicate(timeout=seconds)
        if status is None:
            assert runner.returncode != 0, said
        else:
            assert runner.returncode == status, said
        return said

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what has happened (`ENVSYNC_EVENTS`), as far as it has this name."""
        if not self._events.exists():
            return []
        said = [json.loads(line) for line in self._events.read_text().splitlines()]
        return [each for each in said if each["event"] == name]

    def count(self, event: str) -> int:
        """Return how often something has happened."""
        return len(self.events(event))

    def check_jobs(self, count: int, env: Path | None = None) -> None:
        """Check that so many jobs have run, with the modules of the environment, which was synced once and is whole."""
        home = env or self.env
        told = [json.loads(line) for line in self._witness.read_text().splitlines()]
        assert len(told) == count
        for each in told:
            assert (each["prefix"], each["greet"]) == (str(home), "2.0")
            assert all(file.startswith(f"{home}/") for file in each["files"])
        assert self.count("synced") == 1
        problems = [*unverified(home), *(set(leftovers(home)) - {"waiting"})]  # which is empty
        assert problems == [], problems
