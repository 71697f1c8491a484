"""What is called stale, beside the tools themselves: `uv lock --check`, `poetry check --lock`, `pdm lock --check`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envsync.lockfile.stale import by_hash
from envsync.lockfile.stale.by_hash import Verdict
from envsync.lockfile.stale.by_requirements import of_uv
from tests.wheels import build_wheel

uv = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH")
poetry = pytest.mark.skipif(shutil.which("poetry") is None, reason="poetry is not on PATH")
pdm = pytest.mark.skipif(shutil.which("pdm") is None, reason="pdm is not on PATH")

PROJECT = """\
[project]
name = "p1"
version = "1.0"
description = "one"
requires-python = ">=3.11"
dependencies = ["leaf>=1.0", "mid[m]>=1,<3; python_version < '3.13'"]

[project.optional-dependencies]
x = ["leaf<3", "p1[y]"]
y = ["mid==1.*; sys_platform == 'linux'"]

[dependency-groups]
dev = ["leaf", {include-group = "docs"}]
docs = ["mid>=1; sys_platform == 'win32'", "p1[x]"]
empty = []
"""
"""Of uv. What is edited below occurs in it once."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of a few packages, to be locked without an index."""
    directory = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        extra = f"Metadata-Version: 2.1\nName: mid\nVersion: {version}\nProvides-Extra: m\nProvides-Extra: n\n"
        build_wheel(directory, "leaf", version)
        build_wheel(directory, "mid", version, metadata=extra)
        build_wheel(directory, "tool", version)
    return directory


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)


class Uv:
    """A project that uv locks and checks."""

    def __init__(self, directory: Path, wheels: Path) -> None:
        self.directory = directory
        self._offline = ("--offline", "--cache-dir", f"{wheels}/cache", "--no-index", "--find-links", str(wheels))

    def write(self, text: str, member: str = ".") -> None:
        place = self.directory / member
        place.mkdir(parents=True, exist_ok=True)
        (place / "pyproject.toml").write_text(text)

    def lock(self) -> None:
        done = run(self.directory, "uv", "lock", *self._offline)
        assert done.returncode == 0, done.stderr

    @property
    def accepts(self) -> bool:
        """Whether uv itself finds the lock file to be what is asked for."""
        return run(self.directory, "uv", "lock", "--check", *self._offline).returncode == 0

    @property
    def verdict(self) -> Verdict:
        places = [path.parent for path in self.directory.rglob("pyproject.toml")]
        names = {place: place.relative_to(self.directory).as_posix() for place in places}
        projects = {names[place]: tomllib.loads((place / "pyproject.toml").read_text()) for place in places}
        return of_uv(tomllib.loads((self.directory / "uv.lock").read_text()), projects)


@pytest.fixture
def project(tmp_path: Path, wheels: Path) -> Uv:
    return Uv(tmp_path / "project", wheels)


