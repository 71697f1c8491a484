"""uv.lock: what has to be built, by which rules, and who forbids it.

What counts was seen in runs of uv 0.13.9.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from envsync.errors import LockFileError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, BuildRules, Source, Target
from envsync.python.facts import Interpreter
from envsync.system import paths
from tests.unit.lockfile.test_uvlock import (
    BOTH,
    FILES,
    NEWER,
    SHA,
    SRCONLY,
    Values,
    edges,
    holding,
    lock_text,
    package,
    project,
    wheel,
)

COMMIT = "0123456789" * 4
HASH = f"sha256:{SHA}"


class Select(Protocol):
    """Writes a lock file, and pyproject.toml with a table `tool.uv`, and selects from it."""

    def __call__(
        self, packages: Iterable[Values], choice: Choice = ..., *, settings: str = "", offline: bool = False, **top: Any
    ) -> Target: ...


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    def select(
        packages: Iterable[Values],
        choice: Choice = Choice(),  # noqa: B008
        *,
        settings: str = "",
        offline: bool = False,
        **top: Any,
    ) -> Target:
        (tmp_path / "uv.lock").write_text(lock_text(packages, **top))
        (tmp_path / "pyproject.toml").write_text(f"[tool.uv]\n{settings}\n")
        return read(str(tmp_path / "uv.lock")).select(interpreter, choice, sources=Sources(offline=offline))

    return select


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


def refused(select: Select, *arguments: Any, **options: Any) -> LockFileError:
    with pytest.raises(LockFileError) as caught:
        select(*arguments, **options)
    assert "`" in caught.value.hint
    assert "secret" not in caught.value.message
    return caught.value


def by_git(url: str) -> list[Values]:
    return holding(package("git-1", source={"git": url}, wheels=[]))


# Archives


@pytest.mark.parametrize("record", [SRCONLY, NEWER], ids=["no wheel", "none that fits"])
def test_a_source_distribution_is_taken_if_no_wheel_fits(select: Select, record: Values) -> None:
    """With its hash and its place, as a wheel."""
    artifact = one(select(holding(record)))
    assert artifact.source == Source(ARCHIVE)
    assert (artifact.filename, artifact.version) == ("srconly-1.0.tar.gz", "1.0")
    assert artifact.url == f"{FILES}/srconly-1.0.tar.gz"
    assert artifact.hashes == {"sha256": SHA}
    assert artifact.direct_url is None


@pytest.mark.parametrize(
    ("choice", "settings"),
    [
        (Choice(no_binary=True), ""),
        (Choice(no_binary_packages=("Both",)), ""),
        (Choice(), "no-binary = true"),
        (Choice(), 'no-binary-package = ["both"]'),
    ],
)
def test_a_source_distribution_is_taken_if_wheels_are_forbidden(select: Select, choice: Choice, settings: str) -> None:
    """By options or in pyproject.toml."""
    assert one(select(holding(BOTH), choice, settings=settings)).filename == "both-1.0.tar.gz"
    assert one(select(holding(BOTH))).filename == "both-1.0-py3-none-any.whl"


def test_an_archive_by_url_and_one_by_path(select: Select, tmp_path: Path) -> None:
    """Both are written down as asked for directly (PEP 610), with the directory within."""
    by_url = package(
        "leaf",
        source={"url": f"https://user:secret@{FILES[8:]}/leaf.zip", "subdirectory": "a/b/"},
        sdist={"hash": HASH},
        wheels=[],
    )
    by_path = package("mid", source={"path": "dist/mid-1.0.tar.gz"}, sdist={"hash": HASH}, wheels=[])
    first, second = select(holding(by_url, by_path)).artifacts
    assert first.source == Source(ARCHIVE, subdirectory="a/b")
    assert first.url == f"https://user:secret@{FILES[8:]}/leaf.zip"
    assert json.loads(first.direct_url or "") == {
        "url": f"{FILES}/leaf.zip",
        "archive_info": {"hashes": {"sha256": SHA}},
        "subdirectory": "a/b",
    }
    assert (second.path, second.hashes) == (f"{tmp_path}/dist/mid-1.0.tar.gz", {"sha256": SHA})
    assert json.loads(second.direct_url or "")["url"] == paths.url_of(second.path)


def test_an_archive_of_an_index_in_a_directory_has_no_hash(select: Select, tmp_path: Path) -> None:
    """So the file itself is watched, as a wheel is."""
    record = package("leaf", source={"registry": "flat"}, sdist={"path": "leaf-1.0.tar.gz"}, wheels=[])
    target = select(holding(record))
    assert target.local_files == (f"{tmp_path}/flat/leaf-1.0.tar.gz",)
    assert one(target).source == Source(ARCHIVE)
    assert read(str(tmp_path / "uv.lock")).unhashed is True


def test_offline_an_archive_is_missing_and_may_be_in_the_cache(select: Select) -> None:
    """Whoever has what was built of it needs it no more."""
    artifact = one(select(holding(SRCONLY), offline=True))
    assert (artifact.url, artifact.source) == (None, Source(ARCHIVE))
    assert "--offline rules out fetching it" in (artifact.missing or "")


@pytest.mark.parametrize("name", ["leaf.exe", "leaf", "leaf%00.zip", "a%5Cb.zip", "leaf%0A.zip"])
def test_what_is_no_archive_is_refused(select: Select, name: str) -> None:
    """By its name, before it is fetched."""
    record = package("leaf", source={"url": f"{FILES}/{name}"}, sdist={"hash": HASH}, wheels=[])
    assert "\n" not in refused(select, holding(record)).message


# Directories


def test_trees_are_installed_as_links_if_the_lock_file_says_so(select: Select, tmp_path: Path) -> None:
    """Unless all of them are to be copies; the project itself and members, too."""
    for name in ("d", "e", "p/src"):
        (tmp_path.parent / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "m").mkdir()
    packages = [
        project("d", "../d", "directory", version=None),
        project("e", "../e", "editable"),
        project("m", "m", "editable"),
        project("p", ".", "editable", dependencies=edges("d", "e", "m")),
    ]
    packages = [{key: value for key, value in each.items() if value is not None} for each in packages]
    places = [str(tmp_path.parent / "d"), str(tmp_path.parent / "e"), str(tmp_path / "m"), str(tmp_path)]
    for editable in (True, False):
        target = select(packages, Choice(editable=editable), manifest={"members": ["m", "p"]})
        assert [artifact.source for artifact in target.artifacts] == [
            Source(DIRECTORY, place, editable=editable and place != places[0]) for place in places
        ]
        said = [json.loads(artifact.direct_url or "") for artifact in target.artifacts]
        assert [each["url"] for each in said] == [paths.url_of(place) for place in places]
        assert said[1]["dir_info"] == {"editable": editable}
    assert [artifact.version for artifact in target.artifacts] == ["", "1.0", "1.0", "1.0"]
    assert {artifact.filename for artifact in target.artifacts} == {""}
    assert target.unverified == ()
    assert read(str(tmp_path / "uv.lock")).placed is True


def test_a_directory_keeps_the_name_that_it_was_given(select: Select, tmp_path: Path) -> None:
    """A link is not followed: it may lead elsewhere tomorrow."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    artifact = one(select(holding(project("d", "link", "directory"))))
    assert artifact.source == Source(DIRECTORY, str(tmp_path / "link"))


