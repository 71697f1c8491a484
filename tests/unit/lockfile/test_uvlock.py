"""uv.lock: what is selected for which options, which file is taken, and every refusal.

The expected sets were seen in runs of uv 0.13.9; tests/real compares with a uv that is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import LockFileError, NoWheelError
from envsync.lockfile import Choice, read
from envsync.lockfile.target import Artifact, Target
from envsync.python.facts import Interpreter
from envsync.system import paths
from tests.uv_oracle import flags

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


def typed(value: object) -> str | None:
    """Call a test by the options that it is about."""
    return " ".join(flags(value)) or "no options" if isinstance(value, Choice) else None


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
    ids=typed,
)
def test_extras_and_groups_of_one_project(select: Select, choice: Choice, selected: str) -> None:
    """Extras add what they require, groups come in addition, and what is left out leaves out only itself."""
    assert names(select(SINGLE, choice)) == selected


def refused(select: Select, *arguments: Any, **options: Any) -> LockFileError:
    with pytest.raises(LockFileError) as caught:
        select(*arguments, **options)
    assert "`" in caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(extras=("z",)), "the extra `z`; the extras that it defines: nothing, x, y"),
        (Choice(all_extras=True, no_extras=("z",)), "the extra `z`"),
        (Choice(groups=("z",)), "the group `z`; the groups that it defines: dev, docs, empty, selfx"),
        (Choice(only_groups=("z",)), "the group `z`"),
        (Choice(no_groups=("z",)), "the group `z`"),
        (Choice(packages=("z",)), "no workspace member `z`; its members: p1"),
    ],
    ids=typed,
)
def test_what_is_not_defined_is_refused_by_name(select: Select, choice: Choice, said: str) -> None:
    """With what there is instead."""
    assert said in refused(select, SINGLE, choice).problem


@pytest.mark.parametrize("option", ["no_groups", "only_groups"])
def test_leaving_out_a_dev_group_that_is_not_there_is_no_error(select: Select, option: str) -> None:
    """`--no-dev` and `--only-dev` are typed out of habit."""
    choice = Choice(**{option: ("dev",)}, dev_if_any=True)  # type: ignore[arg-type]
    selected = select([package("leaf"), project("p", dependencies=edges("leaf"))], choice)
    assert names(selected) == ("" if choice.only_groups else "leaf")


# Default groups


@pytest.mark.parametrize(
    ("said", "selected"),
    [
        ("", "both leaf mid"),
        ('[tool.uv]\ndefault-groups = ["docs"]', "both cpuonly leaf mid"),
        ("[tool.uv]\ndefault-groups = []", "leaf mid"),
        ('[tool.uv]\ndefault-groups = "all"', "both cpuonly leaf mid tool"),
    ],
)
def test_default_groups_are_read_from_pyproject_toml(select: Select, tmp_path: Path, said: str, selected: str) -> None:
    """Whatever the lock file says; so that file is an input."""
    assert names(select(SINGLE, pyproject=said)) == selected
    assert read(str(tmp_path / "uv.lock")).inputs == (str(tmp_path / "uv.lock"), str(tmp_path / "pyproject.toml"))


def test_without_a_pyproject_toml_the_lock_file_says_it(select: Select) -> None:
    """From revision 5 on; before, it is the usual group."""
    packages = [*SINGLE[:-1], {**SINGLE[-1], "default-groups": ["docs"]}]
    assert names(select(packages)) == "both cpuonly leaf mid"
    assert names(select([*SINGLE[:-1], {**SINGLE[-1], "default-groups": "all"}])) == "both cpuonly leaf mid tool"
    assert names(select(SINGLE, revision=3)) == "both leaf mid"


@pytest.mark.parametrize("text", ["[tool", '[tool.uv]\ndefault-groups = "dev"', "tool = 1"])
def test_a_pyproject_toml_that_makes_no_sense_is_named(select: Select, tmp_path: Path, text: str) -> None:
    """It is not passed over: then something else would be installed."""
    assert f"`{tmp_path}/pyproject.toml`: " in refused(select, SINGLE, pyproject=text).problem


# Workspaces

WORKSPACE = [
    *(package(name) for name in ("both", "cpuonly", "leaf", "mid", "opt", "srconly", "tool", "winonly")),
    project(
        "a",
        "a",
        "editable",
        dependencies=edges("b"),
        optional_dependencies={"ex": edges("cpuonly")},
        dev_dependencies={"ag": edges("srconly"), "dev": edges("mid")},
        default_groups="all",
    ),
    project("b", "lib/b", "editable", dependencies=edges("leaf"), optional_dependencies={"ex": edges("opt")}),
    project("c", "c", dev_dependencies={"dev": edges("winonly")}),
    project("root", dependencies=edges("a"), dev_dependencies={"dev": edges("tool"), "rootg": edges("both")}),
]
MANIFEST = {"members": ["a", "b", "c", "root"]}
WITHOUT: Values = {"no_install_workspace": True}


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(**WITHOUT), "leaf tool"),
        (Choice(member="./", **WITHOUT), "leaf tool"),
        (Choice(member="c"), "winonly"),
        (Choice(member="a/", **WITHOUT), "leaf mid srconly"),
        (Choice(packages=("A",), **WITHOUT), "leaf mid srconly"),
        (Choice(packages=("c",)), "winonly"),
        (Choice(packages=("c", "C")), "winonly"),
        (Choice(packages=("c",), member="new"), "winonly"),
        (Choice(all_packages=True, **WITHOUT), "leaf mid tool winonly"),
        (Choice(all_packages=True, extras=("ex",), **WITHOUT), "cpuonly leaf mid opt tool winonly"),
        (Choice(packages=("b",), groups=("rootg",), **WITHOUT), "both leaf"),
        (Choice(member="lib/b", groups=("rootg",), **WITHOUT), "both leaf"),
        (Choice(packages=("b",), all_groups=True, **WITHOUT), "both leaf tool"),
        (Choice(packages=("b", "c"), **WITHOUT), "leaf winonly"),
    ],
    ids=typed,
)
def test_members_of_a_workspace(select: Select, choice: Choice, selected: str) -> None:
    """The one that is named, or else the one that one stands in; it may borrow a group of the root."""
    assert names(select(WORKSPACE, choice, manifest=MANIFEST)) == selected


@pytest.mark.parametrize("member", ["new", "a/src/a"])
def test_a_project_that_was_never_locked(select: Select, member: str) -> None:
    """uv refuses, too, where one stands in a pyproject.toml that is no member's: the root is not what was meant."""
    error = refused(select, WORKSPACE, Choice(member=member, no_install_workspace=True), manifest=MANIFEST)
    assert f"does not have the project in `{member}`" in error.problem
    assert error.hint == "lock that one: `uv lock`; or take one that it has: `envsync sync --package root`"


