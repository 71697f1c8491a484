"""pdm.lock: what is selected, where its files are looked for, and every refusal. tests/oracle asks PDM itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import EnvsyncError, LockFileError, NoWheelError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, Source, Target
from envsync.python.facts import Interpreter
from tests.unit.lockfile.conftest import Server

A = "a" * 64
COMMIT = "0123456789" * 4
B = "b" * 64
HEAD = """[metadata]
groups = ["default", "dev", "docs", "x", "y"]
strategy = ["inherit_metadata"]
lock_version = "4.5.1"
[[metadata.targets]]
requires_python = ">=3.9"
"""
PROJECT = """[project]
name = "sample"
[project.optional-dependencies]
X = []
y = []
never-locked = []
[dependency-groups]
dev = []
[tool.pdm]
distribution = false
[tool.pdm.dev-dependencies]
Docs = []
"""

Select = Callable[..., Target]


def package(
    name: str, *, version: str = "1.0", files: str | None = None, groups: str = '"default"', **keys: str
) -> str:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    listed = f'{{file = "{filename}", hash = "sha256:{A}"}}' if files is None else files
    keys = {"groups": f"[{groups}]", **keys}
    lines = ["[[package]]", f'name = "{name}"', f'version = "{version}"', f"files = [{listed}]"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    """Write a lock file and a project, and select from it."""

    def select(*packages: str, project: str = PROJECT, head: str = HEAD, **options: Any) -> Target:
        (tmp_path / "pyproject.toml").write_text(project)
        (tmp_path / "pdm.lock").write_text(head + "\n".join(packages))
        options.setdefault("sources", Sources(offline=True))
        return read(str(tmp_path / "pdm.lock")).select(interpreter, **options)

    return select


def names(target: Target) -> str:
    return " ".join(each.name for each in target.artifacts)


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(), "in-default in-dev in-docs in-x in-y"),
        (Choice(no_default_groups=True), "in-default"),
        (Choice(extras=("x",)), "in-default in-dev in-docs in-x"),
        (Choice(extras=("x",), no_default_groups=True), "in-default in-x"),
        (Choice(all_extras=True, no_extras=("y",)), "in-default in-dev in-docs in-x"),
        (Choice(no_extras=("y",)), "in-default in-dev in-docs in-x"),
        (Choice(groups=("docs",)), "in-default in-docs"),
        (Choice(all_groups=True), "in-default in-dev in-docs"),
        (Choice(no_groups=("docs",)), "in-default in-dev in-x in-y"),
        (Choice(no_groups=("default",)), "in-dev in-docs in-x in-y"),
        (Choice(only_groups=("dev",)), "in-dev"),
        (Choice(only_groups=("default",)), "in-default"),
        (Choice(no_install_packages=("in-dev",)), "in-default in-docs in-x in-y"),
    ],
)
def test_groups_are_chosen_as_pdm_chooses_them(select: Select, choice: Choice, selected: str) -> None:
    """All that was locked if nothing is said, extras included."""
    packages = [package(f"in-{group}", groups=f'"{group}"') for group in ("default", "dev", "docs", "x", "y")]
    assert names(select(*packages, choice=choice)) == selected


def test_dev_is_all_groups_for_development_if_none_is_called_so(select: Select) -> None:
    """`--dev` asks for a group that need not be there."""
    packages = [package(f"in-{group}", groups=f'"{group}"') for group in ("default", "docs", "x")]
    choice = Choice(groups=("dev",), dev_if_any=True)
    assert names(select(*packages, project=PROJECT.replace("\ndev = []", ""), choice=choice)) == "in-default in-docs"


def test_a_package_with_extras_is_the_package(select: Select) -> None:
    """It has a record of its own: whichever of them is wanted, it is wanted once."""
    packages = [
        package("foo", groups='"x"', marker="\"python_version < '3.9'\""),
        package("foo", groups='"dev", "y"', extras='["more"]', marker="\"python_version > '3.9'\""),
    ]
    assert names(select(*packages)) == "foo"
    assert names(select(*packages, choice=Choice(extras=("x",), no_default_groups=True))) == ""
    assert names(select(*packages, choice=Choice(extras=("y",), no_default_groups=True))) == "foo"


def test_the_record_whose_marker_holds_is_taken(select: Select) -> None:
    """Of several versions of one package."""
    packages = [
        package("foo", version="1.0", marker="\"python_version < '3.11'\""),
        package("foo", version="2.0", marker="\"python_version >= '3.11'\""),
    ]
    assert one(select(*packages)).version == "2.0"


def test_what_a_project_excludes_is_left_out(select: Select) -> None:
    """PDM passes it over when it installs."""
    project = PROJECT + '[tool.pdm.resolution]\nexcludes = ["Foo"]\n'
    assert names(select(package("foo"), package("bar"), project=project)) == "bar"


def test_files_may_have_urls(select: Select) -> None:
    """With the strategy `static_urls`."""
    url = "https://files.example.invalid/foo-1.0-py3-none-any.whl"
    artifact = one(select(package("foo", files=f'{{url = "{url}", hash = "sha256:{A}"}}'), sources=Sources()))
    assert (artifact.url, artifact.filename) == (url, "foo-1.0-py3-none-any.whl")
    assert artifact.direct_url is None


def test_wheels_at_urls_and_paths_are_taken_from_there(select: Select, tmp_path: Path) -> None:
    """Paths are relative to the lock file."""
    url = "https://files.example.invalid/foo-1.0-py3-none-any.whl"
    packages = [
        package("foo", url=f'"{url}"'),
        package("bar", path='"./wheels/bar-1.0-py3-none-any.whl"'),
        package("baz", url='"file:///${PROJECT_ROOT}/wheels/baz-1.0-py3-none-any.whl"'),
    ]
    bar, baz, foo = select(*packages, sources=Sources()).artifacts
    assert foo.url == url
    assert foo.direct_url is not None
    assert bar.path == str(tmp_path / "wheels/bar-1.0-py3-none-any.whl")
    assert baz.path == str(tmp_path / "wheels/baz-1.0-py3-none-any.whl")


def source(url: str, name: str = "mine", **keys: str) -> str:
    lines = ["[[tool.pdm.source]]", f'name = "{name}"', f'url = "{url}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]) + "\n"


def test_files_are_looked_for_on_the_indexes_of_the_project(
    select: Select, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the credentials that variables have, instead of the default index if one is called so."""
    server.password = "token"
    monkeypatch.setenv("USER_OF_INDEX", "user")
    monkeypatch.setenv("TOKEN_OF_INDEX", "token")
    server.project("foo", f"foo-1.0-py3-none-any.whl#sha256={A}")
    url = f"http://${{USER_OF_INDEX}}:${{TOKEN_OF_INDEX}}@{server.host}/simple"
    artifact = one(select(package("foo"), project=PROJECT + source(url, "pypi"), sources=Sources()))
    assert (artifact.url or "").endswith("/files/foo-1.0-py3-none-any.whl")
    assert "token" in (artifact.url or ""), "a download needs them, too"


