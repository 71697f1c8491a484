"""Start Windows programs, and look at what they have made.

windows.sync()                                        # to its end; the outcome, as `--json` says it
process = windows.hold()
...
process.kill()                                        # TerminateProcess
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.wine.strike import STATUS

SECONDS = 240
"""After which a program is taken to hang: each start takes half a second, and where much else runs, ten."""
HOLDS = "import sys; print('in', flush=True); sys.stdin.read(); print('out', flush=True)"
"""A command of Python that says that it runs, and runs until its stdin ends."""
INSTALL = ("pip", "install", "--no-index", "--no-deps", "--reinstall", "--python")
"""What uv is told, before the Python and the wheels."""
STRIKE = Path(__file__).parent / "strike.py"
INTERNAL_ERROR, NO_SERVER, LAUNCHER_FAILED = "Internal error", "wine server seems to be running", 101
"""How a program ends that wine could not start, once in some hundred times, for no fault of who asked.

CreateProcess says error 1359; a program that does not reach wine's server says so; and the python.exe of an
environment, which starts another, ends with 101 and no word where that cannot be started.
"""


class Windows:
    """A project directory, and the Windows programs that run in it."""

    killed_status = STATUS
    """What a command ends with that strike.py has killed."""

    def __init__(self, programs: Path, project: Path, bytecode: Path, environment: str = "venv") -> None:
        self.programs = programs
        self.project = project
        self.bytecode = bytecode
        self.environment = project / environment
        self.events = project / "events"
        """One file for each process: under wine, one of two that append at once writes over what the other wrote."""
        self.events.mkdir(exist_ok=True)
        self.processes: list[subprocess.Popen[str]] = []

    def at(self, environment: str) -> Windows:
        """Return the same with another environment, by its path in the project."""
        return Windows(self.programs, self.project, self.bytecode, environment)

    @property
    def site(self) -> Path:
        return self.environment / "Lib" / "site-packages"

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": named(ROOT),
            "PYTHONPYCACHEPREFIX": named(self.bytecode),
            "ENVSYNC_CACHE_DIR": named(self.project / "cache"),
            "ENVSYNC_ENV": named(self.environment),
            "ENVSYNC_EVENTS": named(self.events / f"{uuid.uuid4().hex}.jsonl"),
            "ENVSYNC_DEBUG": "1",
            "UV_CACHE_DIR": named(self.project / "uv-cache"),
            **(more or {}),
        }

    def open(
        self, program: str, *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start one of the programs, with pipes for its streams."""
        process = subprocess.Popen(
            [self.programs / program, *arguments],
            env=self.variables(env),
            **{
                "cwd": self.project,
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )
        self.processes.append(process)
        return process

    def python(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the Windows Python to its end."""
        return finished(self.open("wpy", *arguments, **options))

    def start(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """Start an envsync command."""
        return self.open("wpy", "-m", "envsync", *arguments, **options)

    def hold(self) -> subprocess.Popen[str]:
        """Start a command in the environment, and wait until it runs: it does so until its stdin ends."""
        process = self.start("run", "--", "python", "-c", HOLDS)
        said(process, "in")
        return process

    def struck(self, at: str, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """Start an envsync command that is struck at one of its changes.

        :param at: as strike.py takes it
        """
        return self.open("wpy", named(STRIKE), at, *arguments, **options)

    def uv_install(self, *what: str) -> subprocess.Popen[str]:
        """Start `uv pip install` in the environment; without a uv, skip the test."""
        if not (self.programs / "wuv").exists():
            pytest.skip("no uv.exe: WINE_PYTHON has no wuv")
        there = named(self.environment / "Scripts" / "python.exe")
        return self.open("wuv", *INSTALL, there, *what)

    def run(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run an envsync command to its end."""
        return finished(self.start(*arguments, **options))

    def sync(self, *arguments: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        """Sync, and return the outcome.

        :raises AssertionError: it failed
        """
        done = self.run("sync", "--json", *arguments, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    def happened(self, event: str) -> int:
        """Count an event of all commands until now."""
        lines = [line for path in self.events.iterdir() for line in path.read_text().splitlines()]
        return [json.loads(line)["event"] for line in lines].count(event)

    def end(self) -> None:
        """End all that was started here, and what it has started."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass  # it was for nobody
            process.wait(SECONDS)


def named(path: str | os.PathLike[str]) -> str:
    """Return the name that a path of this machine has there."""
    return "Z:" + os.fspath(Path(path).absolute())


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a process, and return what became of it."""
    out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def was_not_started(done: subprocess.CompletedProcess[str]) -> bool:
    """Ask whether wine could not start a program, or what that was to start."""
    return (
        INTERNAL_ERROR in done.stderr
        or NO_SERVER in done.stderr
        or (done.returncode == LAUNCHER_FAILED and not done.stdout)
    )


def said(process: subprocess.Popen[str], text: str, *, aloud: bool = False) -> str:
    """Wait until a process says something, and return the line.

    :param aloud: on stderr
    """
    stream = process.stderr if aloud else process.stdout
    assert stream is not None
    lines = []
    for line in stream:
        if text in line:
            return line
        lines.append(line)
    raise AssertionError(f"never said {text!r}, but: {''.join(lines)}")


def becomes_true(question: Callable[[], object], what: str) -> None:
    """Ask until the answer is yes."""
    until = time.monotonic() + SECONDS
    while not question():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def wrong_with(windows: Windows, versions: Mapping[str, str]) -> list[str]:
    """Compare an environment with what it should be, file by file, by what each distribution's RECORD says.

    :param versions: of the distributions that should be there, and no others
    :returns: what is wrong, nothing if it is right
    """
    found, known = [], set()
    there = {path.name.removesuffix(".dist-info").partition("-")[::2] for path in windows.site.glob("*.dist-info")}
    if there != set(versions.items()):
        found.append(f"distributions: {sorted(there)}")
    for info in sorted(windows.site.glob("*.dist-info")):
        if not (info / "RECORD").exists():
            found.append(f"{info.name}: no RECORD")
            continue
        with (info / "RECORD").open(newline="") as file:
            for path, digest, _ in csv.reader(file):
                full = Path(os.path.normpath(windows.site / path))
                known.add(full)
                found += _wrong_file(full, digest)
    for full in sorted(windows.site.rglob("*")):
        if full not in known and not full.is_dir() and not {".envsync", "__pycache__"} & set(full.parts):
            found.append(f"{full}: nobody's")
    return found


def _wrong_file(path: Path, digest: str) -> Sequence[str]:
    if not path.is_file():
        return [f"{path}: missing"]
    kind, _, wanted = digest.partition("=")
    if not wanted:
        return []
    is_same = urlsafe_b64encode(hashlib.new(kind, path.read_bytes()).digest()).rstrip(b"=").decode() == wanted
    return [] if is_same else [f"{path}: other bytes"]
