"""docs/digest.md says of all that decides what is installed where it enters: nothing is left out, and it is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.markers import default_environment

from envsync.launch import options
from envsync.launch.request import EXACT, Request, describe_python

PAGE = (Path(__file__).parent.parent.parent / "docs/digest.md").read_text()
OTHERS = {"Remembered in the cache", "Environments named by `{digest}`", "What a launch looks at"}
"""Sections whose tables are about something else."""
VALUES = {options.TEXT: "x", options.LIST: ["x"], options.FLAG: True, options.SECONDS: 3.0}
PYTHON = describe_python("cpython", "3.11")


def rows(heading: str) -> dict[str, str]:
    """Return the first two columns of the table below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in section.splitlines() if line.startswith("| ")]
    return dict(cells[1:])


@pytest.mark.parametrize("option", options.REQUEST, ids=lambda option: option.name)
def test_every_option(option: options.Option) -> None:
    """Each option of a request has a row, and the digest covers it as the row says."""
    enters = rows("Options")[f"`--{option.name}`"]

    def digests(**settings: options.Value) -> list[str]:
        asked = Request(settings, "pylock.toml", "0" * 32, ".venv")
        return [asked.digest(PYTHON, unhashed=unhashed) for unhashed in (False, True)]

    changed = [one != other for one, other in zip(digests(), digests(**{option.key: VALUES[option.kind]}), strict=True)]
    assert changed == {"digest": [True, True], "digest, unhashed": [False, True], "no": [False, False]}[enters]


def test_every_option_that_waits_or_shows() -> None:
    """What else may be said anywhere is no part of a request, and named at least."""
    others = {option.name for option in options.ANYWHERE} - {option.name for option in options.REQUEST}
    shapes = {option.name for option in options.ANYWHERE if option.shapes}
    assert shapes <= {option.name for option in options.REQUEST}
    assert others


def test_every_marker() -> None:
    """Each variable of PEP 508 and PEP 751 has a row; what looks at more than X.Y and the host is with the stamp."""
    found = rows("Markers")
    markers = {f"`{name}`" for name in (*default_environment(), "extra", "extras", "dependency_groups")}
    assert set(found) == markers
    assert {name for name, enters in found.items() if enters == "stamp"} == {f"`{name}`" for name in EXACT}


def test_every_table_uses_the_words_that_are_explained() -> None:
    """Where something enters is said in one of four ways."""
    headings = re.findall(r"\n## (.*)\n", PAGE)
    tables = {heading: rows(heading) for heading in headings if heading not in OTHERS}
    for heading, table in tables.items():
        assert set(table.values()) <= {"digest", "digest, unhashed", "stamp", "no"}, heading
    assert sum(map(len, tables.values())) > 50


def test_every_variable_of_uv() -> None:
    """docs/uv.md has all that are as an option, and names the option."""
    page = (Path(__file__).parent.parent.parent / "docs/uv.md").read_text()
    found = dict(re.findall(r"^\| `(UV_\w+)` \| `--([\w-]+)`", page, re.MULTILINE))
    assert found == {variable: option.name for option in options.ANYWHERE for variable in option.uv}
    for option in (*options.CHOICE, *(option for option in options.RUN if option.uv)):
        assert f"--{option.name}" in page or option.name == "env"
