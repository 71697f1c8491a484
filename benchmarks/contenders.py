"""Who is compared, and how each is told to do the same: envsync, uv, pip, and the limit.

All get the same small set of variables, for what else is set on a machine is not to be measured: with
SSL_CERT_DIR, to name one, uv reads hundreds of certificates at every start. envsync and uv each have a
project directory with a pyproject.toml.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from measure import Command, MeasuringError, run
from workplace import Wheels, Workplace

ENVSYNC, UV, PIP, LIMIT = "envsync", "uv", "pip", "limit"
PYTHON_OPTION = "ENVSYNC_PYTHON"
LIMITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "limits.py")


@dataclass(frozen=True)
class Bench:
    """What all benchmarks share.

    :param chosen: the contenders to compare, in the order of the columns
    :param python: the Python that environments are made of
    :param rounds: how often everything is measured, None for each benchmark's own number
    :param time_limit: seconds that one command may take
    :param second: what the second lock file of `digests` names, None for the set without a few of its wheels
    """

    place: Workplace
    wheels: Wheels
    second: Wheels | None
    chosen: tuple[str, ...]
    python: str
    envsync: str
    uv: str
    rounds: int | None
    time_limit: float

    def prepare(self, command: Command) -> None:
        """Run a command that is not measured."""
        run(command, self.time_limit)

    def command(self, *words: str, directory: str, **variables: str) -> Command:
        known = {"HOME": self.place.directory, "LANG": "C.UTF-8", "TMPDIR": self.place.directory}
        path = os.pathsep.join((os.path.dirname(self.python), "/usr/local/bin", "/usr/bin", "/bin"))
        return Command(words, directory, {**known, "PATH": path, "PWD": directory, **variables})


class Envsync:
    """envsync in a project of its own, with one cache.

    :param wheels: what it installs; default: the set
    :param cache: default: one of its own
    """

    def __init__(self, bench: Bench, wheels: Wheels | None = None, cache: str | None = None) -> None:
        self.bench = bench
        self.wheels = wheels or bench.wheels
        self.project = bench.place.fresh_directory("envsync-project")
        self.cache = cache or bench.place.fresh("envsync-cache")
        shutil.copy(self.wheels.lock, self.project)
        with open(os.path.join(self.project, "pyproject.toml"), "w", encoding="utf-8") as file:
            file.write(project_of(self.wheels))

    def sync(
        self, environment: str, cache: str | None = None, mode: str = "hardlink", *, compiled: bool = False
    ) -> Command:
        options = ("--compile-bytecode",) if compiled else ()
        return self._command("sync", *self._request(environment, mode), *options, cache=cache)

    def run(self, environment: str, *words: str) -> Command:
        """Launch in an environment that is current: nothing but what a user would type."""
        lock = os.path.join(self.project, "pylock.toml")
        return self._command("run", "--lock", lock, "--env", environment, "--", *words)

    def run_and_sync(self, environment: str, *words: str, cache: str | None = None) -> Command:
        """Launch in an environment that may be missing."""
        return self._command("run", *self._request(environment), "--", *words, cache=cache)

    def _request(self, environment: str, mode: str = "hardlink") -> tuple[str, ...]:
        lock = os.path.join(self.project, "pylock.toml")
        found = ("--find-links", self.bench.wheels.wheelhouse, "--no-index")
        return ("--lock", lock, "--env", environment, *found, "--link-mode", mode)

    def _command(self, *words: str, cache: str | None = None) -> Command:
        variables = {"ENVSYNC_CACHE_DIR": cache or self.cache, PYTHON_OPTION: self.bench.python}
        return self.bench.command(self.bench.envsync, *words, directory=self.project, **variables)


class Uv:
    """uv in a project of its own, whose dependencies are the set's pins, with one cache.

    :param wheels: what it installs; default: the set
    :param cache: default: one of its own
    """

    def __init__(self, bench: Bench, wheels: Wheels | None = None, cache: str | None = None) -> None:
        self.bench = bench
        self.wheels = wheels or bench.wheels
        self.project = bench.place.fresh_directory("uv-project")
        self.cache = cache or bench.place.fresh("uv-cache")
        hashed = [f"{wheel.pin} --hash=sha256:{wheel.sha256}\n" for wheel in self.wheels.wheels]
        self.requirements = bench.place.write("requirements.txt", "".join(hashed))
        with open(os.path.join(self.project, "pyproject.toml"), "w", encoding="utf-8") as file:
            file.write(project_of(self.wheels))
        found = ("--no-index", "--find-links", bench.wheels.wheelhouse)
        bench.prepare(self._command("lock", *found, environment=bench.place.fresh("none"), UV_PYTHON=bench.python))

    def sync(self, environment: str, mode: str = "hardlink", *, compiled: bool = False) -> Command:
        """Sync from the project's lock file, with the links that the cache allows."""
        return self._command(
            "sync",
            "--frozen",
            *(("--compile-bytecode",) if compiled else ()),
            environment=environment,
            UV_LINK_MODE=mode,
            UV_PYTHON=self.bench.python,
        )

    def sync_cold(self, environment: str, cache: str) -> Command:
        """Make an environment and install the hashed pins into it.

        Not `uv sync`: a uv.lock made of a directory of wheels has no hashes, and nothing would be verified.
        """
        uv, into = self.bench.uv, ("--python", f"{environment}/bin/python")
        found = ("--no-index", "--find-links", self.bench.wheels.wheelhouse)
        venv = (uv, "venv", environment)
        install = (
            uv,
            "pip",
            "sync",
            *found,
            *into,
            "--require-hashes",
            "--link-mode",
            "hardlink",
            self.requirements,
        )
        words = one_after_the_other(venv, install)
        return self._command(
            *words[1:], program=words[0], environment=environment, cache=cache, UV_PYTHON=self.bench.python
        )

    def run(self, environment: str, *words: str) -> Command:
        """Launch in an environment that is current: nothing but what a user would type."""
        return self._command("run", "--frozen", "--", *words, environment=environment)

    def run_and_sync(self, environment: str, *words: str, cache: str | None = None) -> Command:
        """Launch in an environment that may be missing."""
        return self._command(
            "run",
            "--frozen",
            "--",
            *words,
            environment=environment,
            cache=cache,
            UV_LINK_MODE="hardlink",
            UV_PYTHON=self.bench.python,
        )

    def _command(
        self,
        *words: str,
        environment: str,
        cache: str | None = None,
        program: str | None = None,
        **variables: str,
    ) -> Command:
        return self.bench.command(
            program or self.bench.uv,
            *words,
            directory=self.project,
            UV_CACHE_DIR=cache or self.cache,
            UV_PROJECT_ENVIRONMENT=environment,
            UV_OFFLINE="1",
            UV_PYTHON_DOWNLOADS="never",
            **variables,
        )


