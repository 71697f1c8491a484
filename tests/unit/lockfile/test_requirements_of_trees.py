"""Requirements that have to be built: directories, commits, archives; their names, and what the digest has of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import LockFileError, NoWheelError
from envsync.lockfile import Choice, LockFile, Sources, read
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, Source, Target
from envsync.python.facts import Interpreter
from envsync.system import paths
from tests.projects import make_project, make_sdist

COMMIT = "0123456789abcdef" * 2 + "01234567"
Select = Callable[..., Target]


@pytest.fixture
def lock(tmp_path: Path) -> Callable[[str], LockFile]:
    """Write a requirements file beside the directory `tree` of a project `Some.Name`, and read it."""
    make_project(tmp_path / "tree", "Some.Name", "1.5")

    def lock(text: str) -> LockFile:
        path = tmp_path / "requirements.txt"
        path.write_text(text)
        return read(str(path))

    return lock


@pytest.fixture
def select(lock: Callable[[str], LockFile], interpreter: Interpreter) -> Select:
    """Do so and select, offline."""

    def select(text: str, **options: Any) -> Target:
        options.setdefault("sources", Sources(offline=True))
        return lock(text).select(interpreter, **options)

    return select


def one(target: Target) -> Artifact:
    (artifact,) = target.artifacts
    return artifact


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


DIRECTORIES = {
    "-e ./tree": True,
    "-e tree": True,
    "--editable=./tree/": True,
    "-e ./tree ; python_version > '3'": True,
    "-e 'Some_Name @ file://{here}/tree'": True,
    "-e some-name @ file://{here}/tree": True,
    "-e file://{here}/tree#egg=some.name": True,
    "./tree": False,
    "tree/": False,
    "{here}/tree": False,
    "./tree ; python_version > '3'": False,
    "file:./tree": False,
    "file://{here}/tree": False,
    "some-name @ file://{here}/tree": False,
    "Some.Name@./tree": False,
    "file://{here}#subdirectory=tree": False,
}


@pytest.mark.parametrize("line", DIRECTORIES)
def test_directories_in_all_their_forms(tmp_path: Path, select: Select, line: str) -> None:
    """Each has the name that the line, or else the project, says; the version is known when it is built."""
    artifact = one(select(line.format(here=tmp_path)))
    editable = DIRECTORIES[line]
    below = "tree" if "subdirectory" in line else ""
    place = tmp_path if below else tmp_path / "tree"
    assert artifact.source == Source(DIRECTORY, str(place), subdirectory=below, editable=editable)
    assert (artifact.name, artifact.version, artifact.filename) == ("some-name", "", "")
    said = json.loads(artifact.direct_url or "")
    assert said["url"] == place.as_uri()
    assert said["dir_info"].get("editable", False) is editable


def test_the_directory_of_the_file_itself(tmp_path: Path, interpreter: Interpreter) -> None:
    """`.`, `-e .` and `.[extra]`: relative to the file, wherever one stands, and whichever file includes it."""
    tree = make_project(tmp_path / "demo")
    (tree / "more").mkdir()
    (tree / "outer.txt").write_text("-r more/inner.txt\n")
    for line in (".", "-e .", "./", ".[x,Y]", "-e .[x,Y]"):
        (tree / "requirements.txt").write_text(line)
        (tree / "more" / "inner.txt").write_text(line.replace(".", "..", 1))
        for name in ("requirements.txt", "outer.txt"):
            target = read(str(tree / name)).select(interpreter)
            assert one(target).source == Source(DIRECTORY, tree.as_posix(), editable="-e" in line)
            assert target.extras == ({"demo": {"x", "y"}} if "[" in line else {})
            assert not target.complete


COMMITS = {
    "foo @ git+https://host.invalid/a/foo.git@{commit}": ("https://host.invalid/a/foo.git", ""),
    "foo[x] @ git+ssh://git@host.invalid/foo@{commit}": ("ssh://git@host.invalid/foo", ""),
    "git+https://me:secret@host.invalid/f@{commit}#egg=Foo[x]": ("https://me:secret@host.invalid/f", ""),
    "git+file:///repositories/foo@{commit}#egg=foo&subdirectory=a/b": ("/repositories/foo", "a/b"),
    "foo @ git+http://host.invalid/f@me.git@{commit}#subdirectory=./b/": ("http://host.invalid/f@me.git", "b"),
    "git://host.invalid/foo@{commit}#egg=foo": ("git://host.invalid/foo", ""),
}


@pytest.mark.parametrize("editable", [False, True], ids=["", "editable"])
@pytest.mark.parametrize("line", COMMITS)
def test_commits_in_all_their_forms(select: Select, tmp_path: Path, line: str, editable: bool) -> None:
    """A whole commit is pinned; there is no tree for an editable to be a link to, and that is said."""
    text = line.format(commit=COMMIT.upper())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        target = select(f"-e '{text}'" if editable else text)
    artifact = one(target)
    place, below = COMMITS[line]
    if place.startswith("/"):  # on the drive of the file, where there are drives
        place = paths.url_of(paths.abspath(paths.join(str(tmp_path), place)))
    assert artifact.source == Source(GIT, place, COMMIT, COMMIT.upper(), below)
    assert (artifact.name, artifact.version, artifact.filename, artifact.locked) == ("foo", "", "", ())
    assert json.loads(artifact.direct_url or "")["vcs_info"]["commit_id"] == COMMIT
    assert "secret" not in f"{artifact.direct_url}{artifact!r}{artifact.source!r}"
    assert target.extras == ({"foo": {"x"}} if "[x]" in line else {})
    assert len(said) == editable
    for each in said:
        assert str(each.message).startswith(f"line 1: `foo` is installed as a copy of commit {COMMIT[:12]} of `")
        assert "secret" not in str(each.message)


def test_a_variable_may_be_in_a_url(
    lock: Callable[[str], LockFile], interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that lets one in is no part of the digest, nor of what is shown; who has the repository is."""
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("OWNER", "me")
    parsed = lock(f"foo @ git+https://${{TOKEN}}@host.invalid/${{OWNER}}/f@{COMMIT}")
    assert parsed.variables == ("OWNER",)
    artifact = one(parsed.select(interpreter))
    assert artifact.source is not None
    assert artifact.source.place == "https://secret@host.invalid/me/f"
    assert "secret" not in str(artifact.direct_url)
    monkeypatch.delenv("OWNER")
    with pytest.raises(LockFileError, match="line 1: environment variable `OWNER` is not set"):
        lock(f"foo @ git+https://${{TOKEN}}@host.invalid/${{OWNER}}/f@{COMMIT}")


