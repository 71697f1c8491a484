"""SIGKILL at every file-system change of a command: never taken for current unless whole, and always repaired."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envsync.checking.repair import Checked
from envsync.checking.verify import Verified
from tests.crash import before
from tests.crash.grid import check, strike_all
from tests.crash.harness import KILL, KILL_ONE, KILLS
from tests.crash.scenarios import BY_NAME, Scenario, rows
from tests.crash.stage import Stage

ALWAYS = ("upgrade", "recovery", "repair changed module, then check", "cache prune")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows(*ALWAYS))
def test_killed_before_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """A command that is killed before any of its changes leaves an old environment, or one to be finished."""
    check(scenario, strike_all(scenario, lambda _: (KILL,), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows())
def test_killed_after_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """So does one that is killed as soon as a change is made: with a file that is created and still empty, say."""
    check(scenario, strike_all(scenario, lambda _: KILLS[1:], tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["two processes", "two processes, cold store", "two processes, downloads"])
def test_one_of_two_processes_killed_at_any_change(tmp_path: Path, name: str) -> None:
    """If one of two processes is killed, the other does its work, too, or the next command does."""
    check(BY_NAME[name], strike_all(BY_NAME[name], lambda _: (KILL_ONE,), tmp_path))


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """The tests above would show nothing if the judge did not see a broken environment that is taken for current."""
    scenario = BY_NAME["first install"]._replace(before=("app-1.0",), target=("app-1.0",), prepare=_damage, least=0)
    with pytest.raises(AssertionError, match=r"taken for current and is not: different .*/app/old\.py"):
        check(scenario, strike_all(scenario, lambda _: (KILL,), tmp_path))


def _damage(stage: Stage) -> None:
    """Change a file in place, from the second time on: the first is how it is to be."""
    stage.remembered["times"] = stage.remembered.get("times", 0) + 1
    if stage.remembered["times"] > 1:
        (path,) = stage.env.glob("lib/*/site-packages/app/old.py")
        path.unlink()
        path.write_text("x = 3\n")
        stage.restamp()


def test_a_check_that_sees_nothing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor if it did not see a `check` that calls half a repair sound."""
    monkeypatch.setattr(Stage, "check", lambda _: Checked(Verified((), 0, 0, 0)))
    scenario = BY_NAME["repair changed module, then check"]
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    points = strike_all(scenario, lambda nth: (KILL,) * (nth == 30), tmp_path, workers=1, first=30)
    assert [point.wrong[0] for point in points] == [
        f"`check` calls it sound, and it is not: different lib/{python}/site-packages/app/old.py"
    ]


def test_a_damaged_cache_is_seen(tmp_path: Path) -> None:
    """Nor if it did not see entries that are not whole."""

    def prepare(stage: Stage) -> None:
        before.age_the_cache(stage)
        before.damage_the_cache(stage)

    scenario = BY_NAME["cache prune"]._replace(prepare=prepare)
    points = list(strike_all(scenario, lambda nth: (KILL,) * (nth == 1), tmp_path, workers=1))
    assert points[0].wrong[0] == "left in the cache, and not whole: single-1.0-py3-none-any.whl: purelib/single.py"
