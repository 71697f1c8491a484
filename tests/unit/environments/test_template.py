"""Which directories a template names, and which it never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.environments.template import TRASH, Template, of_path
from envsync.errors import UsageError
from tests import needs

A, B = "a" * 32, "0123456789abcdef" * 2


def made(directory: Path, *paths: str) -> str:
    for path in paths:
        (directory / path).mkdir(parents=True)
    return f"{directory}/"


def named(template: str) -> list[str]:
    return [found.path.removeprefix(Template(template).above) for found in Template(template).find()]


@pytest.mark.parametrize(
    ("template", "there", "not_there"),
    [
        ("{digest}", [A, B], ["c" * 31, "d" * 33, "E" * 32, f"x{A}", f"{A}.new", ".envsync-names"]),
        ("py{python}-{digest}", [f"py3.11-{A}", f"py3.13t-{A}"], [f"py3-{A}", f"py-{A}", f"3.11-{A}", "py3.11-"]),
        ("{python}{digest}", [f"3.11{A}", f"3.13t-32{B}"], [A]),
        ("{digest}/venv", [f"{A}/venv"], [f"{B}/other", "x/venv"]),
        ("{python}/x{digest}/in/venv", [f"3.12/x{B}/in/venv"], [f"3.12/{A}/in/venv"]),
        ("{digest}/{digest}", [f"{A}/{A}"], [f"{A}/{B}"]),
        ("{digest}-{digest}", [f"{A}-{A}"], [f"{A}-{B}"]),
        pytest.param("a b.*{digest}", [f"a b.*{A}"], [f"a bx{A}"], marks=needs.ANY_NAME),
    ],
)
def test_what_fits(tmp_path: Path, template: str, there: list[str], not_there: list[str]) -> None:
    """Each placeholder stands for what a request would put there, the same one for the same each time."""
    root = made(tmp_path / "a b", *there, *not_there)
    assert named(root + template) == sorted(there)
    assert named(f"{root}{template}//") == sorted(there)


def test_what_is_found_of_each(tmp_path: Path) -> None:
    """The digest, and which directories belong to it alone, the lowest first."""
    root = made(tmp_path, f"{A}/in/venv")
    (found,) = Template(root + "{digest}/in/venv").find()
    assert (found.digest, found.between, found.is_link) == (A, (f"{root}{A}/in", f"{root}{A}"), False)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """One that fits is named as one, and what is behind it is not looked at. Above the template, they are as ever."""
    made(tmp_path, f"else/{B}/venv", "root")
    os.symlink(tmp_path / "else" / B, tmp_path / "root" / A)
    os.symlink(tmp_path / "root", tmp_path / "way")
    (found,) = Template(f"{tmp_path}/way/{{digest}}/venv").find()
    assert (found.path, found.is_link) == (f"{tmp_path}/way/{A}", True)


def test_files_are_none(tmp_path: Path) -> None:
    """Nor is anything in a directory that is not there."""
    (tmp_path / A).touch()
    assert named(f"{tmp_path}/{{digest}}") == []
    assert named(f"{tmp_path}/none/{{digest}}/venv") == []


def test_trash_is_found_where_environments_are(tmp_path: Path) -> None:
    """Beside them, whatever the name of the environment was; no template names it."""
    root = made(tmp_path, f"{A}/{TRASH}1", f"{B}/venv", f"{TRASH}2")
    assert [each.path for each in Template(root + "{digest}/venv").trash()] == [f"{root}{A}/{TRASH}1"]
    assert [each.path for each in Template(root + "{digest}").trash()] == [f"{root}{TRASH}2"]
    assert named(root + "{digest}/venv") == [f"{B}/venv"]


@pytest.mark.parametrize("text", [".venv", "/abs/.venv", "{user}", "{DIGEST}", "envs/{digest", "{digest}/../x"])
def test_what_is_no_template(text: str) -> None:
    """An environment that has a name of its own is nobody's to sweep."""
    with pytest.raises(UsageError):
        Template(text)


def test_the_template_of_a_path() -> None:
    """The last digest in it; a path without one is refused."""
    assert of_path(f"/{B}/envs/{A}/venv/").text == f"/{B}/envs/{{digest}}/venv"
    assert of_path(f"py3.11-{A}").text == "py3.11-{digest}"
    for path in (".venv", "a" * 33, "a" * 31):
        with pytest.raises(UsageError, match="not named by"):
            of_path(path)
