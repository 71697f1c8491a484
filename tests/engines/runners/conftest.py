"""Scenes in which engines run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.runners.scene import Scene


@pytest.fixture(scope="session")
def engines_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests: what an engine needs is downloaded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scene(tmp_path: Path, engines_cache: Path) -> Scene:
    """A project with a lock file."""
    return Scene(tmp_path, engines_cache)
