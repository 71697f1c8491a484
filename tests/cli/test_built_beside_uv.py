"""What is built from source in an environment that uv works in, too: neither finds anything to do after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_from_source import Scene
from tests.environments import site_packages

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scene(tmp_path: Path, run_envsync: Run) -> Scene:
    return Scene(tmp_path, run_envsync)


@pytest.mark.parametrize(
    "keys", ["", '["src/app/__init__.py"]', '[{env = "CC"}]', '[{dir = "src"}, {file = "src/**/*.py"}]']
)
def test_a_fresh_sync_of_uvs_finds_nothing_to_do(tmp_path: Path, run_envsync: Run, keys: str) -> None:
    """Whatever uv looks at; nor does ours find anything after uv: both say the same of where it came from."""
    uv = pytest.importorskip("uv").find_uv_bin()
    scene = Scene(tmp_path, run_envsync, pyproject=f"[tool.uv]\ncache-keys = {keys}\n" if keys else "")
    scene.run("sync", check=True)
    words = [uv, "sync", "--frozen", "--offline", "--no-python-downloads", "--python", sys.executable]
    environ = {**os.environ, "VIRTUAL_ENV": "", "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    for options, said in (["--dry-run"], "Would make no changes"), ([], "Checked"):
        line = [*words, *options]
        done = subprocess.run(line, cwd=scene.directory, env=environ, capture_output=True, text=True, check=True)
        assert said in done.stderr, done.stderr
        assert "nstalled" not in done.stderr, done.stderr
    assert json.loads(scene.run("sync", "--json", check=True).stdout)["outcome"] == "current"


def test_what_uv_has_built_is_taken_over(scene: Scene) -> None:
    """Ours builds the same once, to know what it has to be, and touches no file if it is; afterwards uv agrees."""
    uv = pytest.importorskip("uv").find_uv_bin()
    words = [uv, "sync", "--frozen", "--offline", "--no-python-downloads", "--python", sys.executable]
    environ = {**os.environ, "VIRTUAL_ENV": "", "UV_CACHE_DIR": str(scene.cache.parent / "uv-cache")}
    subprocess.run(words, cwd=scene.directory, env=environ, capture_output=True, check=True)
    before = {info.name: info.stat().st_ino for info in site_packages(scene.env).glob("*.dist-info")}
    done = json.loads(scene.run("sync", "--json", check=True).stdout)
    assert (done["outcome"], done["installed"], done["removed"]) == ("current", [], [])
    assert {info.name: info.stat().st_ino for info in site_packages(scene.env).glob("*.dist-info")} == before
    again = subprocess.run(words, cwd=scene.directory, env=environ, capture_output=True, text=True, check=True)
    assert "nstalled" not in again.stderr, again.stderr