def test_archives_by_path(tmp_path: Path, select: Select) -> None:
    """With a hash, that vouches for it; without one, its stat does. A name may be said, or is in the file's name."""
    sdist = make_sdist(tmp_path / "tree")
    other = make_sdist(tmp_path / "tree", filename="v1.zip")
    digest = sha256(sdist)
    for line in (f"./{sdist.name}", sdist.name, f"some_name @ {sdist.as_uri()}", f"{sdist.as_uri()}#egg=some.name"):
        target = select(line)
        artifact = one(target)
        assert (artifact.name, artifact.version, artifact.filename) == ("some-name", "", sdist.name)
        assert (artifact.path, artifact.hashes, artifact.source) == (sdist.as_posix(), {}, Source(ARCHIVE))
        assert target.local_files == (sdist.as_posix(),)
        assert json.loads(artifact.direct_url or "") == {"url": sdist.as_uri(), "archive_info": {}}
    for line in (f"./{sdist.name} --hash=sha256:{digest}", f"some-name @ {sdist.as_uri()}#sha256={digest}"):
        target = select(line)
        artifact = one(target)
        assert (artifact.hashes, artifact.locked, target.local_files) == (
            {"sha256": digest},
            (("sha256", digest),),
            (),
        )
    artifact = one(select(f"foo @ {other.as_uri()}#subdirectory=a"))
    assert (artifact.name, artifact.source) == ("foo", Source(ARCHIVE, subdirectory="a"))
    assert json.loads(artifact.direct_url or "")["subdirectory"] == "a"
    with pytest.raises(LockFileError, match=r"`v1.zip` does not say what the project is called"):
        select("./v1.zip")


