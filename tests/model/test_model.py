"""Whatever happens to an environment, in whatever order: what the next sync leaves is exactly the target.

Hypothesis makes up histories of an environment: syncs, crashes of syncs and of recoveries, other tools, damage, moves
and copies, and compares each outcome with a model (`tests.model.world`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.model.universe import ALIENS, SITE, TARGETS, Universe, walk
from tests.model.world import World

LOCKS = st.integers(0, len(TARGETS) - 1)
NUMBERS = st.integers(0, 400)
NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta", "stranger"])
NTH = st.integers(1, 130)
USERS = st.sampled_from(
    [
        f"{SITE}/user.py",
        f"{SITE}/user/__init__.py",
        f"{SITE}/alpha/user.py",
        f"{SITE}/alpha/sub/user.txt",
        f"{SITE}/ns/user.py",
        f"{SITE}/shared/user.txt",
        f"{SITE}/gamma/user.py",
        "bin/user",
        "share/alpha/user.txt",
        "share/user.txt",
        "notes.txt",
    ]
)


class History(RuleBasedStateMachine):
    """The history of one environment."""

    universe: Universe
    root: Path
    number = 0

    @initialize(first=LOCKS)
    def begin(self, first: int) -> None:
        History.number += 1
        self.place = self.root / f"world{History.number}"
        self.place.mkdir()
        self.world = World(self.universe, self.place)
        self.world.sync(first)

    # Syncs

    @rule(lock=LOCKS)
    def sync(self, lock: int) -> None:
        self.world.sync(lock)

    @rule(lock=LOCKS)
    def sync_inexactly(self, lock: int) -> None:
        self.world.sync(lock, exact=False)

    @rule(lock=LOCKS, nth=NTH, exact=st.sampled_from([True, True, False]))
    def crash(self, lock: int, nth: int, exact: bool) -> None:
        self.world.crash(lock, nth.__eq__, exact=exact)

    @rule(lock=LOCKS, seen=st.integers(1, 40), nth=st.none() | NTH)
    def crash_in_commit(self, lock: int, seen: int, nth: int | None) -> None:
        """Die between two steps of the journal; then, perhaps, in the recovery."""
        journal = self.world.env / ".envsync" / "journal"
        count = 0

        def is_due(_: int) -> bool:
            nonlocal count
            count += journal.exists()
            return count == seen

        if self.world.crash(lock, is_due) and nth is not None:
            self.world.crash(lock, nth.__eq__)

    # Others

    @rule()
    def compile(self) -> None:
        """Run everything, so that there is bytecode."""
        self.world.compiled_in_between |= self.world.possible is not None
        self.world.run_python(write=True)

    @rule(what=st.sampled_from(ALIENS))
    def pip_install(self, what: str) -> None:
        self.world.pip_install(what)

    @rule(name=NAMES)
    def pip_uninstall(self, name: str) -> None:
        self.world.pip_uninstall(name)

    @rule(name=NAMES, half=st.integers(0, 6))
    def pip_is_killed(self, name: str, half: int) -> None:
        self.world.pip_uninstall(name, half=half)

    # The user

    @rule(path=USERS)
    def use_space(self, path: str) -> None:
        self.world.use_space(path)

    @precondition(lambda self: self.world.possible is None)
    @rule(lock=LOCKS, number=NUMBERS)
    def be_in_the_way(self, lock: int, number: int) -> None:
        """Put a file of the user's where the lock file wants one; the sync names it and changes nothing."""
        world = self.world
        there = walk(world.env)
        coming: set[str] = set()
        for wheel in world.universe.target(lock).values():
            coming.update(path for path in wheel.contents(world.env) if ".dist-info/" not in path)
        free = sorted(path for path in coming - there.keys() if path not in world.harm)
        if not free or any(path == f"{SITE}/gamma.py" for path in free):
            return
        path = free[number % len(free)]
        if any(parent.is_file() for parent in (world.env / path).parents):
            return
        world.use_space(path)
        world.sync(lock)
        assert path not in world.users, "it was not named"

    # Damage

    @rule(number=NUMBERS, how=st.sampled_from(["gone", "empty", "flip"]))
    def damage(self, number: int, how: str) -> None:
        self.world.damage(number, how)

    @rule(name=NAMES, how=st.sampled_from(["gone", "empty", "cut", "flip"]))
    def damage_record(self, name: str, how: str) -> None:
        self.world.damage_record(name, how)

    @rule(name=NAMES)
    def lose_info(self, name: str) -> None:
        self.world.lose_info(name)

    @rule(directory=st.sampled_from([SITE, f"{SITE}/alpha", f"{SITE}/ns", f"{SITE}/shared", "bin"]), number=NUMBERS)
    def lose_half_a_tree(self, directory: str, number: int) -> None:
        self.world.lose_half_a_tree(directory, number)

    @rule(path=st.sampled_from(["bin/python*", "bin/python", "pyvenv.cfg"]))
    def lose_skeleton(self, path: str) -> None:
        self.world.lose_skeleton(path)

    @rule(
        name=st.sampled_from(["stamp", "installed.json", "journal", "failure.json", "progress.json"]),
        how=st.sampled_from(["cut", "flip", "gone"]),
        number=NUMBERS,
    )
    def damage_state(self, name: str, how: str, number: int) -> None:
        self.world.damage_state(name, how, number)

    @rule()
    def lose_state(self) -> None:
        self.world.lose_state()

    # Moves and copies

    @rule()
    def move_away_and_back(self) -> None:
        away = self.place / "away"
        self.world.env.rename(away)
        away.rename(self.world.env)

    @rule(lock=LOCKS, back=st.booleans())
    def move(self, lock: int, back: bool) -> None:
        """An environment that was moved is remade where it is."""
        before = self.world.env
        self.world.move(self.place / f"moved{len(os.listdir(self.place))}")
        self.world.sync(lock)
        if back:
            self.world.move(before)
            self.world.sync(lock)

    @precondition(lambda self: self.world.possible is None)
    @rule(lock=LOCKS)
    def copy(self, lock: int) -> None:
        """A copy is another environment: the original does not change when it is synced."""
        with self.world.copied(linked=False) as copy:
            copy.sync(lock)

    @invariant()
    def is_never_current_unless_whole(self) -> None:
        """Whatever lock file is asked for: the fast lane knows no other than the last that was synced."""
        world = getattr(self, "world", None)
        if world is None:
            return
        for lock in range(len(TARGETS)):
            if world.is_current(lock):
                assert world.request == (lock, True)
                assert world.witness[:-1] == world.look()[:-1]  # the kernel tells of a missing Python, at exec

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.sync(0)
            finally:
                shutil.rmtree(self.place, ignore_errors=True)


def check_histories(directory: Path, universe: Universe, *, histories: int, steps: int) -> None:
    History.universe, History.root = universe, directory
    run_state_machine_as_test(History, settings=settings(max_examples=histories, stateful_step_count=steps))


@pytest.mark.timeout(400)
def test_whatever_happens_the_next_sync_leaves_the_target(universe: Universe, tmp_path: Path) -> None:
    """See the module's docstring."""
    check_histories(tmp_path, universe, histories=15, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(36000)
def test_whatever_happens_for_long(universe: Universe, tmp_path: Path) -> None:
    """More histories, and longer ones: it takes minutes, and with `HYPOTHESIS_PROFILE=search` hours."""
    assert settings.default is not None
    check_histories(tmp_path, universe, histories=settings.default.max_examples, steps=40)