def test_two_members_borrow_nothing(select: Select) -> None:
    """A group of the root is asked of one member alone."""
    choice = Choice(packages=("b", "c"), groups=("rootg",), no_install_workspace=True)
    assert "the group `rootg`" in refused(select, WORKSPACE, choice, manifest=MANIFEST).problem


def test_members_say_their_default_groups_themselves_before_revision_5(select: Select, tmp_path: Path) -> None:
    """Only those that have groups are read for that."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pyproject.toml").write_text('[tool.uv]\ndefault-groups = ["ag"]')
    (tmp_path / "lib" / "b").mkdir(parents=True)
    (tmp_path / "lib" / "b" / "pyproject.toml").write_text("")
    target = select(WORKSPACE, Choice(member="a", no_install_workspace=True), manifest=MANIFEST, revision=3)
    assert names(target) == "leaf srconly"
    inputs = ("uv.lock", "pyproject.toml", "a/pyproject.toml", "c/pyproject.toml")
    assert read(str(tmp_path / "uv.lock")).inputs == tuple(f"{tmp_path}/{name}" for name in inputs)


NO_PROJECT: Values = {
    "members": ["a", "b"],
    "dependency-groups": {"dev": edges("tool"), "g": [{"name": "a", "extras": ["ex"], "editable": "a"}, edge("both")]},
}


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(**WITHOUT), "leaf mid tool"),
        (Choice(only_groups=("g",), **WITHOUT), "both cpuonly leaf"),
        (Choice(packages=("b",), groups=("g",), **WITHOUT), "both cpuonly leaf"),
        (Choice(packages=("b",), **WITHOUT), "leaf"),
    ],
    ids=typed,
)
def test_a_workspace_whose_root_is_no_project(select: Select, choice: Choice, selected: str) -> None:
    """Its root stands for all members, and has groups of its own."""
    packages = [*WORKSPACE[:8], {**WORKSPACE[8], "default-groups": ["dev"]}, WORKSPACE[9]]
    assert names(select(packages, choice, manifest=NO_PROJECT)) == selected


def test_the_lock_file_of_a_script(select: Select) -> None:
    """Its requirements are in the manifest; it has neither extras nor groups nor a project."""
    packages = [*SINGLE[:-1], package("opt-2", optional_dependencies={"all": edges("both")})]
    manifest = {"requirements": [{"name": "opt-2", "extras": ["all"]}, {"name": "tool", "marker": "os_name == 'nt'"}]}
    assert names(select(packages, name="job.py.lock", manifest=manifest)) == "both opt-2"
    problem = refused(select, packages, Choice(groups=("x",)), name="job.py.lock", manifest=manifest)
    assert "uv lock --script job.py`" in problem.hint


# Forks and conflicts


def forked(version: str, marker: str) -> Values:
    return edge("leaf", marker, version=version, source={"registry": INDEX})


TWO_LEAVES = [package("leaf"), package("leaf", "2.0")]
EXCLUDING = [
    *TWO_LEAVES,
    package(
        "mid",
        dependencies=[
            forked("1.0", "extra != 'extra-2-p1-new' or extra == 'extra-2-p1-old' or extra == 'group-2-p1-oldg'"),
            forked("2.0", "extra == 'extra-2-p1-new'"),
        ],
    ),
    project(
        "p1",
        dependencies=edges("mid"),
        optional_dependencies={
            "new": [forked("2.0", "extra == 'extra-2-p1-new'")],
            "old": [forked("1.0", "extra == 'extra-2-p1-old'")],
        },
        dev_dependencies={"oldg": [forked("1.0", "")], "self": [edge("p1", "", "new")]},
    ),
]
CONFLICTS = [
    [{"package": "p1", "extra": "new"}, {"package": "p1", "extra": "old"}],
    [{"package": "p1", "extra": "new"}, {"package": "p1", "group": "oldg"}],
]


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(), "leaf mid"),
        (Choice(extras=("new",)), "leaf-2.0 mid"),
        (Choice(extras=("old",)), "leaf mid"),
        (Choice(groups=("oldg",)), "leaf mid"),
        (Choice(groups=("self",)), "leaf-2.0 mid"),
        (Choice(all_extras=True, no_extras=("new",)), "leaf mid"),
    ],
    ids=typed,
)
def test_what_excludes_each_other_tells_versions_apart(select: Select, choice: Choice, selected: str) -> None:
    """What is active decides, wherever it was switched on."""
    assert names(select(EXCLUDING, choice, conflicts=CONFLICTS)) == selected


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(all_extras=True), "the extra `new` of `p1` and the extra `old` of `p1` exclude each other"),
        (Choice(extras=("new",), groups=("oldg",)), "the extra `new` of `p1` and the group `oldg` of `p1` exclude"),
        (Choice(groups=("self", "oldg")), "the extra `new` of `p1` and the group `oldg` of `p1` exclude"),
    ],
    ids=typed,
)
def test_two_that_exclude_each_other_are_named(select: Select, choice: Choice, said: str) -> None:
    """Also if one of them was switched on by something else."""
    assert said in refused(select, EXCLUDING, choice, conflicts=CONFLICTS).problem


def test_an_extra_that_is_only_seen_later_counts_from_the_beginning(select: Select) -> None:
    """`early` is reached before it is known that `p1[new]` is active: it gets the version that belongs to it."""
    packages = [
        *EXCLUDING[:2],
        package("early", dependencies=EXCLUDING[2]["dependencies"]),
        package("late", dependencies=[edge("later")]),
        package("later", dependencies=[edge("p1", "", "new")]),
        {**EXCLUDING[3], "dependencies": edges("early", "late")},
    ]
    assert names(select(packages, conflicts=CONFLICTS)) == "early late later leaf-2.0"


def test_what_is_not_reached_in_the_end_switches_nothing_on(select: Select) -> None:
    """`off` stands behind a marker that the way there contradicts: its own was shortened, and cannot stand alone."""
    packages = [
        *EXCLUDING[:3],
        package("gate", dependencies=[edge("off")]),
        package("off", dependencies=[edge("p1", "extra != 'extra-2-p1-new'", "old")]),
        {**EXCLUDING[3], "dependencies": [*edges("mid"), edge("gate", "extra != 'extra-2-p1-new'")]},
    ]
    assert names(select(packages, Choice(extras=("new",)), conflicts=CONFLICTS)) == "leaf-2.0 mid"


def test_projects_that_exclude_each_other(select: Select) -> None:
    """Each is installed by itself, both at once are refused."""
    packages = [
        *TWO_LEAVES,
        package(
            "mid", dependencies=[forked("1.0", "extra == 'project-2-q1'"), forked("2.0", "extra == 'project-2-q2'")]
        ),
        project("q1", "q1", dependencies=edges("mid")),
        project("q2", "q2", dependencies=edges("mid")),
        project("wr"),
    ]
    top = {"manifest": {"members": ["q1", "q2", "wr"]}, "conflicts": [[{"package": "q1"}, {"package": "q2"}]]}
    assert names(select(packages, Choice(packages=("q1",)), **top)) == "leaf mid"
    assert names(select(packages, Choice(packages=("q2",)), **top)) == "leaf-2.0 mid"
    assert names(select(packages, **top)) == ""
    error = refused(select, packages, Choice(all_packages=True), **top)
    assert "the project `q1` and the project `q2` exclude each other" in error.problem


FORKED = [
    *TWO_LEAVES,
    package("mid", dependencies=[forked("1.0", "sys_platform != 'linux'"), forked("2.0", "sys_platform == 'linux'")]),
    project("p", dependencies=edges("mid")),
]


def test_a_fork_gives_the_version_for_this_system(select: Select, interpreter: Interpreter) -> None:
    """Markers on edges tell which."""
    mac = interpreter._replace(markers={**interpreter.markers, "sys_platform": "darwin"})
    assert names(select(FORKED)) == "leaf-2.0 mid"
    assert names(select(FORKED, target=mac)) == "leaf mid"


def test_an_environment_that_was_not_locked_for_is_refused(select: Select) -> None:
    """There, the markers on edges mean nothing."""
    only_mac = {"supported_markers": ["sys_platform == 'darwin'", "sys_platform == 'win32'"]}
    assert "sys_platform == 'darwin'; sys_platform == 'win32'" in refused(select, FORKED, **only_mac).problem
    error = refused(select, FORKED, requires_python=">=3.12")
    assert "it needs Python >=3.12, and the target is 3.11.7" in error.problem


# Files


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


def holding(*records: Values) -> list[Values]:
    """Return records, and a project that requires them."""
    return [*records, project("p", dependencies=edges(*(record["name"] for record in records)))]


def test_the_wheel_with_the_best_tag_is_taken_then_the_one_with_the_highest_build(select: Select) -> None:
    """As uv does: the order of the interpreter's tags, and a build number only among equals."""
    tag = "cp311-cp311-manylinux"
    files = [
        wheel("leaf-1.0-py3-none-any.whl"),
        wheel(f"leaf-1.0-2-{tag}_2_17_x86_64.whl"),
        wheel(f"leaf-1.0-1-{tag}_2_28_x86_64.whl"),
        wheel(f"leaf-1.0-10-{tag}_2_28_x86_64.whl"),
        wheel(f"leaf-1.0-9-{tag}_2_28_aarch64.whl"),
    ]
    artifact = one(select(holding(package("leaf", wheels=files))))
    assert artifact.filename == f"leaf-1.0-10-{tag}_2_28_x86_64.whl"
    assert artifact.url == f"{FILES}/{artifact.filename}"
    assert artifact.hashes == {"sha256": SHA}
    assert artifact.direct_url is None