def test_a_package_comes_from_the_source_that_includes_it(select: Select, server: Server) -> None:
    """And from no other; one that excludes it is not asked."""
    for name in ("foo-a", "bar"):
        server.project(name, f"{name.replace('-', '_')}-1.0-py3-none-any.whl#sha256={A}")
        filename = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
        server.page(f"/second/{name}/", f'<a href="/second-files/{filename}#sha256={A}">{filename}</a>')
    project = (
        PROJECT
        + source(f"{server.url}/second", include_packages='["Foo_*"]', exclude_packages='["*"]')
        + source(server.index, "pypi")
    )
    bar, foo = select(package("foo-a"), package("bar"), project=project, sources=Sources()).artifacts
    assert foo.url == f"{server.url}/second-files/foo_a-1.0-py3-none-any.whl"
    assert bar.url == f"{server.url}/files/bar-1.0-py3-none-any.whl"
    assert sorted(server.asked) == ["/second/foo-a/", "/simple/bar/"]


def test_an_index_that_is_asked_for_is_asked_instead(select: Select, server: Server) -> None:
    """`--index-url` is a mirror of all."""
    server.project("foo", f"foo-1.0-py3-none-any.whl#sha256={A}")
    project = PROJECT + source("https://unreachable.invalid/simple", include_packages='["foo"]')
    artifact = one(select(package("foo"), project=project, sources=Sources(index_urls=(server.index,))))
    assert artifact.url == f"{server.url}/files/foo-1.0-py3-none-any.whl"


def test_a_source_may_be_a_directory_of_wheels(select: Select, tmp_path: Path) -> None:
    """Beside the project."""
    wheel = tmp_path / "links" / "foo-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    project = PROJECT + source("file:///${PROJECT_ROOT}/links", type='"find_links"')
    assert one(select(package("foo"), project=project)).path == str(wheel)


def test_what_has_to_be_built(select: Select, tmp_path: Path) -> None:
    """Directories, links to them, repositories, what has sources only, and the project itself, as a link."""
    (tmp_path / "d").mkdir()
    url = '"https://user:secret@git.example.invalid/r"'
    packages = [
        package("foo", path='"./d"', editable="true", files=""),
        package("dir", path='"./d"', files=""),
        package("bar", git=url, ref='"main"', revision=f'"{COMMIT}"', files="", subdirectory='"sub"'),
        package("baz", files=f'{{file = "baz-1.0.tar.gz", hash = "sha256:{A}"}}'),
        package("qux", path='"./qux-1.0.tar.gz"', files=f'{{file = "qux-1.0.tar.gz", hash = "sha256:{A}"}}'),
    ]
    project = PROJECT.replace("distribution = false", "").replace('"sample"', '"sample"\nversion = "0.3"')
    target = select(*packages, project=project)
    assert {(each.name, each.version): each.source for each in target.artifacts} == {
        ("bar", "1.0"): Source(GIT, url.strip('"'), COMMIT, "main", "sub"),
        ("baz", "1.0"): Source(ARCHIVE),
        ("dir", "1.0"): Source(DIRECTORY, str(tmp_path / "d")),
        ("foo", "1.0"): Source(DIRECTORY, str(tmp_path / "d"), editable=True),
        ("qux", "1.0"): Source(ARCHIVE),
        ("sample", "0.3"): Source(DIRECTORY, str(tmp_path), editable=True),
    }
    with pytest.raises(NoWheelError, match="6 of its packages") as caught:
        select(*packages, project=project, choice=Choice(no_build=True))
    assert "secret" not in str(caught.value)
    assert "--no-install-project" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("setting", "installed"),
    [
        ("", True),
        ("distribution = true", True),
        ('package-type = "library"', True),
        ('package-type = "application"', False),
    ],
)
def test_the_project_is_installed_if_it_is_one(select: Select, setting: str, installed: bool) -> None:
    """Not if it is left out, or only groups are asked for."""
    project = PROJECT.replace("distribution = false", setting)
    assert names(select(package("foo"), project=project)) == ("foo sample" if installed else "foo")
    for choice in (Choice(no_install_project=True), Choice(only_groups=("default",))):
        assert names(select(package("foo"), project=project, choice=choice)) == "foo"