class Pip:
    """pip installs from the wheel files every time: it has no cache of unpacked wheels."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        pins = "".join(f"{wheel.path}\n" for wheel in bench.wheels.wheels)
        self.requirements = bench.place.write("requirements.txt", pins)

    def install(self, environment: str) -> Command:
        venv = (self.bench.python, "-m", "venv", "--without-pip", environment)
        pip = (self.bench.python, "-m", "pip", "--python", f"{environment}/bin/python")
        install = (*pip, "install", "--no-index", "--no-deps", "--no-compile", "-r", self.requirements)
        return self.bench.command(*one_after_the_other(venv, install), directory=self.bench.place.directory)


class Limit:
    """The work itself, and nothing else: see limits.py."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        paths = "".join(f"{wheel.path}\n" for wheel in bench.wheels.wheels)
        self.wheels = bench.place.write("wheels.txt", paths)

    def unpack(self, destination: str) -> Command:
        return self._command("unpack", self.wheels, destination)

    def list_store(self, store: str, listing: str) -> Command:
        return self._command("list", store, listing)

    def link(self, listing: str, destination: str) -> Command:
        return self._command("link", listing, destination)

    def _command(self, *words: str) -> Command:
        directory = self.bench.place.directory
        return self.bench.command(self.bench.python, "-I", "-S", LIMITS, *words, directory=directory)


def project_of(wheels: Wheels) -> str:
    """Write a pyproject.toml whose dependencies are the set's pins, for this Python and this system alone."""
    pins = "".join(f'    "{wheel.pin}",\n' for wheel in wheels.wheels)
    return (
        f'[project]\nname = "project-of-{wheels.name}"\nversion = "0"\n'
        f'requires-python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"\ndependencies = [\n{pins}]\n\n'
        f"[tool.uv]\npackage = false\nenvironments = [\"sys_platform == '{sys.platform}'\"]\n"
    )


def one_after_the_other(*commands: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a shell that runs these commands as long as they succeed."""
    return ("/bin/sh", "-c", " && ".join(map(shlex.join, commands)))


def program(given: str) -> str:
    """Find a program, on PATH unless it is a path.

    :raises MeasuringError: there is none
    """
    found = shutil.which(given)
    if found is None:
        hint = "name it with --envsync or --uv, or leave it out with --only"
        raise MeasuringError(f"there is no program `{given}`\nhint: {hint}")
    return os.path.abspath(found)


def version_of(path: str) -> str:
    """Return what a program calls itself, its version included, or its path if it does not say."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return " ".join(said.split()[:2]).replace(",", "") or path


def python_of(bench: Bench) -> str:
    """Return the Python beside envsync's launcher, which runs it.

    :raises MeasuringError: there is none
    """
    python = os.path.join(os.path.dirname(os.path.realpath(bench.envsync)), "python3")
    if not os.access(python, os.X_OK):
        raise MeasuringError(f"there is no `{python}`, beside envsync's launcher, to look at its modules")
    return python


def package_of(bench: Bench) -> str:
    """Return the directory of the package that envsync's launcher starts.

    :raises MeasuringError: the Python beside the launcher has none
    """
    find = "import importlib.util as find; print(*find.find_spec('envsync').submodule_search_locations)"
    said = subprocess.run([python_of(bench), "-I", "-c", find], capture_output=True, text=True, check=False)
    if said.returncode:
        raise MeasuringError(f"cannot ask where envsync's modules are:\n{said.stderr.strip()}")
    return os.path.realpath(said.stdout.strip())