def test_a_local_version_is_percent_encoded_in_its_url(select: Select) -> None:
    """The file's name has the plus sign."""
    files = [wheel("leaf-2.0%2Bcpu-py3-none-any.whl")]
    artifact = one(select(holding(package("leaf", "2.0+cpu", wheels=files))))
    assert (artifact.filename, artifact.version) == ("leaf-2.0+cpu-py3-none-any.whl", "2.0+cpu")


def test_wheels_without_a_hash_are_taken_and_known_as_such(select: Select, tmp_path: Path) -> None:
    """Some indexes give none; then options of the index and places count for the digest."""
    target = select(holding(package("leaf", wheels=[wheel("leaf-1.0-py3-none-any.whl", None)]), package("mid")))
    assert target.unverified == ("leaf",)
    lock = read(str(tmp_path / "uv.lock"))
    assert (lock.unhashed, lock.placed) == (True, False)
    assert select(holding(package("mid"))).unverified == ()
    assert read(str(tmp_path / "uv.lock")).unhashed is False


def test_an_index_in_a_directory(select: Select, tmp_path: Path) -> None:
    """Paths are relative to it, and that to the lock file; there is no hash, so the file itself is watched."""
    record = package("leaf", source={"registry": "../flat"}, wheels=[{"path": "leaf-1.0-py3-none-any.whl"}])
    target = select(holding(record))
    place = str(tmp_path.parent / "flat" / "leaf-1.0-py3-none-any.whl")
    assert one(target).path == place
    assert target.local_files == (place,)
    assert one(target).direct_url is None
    assert read(str(tmp_path / "uv.lock")).placed is True


