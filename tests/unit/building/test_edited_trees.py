"""Builds of a tree that is edited meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.building import build
from envsync.building.build import Order
from envsync.errors import BuildError
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import DIRECTORY, GIT, Artifact, BuildRules, Source
from envsync.python.interpreter import inspect, own_base
from envsync.store.store import Store
from tests.projects import built, make_project


def test_an_edit_between_look_and_copy(tmp_path: Path) -> None:
    """Nothing is kept under the key of what the tree was before: who has that finds nothing, and builds."""
    store = Store(f"{tmp_path}/cache")
    tree = make_project(tmp_path / "demo", log=tmp_path / "log")
    order = Order(inspect(own_base(), store.root), BuildRules(), Sources(), f"{tmp_path}/editables")
    artifact = Artifact("demo", "1.0", "", source=Source(DIRECTORY, str(tree)))
    job = build.job_of(artifact, order)
    (tree / "src/demo/__init__.py").write_text("edited = True\n")
    with pytest.raises(BuildError, match="changed while it was being copied"):
        build.build([job], store, order, lambda *_: None)
    assert build.find(job, store, order) is None
    assert built(tmp_path / "log") == []


@pytest.mark.parametrize("editable", [False, True])
def test_what_a_site_adds(tmp_path: Path, editable: bool) -> None:
    """With another `--build-key`, what was built before is not found; an editable may be compiled, too."""
    store = Store(f"{tmp_path}/cache")
    tree = make_project(tmp_path / "demo")
    order = Order(inspect(own_base(), store.root), BuildRules(), Sources(), f"{tmp_path}/editables")
    artifact = Artifact("demo", "1.0", "", source=Source(DIRECTORY, str(tree), editable=editable))
    found = {build.job_of(artifact, order._replace(site=site)).key for site in ("", "zen4", "zen4")}
    assert len(found) == 2


def test_what_is_above_a_tree(tmp_path: Path) -> None:
    """Where its own files name something there, an edit of that counts, and an equal tree elsewhere is another."""
    store = Store(f"{tmp_path}/cache")
    order = Order(inspect(own_base(), store.root), BuildRules(), Sources(), f"{tmp_path}/editables")
    named = '[tool.x]\nversion = "../VERSION"\n'
    places = [make_project(tmp_path / name / "demo", pyproject=named) for name in ("one", "two")]

    def key(place: Path) -> str:
        return build.job_of(Artifact("demo", "1.0", "", source=Source(DIRECTORY, str(place))), order).key

    before = key(places[0])
    assert before == key(places[0]) != key(places[1])
    (tmp_path / "one/VERSION").write_text("1.0")
    assert key(places[0]) != before


def test_a_version_that_a_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel of a commit that was given another version is not taken by those who have said nothing of the kind."""
    order = Order(inspect(own_base(), f"{tmp_path}/cache"), BuildRules(), Sources(), f"{tmp_path}/editables")
    artifact = Artifact("demo", "", "", source=Source(GIT, "https://example.invalid/demo", "a" * 40))
    before = build.job_of(artifact, order).key
    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DEMO", "9.9")
    assert build.job_of(artifact, order).key != before


def test_a_cache_key_elsewhere(tmp_path: Path) -> None:
    """By an absolute path, as uv takes it: an edit of that file counts."""
    (tmp_path / "flags").write_text("-O2")
    tree = make_project(tmp_path / "demo", pyproject=f'[tool.uv]\ncache-keys = [{{ file = "{tmp_path}/flags" }}]\n')
    order = Order(inspect(own_base(), f"{tmp_path}/cache"), BuildRules(), Sources(), f"{tmp_path}/editables")
    artifact = Artifact("demo", "1.0", "", source=Source(DIRECTORY, str(tree), editable=True))
    before = build.job_of(artifact, order).key
    (tmp_path / "flags").write_text("-O3")
    assert build.job_of(artifact, order).key != before