TARGETS = {
    ">=3.9": True,
    "<3.11 || >=3.11.5": True,
    "<3.11": False,
    '>=3.9"\nplatform = "manylinux_2_17_x86_64': True,
    '>=3.9"\nplatform = "linux': True,
    '>=3.9"\nplatform = "windows_amd64': False,
    '>=3.9"\nplatform = "macos_14_0_arm64': False,
    '>=3.9"\nplatform = "manylinux_2_17_aarch64': False,
    '>=3.9"\nplatform = "haiku_1_x86_64': True,
    '>=3.9"\nimplementation = "cpython': True,
    '>=3.9"\nimplementation = "pypy': False,
}


@pytest.mark.parametrize("target", TARGETS)
def test_it_may_be_locked_for_some_environments_only(select: Select, target: str) -> None:
    """As PDM refuses others."""
    head = HEAD.replace(">=3.9", target)
    if TARGETS[target]:
        assert names(select(package("foo"), head=head)) == "foo"
    else:
        with pytest.raises(LockFileError, match=r"was not made for cpython 3\.11"):
            select(package("foo"), head=head)
    other = '[[metadata.targets]]\nrequires_python = "==3.11.*"\n'
    assert names(select(package("foo"), head=head + other)) == "foo", "one target is enough"


def test_without_inherited_metadata_it_is_refused(select: Select) -> None:
    """It does not say which packages belong to which group; the hint's command makes one that does."""
    with pytest.raises(LockFileError, match="does not say which packages belong to which group") as caught:
        select(package("foo"), head=HEAD.replace('"inherit_metadata"', ""))
    assert "pdm lock -S inherit_metadata`" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("packages", "options", "said"),
    [
        ("x = [", {}, "it is not TOML"),
        (package("foo", groups="1"), {}, "`groups` has to be a list of strings"),
        (package("foo", groups=""), {}, "belongs to no group"),
        (package("foo", marker="1"), {}, "`marker` has to be a string"),
        (package("foo", marker="'x y z'"), {}, "malformed marker"),
        (package("foo", version="x"), {}, "`x` is no version"),
        (package("-"), {}, "`-` is no name"),
        (package("foo", files='{file = "foo-1.0-py3-none-any.whl"}'), {}, "has no hash"),
        (package("foo", files='{file = "foo-1.0-py3-none-any.whl", hash = "sha256:00"}'), {}, "is not a sha256 hash"),
        (package("foo", files=""), {}, "neither a wheel nor a source distribution"),
        (package("foo", url='"https://x/foo-1.0-py3-none-any.whl"', files=""), {}, "its file has no hash"),
        ("", {"head": ""}, "`lock_version` is malformed"),
        ("", {"head": HEAD.replace("4.5.1", "4.6")}, "is not supported, envsync reads 4 up to 4.5"),
        ("", {"head": HEAD.replace("4.5.1", "5.0")}, "is not supported"),
        ("", {"head": HEAD.replace(">=3.9", "no idea")}, "no range of versions"),
        ("", {"project": "x"}, "pyproject.toml"),
        ("", {"project": "tool = {pdm = 1}"}, "`pdm` has to be a table"),
        ("", {"project": PROJECT + source("")}, "its URL is malformed"),
        ("", {"project": PROJECT + source("https://user:secret@[x")}, "its URL is malformed"),
        ("", {"choice": Choice(groups=("x",))}, "does not define the group `x`"),
        ("", {"choice": Choice(extras=("never-locked",))}, "does not define the extra `never-locked`"),
        ("", {"choice": Choice(all_packages=True)}, "no workspace members"),
        (package("foo") + package("foo", version="2.0"), {}, "Multiple packages with the name 'foo'"),
    ],
)
def test_what_makes_no_sense_is_refused(select: Select, packages: str, options: dict[str, Any], said: str) -> None:
    """By name, in a sentence, with a hint."""
    with pytest.raises(EnvsyncError) as caught:
        select(packages, **options)
    assert said in str(caught.value)
    assert "\n" not in caught.value.message
    assert "secret" not in str(caught.value)
    assert caught.value.hint