def test_a_wheel_by_url_and_one_by_path(select: Select, tmp_path: Path) -> None:
    """Both are written down as asked for directly (PEP 610)."""
    url = f"{FILES}/leaf-1.0-py3-none-any.whl"
    by_url = package("leaf", source={"url": url}, wheels=[wheel("leaf-1.0-py3-none-any.whl")])
    named = {"filename": "mid-1.0-py3-none-any.whl", "hash": f"sha512:{'b' * 128}"}
    by_path = package("mid", source={"path": "dist/mid-1.0-py3-none-any.whl"}, wheels=[named])
    first, second = select(holding(by_url, by_path)).artifacts
    assert json.loads(first.direct_url or "")["url"] == url
    assert second.path == str(tmp_path / "dist" / "mid-1.0-py3-none-any.whl")
    assert second.hashes == {"sha512": "b" * 128}
    assert json.loads(second.direct_url or "")["url"] == paths.url_of(second.path)


SDIST = {"url": f"{FILES}/srconly-1.0.tar.gz", "hash": f"sha256:{SHA}"}
SRCONLY = package("srconly", wheels=[], sdist=SDIST)
WINONLY = package("winonly", wheels=[wheel("winonly-1.0-cp311-cp311-win_amd64.whl")])
NEWER = package("newer", wheels=[wheel("newer-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")], sdist=SDIST)
GIT = package(
    "git-1",
    source={"git": f"https://user:secret@host.invalid/r?subdirectory=a%2Fb&rev=v1#{SHA[:40]}"},
    wheels=[],
)
BOTH = package("both", sdist={**SDIST, "url": f"{FILES}/both-1.0.tar.gz"})


