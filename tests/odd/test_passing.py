"""What a network filesystem answers for a moment: opens that say ESTALE, since another client has replaced the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.environments import FIXTURES, leftovers, unverified

TIMES = 2
"""How often an open fails."""


class Scene:
    """A directory with a lock file, its wheels, a cache and an environment, of which any open may fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(FIXTURES, directory / "fixtures")
        (directory / "more.txt").write_text("--find-links fixtures/wheels\n-r most.txt\n")
        (directory / "most.txt").write_text("greet==1.0\n./fixtures/wheels/shout-1.0-py3-none-any.whl\n")

    def run(self, *arguments: str, **faults: object) -> subprocess.CompletedProcess[str]:
        """Run envsync with faults."""
        spec = json.dumps({"below": str(self.directory), **faults})
        return subprocess.run(
            [sys.executable, "-m", "tests.odd.faults", spec, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ENVSYNC_CACHE_DIR": str(self.directory / "cache")},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def opens(self, *arguments: str) -> int:
        """Count the opens of a command that succeeds."""
        for count in range(10, 2000, 10):
            self.forget(arguments)
            if self.run(*arguments, open=["ENOTTY", 1000, count]).returncode == 0:
                return count
        raise AssertionError("it never succeeds")

    def forget(self, arguments: tuple[str, ...]) -> None:
        if arguments[0] == "sync":
            shutil.rmtree(self.directory / "env", ignore_errors=True)

    def strike(self, *arguments: str, step: int) -> Iterator[tuple[int, subprocess.CompletedProcess[str]]]:
        """Let every so manyth open of a command fail."""
        for after in range(0, self.opens(*arguments), step):
            self.forget(arguments)
            yield after, self.run(*arguments, open=["ESTALE", TIMES, after])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "scene")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lock", ["fixtures/pylock.toml", "more.txt"])
def test_a_launch_goes_on(scene: Scene, lock: str) -> None:
    """Whatever it opens in a current environment: the lock file, others that it includes, the stamp, site-packages."""
    request = ["--lock", lock, "--env", "env"]
    assert scene.run("sync", *request).returncode == 0
    for after, done in scene.strike("run", *request, "--", "true", step=1):
        assert done.returncode == 0, f"after {after} opens: {done.stderr}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("options", "step"), [((), 3), (("--link-mode", "copy"), 5), (("--compile-bytecode",), 7)])
def test_a_sync_goes_on(scene: Scene, options: tuple[str, ...], step: int) -> None:
    """Whatever it opens of inputs, cache and environment; and nothing of the store is taken for damaged."""
    request = ["sync", "--lock", "fixtures/pylock.toml", "--env", "env", *options]
    assert scene.run(*request).returncode == 0
    for after, done in scene.strike(*request, step=step):
        assert done.returncode == 0, f"after {after} opens: {done.stderr}"
        assert "changed" not in done.stderr, f"after {after} opens: {done.stderr}"
        assert unverified(scene.directory / "env") == []
        assert leftovers(scene.directory / "env") == []


@pytest.mark.timeout(300)
def test_a_sync_of_requirements_goes_on(scene: Scene) -> None:
    """Whatever it opens of files that include others, of directories and wheels, while no wheel is in the cache."""
    request = ["sync", "--lock", "more.txt", "--env", "env"]
    assert scene.run(*request).returncode == 0
    for after in range(0, 60, 3):
        shutil.rmtree(scene.directory / "env", ignore_errors=True)
        shutil.rmtree(scene.directory / "cache" / "v1" / "wheels", ignore_errors=True)
        done = scene.run(*request, open=["ESTALE", TIMES, after])
        assert done.returncode == 0, f"after {after} opens: {done.stderr}"