def test_archives_by_url(select: Select) -> None:
    """Without a hash, what came from the URL first is kept under it; several hashes are alternatives."""
    online = Sources()
    one_digest, other_digest = "a" * 64, "b" * 64
    url = "https://me:secret@host.invalid/foo-1.0.tar.gz"
    artifact = one(select(url, sources=online))
    assert (artifact.url, artifact.place, artifact.hashes) == (url, "https://host.invalid/foo-1.0.tar.gz", {})
    assert (artifact.name, artifact.version, artifact.source) == ("foo", "", Source(ARCHIVE))
    artifact = one(select(f"{url} --hash=sha256:{one_digest}", sources=online))
    assert (artifact.hashes, artifact.place) == ({"sha256": one_digest}, None)
    artifact = one(select(f"{url} --hash=sha256:{one_digest} --hash=sha256:{other_digest}", sources=online))
    assert artifact.alternatives == (("sha256", one_digest), ("sha256", other_digest))
    missing = one(select(f"{url} --hash=sha256:{one_digest}")).missing
    assert missing is not None
    assert "`foo-1.0.tar.gz` is not in the cache, and --offline rules out" in missing


def test_settings_for_the_backend(select: Select) -> None:
    """Those of a line are for its package, in order."""
    target = select(
        "./tree --config-settings a=b=c -Ca=d\nfoo @ https://host.invalid/f-1.zip -C 'x=y z' --config-setting=e="
    )
    assert target.rules.config_of == (
        ("some-name", "a", "b=c"),
        ("some-name", "a", "d"),
        ("foo", "x", "y z"),
        ("foo", "e", ""),
    )


# Names


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"pyproject.toml": "[project]\nname = 'A.b'\n"}, "a-b"),
        ({"pyproject.toml": "[tool.poetry]\nname = 'A.b'\n", "setup.cfg": "[metadata]\nname = c\n"}, "a-b"),
        ({"pyproject.toml": "[tool.flit.metadata]\nmodule = 'a_b'\n"}, "a-b"),
        ({"pyproject.toml": "[build-system]\n", "setup.cfg": "[metadata]\nname = A_b\n"}, "a-b"),
        ({"setup.py": "", "setup.cfg": "[metadata]\nname=a.b\nversion = attr: b.v\n"}, "a-b"),
        ({"setup.py": "import setuptools as s\ns.setup(version=V, name='A.b')\n"}, "a-b"),
    ],
)
def test_where_a_name_is_found(
    tmp_path: Path, lock: Callable[[str], LockFile], interpreter: Interpreter, files: dict[str, str], name: str
) -> None:
    """In what a project says without being run; that file is an input, and so is one that would go before it."""
    directory = tmp_path / "other"
    directory.mkdir()
    for file, text in files.items():
        (directory / file).write_text(text)
    parsed = lock("-e ./other")
    assert one(parsed.select(interpreter)).name == name
    read_in_order = ["pyproject.toml", "setup.cfg"] if name.encode() not in parsed.canonical[1] else ["pyproject.toml"]
    if "project" in files.get("pyproject.toml", "") or "tool" in files.get("pyproject.toml", ""):
        read_in_order = ["pyproject.toml"]
    if "name=" in files.get("setup.py", ""):
        read_in_order = ["pyproject.toml", "setup.cfg", "setup.py"]
    assert parsed.inputs[1:] == tuple(str(directory / file) for file in read_in_order)
    assert parsed.contents[1:] == tuple(files.get(file, "").encode() for file in read_in_order)