@pytest.mark.parametrize(
    ("record", "settings", "said"),
    [
        (SRCONLY, "no-build = true", "(`srconly-1.0.tar.gz`), and `no-build` in pyproject.toml forbids to build it"),
        (WINONLY, "", "no wheel fits cpython 3.11 on x86_64; its best tag is cp311-cp311-manylinux_2_28_x86_64 (tags"),
        (NEWER, "no-build = true", "(tags available: cp312-cp312-manylinux_2_17_x86_64), there is only a source"),
        (BOTH, 'no-binary-package = ["Both"]\nno-build = true', "`no-binary` in pyproject.toml and `no-build` in"),
        (WINONLY, "no-binary = true", "there are only wheels, which `no-binary` in pyproject.toml forbids"),
        (GIT, "no-build = true", "it comes from a git repository, and `no-build` in pyproject.toml forbids"),
        (project("dir", "../dir", "directory"), "no-build = true", "it comes from a directory, and `no-build` in"),
        (
            project("dir", "../dir", "editable"),
            'no-build-package = ["dir"]',
            "it comes from a directory, and `no-build`",
        ),
        (package("bare", wheels=[]), "", "no file of it is named"),
    ],
)
def test_a_package_without_a_file_says_why(select: Select, record: Values, settings: str, said: str) -> None:
    """Each case has its own text, and nothing secret in it."""
    error = refused(select, holding(record), pyproject=f"[tool.uv]\n{settings}\n")
    assert f"package `{record['name']}`: " in error.problem
    assert said in error.problem
    assert "secret" not in error.problem + error.hint
    name = record["name"]
    assert names(select(holding(record), Choice(no_install_packages=(name,)))) == ""


def test_all_that_cannot_be_installed_is_named_at_once(select: Select) -> None:
    """Who mends one does not want to find the next."""
    error = refused(select, holding(SRCONLY, WINONLY, NEWER, GIT), Choice(no_build=True))
    assert isinstance(error, NoWheelError)
    assert error.problem.startswith("4 of its packages cannot be installed:")


