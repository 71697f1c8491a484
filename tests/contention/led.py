"""A project whose environment was current and is led by the test, and those on one node who wait for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envsync.launch import Environment
from envsync.system import processes
from tests.environments import FIXTURES


@contextmanager
def led(tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[tuple[Path, Path]]:
    """Make it, and lead it. Lends the project, and a directory of the node's own."""
    project, runtime = tmp_path / "project", tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    shutil.copytree(FIXTURES / "wheels", project / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", project)
    run_envsync("sync", cwd=project, check=True)
    environment = Environment(str(project / ".venv"))
    os.rename(environment.stamp, environment.draining)
    with open(environment.lock, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield project, runtime


class Group:
    """Those who wait."""

    def __init__(self, project: Path, runtime: Path) -> None:
        self.environment = Environment(str(project / ".venv"))
        self.local = runtime / "envsync"

    def until(self, done: Callable[[], object]) -> None:
        """Wait until they have come to something, which ends with the test at the latest."""
        while not done():
            time.sleep(0.02)

    def holders(self, name: str) -> list[int]:
        return [pid for path in self.local.glob(f"*.{name}") for pid in processes.holders(str(path))]

    def serve(self) -> None:
        """Let the environment be current."""
        os.rename(self.environment.draining, self.environment.stamp)
