"""pylock.toml: what has to be built, and who forbids it (PEP 751)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

from envsync.errors import LockFileError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, Source, Target
from envsync.python.facts import Interpreter
from envsync.system import paths
from tests.unit.lockfile.test_pylock import FILES, HEAD, A, at_url, package

COMMIT = "0123456789" * 4
SDIST = f'{{ name = "foo-1.0.tar.gz", url = "{FILES}/foo-1.0.tar.gz", size = 7, hashes = {{ sha256 = "{A}" }} }}'
WHEEL = at_url("foo-1.0-py3-none-any.whl")
OTHER = at_url("foo-1.0-cp312-cp312-win_amd64.whl")


class Select(Protocol):
    """Writes a lock file and selects from it."""

    def __call__(self, *packages: str, choice: Choice = ..., **options: Any) -> Target: ...


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    def select(*packages: str, choice: Choice = Choice(), **options: Any) -> Target:  # noqa: B008
        (tmp_path / "pylock.toml").write_text(HEAD + "\n" + "\n".join(packages))
        return read(str(tmp_path / "pylock.toml")).select(interpreter, choice, **options)

    return select


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


def refused(select: Select, *packages: str, choice: Choice = Choice()) -> LockFileError:  # noqa: B008
    with pytest.raises(LockFileError) as caught:
        select(*packages, choice=choice)
    assert "`" in caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint
    return caught.value


def vcs(**keys: str) -> str:
    said = {"type": "git", "url": "https://user:secret@host.invalid/r", "commit-id": COMMIT}
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in {**said, **keys}.items() if value) + " }"


@pytest.mark.parametrize(
    ("wheels", "choice", "taken"),
    [
        ([WHEEL], Choice(), "foo-1.0-py3-none-any.whl"),
        ([OTHER], Choice(), "foo-1.0.tar.gz"),
        ([], Choice(), "foo-1.0.tar.gz"),
        ([WHEEL], Choice(no_binary=True), "foo-1.0.tar.gz"),
        ([WHEEL], Choice(no_binary_packages=("Foo",)), "foo-1.0.tar.gz"),
        ([WHEEL], Choice(no_build=True), "foo-1.0-py3-none-any.whl"),
    ],
)
def test_a_wheel_goes_before_a_source_distribution(
    select: Select, wheels: list[str], choice: Choice, taken: str
) -> None:
    """Unless none fits, or none may be taken."""
    artifact = one(select(package("foo", *wheels, sdist=SDIST), choice=choice))
    assert (artifact.filename, artifact.version, artifact.direct_url) == (taken, "1.0", None)
    assert artifact.source == (Source(ARCHIVE) if taken.endswith(".gz") else None)
    assert (artifact.url, artifact.hashes) == (f"{FILES}/{taken}", {"sha256": A})


def test_an_archive_of_a_tree(select: Select) -> None:
    """With the directory within, which is written down, too."""
    archive = f'{{ url = "{FILES}/foo.zip", subdirectory = "./a//b/", hashes = {{ sha256 = "{A}" }} }}'
    artifact = one(select(package("foo", version=None, archive=archive)))
    assert (artifact.source, artifact.version) == (Source(ARCHIVE, subdirectory="a/b"), "")
    said = json.loads(artifact.direct_url or "")
    assert (said["url"], said["subdirectory"]) == (f"{FILES}/foo.zip", "a/b")


@pytest.mark.parametrize(("said", "editable"), [("true", True), ("false", False), ("", False)])
def test_a_directory(select: Select, tmp_path: Path, said: str, editable: bool) -> None:
    """A link to it if the lock file says so, and options do not say otherwise."""
    (tmp_path / "d").mkdir()
    entry = package("foo", version=None, directory=f'{{ path = "d"{said and f", editable = {said}"} }}')
    artifact = one(select(entry))
    assert artifact.source == Source(DIRECTORY, str(tmp_path / "d"), editable=editable)
    assert json.loads(artifact.direct_url or "")["dir_info"] == {"editable": editable}
    assert one(select(entry, choice=Choice(editable=False))).source == Source(DIRECTORY, str(tmp_path / "d"))


def test_a_commit(select: Select, tmp_path: Path) -> None:
    """At a URL, or in a repository here."""
    given = vcs(subdirectory="a", **{"requested-revision": "main"})
    artifact = one(select(package("foo", vcs=given)))
    assert artifact.source == Source(GIT, "https://user:secret@host.invalid/r", COMMIT, "main", "a")
    assert json.loads(artifact.direct_url or "")["url"] == "https://host.invalid/r"
    artifact = one(select(package("foo", vcs=vcs(url="", path="../a b/r"))))
    assert artifact.source == Source(GIT, paths.url_of(f"{tmp_path.parent}/a b/r"), COMMIT)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"vcs": vcs(type="hg")}, "package `foo`: it comes from a repository of `hg`, and envsync knows git"),
        ({"vcs": vcs(**{"commit-id": "main"})}, "`main` is not the whole hash of a commit"),
        ({"vcs": vcs(subdirectory="/etc")}, "its subdirectory '/etc' leads out of it"),
        ({"vcs": vcs(url="ext::sh -c true")}, "the URL of its repository is malformed"),
        ({"directory": '{ path = "gone" }'}, "there is no directory `"),
        ({"directory": '{ path = "a\\u0000b" }'}, "is no name of a directory"),
        ({"directory": '{ path = ".", subdirectory = "../x" }'}, "its subdirectory '../x' leads out of it"),
        (
            {"archive": f'{{ url = "{FILES}/f.zip", subdirectory = "a/../..", hashes = {{ sha256 = "{A}" }} }}'},
            "its subdirectory 'a/../..' leads out of it",
        ),
        ({"archive": f'{{ url = "{FILES}/f.exe", hashes = {{ sha256 = "{A}" }} }}'}, "no name of an archive"),
        ({"archive": f'{{ path = "a\\u0000.zip", hashes = {{ sha256 = "{A}" }} }}'}, "package `foo`: "),
    ],
)
def test_what_makes_no_sense_is_refused(select: Select, keys: dict[str, str], said: str) -> None:
    """By its name, with what helps."""
    error = refused(select, package("foo", **keys))
    assert said in error.problem
    assert "\n" not in error.message


def test_the_option_that_forbids_to_build_names_all_that_it_concerns(select: Select) -> None:
    """With what there is of each, and what else keeps one from being installed."""
    archive = f'{{ url = "{FILES}/foo.zip", hashes = {{ sha256 = "{A}" }} }}'
    error = refused(
        select,
        package("foo", sdist=SDIST),
        package("bar", vcs=vcs()),
        package("baz", archive=archive),
        package("qux", directory='{ path = "." }'),
        package("win", at_url("win-1.0-cp312-cp312-win_amd64.whl")),
        choice=Choice(no_build=True),
    )
    assert error.problem.startswith("5 of its packages cannot be installed:")
    assert error.problem.count("and `--no-build` forbids to build it") == 4
    for name in ("foo", "bar", "baz", "qux", "win"):
        assert f"package `{name}`: " in error.problem
    error = refused(select, package("foo", OTHER, sdist=SDIST), choice=Choice(no_build_packages=("foo",)))
    assert "(tags available: cp312-cp312-win_amd64), there is only a source distribution" in error.problem
    assert "`envsync sync --no-install-package foo`" in error.hint
    assert one(select(package("foo", WHEEL, sdist=SDIST), choice=Choice(no_build=True))).source is None


def test_the_option_that_forbids_wheels_leaves_nothing_of_what_has_only_wheels(select: Select) -> None:
    """As with uv."""
    error = refused(select, package("foo", WHEEL), choice=Choice(no_binary=True))
    assert error.problem == "package `foo`: there are only wheels, which `--no-binary` forbids"


def test_offline_what_is_built_may_be_in_the_cache(select: Select) -> None:
    """So it is no error yet."""
    artifact = one(select(package("foo", sdist=SDIST), sources=Sources(offline=True)))
    assert "--offline rules out fetching it" in (artifact.missing or "")
