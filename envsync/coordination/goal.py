"""The goal of a sync: everything that is decided before the environment is looked at.

Which lock file, parsed; which Python; which wheels, by hash, all of them in the store. Nothing here touches the
environment, so whatever is wrong with the input is said before anything is changed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from envsync import interpreter, lockfile, stamp
from envsync.cache.fetch import fetch
from envsync.cache.manifest import Manifest
from envsync.cache.store import Store
from envsync.environment import Environment
from envsync.errors import EnvironmentRefusedError, InterpreterError, LockFileError, UnsupportedPythonError
from envsync.installed import Ledger
from envsync.lockfile import LockFile, Sources
from envsync.plan import Origin, Wanted
from envsync.progress import Report
from envsync.request import Request, describe_python, read
from envsync.stamp import LocalFile
from envsync.target import Interpreter, Target

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Inputs:
    """The parsed lock file, and what the digest covers of the further input files."""

    lock_file: LockFile
    checksums: tuple[str, ...]
    """Of the further input files, as they were when they were parsed."""
    local_files: tuple[LocalFile, ...]
    """Local wheels that the lock file names without a hash."""


@dataclass(frozen=True, slots=True)
class Python:
    """The Python of the environment, and whether the environment has to be made for it."""

    interpreter: Interpreter
    make: bool
    """The environment is missing, or has to be made anew."""
    env: str
    """The absolute path by which the environment's scripts name it."""

    @property
    def description(self) -> str:
        """What the digest says of it."""
        return describe_python(self.interpreter.implementation, self.interpreter.short_version)


@dataclass(slots=True)
class Goal:
    """What the environment has to become."""

    inputs: Inputs
    python: Python
    digest: str
    target: Target
    manifests: dict[str, Manifest]
    """By name; empty if nothing was fetched, as for a dry run."""

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        return tuple(
            Wanted(
                artifact.name,
                artifact.version,
                Origin(self._sha256(artifact.name, artifact.sha256), artifact.direct_url),
            )
            for artifact in self.target.artifacts
        )

    def _sha256(self, name: str, known: str | None) -> str:
        manifest = self.manifests.get(name)
        return manifest.sha256 if manifest is not None else known or ""


def read_inputs(request: Request) -> Inputs:
    """Read the lock file so that what is parsed is what the digest stands for, even if it is being edited.

    :raises LockFileError: it cannot be used, or does not stand still
    """
    for _ in range(ATTEMPTS):
        parsed = lockfile.read(request.lock)
        checksums = _checksums(parsed)
        if checksums[0] != request.content:
            raise LockFileError(request.lock, "it changed while it was being read", hint="run again")
        again = lockfile.read(request.lock) if len(checksums) > 1 else parsed
        if len(checksums) == 1 or _checksums(again) == checksums:
            local_files = tuple(local_file(request, path, direct=True) for path in again.local_files)
            return Inputs(again, tuple(checksums[1:]), local_files)
    raise LockFileError(request.lock, "it keeps changing while it is being read")


def _checksums(parsed: LockFile) -> list[str]:
    return [stamp.checksum(read(path)) for path in parsed.inputs]


def local_file(request: Request, path: str, *, direct: bool) -> LocalFile:
    """Look at a local wheel that has no hash.

    :raises LockFileError: it is not there
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise LockFileError(request.lock, f"cannot read wheel `{path}`: {error.strerror}") from error
    return LocalFile(path, status.st_size, status.st_mtime_ns, direct=direct)


def find_python(request: Request, environment: Environment, ledger: Ledger, cache: str) -> Python:
    """Find out which Python the environment has, whether it will do, and else which one to make it with.

    :raises InterpreterError: none was found
    :raises EnvironmentRefusedError: the environment was made for another kind of host
    """
    spec = request.text("python")
    path = os.path.abspath(environment.path)
    usable = _usable(environment, ledger, path, cache)
    if usable is not None and (spec is None or _satisfies(usable.interpreter, spec, cache)):
        _refuse_other_hosts(usable, ledger)
        return usable
    base = interpreter.find(spec) if spec is not None else _base_of(environment)
    made = Python(interpreter.inspect(base, cache), make=True, env=path)
    if usable is not None:
        _refuse_other_hosts(made, ledger)
    return made


def _usable(environment: Environment, ledger: Ledger, path: str, cache: str) -> Python | None:
    """Return the environment's own Python if it runs, has its prefix here, and the environment has not moved."""
    if os.path.lexists(environment.making) or not os.path.isfile(environment.config):
        return None
    try:
        facts = interpreter.inspect(environment.python, cache)
    except UnsupportedPythonError:
        raise
    except InterpreterError:
        return None  # its base is gone
    if os.path.realpath(facts.prefix) != os.path.realpath(path):
        return None  # it is the base interpreter, whose packages are none of our business
    if ledger.path and ledger.path != path:
        try:
            if not os.path.samefile(ledger.path, path):
                return None
        except OSError:
            return None  # it was moved, and every script in it names the place where it was
        path = ledger.path
    return Python(facts, make=False, env=path)


