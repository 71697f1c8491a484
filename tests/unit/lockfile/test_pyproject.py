"""What of a pyproject.toml counts: an edit without consequences is none, any other is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.lockfile.pyproject import canonical

TOML = """\
# who we are
[project]
name = "demo"
version = "1.0"
dependencies = ["greet >= 1", "shout"]

[build-system]
requires = ["hatchling", "Hatch_VCS>=0.4", "setuptools"]
build-backend = "hatchling.build"

[dependency-groups]
dev = ["pytest"]

[tool.uv]
default-groups = ["dev"]

[tool.envsync]
env = ".env"

[tool.ruff]
line-length = 120

[tool.hatch.version]
source = "vcs"
"""
BARE_KEYS = st.text("abcxyz-_019", min_size=1, max_size=5)
SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.times()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(BARE_KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = ("project", "build-system", "dependency-groups", "tool.uv", "tool.poetry", "tool.pdm", "tool.setuptools")
IDLE = ("tool.envsync", "tool.ruff", "tool.pytest", "other")
PARTS = st.dictionaries(st.sampled_from(TABLES[2:]), st.dictionaries(BARE_KEYS, VALUES, max_size=3), max_size=4)
IDLE_PARTS = st.dictionaries(st.sampled_from(IDLE), st.dictionaries(BARE_KEYS, VALUES, max_size=2), max_size=3)


def written(value: Any, draw: st.DrawFn) -> str:
    """Write a value as TOML, in one of the ways that mean the same."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(f"\\U{ord(c):08x}" for c in value)
        plain = value.isprintable() and not set(value) & set("\"'\\")
        return draw(st.sampled_from([f'"{escaped}"', *([f'"{value}"', f"'{value}'"] if plain else [])]))
    if isinstance(value, int):
        return draw(st.sampled_from([str(value), f"{value:_}"]))
    if isinstance(value, list):
        inner = draw(st.sampled_from([", ", ",\n  # more\n  "])).join(written(each, draw) for each in value)
        return f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(each, draw)}" for key, each in shuffled(value, draw)) + "}"
    return str(value)


def shuffled(table: dict[str, Any], draw: st.DrawFn) -> list[tuple[str, Any]]:
    return draw(st.permutations(list(table.items())))


def document(parts: dict[str, dict[str, Any]], draw: st.DrawFn) -> bytes:
    """Write tables, in any order, with comments and empty lines between them."""
    lines = []
    for name, table in shuffled(parts, draw):
        lines += draw(st.sampled_from([[], [""], ["# a comment"], ["   "]]))
        lines.append(f"[{name}]")
        for key, value in shuffled(table, draw):
            equals = draw(st.sampled_from([" = ", "=", "  =  "]))
            lines.append(f"{key}{equals}{written(value, draw)}" + draw(st.sampled_from(["", "  # why"])))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode()


def compared(value: Any) -> Any:
    """Return what tells two values apart that Python takes for equal."""
    if isinstance(value, dict):
        return {key: compared(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(compared, value))
    return type(value).__name__, str(value)


@given(PARTS, IDLE_PARTS, IDLE_PARTS, st.data())
def test_another_text_of_the_same_meaning(
    parts: dict[str, Any], idle: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    """Comments, order, spelling, and the tables of others: none of it counts."""
    one, two = document({**parts, **idle}, data.draw), document({**parts, **other}, data.draw)
    assert canonical(one) == canonical(two)


@given(PARTS, PARTS, st.data())
def test_another_meaning(one: dict[str, Any], two: dict[str, Any], data: st.DataObject) -> None:
    """Two that differ in any value that counts come out as two."""
    same = canonical(document(one, data.draw)) == canonical(document(two, data.draw))
    assert same == (compared(one) == compared(two))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("greet >= 1", "greet >= 2"),
        ('["greet >= 1", "shout"]', '["shout", "greet >= 1"]'),
        ('version = "1.0"', "version = 1.0"),
        ('"hatchling", ', ""),
        ("pytest", "coverage"),
        ('["dev"]', "[]"),
        ('"vcs"', '"code"'),
        ("[tool.ruff]", "[tool.setuptools]"),
        ("[tool.ruff]", "[tool.distutils]"),
        ("[tool.envsync]", "[tool.pdm]"),
        ('build-backend = "hatchling.build"', 'build-backend = "hatchling.build"\nbackend-path = ["."]'),
        ("[tool.ruff]", "[tool.ruff"),
    ],
)
def test_what_counts(old: str, new: str) -> None:
    """The project, what builds it with the tables of that, what locks it; and what is no TOML as a whole."""
    assert canonical(TOML.encode()) != canonical(TOML.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# who we are\n", ""),
        ("120", "100"),
        ('".env"', '".venv"'),
        ("[tool.ruff]", "[tool.mypy]"),
        ("\n", "\r\n"),
        ('name = "demo"\nversion = "1.0"', 'version = "1.0"\nname = "demo"'),
    ],
)
def test_what_does_not(old: str, new: str) -> None:
    """What a formatter changes, and the tables of tools that have no say."""
    assert canonical(TOML.encode()) == canonical(TOML.replace(old, new).encode())


def test_a_backend_of_its_own_may_read_any_table() -> None:
    """With `backend-path` nobody knows which."""
    own = TOML.replace("build-backend", 'backend-path = ["."]\nbuild-backend')
    assert canonical(own.encode()) != canonical(own.replace("120", "100").encode())


@pytest.mark.parametrize("content", [b"\xff", b"a = [" * 9000, b"[project]\nx = 0x" + b"f" * 9000, b"tool = 1"])
def test_what_makes_no_sense_has_a_content(content: bytes) -> None:
    """Nothing is raised, and another content is another one."""
    assert canonical(content) != canonical(content + b"\nx = 1\n[tool.uv]\ny = 1")