NOTICED = {
    "version": ('version = "1.0"', 'version = "1.1"', "the version of `p1` is 1.1, and in the lock file 1.0"),
    "specifier": ("leaf>=1.0", "leaf>=1.0,<9", "`p1` requires `leaf<9,>=1.0`, and in the lock file it is `leaf>=1.0`"),
    "gone": ('"leaf>=1.0", ', "", "`p1` no longer requires `leaf>=1.0`"),
    "new": ('"leaf>=1.0", ', '"leaf>=1.0", "tool", ', "`p1` requires `tool`"),
    "extra-of-requirement": ("mid[m]", "mid[m,n]", "`p1` requires `mid[m,n]<3,>=1"),
    "marker": ("< '3.13'", "< '3.14'", 'python_version < "3.14"`, and in the lock file it is `mid[m]'),
    "no-marker": ("; python_version < '3.13'", "", "`p1` requires `mid[m]<3,>=1`, and in the lock file"),
    "requires-python": (">=3.11", ">=3.12", "`requires-python` is `>=3.12`, and in the lock file `>=3.11`"),
    "in-extra": ("leaf<3", "leaf<4", "`p1` requires `leaf<4`, and in the lock file it is `leaf<3; extra == 'x'`"),
    "new-extra": ("[dependency-groups]", "z = []\n[dependency-groups]", "`p1` has the extra `z`"),
    "self": ("p1[y]", "p1[y,x]", "`p1` requires `p1[x,y]`"),
    "in-group": ("mid>=1;", "mid>=2;", "group `dev` of `p1` requires `mid>=2; sys_platform"),
    "include": ('{include-group = "docs"}', "", "group `dev` of `p1` no longer requires `"),
    "new-empty-group": ("empty = []", "empty = []\nmore = []", "`p1` has the group `more`"),
    "no-group": ("empty = []", "", "`p1` no longer has the group `empty`"),
    "default-groups": (
        "empty = []",
        "empty = []\n[tool.uv]\ndefault-groups = []",
        "the default groups of `p1` are none",
    ),
    "package": ("empty = []", "empty = []\n[tool.uv]\npackage = true", "`p1` is a package to be installed"),
    "constraint": (
        "empty = []",
        'empty = []\n[tool.uv]\nconstraint-dependencies = ["leaf<9"]',
        "as constraint, it requires `leaf<9`",
    ),
    "override": (
        "empty = []",
        'empty = []\n[tool.uv]\noverride-dependencies = ["mid>=1"]',
        "as override, it requires `mid>=1`",
    ),
}
ACCEPTED = {
    "description": ('"one"', '"two"'),
    "spelling": ("leaf>=1.0", "Leaf >= 1"),
    "order": ("mid[m]>=1,<3", "mid[m]<3,>=1"),
    "marker-spelled": ("python_version < '3.13'", "python_full_version < '3.13'"),
    "marker-turned": ("sys_platform == 'linux'", "'linux' == sys_platform"),
    "marker-implied": ("python_version < '3.13'", "python_version < '3.13' and python_version >= '3.9'"),
    "include-flattened": ('{include-group = "docs"}', '"mid>=1; sys_platform == \'win32\'", "p1[x]"'),
    "default-groups": ("empty = []", 'empty = []\n[tool.uv]\ndefault-groups = ["dev"]'),
    "not-a-package": ("empty = []", "empty = []\n[tool.uv]\npackage = false"),
    "requires-python-spelled": (">=3.11", ">= 3.11.0"),
    "twice": ('"leaf>=1.0", ', '"leaf>=1.0", "leaf>=1", '),
}


def edited(old: str, new: str, text: str = PROJECT) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


@uv
@pytest.mark.parametrize("edit", NOTICED)
def test_an_edit_that_uv_would_lock_again_is_noticed(project: Uv, edit: str) -> None:
    """What uv refuses with --check is named, with both sides where there are two."""
    old, new, said = NOTICED[edit]
    project.write(PROJECT)
    project.lock()
    assert project.verdict == Verdict()
    project.write(edited(old, new))
    assert not project.accepts
    assert said in project.verdict.differences[0]


@uv
@pytest.mark.parametrize("edit", ACCEPTED)
def test_what_uv_accepts_is_not_called_stale(project: Uv, edit: str) -> None:
    """Another spelling of the same is the same, however uv writes it down."""
    project.write(PROJECT)
    project.lock()
    project.write(edited(*ACCEPTED[edit]))
    assert project.accepts
    assert project.verdict == Verdict()


BOUND = (
    PROJECT
    + """
[tool.uv]
constraint-dependencies = ["leaf<9", "mid>=1; sys_platform == 'linux'", "leaf>=1"]
override-dependencies = ["leaf>=1,<8", "tool; sys_platform == 'never'"]
"""
)


@uv
@pytest.mark.parametrize(
    ("old", "new", "is_stale"),
    [
        ('"leaf<9"', '"leaf<9"', False),
        ('"leaf<9"', '"Leaf < 9.0"', False),
        ('"leaf<9"', '"leaf<7"', True),
        ('"leaf<9", ', "", True),
        ('"leaf>=1,<8", ', "", True),
        ("'never'", "'win32'", True),
    ],
)
def test_constraints_and_overrides_are_compared(project: Uv, old: str, new: str, is_stale: bool) -> None:
    """A bound that was set for a reason, and not locked, is noticed, as by uv."""
    project.write(BOUND)
    project.lock()
    project.write(edited(old, new, BOUND))
    assert project.accepts is not is_stale
    assert bool(project.verdict.differences) is is_stale


# Workspaces and sources

ROOT = """\
[project]
name = "root"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["a", "tree", "leaf"]
[dependency-groups]
dev = ["tool"]
[tool.uv.workspace]
members = ["packages/*"]
[tool.uv.sources]
a = { workspace = true }
tree = { path = "elsewhere/tree" }
leaf = [{ path = "leaf", marker = "sys_platform == 'win32'" }]
"""
MEMBER = """\
[project]
name = "{name}"
version = "1.0"
dependencies = ["mid"]
"""


