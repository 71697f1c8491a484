"""What of a lock file is asked for, in uv's words."""

from __future__ import annotations

from typing import Any

import pytest

from envsync.lockfile.choice import Choice, UndefinedError

GROUPS = ("dev", "Docs", "lint_it")


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, {"dev"}),
        ({"groups": ("docs",)}, {"dev", "Docs"}),
        ({"groups": ("lint-it",), "no_default_groups": True}, {"lint_it"}),
        ({"no_default_groups": True}, set()),
        ({"only_groups": ("docs",)}, {"Docs"}),
        ({"only_groups": ("docs",), "groups": ("lint.it",)}, {"Docs", "lint_it"}),
        ({"all_groups": True}, set(GROUPS)),
        ({"all_groups": True, "no_groups": ("dev",)}, {"Docs", "lint_it"}),
        ({"groups": ("dev",), "no_groups": ("dev",)}, set()),
    ],
)
def test_groups(options: dict[str, Any], chosen: set[str]) -> None:
    """They come in addition to the default ones, and what is left out wins."""
    assert Choice(**options).groups_of(GROUPS, ["dev", "not-defined"]) == chosen


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, set()),
        ({"extras": ("plot-it",)}, {"Plot_it"}),
        ({"all_extras": True}, {"Plot_it", "x"}),
        ({"all_extras": True, "no_extras": ("plot.it",)}, {"x"}),
        ({"no_extras": ("unknown",)}, set()),
    ],
)
def test_extras(options: dict[str, Any], chosen: set[str]) -> None:
    """None unless asked for."""
    assert Choice(**options).extras_of(("Plot_it", "x")) == chosen


@pytest.mark.parametrize("option", ["groups", "only_groups", "no_groups"])
def test_a_misspelt_group_is_an_error(option: str) -> None:
    """It would install less, or more, without a word."""
    options: dict[str, Any] = {option: ("tset", "dev")}
    with pytest.raises(UndefinedError, match="the group `tset`; the groups that it defines: Docs, dev, lint_it"):
        Choice(**options).groups_of(GROUPS, ())


def test_a_misspelt_extra_is_an_error() -> None:
    """Whether or not there are any."""
    with pytest.raises(UndefinedError, match="the extra `x`; the extras that it defines: none"):
        Choice(extras=("x",)).extras_of(())


def test_options_of_workspaces_are_named_as_they_are_typed() -> None:
    """For the formats that have no members."""
    assert Choice(packages=("a",), all_packages=True).of_workspace == ("--package a", "--all-packages")
    assert Choice().of_workspace == ()
