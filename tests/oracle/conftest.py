"""An index on this machine, the target Python, and the tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from envsync.python.facts import Interpreter
from envsync.python.interpreter import inspect
from tests import pythons
from tests.oracle.packages import make_index

VERSION = "3.12"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the packages; the URL below which there are `simple/` and `files/`."""
    directory = tmp_path_factory.mktemp("index")
    make_index(directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def python() -> str:
    return pythons.need(VERSION)


@pytest.fixture
def interpreter(python: str, tmp_path: Path) -> Interpreter:
    """Describe the Python that the tools install for."""
    return inspect(python, str(tmp_path / "facts"))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool(request: pytest.FixtureRequest, tmp_path: Path, python: str) -> Run:
    """Return a function that runs the tool that `TOOL` of the test module names, in a project with a `.venv`."""
    return running(request.module.TOOL, tmp_path / "project", python, request.module.VARIABLES)


def running(name: str, project: Path, python: str, variables: Mapping[str, str]) -> Run:
    """Return a function that runs a tool in a project, for which a `.venv` is made."""
    variable = f"ORACLE_{name.upper()}"
    program = os.environ.get(variable) or shutil.which(name)
    if program is None:
        pytest.skip(f"there is no {name} on PATH, and {variable} names none")
    subprocess.run([python, "-m", "venv", "--without-pip", str(project / ".venv")], check=True)

    def run(*arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        done = subprocess.run(
            [program, *arguments],
            cwd=project,
            env={**environ, **variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    return run
