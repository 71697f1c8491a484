"""What of a lock file is asked for, in uv's words."""

from __future__ import annotations

from typing import Any

import pytest

from envsync.launch import options
from envsync.lockfile.choice import Choice, UndefinedError, choice_of

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
        ({"no_extras": ("x",)}, set()),
        ({"extras": ("x",), "no_extras": ("X",)}, set()),
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


@pytest.mark.parametrize("option", ["extras", "no_extras"])
def test_a_misspelt_extra_is_an_error(option: str) -> None:
    """Whether or not there are any."""
    options: dict[str, Any] = {option: ("x",)}
    with pytest.raises(UndefinedError, match="the extra `x`; the extras that it defines: none"):
        Choice(**options).extras_of(())


@pytest.mark.parametrize("option", ["dev", "no_dev", "only_dev"])
def test_options_for_dev_need_no_such_group(option: str) -> None:
    """They are in scripts and in containers for projects that have one, and for others."""
    assert choice_of({option: True}).groups_of(("docs",), ()) == set()
    named = {"dev": "groups", "no_dev": "no_groups", "only_dev": "only_groups"}[option]
    assert getattr(choice_of({option: True}), named) == ("dev",)
    with pytest.raises(UndefinedError):
        Choice(**{named: ("dev",)}).groups_of(("docs",), ())  # type: ignore[arg-type]


def test_each_option_is_in_the_choice() -> None:
    """Every option that says what of a lock file is to be installed changes the choice, and no other option does."""
    choosing = {option.key for option in options.CHOICE}
    choosing |= {"no_build", "no_build_package", "no_binary", "no_binary_package"}
    for option in options.REQUEST:
        value = ["x"] if option.kind == options.LIST else True if option.kind == options.FLAG else "x"
        assert (choice_of({option.key: value}) != Choice()) == (option.key in choosing), option.name
    assert choice_of({}) == Choice()
    assert choice_of({"extra": ["a,b", "c"], "package": ["p"], "no_editable": True}, "m") == Choice(
        extras=("a", "b", "c"), packages=("p",), editable=False, member="m"
    )


def test_options_of_workspaces_are_named_as_they_are_typed() -> None:
    """For the formats that have no members."""
    assert Choice(packages=("a",), all_packages=True).of_workspace == ("--package a", "--all-packages")
    assert Choice().of_workspace == ()
