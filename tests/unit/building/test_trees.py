"""Trees: what says how one is built, whether it has changed, its copies, and its lock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.building import trees
from envsync.building.trees import Deciding
from envsync.lockfile.target import DIRECTORY, Source
from envsync.store.store import Store
from tests import needs
from tests.projects import git, make_project, make_repository


def nothing() -> None:
    """Let it go on."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project."""
    return make_project(tmp_path / "demo")


def keys(text: str) -> str:
    """Write cache keys for a pyproject.toml."""
    return f"[tool.uv]\ncache-keys = {text}\n"


NONE = Deciding(directories=(), dated=())
"""What decides of a tree whose cache keys are empty."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Deciding()),
        (keys("[]"), NONE),
        (keys('"pyproject.toml"'), Deciding()),
        (
            keys('["a.txt", {file = "./setup.py"}]'),
            NONE._replace(files=(*trees.FIXED, "a.txt"), dated=("a.txt", "setup.py")),
        ),
        (keys('[{file = "**/*.toml"}]'), NONE._replace(patterns=("**/*.toml",))),
        (keys('["", {file = "a\\u0000"}, {dir = ""}, {env = "A\\nB"}]'), NONE),
        (keys('[{env = "CC"}, {dir = "lib"}]'), NONE._replace(variables=("CC",), directories=("lib",))),
        (keys("[{git = true}]"), NONE._replace(commit=True)),
        (keys("[{git = {commit = true, tags = true}}, 7]"), NONE._replace(commit=True, tags=True)),
    ],
)
def test_what_decides(tmp_path: Path, text: str, expected: Deciding) -> None:
    """The fixed files always, and what uv's cache keys name; what makes no sense there adds nothing."""
    assert trees.deciding(str(make_project(tmp_path / "demo", pyproject=text))) == expected


@pytest.mark.parametrize(
    ("system", "files"),
    [
        ('build-backend = "hatchling.build"', (trees.PROJECT,)),
        ('build-backend = "flit_core.buildapi"', (trees.PROJECT,)),
        ('build-backend = "setuptools.build_meta"', trees.FIXED),
        ('build-backend = "hatchling.build"\nbackend-path = ["here"]', trees.FIXED),
        ("build-backend = []", trees.FIXED),
        ("", trees.FIXED),
    ],
)
def test_which_backends_look_at_pyproject_toml_alone(tmp_path: Path, system: str, files: tuple[str, ...]) -> None:
    """For these no launch looks for a setup.py or setup.cfg; uv's own times are of all three."""
    (tmp_path / trees.PROJECT).write_text(f"[build-system]\nrequires = []\n{system}\n")
    assert trees.deciding(str(tmp_path)) == Deciding(files)


def test_what_decides_in_a_senseless_file(tree: Path) -> None:
    """A pyproject.toml that cannot be parsed adds nothing: whoever builds will say what is wrong with it."""
    (tree / "pyproject.toml").write_text("[")
    assert trees.deciding(str(tree)) == Deciding()


def touch(tree: Path) -> None:
    (tree / "src/demo/__init__.py").write_text("changed = True\n")


def add(tree: Path) -> None:
    (tree / "src/demo/more.py").write_text("")


def remove(tree: Path) -> None:
    (tree / "src/demo/__init__.py").unlink()


def executable(tree: Path) -> None:
    (tree / "src/demo/__init__.py").chmod(0o755)


def link(tree: Path) -> None:
    (tree / "src/other").symlink_to("demo")


