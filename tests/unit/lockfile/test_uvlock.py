"""uv.lock: what is selected for which options, which file is taken, and every refusal.

The expected sets were seen in runs of uv 0.13.9; tests/real compares with a uv that is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from envsync.lockfile import Choice, read
from envsync.lockfile.target import Target
from envsync.python.facts import Interpreter

SHA = "a" * 64
INDEX = "https://index.example.invalid/simple"
FILES = "https://files.example.invalid"
Values = dict[str, Any]


def wheel(filename: str, digest: str | None = f"sha256:{SHA}", **keys: object) -> Values:
    given = {"url": f"{FILES}/{filename}", **keys}
    return {**given, **({"hash": digest} if digest else {})}


def package(name: str, version: str = "1.0", **keys: Any) -> Values:
    """Describe a record from an index, with a wheel for every Python."""
    wheels = [wheel(f"{name.replace('-', '_')}-{version}-py3-none-any.whl")]
    record = {"name": name, "version": version, "source": {"registry": INDEX}, "wheels": wheels}
    return {**record, **{key.replace("_", "-"): value for key, value in keys.items()}}


def project(name: str, place: str = ".", kind: str = "virtual", **keys: Any) -> Values:
    """Describe a record of a project or member."""
    return package(name, **{"source": {kind: place}, "wheels": [], **keys})


def edge(name: str, marker: str = "", *extras: str, **keys: object) -> Values:
    return {
        "name": name,
        **keys,
        **({"extra": list(extras)} if extras else {}),
        **({"marker": marker} if marker else {}),
    }


def edges(*names: str) -> list[Values]:
    return [edge(name) for name in names]


def toml(value: Any) -> str:
    """Write a value, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def lock_text(packages: Iterable[Values], **top: Any) -> str:
    keys = {"version": 1, "revision": 5, "requires_python": ">=3.11", **top}
    lines = [f"{key.replace('_', '-')} = {toml(value)}" for key, value in keys.items() if value is not None]
    return "\n".join([*lines, f"package = {toml(list(packages))}", ""])


Select = Callable[..., Target]


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    """Write a lock file, and pyproject.toml if there is to be one, and select from it."""

    def select(
        packages: Iterable[Values],
        choice: Choice = Choice(),  # noqa: B008
        *,
        pyproject: str | None = None,
        target: Interpreter = interpreter,
        name: str = "uv.lock",
        **top: Any,
    ) -> Target:
        (tmp_path / name).write_text(lock_text(packages, **top))
        if pyproject is not None:
            (tmp_path / "pyproject.toml").write_text(pyproject)
        return read(str(tmp_path / name)).select(target, choice)

    return select


def names(target: Target) -> str:
    """Return what is selected, with the version where it is not 1.0."""
    return " ".join(a.name if a.version == "1.0" else f"{a.name}-{a.version}" for a in target.artifacts)


LEAVES = [package(name) for name in ("both", "cpuonly", "leaf", "mid", "tool", "winonly")]
SINGLE = [
    *(package(name) for name in ("cpuonly", "leaf", "tool", "winonly")),
    package("mid", dependencies=edges("leaf")),
    package("both"),
    package("opt", optional_dependencies={"m": edges("mid")}),
    project(
        "p1",
        dependencies=[edge("mid"), edge("winonly", "sys_platform == 'win32'")],
        optional_dependencies={"x": [edge("opt", "", "m"), edge("tool")], "y": edges("tool")},
        dev_dependencies={
            "dev": edges("both"),
            "docs": edges("both", "cpuonly"),
            "selfx": [edge("p1", "", "y")],
        },
        metadata={"provides-extras": ["x", "y", "nothing"], "requires-dev": {"empty": []}},
    ),
]


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(), "both leaf mid"),
        (Choice(extras=("x",)), "both leaf mid opt tool"),
        (Choice(extras=("nothing",)), "both leaf mid"),
        (Choice(all_extras=True, no_extras=("x",)), "both leaf mid tool"),
        (Choice(no_groups=("dev",)), "leaf mid"),
        (Choice(no_default_groups=True), "leaf mid"),
        (Choice(only_groups=("docs",)), "both cpuonly"),
        (Choice(only_groups=("selfx",)), "leaf mid tool"),
        (Choice(groups=("docs",), no_groups=("dev",)), "both cpuonly leaf mid"),
        (Choice(groups=("empty",)), "both leaf mid"),
        (Choice(all_groups=True), "both cpuonly leaf mid tool"),
        (Choice(no_install_packages=("Mid",)), "both leaf"),
    ],
    ids=str,
)
def test_extras_and_groups_of_one_project(select: Select, choice: Choice, selected: str) -> None:
    """Extras add what they require, groups come in addition, and what is left out leaves out only itself."""
    assert names(select(SINGLE, choice)) == selected
