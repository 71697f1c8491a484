"""Which environments go, by age and number."""

from __future__ import annotations

import pytest

from envsync.environments.choice import Rules, chosen
from envsync.environments.known import Known
from envsync.library.status import Occupant

DAY = 86400.0
NOW = 1000 * DAY


def known(name: str, days: float, **more: object) -> Known:
    return Known(name, name, 0, used=NOW - days * DAY)._replace(**more)  # type: ignore[arg-type]


FOUR = [known("a", 1), known("b", 40), known("c", 10), known("d", 100)]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (Rules(), "dbca"),
        (Rules(30 * DAY), "db"),
        (Rules(0.0), "dbca"),
        (Rules(10 * DAY), "dbc"),
        (Rules(keep=1), "dbc"),
        (Rules(keep=3), "d"),
        (Rules(keep=9), ""),
        (Rules(5 * DAY, keep=2), "db"),
        (Rules(50 * DAY, keep=1), "d"),
    ],
)
def test_by_age_and_number(rules: Rules, gone: str) -> None:
    """What fits all that is said, what was used least lately first."""
    assert "".join(each.path for each in chosen(FOUR, rules, NOW)) == gone


def test_what_runs_is_used_now() -> None:
    """One that a command runs in is among those that were used last, however long ago it began."""
    running = known("r", 200, commands=(Occupant(1, "job"),))
    assert [each.path for each in chosen([*FOUR, running], Rules(keep=1), NOW)] == ["d", "b", "c", "a"]


def test_what_is_not_ours_does_not_count() -> None:
    """It is neither chosen nor one of those that are kept."""
    assert [each.path for each in chosen([known("x", 0, stranger="no"), *FOUR], Rules(keep=3), NOW)] == ["d"]