def leave_behind(tree: Path) -> None:
    """What tools leave in a tree."""
    for name in (
        "src/demo/__pycache__/x.pyc",
        "demo.egg-info/PKG-INFO",
        ".mypy_cache/x",
        "env/pyvenv.cfg",
        "env/lib/x",
        "begun/.envsync/progress.json",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")


@pytest.mark.parametrize("change", [touch, add, remove, executable, link])
def test_every_change_shows(tree: Path, change: Callable[[Path], None]) -> None:
    """What is installed as a copy: each edit of it shows, in what a sync looks at and in its digest."""
    before = trees.signature(str(tree), editable=False), trees.digest(str(tree), nothing)
    change(tree)
    after = trees.signature(str(tree), editable=False), trees.digest(str(tree), nothing)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_is_left_behind_does_not_count(tree: Path, tmp_path: Path) -> None:
    """Bytecode, caches, `.egg-info` and virtual environments are no part of a tree, nor of its copies."""
    before = trees.signature(str(tree), editable=False), trees.digest(str(tree), nothing)
    leave_behind(tree)
    assert (trees.signature(str(tree), editable=False), trees.digest(str(tree), nothing)) == before
    trees.copy(str(tree), f"{tmp_path}/copy", nothing)
    assert trees.digest(f"{tmp_path}/copy", nothing) == before[1]
    assert sorted(os.listdir(f"{tmp_path}/copy")) == [".gitignore", "backend", "pyproject.toml", "src"]


def test_equal_trees_have_equal_digests(tree: Path, tmp_path: Path) -> None:
    """Wherever they are, whatever their times: so they share what was built of them."""
    make_project(tmp_path / "elsewhere")
    assert trees.digest(str(tree), nothing) == trees.digest(f"{tmp_path}/elsewhere", nothing)


def test_an_edit_of_what_is_linked_to_does_not_show(tree: Path) -> None:
    """Of an editable nothing counts but what is named, by default that `src` has another entry."""
    before = trees.signature(str(tree), editable=True)
    touch(tree)
    (tree / "src/demo.egg-info").mkdir()  # as setuptools does when it makes an editable
    assert trees.signature(str(tree), editable=True) == before
    (tree / "src/another").mkdir()
    assert trees.signature(str(tree), editable=True) != before


@needs.GIT
@pytest.mark.parametrize("packed", [False, True])
def test_what_git_says(tree: Path, packed: bool) -> None:
    """The commit and the tags are those that git itself names: of a tree, below it, and of another work tree."""
    commit = make_repository(tree)
    git(tree, "tag", "v1")
    git(tree, "tag", "--annotate", "--message", "x", "v2")
    if packed:
        git(tree, "pack-refs", "--all")
    git(tree, "worktree", "add", "--detach", f"{tree.parent}/other")
    for place in (tree, tree / "src", tree.parent / "other"):
        assert trees.commit_of(str(place)) == commit
        said = git(tree, "for-each-ref", "refs/tags", "--format", "%(refname:short) %(objectname)").splitlines()
        assert trees.tags_of(str(place)) == dict(line.split() for line in said)
    assert trees.commit_of(str(tree.parent)) is None


@needs.GIT
def test_a_copy_can_ask_git(tree: Path, tmp_path: Path) -> None:
    """Backends that take the version from git find it in the copy, too."""
    commit = make_repository(tree)
    git(tree, "tag", "v1.5")
    trees.copy(str(tree), f"{tmp_path}/copy", nothing)
    assert git(f"{tmp_path}/copy", "describe", "--tags", "--always") == "v1.5"
    assert git(f"{tmp_path}/copy", "rev-parse", "HEAD") == commit


@pytest.mark.parametrize(("text", "expected"), [("", False), ('readme = "../README"', True), ('root = ".."', True)])
def test_a_tree_that_looks_outside(tmp_path: Path, text: str, expected: bool) -> None:
    """One whose own files name what is above it cannot be built from a copy."""
    assert trees.looks_outside(str(make_project(tmp_path / "demo", pyproject=f"[tool.x]\n{text}\n"))) is expected


@needs.GIT
def test_the_lock_of_a_tree(tree: Path, tmp_path: Path) -> None:
    """One at a time, by a file in the tree that git does not see."""
    make_repository(tree)
    store = Store(f"{tmp_path}/cache")
    first = trees.lock(str(tree), store)
    assert first is not None
    assert trees.lock(str(tree), store) is None
    first.release()
    second = trees.lock(str(tree), store)
    assert second is not None
    second.release()
    assert git(tree, "status", "--porcelain") == ""


def test_the_lock_of_a_tree_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    """It is in the cache then, one for each tree, and excludes others all the same."""
    (tree / trees.LOCKING).write_text("a file is in the way")
    store = Store(f"{tmp_path}/cache")
    store.prepare()
    first = trees.lock(str(tree), store)
    assert first is not None
    assert first.path.startswith(store.locks)
    assert trees.lock(str(tree), store) is None
    first.release()


def test_the_project_in_a_tree() -> None:
    """Where a subdirectory is named, it is there."""
    assert trees.project_of(Source(DIRECTORY, "/a/b")) == "/a/b"
    assert trees.project_of(Source(DIRECTORY, "/a/b", subdirectory="./c/")) == "/a/b/c"


@needs.GIT
def test_git_is_not_run(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of a repository comes from its files: git would run what that repository's settings name."""
    make_repository(tree)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert trees.commit_of(str(tree))
    assert trees.digest(str(tree), nothing)


def test_a_cache_within_a_tree_is_no_part_of_it(tree: Path) -> None:
    """A copy is made in the cache, which may lie in the tree: it would hold itself."""
    store = Store(f"{tree}/.cache")
    store.prepare()
    before = trees.digest(str(tree), nothing)
    trees.copy(str(tree), f"{store.tmp}/copy", nothing)
    assert not os.path.exists(f"{store.tmp}/copy/.cache")
    assert trees.digest(str(tree), nothing) == before


@needs.GIT
def test_a_copy_of_a_further_work_tree_can_ask_git(tree: Path, tmp_path: Path) -> None:
    """There, `.git` is a file that leads elsewhere."""
    make_repository(tree)
    git(tree, "tag", "v1.5")
    git(tree, "worktree", "add", "--detach", f"{tmp_path}/other")
    trees.copy(f"{tmp_path}/other", f"{tmp_path}/copy", nothing)
    assert git(f"{tmp_path}/copy", "describe", "--tags", "--always") == "v1.5"


def test_a_link_out_of_a_tree(tree: Path, tmp_path: Path) -> None:
    """It leads to the same from a copy, and an edit of that shows: licenses of a monorepo are linked so."""
    (tmp_path / "LICENSE").write_text("one")
    (tree / "LICENSE").symlink_to("../LICENSE")
    before = trees.signature(str(tree), editable=False), trees.digest(str(tree), nothing)
    trees.copy(str(tree), f"{tmp_path}/cache/tmp/copy", nothing)
    assert (tmp_path / "cache/tmp/copy/LICENSE").read_text() == "one"
    (tmp_path / "LICENSE").write_text("another")
    assert trees.signature(str(tree), editable=False) != before[0]
    assert trees.digest(str(tree), nothing) != before[1]
