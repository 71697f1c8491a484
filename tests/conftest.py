"""What every test gets: no real home or cache, no settings from outside, and the command line as a user has it."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from envsync.launch import command

ROOT = Path(__file__).parent.parent

# The same examples in every run; `HYPOTHESIS_PROFILE=search` looks further, for as long as one likes to wait.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None, max_examples=50)
settings.register_profile("search", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


OF_JOBS = {command.ARRAY, command.POD, *command.JOBS}
"""Variables that say of a process to which job it belongs: without one it leaves no name."""


def hear_signals() -> None:
    """Let what is started from here on be ended by signals that this process was started with ignored.

    A shell starts what it puts in the background with SIGINT and SIGQUIT ignored, `nohup` what it starts with SIGHUP,
    and children inherit that: tests send them. After exec, what is caught is back to the default (signal(7)).
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGQUIT", "SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)  # Windows has not all of them
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


hear_signals()


@pytest.fixture(autouse=True)
def nobodys_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the test a home and a cache of its own, and no settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / f".{name.lower()}"))
    for name in list(os.environ):
        if name.startswith(("ENVSYNC_", "PYTHON", "VIRTUAL_ENV")) or name in OF_JOBS:
            monkeypatch.delenv(name)
    return home


def envsync_command() -> list[str]:
    """Return the words that start the envsync of this source tree, whether it is installed or not."""
    try:
        importlib.metadata.distribution("envsync")
    except importlib.metadata.PackageNotFoundError:
        start = (
            f"import sys; sys.path[0] = {str(ROOT)!r}; from envsync.__main__ import main; sys.exit(main(sys.argv[1:]))"
        )
        return [sys.executable, "-c", start]
    return [sys.executable, "-m", "envsync"]


@pytest.fixture
def run_envsync(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs one envsync command line to its end.

    Its keywords: `cwd` (default: the test's directory), `env` (variables to set besides those of the test, None to
    unset one), and those of subprocess.run.
    """

    def run(
        *arguments: str | os.PathLike[str],
        cwd: str | os.PathLike[str] = tmp_path,
        env: Mapping[str, str | None] | None = None,
        check: bool = False,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **(env or {})}
        return subprocess.run(
            [*envsync_command(), *map(os.fspath, arguments)],
            cwd=cwd,
            check=check,
            env={name: value for name, value in variables.items() if value is not None},
            **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **options},
        )

    return run


@pytest.fixture(autouse=True)
def only_if_asked(request: pytest.FixtureRequest) -> None:
    """Skip what takes minutes, and what needs the network, unless it is asked for."""
    asked = request.config.getoption("markexpr")
    reasons = {
        "slow": "takes minutes",
        "network": "needs a package index",
        "lab": "needs a cluster",
        "containers": "needs a container engine",
        "engines": "starts engines",
        "mac": "needs what takes away from Linux",
        "wine": "needs wine",
    }
    for marker, why in reasons.items():
        if request.node.get_closest_marker(marker) and marker not in asked:
            pytest.skip(f"{why}: run with pytest -m {marker}")
