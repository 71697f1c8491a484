"""A damaged entry of the cache is replaced while environments link to it, and that is struck at every change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envsync.store import trash, users
from envsync.store.store import Store
from envsync.system import forking
from tests.crash.harness import ERRORS, KILLS, LASTING, Blow, Change, Kind, strike
from tests.environments import site_packages, unverified
from tests.unit.transaction.test_symlink import ALPHA, Project, run
from tests.wheels import sha256_of

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

MODULE = "alpha/sub/deep.py"
WRITTEN = b"x = 7\n"
"""Of the same size as what was there."""


class World(Project):
    """A cache with a damaged entry, to which an environment links, and a command that replaces it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.wheel("alpha", ALPHA)
        self.sync()
        self.target = root / "next"
        self.command: list[str] = []
        self.module = (self.site / MODULE).resolve()
        """In the entry: a repaired environment loses its own link for a moment, too."""
        self.sound = self.module.read_bytes()
        self.saved = root / "saved"
        shutil.copytree(self.cache, self.saved, symlinks=True)
        self.store = Store(str(self.cache))

    def restore(self) -> None:
        """Make it all as it was, and damage the entry."""
        for path in (self.cache, self.target):
            trash.remove_tree(str(path))
        shutil.copytree(self.saved, self.cache, symlinks=True)
        status = self.module.stat()
        self.module.chmod(0o644)
        self.module.write_bytes(WRITTEN)
        kept = status.st_mtime_ns if "check" in self.command else 0
        os.utime(self.module, ns=(status.st_atime_ns, kept))
        assert users.used(str(self.cache)) == {sha256_of(self.wheels["alpha"])}

    def words(self, *verb: str, env: Path) -> list[str]:
        options = ("--lock", str(self.lock), "--env", str(env), "--cache-dir", str(self.cache))
        return [*verb, *options, "--link-mode", "symlink"]

    def strike(self, nth: int, kind: Kind) -> Blow:
        self.restore()
        return strike(self.command, nth, kind)

    def lose_the_wheel(self) -> Callable[[], object]:
        """Make sure that the wheel cannot be had again. Returns what brings it back."""
        wheel = Path(self.wheels["alpha"])
        self.lock  # noqa: B018  # written while the wheel is there
        hidden = wheel.rename(wheel.with_suffix(".hidden"))
        return lambda: hidden.rename(wheel)


SYNC, REPAIR = ("sync",), ("check", "--repair")
"""Of another environment, which sees the damage by a time; of the first one, which sees it by a hash."""


def several(kinds: Iterable[Kind]) -> Iterator[ParameterSet]:
    for verb in (SYNC, REPAIR):
        for kind in kinds:
            yield pytest.param(verb, kind, id=f"{verb[0]} {kind.name}", marks=pytest.mark.slow)


@pytest.fixture
def world(tmp_path: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> World:
    share = forking.share  # so that it changes the same, every time
    monkeypatch.setattr(forking, "can_share", lambda _: True)
    monkeypatch.setattr(forking, "share", lambda *what, tell, **_: share(*what, children=0, tell=tell))
    world = World(tmp_path)
    world.command = world.words(*verb, env=world.target if verb == SYNC else world.env)
    return world


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "kind"), [*several(KILLS)])
def test_killed_at_any_change(world: World, kind: Kind) -> None:
    """It is there at any time but between two renames; killed there, the next command puts it back."""
    missing = killed_at(world, kind, 1)
    assert [change.event for change in missing] == ["os.rename"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "kind"), [(REPAIR, KILLS[0])])
def test_killed_at_some_changes(world: World, kind: Kind) -> None:
    """The same at every fifth change, for every run of the tests."""
    assert len(killed_at(world, kind, 5)) <= 1


def killed_at(world: World, kind: Kind, step: int) -> list[Change]:
    """Kill at changes, so many apart. Returns those at which the entry was not in its place."""
    missing = []
    for nth in count(1, step):
        blow = world.strike(nth, kind)
        if not blow.struck:
            break
        if not world.module.exists():
            missing.append(blow.struck[0])
            find_again = world.lose_the_wheel()
            assert run("check", "--env", str(world.env), "--cache-dir", str(world.cache)).returncode == 1
            assert world.module.read_bytes() == WRITTEN
            find_again()
        assert world.module.read_bytes() in (WRITTEN, world.sound)
        again = strike(world.command, 0, Kind("none"))
        assert again.status == 0, again.said
        assert_sound(world)
    assert blow.status == 0, blow.said
    assert_sound(world)
    assert nth > 20
    return missing


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "kind"), [*several((*ERRORS[:3:2], *LASTING))])
def test_an_error_at_any_change(world: World, kind: Kind) -> None:
    """Then it is what it was, or has been replaced; the next command sees to the rest."""
    for nth in count(1):
        blow = world.strike(nth, kind)
        if not blow.struck:
            break
        assert world.module.exists() or kind in LASTING, blow
        again = strike(world.command, 0, Kind("none"))
        assert again.status == 0, (blow, again.said)
        assert_sound(world)
    assert nth > 20


def assert_sound(world: World) -> None:
    """Everything is there, and in tmp is nothing but what the next sweep removes."""
    assert world.module.read_bytes() == world.sound
    for env in (world.env, world.target) if world.command[0] == "sync" else (world.env,):
        assert unverified(env) == []
        assert (site_packages(env) / "alpha").is_symlink()
    seconds, trash.LEFTOVER_SECONDS = trash.LEFTOVER_SECONDS, -1
    try:
        world.store.sweep()
    finally:
        trash.LEFTOVER_SECONDS = seconds
    assert os.listdir(world.store.tmp) == []