# What is no uv.lock


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('version = 2\nrequires-python = ">=3.11"', "its version 2 is not supported, envsync reads 1"),
        ("version = 1", "it has no `requires-python`"),
        ('version = 1\nrequires-python = "abc"', "Invalid specifier: 'abc'"),
        ("version = 1\nrequires-python = 3", "`requires-python` is not a text"),
        ("[[package]", "it is not TOML: "),
        (lock_text([package("a", source={"svn": "x"})]), "package `a`: its source is none of registry, url, path"),
        (lock_text([package("a", source={})]), "package `a`: its source is none of"),
        (lock_text([package("a", dependencies=edges("b"))]), "package `a`: it depends on `b`, and there is no such"),
        (lock_text([*TWO_LEAVES, package("a", dependencies=edges("leaf"))]), "on `leaf`, and it has 2 of that name"),
        (
            lock_text([*TWO_LEAVES, package("a", dependencies=[edge("leaf", version="3.0")])]),
            "it depends on `leaf` 3.0, and there is no such package",
        ),
        (lock_text([package("a", dependencies="b")]), "package `a`: `dependencies` is not a list"),
        (lock_text([package("a", dependencies=["b"])]), "package `a`: `dependencies` is not a list of tables"),
        (lock_text([package("a", wheels=[{"url": "x", "hash": "abc"}])]), "package `a`: `hash` is not like sha256"),
        (lock_text([{"version": "1.0"}]), "something in it has no name"),
        (lock_text(holding(package("a", wheels=[wheel("a-1.0-py3-none-any.whl", "md5:1")]))), "`1` is not a md5 hash"),
        (lock_text(holding(package("a", wheels=[wheel("b-1.0-py3-none-any.whl")]))), "is a wheel of something else"),
        (lock_text([project("p", dependencies=[edge("q", "nonsense")]), package("q")]), "makes no sense"),
        (lock_text([], manifest={"members": ["a"]}), "0 packages named `a`, which is a member"),
        (lock_text([], manifest={"requirements": edges("a")}), "it asks for `a`, and 0 of its packages fit"),
        (
            lock_text([*TWO_LEAVES, project("p", dependencies=[forked("1.0", ""), forked("2.0", "")])]),
            "package `leaf`: two of it are selected, 1.0 and 2.0",
        ),
    ],
)
def test_what_uv_does_not_write_is_refused_in_a_sentence(
    tmp_path: Path, interpreter: Interpreter, text: str, said: str
) -> None:
    """With what is wrong, where, and how it is made anew."""
    (tmp_path / "uv.lock").write_text(text)
    with pytest.raises(LockFileError) as caught:
        read(str(tmp_path / "uv.lock")).select(interpreter)
    assert said in caught.value.problem
    assert "`" in caught.value.hint


def test_unknown_keys_and_other_spellings_are_read(select: Select, tmp_path: Path) -> None:
    """Later revisions add keys, and earlier ones have spelled some otherwise."""
    record = project("p", dependencies=edges("leaf"), dependency_groups={"dev": edges("mid")})
    (tmp_path / "uv.lock").write_text(
        f'version = 1\nrevision = 99\nrequires-python = ">=3.8"\nunheard = [1]\n[options]\nexclude-newer = 3\n'
        f'[[distribution]]\nname = "leaf"\nversion = "1.0"\nodd = true\nsource = {{ registry = {json.dumps(INDEX)} }}\n'
        f"wheels = [{toml(wheel('leaf-1.0-py3-none-any.whl', upload_time='2020'))}]\n"
    )
    assert read(str(tmp_path / "uv.lock")).contents[1:] == (b"",)  # a pyproject.toml that may come
    assert names(select([package("leaf"), package("mid"), record], revision=99)) == "leaf mid"


def test_markers_that_look_at_more_than_the_digest_are_told(select: Select, tmp_path: Path) -> None:
    """The full version and the kernel may differ from host to host."""
    markers = ["python_full_version >= '3.11.4'", "platform_release == '6'", "sys_platform == 'linux'"]
    packages = [package("leaf"), project("p", dependencies=[edge("leaf", each) for each in markers])]
    select(packages)
    assert read(str(tmp_path / "uv.lock")).markers == (
        'platform_release == "6"',
        'python_full_version >= "3.11.4"',
        'python_full_version >= "3.11"',
    )


def test_a_group_may_need_another_python_than_the_project(select: Select) -> None:
    """Only pyproject.toml says so; it counts if the group is chosen."""
    said = '[tool.uv.dependency-groups]\ndocs = { requires-python = ">=3.12" }'
    assert names(select(SINGLE, pyproject=said)) == "both leaf mid"
    error = refused(select, SINGLE, Choice(only_groups=("docs",)), pyproject=said)
    assert "the group `docs` needs Python >=3.12, and the target is 3.11.7" in error.problem