NAMELESS = "neither `pyproject.toml` nor `setup.cfg` nor `setup.py` in `{}` says what the project is called"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"setup.py": "setup(name=NAME)"}, NAMELESS),
        ({"setup.py": "setup(name='x')\nsetup(name='y')"}, NAMELESS),
        ({"setup.py": "setup(name='x'"}, NAMELESS),
        ({"setup.py": "setup()\nother(name='x')"}, NAMELESS),
        ({"pyproject.toml": "[project"}, NAMELESS),
        ({"pyproject.toml": "[project]\nname = '-'"}, "the project in `{}` has the name '-', which is none"),
        ({"setup.cfg": "[metadata]\n"}, "there is neither `pyproject.toml` nor `setup.py` in `{}`"),
        (None, "there is no directory `{}`"),
    ],
)
def test_a_name_that_nothing_says(tmp_path: Path, select: Select, files: dict[str, str] | None, problem: str) -> None:
    """Nothing is run to find it; the line can say it, which is what the hint writes out."""
    directory = tmp_path / "other"
    if files is not None:
        directory.mkdir()
    for file, text in (files or {}).items():
        (directory / file).write_text(text)
    with pytest.raises(LockFileError) as caught:
        select("-e ./other")
    assert caught.value.problem.startswith("line 1: " + problem.format(directory))
    if problem == NAMELESS:
        assert f"`-e 'NAME @ {paths.url_of(str(directory))}'`" in str(caught.value.hint)
        assert one(select(f"-e 'name @ file://{directory}'")).name == "name"


def test_what_counts_in_a_pyproject(tmp_path: Path, lock: Callable[[str], LockFile]) -> None:
    """A comment does not, so it costs no sync."""
    before = lock("./tree")
    path = tmp_path / "tree" / "pyproject.toml"
    path.write_text(path.read_text() + "# more\n[tool.linter]\nx = 1\n")
    after = lock("./tree")
    assert after.canonical != before.canonical  # with a backend of its own, every table may count
    path.write_text("[project]\nname = 'x'\n")
    before = lock("./tree")
    path.write_text("# a comment\n[project]\nname = 'x'\n[tool.linter]\nx = 1\n")
    after = lock("./tree")
    assert (after.canonical, after.inputs) == (before.canonical, before.inputs)
    assert after.contents != before.contents
    path.write_text("[project]\nname = 'y'\n")
    assert lock("./tree").canonical != before.canonical


def test_what_the_digest_has_to_cover(lock: Callable[[str], LockFile]) -> None:
    """A relative directory is another one elsewhere; a commit is pinned as a hash is."""
    assert (lock("./tree").placed, lock("./tree").unhashed) == (True, True)
    commit = lock(f"foo @ git+https://host.invalid/f@{COMMIT}")
    assert (commit.placed, commit.unhashed, commit.inputs[1:]) == (False, False, ())


# Constraints


def test_a_constraint_may_say_where_a_package_is(tmp_path: Path, select: Select) -> None:
    """Its name, no extras and not editable, as by pip; the requirement keeps its extras, and a pin is checked."""
    (tmp_path / "pins.txt").write_text(
        f"some-name @ file://{tmp_path}/tree\nfoo @ git+https://host.invalid/f@{COMMIT}\nbar @ ./b-1.zip\nnone==1.0"
    )
    (tmp_path / "b-1.zip").touch()
    target = select("-c pins.txt\nsome.name[x]\nfoo==2.0\nbar")
    bar, foo, some = target.artifacts
    assert (some.source, target.extras) == (Source(DIRECTORY, str(tmp_path / "tree")), {"some-name": {"x"}})
    assert (foo.source, foo.version) == (Source(GIT, "https://host.invalid/f", COMMIT, COMMIT), "2.0")
    assert (bar.source, bar.path) == (Source(ARCHIVE), str(tmp_path / "b-1.zip"))