def _satisfies(facts: Interpreter, spec: str, cache: str) -> bool:
    """Tell whether the environment's Python is what `--python` asks for."""
    if spec.replace(".", "").isdigit():
        return f"{facts.version}.".startswith(f"{spec}.")
    asked = interpreter.inspect(interpreter.find(spec), cache)
    return (asked.implementation, asked.short_version) == (facts.implementation, facts.short_version)


def _base_of(environment: Environment) -> str:
    """Choose the Python to make an environment with: of the version that it had, or ours."""
    version = _configured_version(environment)
    if version is not None and version != ".".join(map(str, sys.version_info[:2])):
        try:
            return interpreter.find(version)
        except InterpreterError:
            pass  # that one is gone: ours will do
    return interpreter.own_base()


def _configured_version(environment: Environment) -> str | None:
    """Read X.Y from pyvenv.cfg: `version` as venv writes it, `version_info` as uv and virtualenv do."""
    try:
        with open(environment.config, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() in ("version", "version_info"):
            return ".".join(value.strip().split(".")[:2])
    return None


def _refuse_other_hosts(python: Python, ledger: Ledger) -> None:
    """An environment is not resynced back and forth between machines that cannot share it."""
    here = host_of(python)
    if ledger.host and ledger.host != here:
        raise EnvironmentRefusedError(
            python.env,
            f"it was made for {ledger.host}, and this host is {here}",
            hint="give each kind of host its own: --env '.venvs/{digest}'",
        )


def host_of(python: Python) -> str:
    """Return machine and libc family, as in `x86_64 glibc`."""
    return " ".join(python.description.split(" ")[2:])


def digest_of(request: Request, inputs: Inputs, python: str) -> str:
    """Compute the digest of a request whose lock file is parsed."""
    return request.digest(python, inputs.checksums, unhashed=inputs.lock_file.unhashed, local_files=inputs.local_files)


def environment_by_digest(request: Request, cache: str) -> Environment:
    """Return the environment of a request that names it by `{digest}`."""
    spec = request.text("python")
    base = interpreter.find(spec) if spec is not None else interpreter.own_base()
    facts = interpreter.inspect(base, cache)
    digest = digest_of(request, read_inputs(request), describe_python(facts.implementation, facts.short_version))
    return Environment(request.env_template.replace("{digest}", digest))


def set_goal(request: Request, inputs: Inputs, python: Python, store: Store, report: Report) -> Goal:
    """Select the wheels. May ask an index; fetches nothing yet.

    :raises LockFileError: the lock file does not fit the Python, or a wheel cannot be found
    """
    report("resolving", 0, 0)
    sources = Sources(
        index_urls=request.texts("index_url"),
        find_links=request.texts("find_links"),
        no_index=request.flag("no_index"),
        offline=request.flag("offline"),
    )
    target = inputs.lock_file.select(
        python.interpreter,
        extras=request.texts("extra"),
        groups=request.texts("group") or None,
        sources=sources,
        known=store.filename,
    )
    return Goal(inputs, python, digest_of(request, inputs, python.description), target, {})


def fetch_wheels(goal: Goal, request: Request, store: Store, report: Report) -> None:
    """Bring all wheels of the goal into the store."""
    goal.manifests = fetch(goal.target.artifacts, store, offline=request.flag("offline"), report=report)
