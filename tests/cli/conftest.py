"""What the tests of commands get: a cache that has been used before, as nearly all caches have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES


@pytest.fixture(scope="session")
def used_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the wheels of the fixtures and this Python are known."""
    directory = tmp_path_factory.mktemp("used")
    words = (
        "sync",
        "--quiet",
        "--lock",
        FIXTURES / "pylock.toml",
        "--env",
        "env",
        "--cache-dir",
        "cache",
        "--no-config",
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ENVSYNC_")}
    subprocess.run([*envsync_command(), *words], cwd=directory, env=environ, check=True)
    return directory / "cache"


@pytest.fixture(autouse=True)
def nobodys_home(nobodys_home: Path, used_cache: Path, request: pytest.FixtureRequest) -> Path:
    """Fill the cache of the test's home, unless the test is marked with `empty_cache`."""
    if not request.node.get_closest_marker("empty_cache"):
        shutil.copytree(used_cache, nobodys_home / ".cache" / "envsync", symlinks=True)
    return nobodys_home