@pytest.fixture
def workspace(project: Uv) -> Uv:
    project.write(ROOT)
    project.write(MEMBER.format(name="a"), "packages/a")
    project.write(MEMBER.format(name="b"), "packages/b")
    project.write(MEMBER.format(name="tree"), "elsewhere/tree")
    project.write(MEMBER.format(name="leaf"), "leaf")
    project.lock()
    return project


def members(workspace: Uv) -> Verdict:
    """Compare with those trees only that are members."""
    places = [".", *(f"packages/{path.name}" for path in (workspace.directory / "packages").iterdir())]
    projects = {place: tomllib.loads((workspace.directory / place / "pyproject.toml").read_text()) for place in places}
    return of_uv(tomllib.loads((workspace.directory / "uv.lock").read_text()), projects)


@uv
def test_a_workspace_that_was_just_locked_is_not_stale(workspace: Uv) -> None:
    """Members, path dependencies, and a source for one system only."""
    assert workspace.accepts
    assert members(workspace) == Verdict()


@uv
@pytest.mark.parametrize(
    ("member", "text", "said"),
    [
        (".", ROOT.replace('"a", ', ""), "`root` no longer requires `a`"),
        (".", ROOT.replace('"tree", ', ""), "`root` no longer requires `tree`"),
        (".", ROOT.replace('"leaf"]', '"leaf[x]"]'), "`root` requires `leaf[x]`, and in the lock file it is `leaf;"),
        ("packages/b", MEMBER.format(name="b").replace('"mid"', '"mid>1"'), "`b` requires `mid>1`, and in the lock"),
        ("packages/c", MEMBER.format(name="c"), "`c` is a member of the workspace"),
        ("packages/b", MEMBER.format(name="b2"), "`b2` is a member of the workspace"),
    ],
)
def test_edits_of_members_are_noticed(workspace: Uv, member: str, text: str, said: str) -> None:
    """Whichever pyproject.toml of the workspace it is."""
    workspace.write(text, member)
    assert not workspace.accepts
    assert said in members(workspace).differences[0]


@uv
def test_groups_of_a_workspace_without_a_project_are_compared(project: Uv) -> None:
    """They are kept in the manifest, where empty ones do not count."""
    root = '[dependency-groups]\ndev = ["leaf"]\nmore = []\n[tool.uv.workspace]\nmembers = ["a"]\n'
    project.write(root)
    project.write(MEMBER.format(name="a"), "a")
    project.lock()
    project.write(root.replace("more = []", "other = []"))
    assert project.accepts
    assert project.verdict == Verdict()
    project.write(root.replace('"leaf"', '"leaf<9"'))
    assert not project.accepts
    assert project.verdict.summary == (
        "group `dev` of the workspace requires `leaf<9`, and in the lock file it is `leaf`"
    )


@uv
def test_what_is_known_only_by_a_build_is_not_called_current(project: Uv) -> None:
    """With a dynamic version, what is static is compared; with dynamic requirements, nothing is known of them."""
    project.write(PROJECT)
    project.lock()
    assert project.verdict.unchecked == ""
    project.write(edited('version = "1.0"', 'dynamic = ["version"]', edited('"p1[y]"', "")))
    assert project.verdict.summary == (
        "the version of `p1` is dynamic, and in the lock file 1.0; `p1` no longer requires `p1[y]; extra == 'x'`"
    )
    dependencies = PROJECT[PROJECT.index("dependencies = ") : PROJECT.index("\n\n[project.opt")]
    project.write(edited(dependencies, 'dynamic = ["dependencies"]'))
    assert project.verdict == Verdict(unchecked="what `p1` requires is known only once it is built")


@uv
def test_a_lock_file_without_metadata_was_not_checked(project: Uv) -> None:
    """Since revision 4 it may lack what it was made from."""
    project.write(PROJECT)
    project.lock()
    path = project.directory / "uv.lock"
    text = path.read_text()
    path.write_text(text[: text.index("[package.metadata]")])
    assert project.verdict == Verdict(unchecked="it does not keep what `p1` requires")


# Poetry and PDM

POETRY = """\
[project]
name = "p1"
version = "1.0"
description = "one"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
x = []
[tool.poetry]
package-mode = false
[tool.poetry.dependencies]
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
"""
OLD_POETRY = """\
[tool.poetry]
name = "p1"
version = "1.0"
description = "one"
authors = []
package-mode = false
[tool.poetry.dependencies]
python = ">=3.11"
[tool.poetry.extras]
"""


