"""Generated projects, locked by the real uv from wheels in a directory: what is selected is what uv itself selects.

Packages require each other in circles, by markers and extras; projects have extras that include each other, groups,
members, default groups, and extras and groups that exclude each other. No network.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from envsync.lockfile import Choice
from envsync.python import interpreter
from envsync.python.facts import Interpreter
from tests.uv_oracle import UV, asked, equal, ours, parsed
from tests.wheels import build_wheel

pytestmark = pytest.mark.skipif(not UV, reason="there is no uv on PATH")

PACKAGES = [f"p{number}" for number in range(5)]
VERSIONS = ("1.0", "2.0")
MARKERS = ("", "sys_platform == 'linux'", "sys_platform == 'win32'", "python_version < '3.12'", "os_name != 'nt'")
EXTRAS, GROUPS, MEMBERS = ("e1", "e2"), ("dev", "g1"), ("m1", "m2")
LOW, HIGH = "p0<2", "p0>=2"
"""What is required by those that exclude each other."""
Strings = dict[str, list[Any]]


class Project(NamedTuple):
    """A project or member, as its pyproject.toml has it."""

    name: str
    dependencies: list[str]
    extras: Strings
    groups: Strings
    default_groups: list[str] | str | None
    is_package: bool

    def text(self, members: list[str], conflicts: list[Any]) -> str:
        sources = {name: {"workspace": True} for name in members if name != self.name}
        uv: dict[str, Any] = {"package": self.is_package, "sources": sources}
        if self.default_groups is not None:
            uv["default-groups"] = self.default_groups
        if conflicts:
            uv["conflicts"] = conflicts
        if self.name == "root" and members:
            uv["workspace"] = {"members": list(members)}
        project = {"name": self.name, "version": "1.0", "requires-python": ">=3.11", "dependencies": self.dependencies}
        top = {"project": {**project, "optional-dependencies": self.extras}, "dependency-groups": self.groups}
        return "\n".join(f"{key} = {inline(value)}" for key, value in {**top, "tool": {"uv": uv}}.items())


class World(NamedTuple):
    """Wheels and a workspace."""

    wheels: dict[tuple[str, str], tuple[list[str], list[str]]]
    """By name and version: what they require, and what their extra `x` does."""
    projects: list[Project]
    conflicts: list[Any]

    @property
    def members(self) -> list[str]:
        return [project.name for project in self.projects[1:]]


def inline(value: Any) -> str:
    """Write a value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {inline(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


@st.composite
def requirement(draw: st.DrawFn, names: list[str]) -> str:
    extra = draw(st.sampled_from(["", "", "[x]"]))
    marker = draw(st.sampled_from(MARKERS))
    return draw(st.sampled_from(names)) + extra + (f" ; {marker}" if marker else "")


def requirements(names: list[str], most: int = 2) -> st.SearchStrategy[list[str]]:
    return st.lists(requirement(names), max_size=most)


@st.composite
def project(draw: st.DrawFn, name: str, others: list[str]) -> Project:
    """Draw a project, which may depend on other members."""
    own = st.sampled_from([f"{name}[{extra}]" for extra in EXTRAS])
    dependencies = draw(requirements(PACKAGES)) + draw(st.lists(st.sampled_from([*others, "p0"]), max_size=1))
    extras: Strings = {extra: draw(requirements(PACKAGES)) for extra in draw(st.sets(st.sampled_from(EXTRAS)))}
    if len(extras) == 2 and draw(st.booleans()):
        extras["e2"] = [*extras["e2"], f"{name}[e1]"]
    groups: Strings = {group: draw(requirements(PACKAGES)) for group in draw(st.sets(st.sampled_from(GROUPS)))}
    if len(groups) == 2 and draw(st.booleans()):
        groups["g1"] = [*groups["g1"], {"include-group": "dev"}]
    if groups and len(extras) == 2 and draw(st.booleans()):
        group = draw(st.sampled_from(sorted(groups)))
        groups[group] = [*groups[group], draw(own)]
    defaults = draw(st.sampled_from([None, None, [], sorted(groups), "all"]))
    return Project(name, dependencies, extras, groups, defaults, draw(st.booleans()))


@st.composite
def world(draw: st.DrawFn) -> World:
    """Draw wheels of which any fit any project, and projects of which none needs two versions of one, or says so."""
    wheels = {
        (name, version): (draw(requirements(PACKAGES)), draw(requirements(PACKAGES)))
        for name in PACKAGES
        for version in VERSIONS
    }
    members = list(MEMBERS[: draw(st.integers(0, 2))])
    names = ["root", *members]
    projects = [draw(project(name, names[number + 1 :])) for number, name in enumerate(names)]
    conflicts: list[Any] = []
    if draw(st.booleans()):
        projects[0], conflicts = draw(excluding(projects[0]))
    return World(wheels, projects, conflicts)


@st.composite
def excluding(draw: st.DrawFn, root: Project) -> tuple[Project, list[Any]]:
    """Let an extra exclude another one, or a group."""
    extras = {
        "e1": [*root.extras.get("e1", []), LOW],
        "e2": [each for each in root.extras.get("e2", []) if "root" not in each],
    }
    groups = {name: [each for each in group if "root" not in each] for name, group in root.groups.items()}
    first = {"package": root.name, "extra": "e1"}
    if draw(st.booleans()):
        extras["e2"] = [*extras["e2"], HIGH]
        other = {"package": root.name, "extra": "e2"}
    else:
        groups["g1"] = [*groups.get("g1", []), HIGH]
        groups["dev"] = [each for each in groups.get("dev", []) if isinstance(each, str)]
        other = {"package": root.name, "group": "g1"}
    return root._replace(extras=extras, groups=groups), [[first, other]]


def lay_out(world: World, directory: Path) -> bool:
    """Write wheels and projects, and lock them. False: they cannot be."""
    wheels = directory / "wheels"
    wheels.mkdir()
    for (name, version), (requires, extra) in world.wheels.items():
        build_wheel(wheels, name, version, metadata=metadata(name, version, requires, extra))
    root = directory / "project"
    for each in world.projects:
        place = root if each.name == "root" else root / each.name
        place.mkdir(exist_ok=True)
        (place / "pyproject.toml").write_text(each.text(world.members, world.conflicts if each.name == "root" else []))
    words = [UV, "lock", "--no-config", "--offline", "--no-index", "--find-links", str(wheels), "--python-preference"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    done = subprocess.run(
        [*words, "only-system"],
        cwd=root,
        env={**environ, "UV_CACHE_DIR": str(directory / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or "No solution found" in done.stderr, done.stderr
    return done.returncode == 0


def metadata(name: str, version: str, requires: list[str], extra: list[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: x"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    for each in extra:
        name, _, marker = each.partition(" ; ")
        lines.append(f"Requires-Dist: {name} ; " + (f"{marker} and extra == 'x'" if marker else "extra == 'x'"))
    return "\n".join([*lines, ""])


def choices(world: World) -> Iterator[Choice]:
    """Yield what is asked for."""
    root = world.projects[0]
    yield Choice()
    yield Choice(all_extras=True)
    yield Choice(all_groups=True, no_install_project=True)
    yield from (Choice(extras=(extra,)) for extra in sorted(root.extras))
    for group in sorted(root.groups):
        yield Choice(groups=(group,), no_default_groups=True)
        yield Choice(only_groups=(group,))
        yield Choice(groups=(group,), extras=("e1",))
    for member in world.members:
        yield Choice(packages=(member,), groups=("g1",))
        yield Choice(member=member, all_extras=True)
    if world.members:
        yield Choice(all_packages=True, extras=("e1",), no_install_workspace=True)


def compare(world: World, facts: Interpreter) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        assume(lay_out(world, directory))
        lock = parsed(directory / "project" / "uv.lock")
        for choice in choices(world):
            uv = asked(directory / "project", facts.executable, choice, cache=directory / "cache")
            own = ours(lock, facts, choice)
            assert equal(uv, own), (
                f"{choice}:\nuv:      {uv}\nenvsync: {own}\n{(directory / 'project/uv.lock').read_text()}"
            )


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    return interpreter.inspect(interpreter.own_base(), str(tmp_path_factory.mktemp("cache")))


SUPPRESSED = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]


@given(world=world())
@settings(max_examples=3, suppress_health_check=SUPPRESSED)
def test_the_same_set_is_selected_as_by_uv(facts: Interpreter, world: World) -> None:
    """For every extra, group and member, and refused where uv refuses."""
    compare(world, facts)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(world=world())
@settings(max_examples=400, suppress_health_check=SUPPRESSED)
def test_the_same_set_is_selected_as_by_uv_in_many_worlds(facts: Interpreter, world: World) -> None:
    """The same, for as long as one likes to wait."""
    compare(world, facts)