@pytest.mark.parametrize(
    ("line", "pins", "problem"),
    [
        ("./tree", "some-name<2", "the version of directory `{}/tree` is known only when it is built"),
        ("./foo-1.0.tar.gz", "foo>=2", "`foo-1.0.tar.gz` contradicts `>=2`"),
        ("./tree", "some-name @ file://{}", "directory `{}/tree` contradicts the constraint"),
    ],
)
def test_constraints_on_what_is_built(tmp_path: Path, select: Select, line: str, pins: str, problem: str) -> None:
    """What cannot be checked before is refused; a pinned version goes with what is built, which has to have it."""
    (tmp_path / "foo-1.0.tar.gz").touch()
    (tmp_path / "pins.txt").write_text(pins.format(tmp_path))
    with pytest.raises(LockFileError) as caught:
        select(f"-c pins.txt\n{line}")
    assert caught.value.problem.startswith("line 2: " + problem.format(tmp_path, tmp_path))
    (tmp_path / "pins.txt").write_text("some-name==1.5\nfoo>=1")
    assert one(select(f"-c pins.txt\n{line}")).version == ("1.0" if "foo" in line else "1.5")


# What is forbidden


def test_all_that_may_not_be_built_is_named_at_once(tmp_path: Path, select: Select) -> None:
    """Before anything is fetched, whatever it is built of."""
    text = f"./tree\nfoo @ git+https://host.invalid/f@{COMMIT}\nhttps://host.invalid/bar-1.0.tar.gz\n"
    for choice in (Choice(no_build=True), Choice(no_build_packages=("Some_Name", "foo", "bar"))):
        flag = "--no-build" if choice.no_build else "--no-build-package"
        with pytest.raises(NoWheelError, match=r"3 of its packages cannot be installed") as caught:
            select(text, choice=choice, sources=Sources())
        for part in (
            f"line 1: package `some-name`: it is directory `{tmp_path}/tree`, and `{flag}` forbids to build it",
            f"line 2: package `foo`: it is commit {COMMIT[:12]} of `https://host.invalid/f`, and `{flag}`",
            "line 3: package `bar`: it is `bar-1.0.tar.gz`, and",
        ):
            assert part in caught.value.problem
        assert "--no-install-package some-name" in str(caught.value.hint)
    assert {each.name for each in select("./tree", choice=Choice(no_build_packages=("foo",))).artifacts} == {
        "some-name"
    }


def test_a_wheel_that_is_named_may_be_forbidden(tmp_path: Path, select: Select) -> None:
    """By the option of the command, not by that of the file, which pip has for what it looks for."""
    (tmp_path / "foo-1.0-py3-none-any.whl").touch()
    with pytest.raises(NoWheelError, match=r"`foo` is a wheel, .* which `--no-binary-package` forbids"):
        select("./foo-1.0-py3-none-any.whl", choice=Choice(no_binary_packages=("foo",)))
    assert one(select("--no-binary :all:\n./foo-1.0-py3-none-any.whl")).source is None


def test_nothing_is_a_link_if_that_is_asked(select: Select) -> None:
    """`--no-editable` counts for `-e`, too."""
    artifact = one(select("-e ./tree", choice=Choice(editable=False)))
    assert artifact.source is not None
    assert not artifact.source.editable
    assert json.loads(artifact.direct_url or "")["dir_info"].get("editable", False) is False


def test_the_same_twice_is_once(tmp_path: Path, select: Select) -> None:
    """Extras add up; a link and a copy of one tree are two things."""
    target = select("-e ./tree[a]\n-e tree[b]\n")
    assert (len(target.artifacts), target.extras) == (1, {"some-name": {"a", "b"}})
    with pytest.raises(LockFileError, match=r"`some-name` is pinned twice, to editable directory `.*/tree` \(line 1\)"):
        select("-e ./tree\n./tree\n")