def of_poetry(directory: Path) -> Verdict:
    text = (directory / "poetry.lock").read_text()
    project = tomllib.loads((directory / "pyproject.toml").read_text())
    return by_hash.of_poetry(tomllib.loads(text), text.partition("\n")[0], project)


@poetry
@pytest.mark.parametrize(
    ("before", "old", "new", "is_stale"),
    [
        (POETRY, "dependencies = []", 'dependencies = ["leaf"]', True),
        (POETRY, "x = []", "y = []", True),
        (POETRY, "optional = true", "optional = false", True),
        (POETRY, "[tool.poetry.dependencies]", '[dependency-groups]\ndev = ["leaf"]', True),
        (POETRY, "[tool.poetry.dependencies]", "# a comment", True),
        (POETRY, '"one"', '"two"', False),
        (POETRY, "package-mode = false\n", "package-mode = false\nkeywords = []\n", False),
        (OLD_POETRY, "3.11", "3.12", True),
        (OLD_POETRY, "[tool.poetry.extras]", "", True),
        (OLD_POETRY, '"one"', '"two"', False),
    ],
)
def test_the_hash_that_poetry_keeps_is_understood(
    tmp_path: Path, before: str, old: str, new: str, is_stale: bool
) -> None:
    """With a standard project table and without one."""
    path = tmp_path / "pyproject.toml"
    path.write_text(before)
    done = run(tmp_path, "poetry", "lock", "--no-interaction")
    assert done.returncode == 0, done.stderr
    assert of_poetry(tmp_path) == Verdict()
    path.write_text(edited(old, new, before))
    assert (run(tmp_path, "poetry", "check", "--lock").returncode != 0) is is_stale
    assert bool(of_poetry(tmp_path).differences) is is_stale


def test_dependency_groups_count_for_poetry_since_it_knows_them() -> None:
    """Before 2.3 they were left out of its hash, so without them is right, too, if such a one wrote the file."""
    project = {"project": {"dependencies": ["leaf"]}}
    grouped = {**project, "dependency-groups": {"dev": ["tool"]}}
    text = '{"project": {"dependencies": ["leaf"]}, "tool": {"poetry": {}}}'
    lock = {"metadata": {"content-hash": hashlib.sha256(text.encode()).hexdigest()}}
    head = "# This file is automatically @generated by Poetry {} and should not be changed by hand."
    assert by_hash.of_poetry(lock, head.format("2.5.1"), project) == Verdict()
    assert by_hash.of_poetry(lock, head.format("2.5.1"), grouped).differences
    assert by_hash.of_poetry(lock, head.format("2.2.0"), grouped) == Verdict()
    assert by_hash.of_poetry({"metadata": {}}, head, project).unchecked == "it has no content-hash"


PDM = """\
[project]
name = "p1"
version = "1.0"
description = "one"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
x = []
[dependency-groups]
Some_Docs = []
[tool.pdm]
distribution = false
[tool.pdm.dev-dependencies]
some-docs = []
[tool.pdm.resolution]
respect-source-order = true
"""


@pdm
@pytest.mark.parametrize(
    ("old", "new", "is_stale"),
    [
        ("dependencies = []\n[project", 'dependencies = ["leaf"]\n[project', True),
        ("x = []", "y = []", True),
        ("3.11", "3.12", True),
        ("Some_Docs", "others", True),
        ("respect-source-order = true", "allow-prereleases = true", True),
        ("Some_Docs", '"Some.Docs"', False),
        ('"one"', '"two"', False),
    ],
)
def test_the_hash_that_pdm_keeps_is_understood(tmp_path: Path, old: str, new: str, is_stale: bool) -> None:
    """Groups of both tables are one, by their normalized names."""
    path = tmp_path / "pyproject.toml"
    path.write_text(PDM)

    def verdict() -> Verdict:
        return by_hash.of_pdm(tomllib.loads((tmp_path / "pdm.lock").read_text()), tomllib.loads(path.read_text()))

    (tmp_path / ".pdm-python").write_text(sys.executable)
    done = run(tmp_path, "pdm", "lock")
    assert done.returncode == 0, done.stderr
    assert verdict() == Verdict()
    path.write_text(edited(old, new, PDM))
    assert (run(tmp_path, "pdm", "lock", "--check").returncode != 0) is is_stale
    assert bool(verdict().differences) is is_stale


