"""Source trees that cannot be written to, and built wheels in a cache that users share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.environments import site_packages, unverified
from tests.projects import built, make_project
from tests.rooms.inside import as_user, read_only, words

LOCK = """\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "app"
version = "1.0"
source = { editable = "." }
"""
SOMEBODY, ANOTHER = 12345, 12346
WRITING = """\
from in_tree_backend import *

def build_editable(*arguments, **settings):
    open("app.egg-info", "w").close()
    return in_tree_backend.build_editable(*arguments, **settings)

import in_tree_backend
"""


def project(place: Path, log: Path | str = "", *, writing: bool = False) -> Path:
    """Make a project of uv's."""
    tree = make_project(place / "app", "app", log=log, backend="writing" if writing else "in_tree_backend")
    (tree / "backend/writing.py").write_text(WRITING)
    (tree / "uv.lock").write_text(LOCK)
    return tree


def options_of(tree: Path, place: Path) -> list[str | Path]:
    return ["--lock", tree / "uv.lock", "--env", place / "env", "--cache-dir", place / "cache"]


def test_a_tree_that_is_read_only(tmp_path: Path, unshare: str) -> None:
    """It can be linked to all the same if its backend writes nothing there; the lock is in the cache."""
    if unshare:
        pytest.skip(unshare)
    tree = project(tmp_path, tmp_path / "log")
    done = read_only(tree, words("run", *options_of(tree, tmp_path), "--", "python", "-c", "import app"))
    assert done.returncode == 0, done.stderr
    assert built(tmp_path / "log") == ["build_editable app"]
    assert not (tree / ".envsync-build").exists()


def test_a_backend_that_has_to_write_there(tmp_path: Path, unshare: str) -> None:
    """It is said in a sentence that the tree cannot be written to, and that a copy can be installed, which works."""
    if unshare:
        pytest.skip(unshare)
    tree = project(tmp_path, writing=True)
    done = read_only(tree, words("sync", *options_of(tree, tmp_path)))
    assert done.returncode == 125
    assert f"`{tree}` cannot be written to, and its backend may have to" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "--no-editable`" in done.stderr
    done = read_only(tree, words("sync", "--no-editable", *options_of(tree, tmp_path)))
    assert done.returncode == 0, done.stderr
    assert (site_packages(tmp_path / "env") / "app/__init__.py").is_file()
    assert unverified(tmp_path / "env") == []


def test_what_others_have_built(shared: Path) -> None:
    """A wheel that another user has built in a shared cache is not taken, unless that user is named; root's is."""
    work = shared / "work"
    log = work / "log"
    log.touch()
    log.chmod(0o666)
    tree = project(shared, log)
    for directory in (work / "cache",):
        directory.mkdir()
        directory.chmod(0o2777)

    def sync(user: int, *more: str) -> None:
        env = work / f"env{len(os.listdir(work))}"
        command = words("sync", "--no-editable", "--lock", tree / "uv.lock", "--env", env)
        done = as_user(user, [*command, "--cache-dir", str(work / "cache"), *more], cwd=shared, umask="000")
        assert done.returncode == 0, done.stderr

    sync(SOMEBODY)
    sync(SOMEBODY)
    assert built(log) == ["build_wheel app"]
    sync(ANOTHER, "--trusted-builder", str(SOMEBODY))
    assert built(log) == ["build_wheel app"]
    sync(ANOTHER)
    assert built(log) == ["build_wheel app"] * 2
