"""What was built from source is checked, repaired and named by `{digest}` as what came as a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_from_source import ALL_BUILT, Scene
from tests.environments import site_packages, unverified

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scene(tmp_path: Path, run_envsync: Run) -> Scene:
    scene = Scene(tmp_path, run_envsync)
    scene.run("sync", check=True)
    return scene


@pytest.mark.parametrize("kept", [True, False], ids=["wheel kept", "wheel gone"])
def test_links_are_repaired(scene: Scene, kept: bool) -> None:
    """A spoiled .pth of an editable is named, and restored from its wheel, which is built again only if it is gone."""
    link = site_packages(scene.env) / "__editable__.app.pth"
    right = link.read_text()
    assert scene.run("check").returncode == 0
    if not kept:
        shutil.rmtree(scene.env / ".envsync/editables")
    link.write_text("/nowhere\n")
    done = scene.run("check")
    assert done.returncode == 1
    assert f"{link.name}` (app)" in done.stdout
    done = scene.run("check", "--repair", check=True)
    assert "installed anew: app==1.0" in done.stdout
    assert link.read_text() == right
    assert unverified(scene.env) == []
    assert scene.hooks == sorted([*ALL_BUILT, *([] if kept else ["build_editable app"])])


def test_a_repair_without_a_cache_builds_again(scene: Scene) -> None:
    """What was built is gone from the cache, and a file from the environment: afterwards it is sound."""
    (site_packages(scene.env) / "lib/__init__.py").unlink()
    shutil.rmtree(scene.cache)
    done = scene.run("check", "--repair", check=True)
    assert "installed anew: lib==1.0" in done.stdout
    assert scene.run("check").returncode == 0
    assert scene.hooks == sorted([*ALL_BUILT, "build_wheel lib"])  # and nothing that was not damaged


def test_a_new_entry_point_gives_a_new_name(scene: Scene) -> None:
    """With `{digest}`, launches find the same name without a sync until what says how it is built changes."""
    words = ("run", "--env", ".venvs/{digest}", "--")
    before = scene.happened("synced")
    scene.run(*words, "app", check=True)
    scene.run(*words, "app", check=True)
    assert scene.happened("synced") == before + 1
    project = scene.directory / "pyproject.toml"
    project.write_text(project.read_text().replace('app = "app:main"', 'app = "app:main"\nother = "app:main"'))
    assert scene.run(*words, "other", check=True).stdout == "ran\n"
    names = [name for name in os.listdir(scene.directory / ".venvs") if not name.startswith(".")]
    assert len(names) == 2
    assert scene.happened("synced") == before + 2