@pytest.mark.parametrize("kind", ["directory", "editable"])
def test_a_directory_that_is_not_there_is_named(select: Select, tmp_path: Path, kind: str) -> None:
    """With a command that shows what is there instead."""
    error = refused(select, holding(project("d", "gone", kind), package("a", wheels=[])))
    assert f"package `d`: there is no directory `{tmp_path}/gone`" in error.problem
    assert "package `a`: " in error.problem
    assert f"`ls -la {tmp_path}`" in error.hint


def test_a_name_that_no_directory_has_is_refused(select: Select) -> None:
    """In a line."""
    assert "is no name of a directory" in refused(select, holding(project("d", "a\0b", "directory"))).message


# Repositories


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (f"https://host.invalid/r#{COMMIT}", Source(GIT, "https://host.invalid/r", COMMIT)),
        (
            f"https://user:secret@host.invalid/r.git?subdirectory=a%2Fb&rev=v1#{SHA}",
            Source(GIT, "https://user:secret@host.invalid/r.git", SHA, "v1", "a/b"),
        ),
        (
            f"ssh://git@host.invalid/r?branch=a%2Fb&lfs=true&other=1#{COMMIT}",
            Source(GIT, "ssh://git@host.invalid/r", COMMIT, "a/b", lfs=True),
        ),
        (f"file:///srv/a%20b?tag=1.0#{COMMIT}", Source(GIT, "/srv/a b", COMMIT, "1.0")),
        (f"https://host.invalid/r?rev={COMMIT}#{COMMIT}", Source(GIT, "https://host.invalid/r", COMMIT, COMMIT)),
    ],
)
def test_a_commit_of_a_repository(select: Select, tmp_path: Path, url: str, source: Source) -> None:
    """What was asked for is said, and nothing secret."""
    if source.place.startswith("/"):  # on the drive of the file, where there are drives
        source = source._replace(place=paths.url_of(paths.abspath(paths.join(str(tmp_path), source.place))))
    artifact = one(select(by_git(url)))
    assert artifact.source == source
    said = json.loads(artifact.direct_url or "")
    assert said["vcs_info"].get("requested_revision", "") == source.reference
    assert said["vcs_info"]["commit_id"] == source.commit
    assert said.get("subdirectory", "") == source.subdirectory
    assert "secret" not in repr(artifact) + repr(source) + (artifact.direct_url or "")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://user:secret@host.invalid/r#main", "`main` is not the whole hash of a commit"),
        ("https://user:secret@host.invalid/r", "`` is not the whole hash of a commit"),
        (f"https://host.invalid/r#{COMMIT[:39]}g", "is not the whole hash of a commit"),
        (f"https://host.invalid/r?rev={'a' * 40}#{COMMIT}", f"its commit {COMMIT} is not the one that was asked for"),
        (f"https://host.invalid/r?rev=a&tag=b#{COMMIT}", "asked for"),
        (f"https://host.invalid/r?subdirectory=..%2Fa#{COMMIT}", "its subdirectory '../a' leads out of it"),
        (f"https://host.invalid/r?subdirectory=a%2F..%2F..%2Fb#{COMMIT}", "leads out of it"),
        (f"https://host.invalid/r?subdirectory=%2Fa#{COMMIT}", "its subdirectory '/a' leads out of it"),
        (f"https://host.invalid/r?subdirectory=a%00b#{COMMIT}", "leads out of it"),
        (f"ext::sh%20-c%20true#{COMMIT}", "malformed"),
        (f"ext://host/r#{COMMIT}", "its repository is reached by `ext:`"),
        (f"ssh://-oProxyCommand=true/r#{COMMIT}", "the URL of its repository is malformed"),
        (f"https://user:secret@[::1/r#{COMMIT}", "the URL of its repository is malformed"),
        (f"https://host.invalid/a b#{COMMIT}", "the URL of its repository is malformed"),
        (f"file://elsewhere/r#{COMMIT}", "a file URL cannot name the host `elsewhere`"),
        (f"https://host.invalid/r?path=leaf-1.0-py3-none-any.whl#{COMMIT}", "it is the file `leaf-1.0-py3-none-any"),
    ],
)
def test_a_repository_that_makes_no_sense_is_refused(select: Select, url: str, said: str) -> None:
    """Before git sees any of it; without the password."""
    assert said in refused(select, by_git(url)).problem


