"""Pipfile.lock: what is selected, where its files are looked for, every refusal. tests/oracle asks Pipenv itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import EnvsyncError, LockFileError, NoWheelError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.parsed import LockFile
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, Source, Target
from envsync.python.facts import Interpreter
from tests.unit.lockfile.conftest import Server

A = "a" * 64
B = "b" * 64
FOO = "foo-1.0-py3-none-any.whl"

Select = Callable[..., Target]


def pinned(version: str = "==1.0", *hashes: str, **keys: object) -> dict[str, object]:
    return {"version": version, "hashes": [f"sha256:{each}" for each in hashes or (A, B)], **keys}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., LockFile]:
    """Write a lock file, and read it."""

    def write(**keys: Any) -> LockFile:
        meta = keys.pop("meta", {})
        (tmp_path / "Pipfile.lock").write_text(json.dumps({"_meta": meta, "default": {}, "develop": {}, **keys}))
        return read(str(tmp_path / "Pipfile.lock"))

    return write


@pytest.fixture
def select(write: Callable[..., LockFile], interpreter: Interpreter, tmp_path: Path) -> Select:
    """Write a lock file, and select from it; wheels are in the directory beside it."""

    def select(choice: Choice = Choice(), sources: Sources | None = None, **keys: Any) -> Target:  # noqa: B008
        beside = Sources(find_links=(str(tmp_path),), offline=True)
        return write(**keys).select(interpreter, choice, sources=sources or beside)

    return select


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[[str], Path]:
    def wheel(name: str, version: str = "1.0") -> Path:
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        path.touch()
        return path

    return wheel


def names(target: Target) -> str:
    return " ".join(each.name for each in target.artifacts)


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


def sources(*urls: str, **keys: object) -> dict[str, object]:
    return {"sources": [{"name": f"source-{number}", "url": url, **keys} for number, url in enumerate(urls)]}


@pytest.mark.parametrize(
    ("choice", "selected"),
    [
        (Choice(), "foo"),
        (Choice(groups=("develop",)), "bar foo"),
        (Choice(groups=("dev",)), "bar foo"),
        (Choice(groups=("docs",)), "baz foo"),
        (Choice(all_groups=True), "bar baz foo"),
        (Choice(all_groups=True, no_groups=("dev",)), "baz foo"),
        (Choice(only_groups=("docs",)), "baz"),
        (Choice(no_groups=("default",), groups=("docs",)), "baz"),
        (Choice(no_default_groups=True), "foo"),
        (Choice(no_install_packages=("Foo",)), ""),
    ],
)
def test_categories_are_chosen(select: Select, wheel: Callable[[str], Path], choice: Choice, selected: str) -> None:
    """`default` always, others if they are asked for, as Pipenv has it."""
    for name in ("foo", "bar", "baz"):
        wheel(name)
    keys = {"default": {"foo": pinned()}, "develop": {"Bar": pinned()}, "docs": {"baz": pinned()}}
    assert names(select(choice, **keys)) == selected


def test_a_file_is_found_by_its_version_and_one_of_the_hashes(select: Select, server: Server) -> None:
    """On the index that is named, and on no other; or else on the first."""
    server.project("foo", f"{FOO}#sha256={'c' * 64}", f"foo-1.0-cp311-cp311-linux_x86_64.whl#sha256={B}")
    server.page("/second/bar/", f'<a href="/f/bar-1.0-py3-none-any.whl#sha256={A}">bar-1.0-py3-none-any.whl</a>')
    target = select(
        sources=Sources(),
        meta=sources(server.index, f"{server.url}/second"),
        default={"foo": pinned(), "bar": pinned(index="source-1")},
    )
    bar, foo = target.artifacts
    assert (foo.filename, foo.hashes) == ("foo-1.0-cp311-cp311-linux_x86_64.whl", {"sha256": B})
    assert bar.url == f"{server.url}/f/bar-1.0-py3-none-any.whl"
    assert sorted(server.asked) == ["/second/bar/", "/simple/foo/"]


def test_one_of_the_hashes_has_to_match_a_file_of_which_the_index_gives_none(select: Select, server: Server) -> None:
    """They have no file names, so any may be meant."""
    server.project("foo", FOO)
    artifact = one(select(sources=Sources(), meta=sources(server.index), default={"foo": pinned()}))
    assert artifact.alternatives == (("sha256", A), ("sha256", B))


def test_an_index_that_is_asked_for_is_asked_instead(select: Select, server: Server) -> None:
    """`--index-url` is a mirror of all."""
    server.project("foo", f"{FOO}#sha256={A}")
    keys = {"meta": sources("https://unreachable.invalid/simple"), "default": {"foo": pinned()}}
    assert one(select(sources=Sources(index_urls=(server.index,)), **keys)).hashes == {"sha256": A}


@pytest.mark.parametrize("written", ["${INDEX}", "$INDEX"])
def test_variables_in_sources_are_expanded(
    select: Select, write: Callable[..., LockFile], server: Server, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """And count in the digest where something has no hash, but for user information."""
    server.password = "secret"
    server.project("foo", f"{FOO}#sha256={A}")
    monkeypatch.setenv("INDEX", server.host)
    monkeypatch.setenv("PASSWORD_OF_INDEX", "secret")
    meta = sources(f"http://user:${{PASSWORD_OF_INDEX}}@{written}/simple")
    artifact = one(select(sources=Sources(), meta=meta, default={"foo": pinned()}))
    assert (artifact.url or "").endswith(FOO)
    assert write(meta=meta, default={"foo": pinned()}).variables == ()
    bare = write(meta=meta, default={"foo": {"version": "==1.0"}})
    assert (bare.unhashed, bare.variables) == (True, ("INDEX",))
    monkeypatch.setenv("INDEX", "elsewhere.invalid")
    assert write(meta=meta, default={"foo": {"version": "==1.0"}}).values != bare.values
    monkeypatch.setenv("INDEX", server.host)
    monkeypatch.setenv("PASSWORD_OF_INDEX", "other")
    assert write(meta=meta, default={"foo": {"version": "==1.0"}}).values == bare.values


def test_an_entry_counts_where_its_marker_holds(select: Select, wheel: Callable[[str], Path]) -> None:
    """One that is not pinned is passed over where it does not."""
    wheel("foo")
    default = {
        "foo": pinned(markers="python_version >= '3.9' and python_version >= '3.9'"),
        "bar": pinned(markers="sys_platform == 'win32'"),
        "baz": {"version": "*", "markers": "sys_platform == 'win32'"},
    }
    assert names(select(default=default)) == "foo"


def test_a_wheel_at_a_path_or_url_is_taken_from_there(select: Select, wheel: Callable[[str], Path]) -> None:
    """Paths are relative to the lock file. Without a hash, size and time vouch for it."""
    path = wheel("foo")
    target = select(
        sources=Sources(),
        default={
            "foo": {"path": f"./{path.name}"},
            "bar": {"file": "https://files.example.invalid/bar-1.0-py3-none-any.whl", "hashes": [f"sha256:{A}"]},
        },
    )
    bar, foo = target.artifacts
    assert foo.path == str(path)
    assert target.local_files == (str(path),)
    assert bar.url == "https://files.example.invalid/bar-1.0-py3-none-any.whl"
    assert bar.hashes == {"sha256": A}


def test_what_has_no_hash_is_said(write: Callable[..., LockFile], wheel: Callable[[str], Path]) -> None:
    """The digest has where it comes from, then."""
    path = wheel("foo")
    lock = write(default={"foo": {"path": path.name}})
    assert (lock.unhashed, lock.placed, lock.local_files) == (True, True, (str(path),))
    assert not write(default={"foo": pinned()}).unhashed


def test_the_same_in_two_categories_is_one(select: Select, wheel: Callable[[str], Path]) -> None:
    """If both pin the same."""
    wheel("foo")
    keys = {"default": {"foo": pinned()}, "develop": {"foo": pinned()}}
    assert names(select(Choice(all_groups=True), **keys)) == "foo"
    keys["develop"] = {"foo": pinned("==2.0")}
    with pytest.raises(LockFileError, match="categories pin it to different things"):
        select(Choice(all_groups=True), **keys)


def test_what_has_to_be_built(select: Select, wheel: Callable[[str], Path], tmp_path: Path) -> None:
    """Directories, links to them, repositories, archives; the project itself may be left out."""
    wheel("qux")
    (tmp_path / "bar").mkdir()
    for directory in (tmp_path, tmp_path / "bar"):
        (directory / "pyproject.toml").touch()
    git, archive = (
        "https://user:secret@git.example.invalid/r",
        "https://user:secret@files.example.invalid/baz-1.0.tar.gz",
    )
    commit = "0123456789" * 4
    default = {
        "sample": {"path": ".", "editable": True},
        "foo": {"git": git, "ref": commit, "subdirectory": "sub", "editable": True},
        "bar": {"path": "./bar"},
        "baz": {"file": archive},
        "qux": pinned(),
    }
    built = {each.name: each.source for each in select(default=default).artifacts if each.source is not None}
    assert built == {
        "sample": Source(DIRECTORY, str(tmp_path), editable=True),
        "foo": Source(GIT, git, commit, subdirectory="sub"),
        "bar": Source(DIRECTORY, str(tmp_path / "bar")),
        "baz": Source(ARCHIVE),
    }
    links = [each.source for each in select(Choice(editable=False), default=default).artifacts if each.source]
    assert not any(each.editable for each in links)
    with pytest.raises(NoWheelError, match="4 of its packages") as caught:
        select(Choice(no_build=True), default=default)
    assert caught.value.problem.count("and `--no-build` forbids to build it") == 4
    assert "--no-install-project" in str(caught.value.hint)
    assert "secret" not in str(caught.value) + str(caught.value.hint)
    rest = {name: default[name] for name in ("sample", "qux")}
    assert names(select(Choice(no_install_project=True), default=rest)) == "qux"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"git": "https://user:secret@host.invalid/r", "ref": "main"}, "`main` is not the whole hash of a commit"),
        ({"git": "https://host.invalid/r", "ref": "0" * 40, "subdirectory": "../a"}, "leads out of it"),
        ({"hg": "https://user:secret@host.invalid/r", "ref": "0"}, "it comes from a repository of `hg`"),
        ({"path": "./gone"}, "there is no directory `"),
        ({"path": "a\0b"}, "is no name of a directory"),
        ({"file": "https://host.invalid/tool.exe"}, "is no archive that can be built"),
    ],
)
def test_what_cannot_be_built_is_refused(select: Select, entry: dict[str, str], said: str) -> None:
    """By its name, without a password."""
    with pytest.raises(LockFileError) as caught:
        select(default={"foo": entry})
    assert f"package `foo`: {said}"[:14] in caught.value.problem
    assert said in caught.value.problem
    assert "secret" not in str(caught.value) + str(caught.value.hint)


def test_another_python_is_warned_of(select: Select, wheel: Callable[[str], Path]) -> None:
    """As Pipenv does: it goes on."""
    wheel("foo")
    with pytest.warns(UserWarning, match=r"locked for Python 3\.1, and the target is 3\.11\.7"):
        select(meta={"requires": {"python_version": "3.1"}}, default={"foo": pinned()})
    select(meta={"requires": {"python_version": "3.11"}}, default={"foo": pinned()})
    select(meta={"requires": {"python_full_version": "3.11.7"}}, default={"foo": pinned()})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"default": {"foo": {"version": "*"}}}, "package `foo`: it is not pinned"),
        ({"default": {"foo": {"version": ">=1"}}}, "it is not pinned"),
        ({"default": {"foo": {"version": "one"}}}, "`one` is no version"),
        ({"default": {"foo": {"version": 1}}}, "`version` has to be a string"),
        ({"default": {"foo": 1}}, "`foo` has to be a table"),
        ({"default": {"-": pinned()}}, "`-` is no name"),
        ({"default": []}, "`default` has to be a table"),
        ({"default": {"foo": pinned(markers="x y z")}}, "malformed marker"),
        ({"default": {"foo": pinned("==1.0", "00")}}, "is not a sha256 hash"),
        ({"default": {"foo": {"version": "==1.0", "hashes": ["x"]}}}, "is not one that every Python has"),
        ({"default": {"foo": {"version": "==1.0", "hashes": "x"}}}, "`hashes` has to be a list"),
        ({"default": {"foo": pinned(index="none")}}, "comes from the index `none`, which is none of its sources"),
        ({"default": {"foo": {"file": "http://[x/foo-1.0-py3-none-any.whl"}}}, "its URL is malformed"),
        ({"default": {"foo": {"path": "foo-1-2-3.whl"}}}, "is not a wheel's file name"),
        ({"meta": {"sources": [{"name": "x"}]}}, "the URL of a source is malformed"),
        ({"meta": {"sources": [{"name": "x", "url": "http://user:secret@[x"}]}}, "the URL of a source is malformed"),
        ({"meta": {"sources": 1}}, "`sources` has to be a list"),
        ({"meta": 1}, "`_meta` has to be a table"),
        ({"choice": Choice(groups=("docs",))}, "does not define the group `docs`"),
        ({"choice": Choice(extras=("docs",))}, "does not define the extra `docs`"),
        ({"choice": Choice(packages=("docs",))}, "no workspace members"),
    ],
)
def test_what_makes_no_sense_is_refused(select: Select, keys: dict[str, Any], said: str) -> None:
    """By name, in a sentence, with a hint."""
    with pytest.raises(EnvsyncError) as caught:
        select(**keys)
    assert said in str(caught.value)
    assert "\n" not in caught.value.message
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"default": NaN}', "\xff", "[" * 100_000])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    """In a sentence."""
    (tmp_path / "Pipfile.lock").write_bytes(text.encode("latin-1"))
    with pytest.raises(LockFileError) as caught:
        read(str(tmp_path / "Pipfile.lock"))
    assert "\n" not in caught.value.message
