"""Build environments: made once, kept under what decides them, and never trusted if they are another's or changed."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.building import environments, pip_program
from envsync.building.environments import BuildEnvironment, BuildEnvironments
from envsync.errors import BuildError
from envsync.lockfile.sources import Sources
from envsync.python.interpreter import inspect, own_base
from envsync.store.store import Store
from envsync.system import records
from tests import pythons
from tests.wheels import build_wheel

Make = Callable[..., BuildEnvironments]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes the object that gives environments; its wheels come from a directory."""
    store = Store(str(tmp_path / ".cache"))
    (tmp_path / "wheels").mkdir()
    for name, version in (("foo", "1.0"), ("foo", "2.0"), ("bar", "1.0")):
        build_wheel(tmp_path / "wheels", name, version)
    near = Sources(offline=True, find_links=(str(tmp_path / "wheels"),))
    python = inspect(own_base(), store.root)

    def make(sources: Sources = near, *constraints: str, installer: str = "pip") -> BuildEnvironments:
        log = str(tmp_path / "log")
        return BuildEnvironments(store, python, sources, constraints, package="demo", installer=installer, log=log)

    return make


def python_says(environment: BuildEnvironment, code: str) -> str:
    words = [environment.python_executable, "-I", "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_is_required(make: Make, tmp_path: Path) -> None:
    """Then no installer runs, and requirements for other Pythons are none."""
    environment = make().of(["foo; sys_platform == 'nowhere'"])
    assert environment.versions == {}
    assert Path(python_says(environment, "import sys; print(sys.prefix)")) == Path(environment.path)
    assert not (tmp_path / "log").exists()


def test_it_is_made_once(make: Make, tmp_path: Path) -> None:
    """By whoever asks first; others, in another order and spelling, get the same, and run nothing."""
    first = make().of(["foo", "Bar>=1"])
    assert dict(first.versions) == {"foo": "2.0", "bar": "1.0"}
    assert python_says(first, "import foo, bar; print(1)") == "1"
    said = (tmp_path / "log").read_text()
    assert make().of(["bar>=1", "foo"]) == first
    assert (tmp_path / "log").read_text() == said


def test_environments_of_one_python_share_it(make: Make, tmp_path: Path) -> None:
    """What was made before a project had its environment is found by that environment's Python, and runs nothing."""
    first = make()
    made = first.of(["foo"])
    subprocess.run([own_base(), "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python, log = inspect(str(tmp_path / "env/bin/python"), first.store.root), tmp_path / "other log"
    assert BuildEnvironments(first.store, python, first.sources, package="demo", log=str(log)).of(["foo"]) == made
    assert not log.exists()


def test_a_long_list_of_versions_is_shortened(make: Make, tmp_path: Path) -> None:
    """In the message, which keeps both ends of the line; the log has all of it."""
    for number in range(100):
        build_wheel(tmp_path / "wheels", "many", f"1.{number}")
    with pytest.raises(BuildError) as caught:
        make().of(["many>2"])
    assert max(map(len, caught.value.problem.splitlines())) < 320
    assert "the requirement many>2 (from versions: 1.0, 1.1," in caught.value.problem
    assert "1.98, 1.99)" in caught.value.problem
    assert "1.49, 1.50, 1.51" in (tmp_path / "log").read_text()


def test_constraints(make: Make) -> None:
    """They hold, and are a part of the key."""
    near = make().sources
    assert make(near, "foo<2").of(["foo"]).versions == {"foo": "1.0"}
    assert make().of(["foo"]).versions == {"foo": "2.0"}


def test_what_is_there_already(make: Make) -> None:
    """A second request that the first environment fulfils gets that one, and another one if not."""
    given = make()
    first = given.of(["foo", "bar"])
    assert given.of(["foo>=1.5", "bar", "foo"]) is first
    assert given.of(["foo<2", "bar"]).versions["foo"] == "1.0"


def test_offline(make: Make) -> None:
    """What is kept is used, without any place to look at; what is not is named."""
    kept = make().of([])
    nowhere = Sources(offline=True)
    assert make(nowhere).of([]).path != kept.path  # another place to look at, another key
    with pytest.raises(BuildError, match="its build requires `foo`, and no such") as caught:
        make(nowhere).of(["foo"])
    assert "`envsync sync --no-offline`" in caught.value.hint


def test_what_cannot_be_had(make: Make, tmp_path: Path) -> None:
    """What pip says is in the error and in the log, and nothing is kept."""
    with pytest.raises(BuildError, match="pip cannot install what its build requires"):
        make().of(["missing"])
    assert "missing" in (tmp_path / "log").read_text()
    assert list((tmp_path / ".cache/v1/build-environments").glob("*/*")) == []
    assert not [name for name in os.listdir(tmp_path / ".cache/v1/tmp") if name.startswith("requirements")]


def record_of(environment: BuildEnvironment) -> str:
    return f"{os.path.dirname(environment.path)}/record"


def test_an_old_one_is_made_anew(make: Make) -> None:
    """After 30 days, unless there is no network; whoever builds in it keeps it."""
    online = Sources(find_links=make().sources.find_links, no_index=True)
    old = make(online).of(["foo"])
    value = records.load(record_of(old))
    Path(record_of(old)).write_bytes(records.dump({**value, "made": time.time() - environments.OLD_SECONDS - 1}))
    offline = Sources(find_links=online.find_links, no_index=True, offline=True)
    assert make(offline).of(["foo"]) == old
    assert make(online).of(["foo"]).path != old.path
    assert os.path.isdir(old.path)


@pytest.mark.parametrize("change", ["file", "record", "directory"])
def test_one_that_was_changed_is_made_anew(make: Make, change: str) -> None:
    """A purge of old files takes some of it."""
    first = make().of(["foo"])
    if change == "file":
        next(Path(first.path).rglob("foo/__init__.py")).unlink()
    elif change == "record":
        Path(record_of(first)).write_bytes(b"{}")
    else:
        shutil.rmtree(first.path)
    again = make().of(["foo"])
    assert again.path != first.path
    assert python_says(again, "import foo; print(1)") == "1"


def test_what_a_killed_making_left(make: Make) -> None:
    """A directory that no record names counts as nothing, and goes once it is a day old."""
    first = make().of(["foo"])
    place = os.path.dirname(first.path)
    for name, age in (("left", 2 * 86400), ("new", 0)):
        os.mkdir(f"{place}/{name}")
        os.utime(f"{place}/{name}", (time.time() - age,) * 2)
    assert make().of(["foo"]) == first
    shutil.rmtree(first.path)
    assert set(os.listdir(place)) == {"left", "new", "record"}
    last = make().of(["foo"])
    assert set(os.listdir(place)) == {"new", "record", os.path.basename(last.path)}


def test_no_password_is_told(make: Make, tmp_path: Path) -> None:
    """Neither log nor record nor error has the password of an index."""
    secret = Sources(index_urls=("https://me:hunter2@127.0.0.1:9/simple",))
    os.environ["PIP_RETRIES"] = "0"
    try:
        with pytest.raises(BuildError) as caught:
            make(secret).of(["foo"])
    finally:
        del os.environ["PIP_RETRIES"]
    texts = [str(caught.value), *(path.read_text() for path in tmp_path.rglob("*") if path.name in ("log", "record"))]
    assert not [text for text in texts if "hunter2" in text]


@pytest.mark.parametrize("version", ["3.9", "3.11"])
def test_a_python_that_our_pip_does_not_support(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """The pip that it brings itself fills its environments, under the same constraints; nothing else of it is left."""
    monkeypatch.setattr(pip_program, "is_too_new_for", lambda python: True)
    given = make(make().sources, "foo<2")
    given.python = inspect(pythons.need(version), given.store.root)
    environment = given.of(["foo", "bar"])
    assert dict(environment.versions) == {"foo": "1.0", "bar": "1.0"}
    assert python_says(environment, "import foo, sys; print(sys.version)").startswith(version)
    assert not list((tmp_path / ".cache/v1/tmp").iterdir())


def test_which_pythons_our_pip_supports() -> None:
    """Its metadata says that: at least the Python that it runs in, and none of before 3.7."""
    assert not pip_program.is_too_new_for(platform.python_version())
    assert pip_program.is_too_new_for("3.6.15")


def test_a_python_that_brings_no_pip(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is said what else can install what is required."""
    monkeypatch.setattr(pip_program, "is_too_new_for", lambda python: True)
    given = make()
    given.run = lambda *words, **options: 1
    with pytest.raises(BuildError, match="which brings none in `ensurepip`") as caught:
        given.of(["foo"])
    assert "`envsync sync --build-with uv`" in caught.value.hint


def test_uv_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said, with what else could do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="uv is to install what its build requires") as caught:
        make(installer="uv").of(["foo"])
    assert "--build-with pip" in caught.value.hint


def test_a_group_that_shares_the_cache_writes_to_none(make: Make) -> None:
    """What is in there runs when something is built; so one that others could have written to is not used again."""
    maker = make()
    os.makedirs(maker.store.root, exist_ok=True)
    os.chmod(maker.store.root, 0o2770)
    before = os.umask(0o002)
    try:
        made = maker.of(["foo"])
    finally:
        os.umask(before)
    modes = [os.lstat(path).st_mode for path in (made.path, *map(str, Path(made.path).rglob("*")))]
    assert [mode for mode in modes if mode & 0o022 and not stat.S_ISLNK(mode)] == []
    assert make().of(["foo"]) == made
    os.chmod(made.path, 0o775)
    assert make().of(["foo"]) != made