# Who forbids


def test_the_option_that_forbids_to_build_wins_over_all(select: Select, tmp_path: Path) -> None:
    """Also of members, links and what must not be a wheel; all are named at once, with the option."""
    (tmp_path / "m").mkdir()
    packages = [
        SRCONLY,
        BOTH,
        project("m", "m", "editable"),
        *by_git(f"https://host.invalid/r#{COMMIT}")[:1],
        project("p", ".", "editable", dependencies=edges("srconly", "both", "m", "git-1")),
    ]
    choice = Choice(no_build=True, no_binary=True)
    error = refused(select, packages, choice, manifest={"members": ["m", "p"]})
    assert error.problem.startswith("5 of its packages cannot be installed:")
    assert error.problem.count("`--no-build`") == 5
    assert "`envsync sync --no-install-workspace`" in error.hint
    choice = Choice(no_build_packages=("M",))
    error = refused(select, packages, choice, manifest={"members": ["m", "p"]})
    assert error.problem == "package `m`: it comes from a directory, and `--no-build-package` forbids to build it"


def test_the_project_is_left_out_by_an_option_of_its_own(select: Select) -> None:
    """What it requires stays."""
    packages = [package("leaf"), project("p", ".", "editable", dependencies=edges("leaf"))]
    error = refused(select, packages, Choice(no_build=True))
    assert error.problem == "package `p`: it comes from a directory, and `--no-build` forbids to build it"
    assert "`envsync sync --no-install-project`" in error.hint
    assert one(select(packages, Choice(no_build=True, no_install_project=True))).name == "leaf"


