"""Wheels and a cache for all histories of a test, and syncs that are the same each time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.staging.link import Linker
from envsync.system import forking
from envsync.waiting import pace
from tests.model.universe import Universe
from tests.model.world import World


@pytest.fixture(autouse=True)
def _any_set_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lock file ask for nothing, as for any other set; that it is refused else is `tests/cli/test_empty.py`'s."""
    monkeypatch.setenv("ENVSYNC_ALLOW_EMPTY", "1")


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Nobody waits for the stamps here, no child and no thread helps: so the N-th change is always the same."""

    def run(self: Linker, sized: list[tuple[int, list[object]]], total: int, report: object) -> None:
        for _, group in sized:
            self._do_group(group)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace, "LOCAL_SECONDS", 0.0)
        patched.setattr(forking, "can_share", lambda count: False)
        patched.setattr(Linker, "_run_in_two_threads", run)
        yield


def base_python() -> dict[str, tuple[int, int, int]]:
    """Return what a confused installer would change in the Python that all environments are made of."""
    found = {}
    library = os.path.dirname(os.__file__)
    for top in (f"{sys.base_prefix}/bin", f"{library}/site-packages", library, sys.base_prefix):
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if name != "__pycache__" and top.endswith("/site-packages")]
            for name in [*names, *files]:
                status = os.lstat(os.path.join(directory, name))
                found[os.path.join(directory, name)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def universe(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Iterator[Universe]:
    """The wheels and the cache. The base Python is compared before and after."""
    before = base_python()
    yield Universe(tmp_path_factory.mktemp("universe"))
    assert base_python() == before, "the base Python was written to"


@pytest.fixture
def world(universe: Universe, tmp_path: Path) -> World:
    """An environment that was synced to the first lock file."""
    place = tmp_path / "world"
    place.mkdir()
    made = World(universe, place)
    made.sync(0)
    return made