@pytest.mark.parametrize(
    ("lock", "project", "said"),
    [
        ({}, {}, "it has no content_hash of SHA-256"),
        ({"content_hash": "md5:00"}, {}, "it has no content_hash of SHA-256"),
        ({"content_hash": "sha256:00", "lock_inputs": {}}, {}, "it has its inputs in a form that only PDM compares"),
        ({"content_hash": "sha256:00"}, {"workspace": {}}, "its hash covers the members of a workspace"),
    ],
)
def test_what_only_pdm_can_compare_was_not_checked(lock: dict[str, Any], project: dict[str, Any], said: str) -> None:
    """Where the hash is of something else, or there is none."""
    verdict = by_hash.of_pdm({"metadata": lock}, {"tool": {"pdm": project}})
    assert not verdict.differences
    assert verdict.unchecked.startswith(said)


# Anything

NAMES = st.sampled_from(["leaf", "mid", "mid[m]", "tool", "Mid[n,m]"])
VERSIONS = st.sampled_from(["", ">=1", ">=1.0", "<3", "!=1.5,>=1", "==1.*", "~=1.0"])
MARKERS = st.sampled_from(
    [
        "",
        "python_version < '3.13'",
        "python_full_version < '3.13'",
        "python_version >= '3.11'",
        "python_version >= '3.11.2'",
        "python_version < '3.9'",
        "python_version in '3.12 3.13'",
        "python_version != '3.12'",
        "python_full_version == '3.12.*'",
        "python_version ~= '3.12'",
        "sys_platform == 'win32'",
        "platform_system == 'Windows'",
        "os_name == 'nt' and sys_platform == 'linux'",
        "sys_platform != 'win32' and sys_platform != 'darwin'",
        "sys_platform not in 'win32 darwin'",
        "platform_machine == 'x86_64' or platform_machine == 'aarch64'",
        "platform_machine in 'x86_64 aarch64'",
        "implementation_name == 'cpython'",
        "platform_python_implementation == 'CPython'",
        "platform_release >= '5'",
        "'Microsoft' in platform_version",
    ]
)
RESPELLED = [
    lambda text: text.replace("python_version", "python_full_version"),
    lambda text: text.replace("platform_system == 'Windows'", "sys_platform == 'win32'"),
    lambda text: text.replace("leaf", "LEAF"),
    lambda text: text.replace(">=1", ">=1.0"),
    lambda text: text.replace("; ", " ;  "),
    lambda text: text.replace("[m]", "[n]"),
    lambda text: f"{text} and os_name != 'x'" if ";" in text else text,
    lambda text: f"{text} or python_version >= '3.9'" if ";" in text else text,
]
"""What may or may not make a difference: uv says."""
REQUIREMENTS = st.lists(
    st.tuples(NAMES, VERSIONS, MARKERS).map(lambda of: f"{of[0]}{of[1]}{'; ' if of[2] else ''}{of[2]}"), max_size=3
)
PROJECTS = st.sampled_from([("",), ("", "x"), ("", "+dev"), ("", "x", "+g")]).flatmap(
    lambda names: st.fixed_dictionaries(dict.fromkeys(names, REQUIREMENTS))
)
"""What a project requires: of its own, in extras, in groups."""


def written(required: dict[str, list[str]]) -> str:
    lines = ["[project]", 'name = "p1"', 'version = "1.0"', 'requires-python = ">=3.11"']
    lines += [f"dependencies = {required['']}", "[project.optional-dependencies]"]
    lines += [f"{name} = {listed}" for name, listed in required.items() if name and name[0] != "+"]
    lines += ["[dependency-groups]"]
    return "\n".join([*lines, *(f"{name[1:]} = {listed}" for name, listed in required.items() if name[:1] == "+")])


@uv
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=PROJECTS, data=st.data())
def test_nothing_that_uv_accepts_is_called_stale(
    tmp_path: Path, wheels: Path, before: dict[str, list[str]], data: st.DataObject
) -> None:
    """A project whose requirements were spelled otherwise: where uv says that it is the same, so do we."""
    project = Uv(tmp_path / os.urandom(4).hex(), wheels)
    project.write(written(before))
    project.lock()
    assert project.verdict == Verdict()
    other = data.draw(st.sampled_from(RESPELLED))
    project.write(written({name: [other(each) for each in reversed(listed)] for name, listed in before.items()}))
    assert not (project.verdict.differences and project.accepts)