def test_in_pyproject_toml_it_does_not_count_for_members(select: Select, tmp_path: Path) -> None:
    """As uv has it: the project itself and members are built, what else is a directory is not."""
    (tmp_path / "m").mkdir()
    (tmp_path / "d").mkdir()
    members = [
        project("m", "m", "editable"),
        project("p", ".", "editable", dependencies=edges("m")),
    ]
    top: Values = {"manifest": {"members": ["m", "p"]}}
    settings = 'no-build = true\nno-build-package = ["m"]'
    assert [each.name for each in select(members, settings=settings, **top).artifacts] == ["m", "p"]
    packages = [project("d", "d", "editable"), {**members[1], "dependencies": edges("d")}]
    error = refused(select, packages, settings=settings, manifest={"members": ["p"]})
    assert error.problem.startswith("package `d`: it comes from a directory, and `no-build` in pyproject.toml forbids")


# Rules

SETTINGS = """\
build-constraint-dependencies = ["ignored<1"]
config-settings = { a = "1", b = ["x", "y"] }
config-settings-package = { Src_Only = { c = "2" } }
extra-build-dependencies = { srconly = ["numpy>=2", { requirement = "both", match-runtime = true }] }
extra-build-variables = { srconly = { MAX_JOBS = "4" } }
no-build-isolation-package = ["SRConly"]
"""


def test_the_rules_for_builds_come_with_what_is_selected(select: Select) -> None:
    """Constraints from the lock file, as uv takes them; the rest from pyproject.toml."""
    constraints = [
        {"name": "setuptools", "specifier": "<81", "marker": "python_version < '3.13'"},
        {"name": "hatch", "extras": ["x"]},
    ]
    packages = holding(SRCONLY, package("both", "2.0"))
    target = select(packages, settings=SETTINGS, manifest={"build-constraints": constraints})
    assert target.rules == BuildRules(
        constraints=("setuptools<81; python_version < '3.13'", "hatch[x]"),
        config=(("a", "1"), ("b", "x"), ("b", "y")),
        config_of=(("src-only", "c", "2"),),
        requires=(("srconly", ("numpy>=2",)), ("srconly", ("both==2.0",))),
        variables=(("srconly", "MAX_JOBS", "4"),),
        unisolated=("srconly",),
    )
    assert select(packages, settings="no-build-isolation = true").rules == BuildRules(isolated=False)
    assert select(holding(package("both")), settings=SETTINGS).rules == BuildRules()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("require-build-hashes = true", "`require-build-hashes` in pyproject.toml counts"),
        (
            'extra-build-dependencies = { srconly = ["torch"] }\nsources = { Torch = { path = "../torch" } }',
            "`extra-build-dependencies` of `srconly`, whose `torch` has a source of its own, in pyproject.toml",
        ),
        (
            'extra-build-dependencies = { srconly = [{ requirement = "torch", match-runtime = true }] }',
            "`srconly` is to be built with the `torch` that is installed beside it",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(select: Select, settings: str, said: str) -> None:
    """If anything has to be built: for wheels, it does not count."""
    assert said in refused(select, holding(SRCONLY), settings=settings).problem
    assert one(select(holding(package("leaf")), settings=settings)).name == "leaf"


def test_a_build_constraint_that_is_not_from_an_index_is_refused(select: Select) -> None:
    """Once it counts."""
    manifest = {"build-constraints": [{"name": "hatchling", "git": "https://user:secret@host.invalid/r"}]}
    error = refused(select, holding(SRCONLY), manifest=manifest)
    assert "a build constraint comes from `git`, `hatchling`, which is not done" in error.problem
    assert one(select(holding(package("leaf")), manifest=manifest)).name == "leaf"


@pytest.mark.parametrize(
    "settings",
    [
        "config-settings = { a = 1 }",
        "config-settings = { a = [1] }",
        'config-settings-package = { a = "b" }',
        "extra-build-variables = { a = { B = 1 } }",
        'extra-build-dependencies = { a = "torch" }',
        'extra-build-dependencies = { a = ["not a requirement"] }',
        'extra-build-dependencies = { a = [{ requirement = "torch>=2", match-runtime = true }] }',
        'no-build-isolation = "yes"',
        'no-build-isolation-package = "a"',
    ],
)
def test_settings_that_make_no_sense_are_refused(select: Select, tmp_path: Path, settings: str) -> None:
    """Where they stand; uv passes over all settings then, with a warning."""
    error = refused(select, holding(package("leaf", wheels=[wheel("leaf-1.0-py3-none-any.whl")])), settings=settings)
    assert f"`{tmp_path}/pyproject.toml`: " in error.problem
