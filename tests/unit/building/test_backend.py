"""Building with backends that stand in the tree: what comes out, what is said where nothing does, and what is left."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.building import backend, variables
from envsync.building.backend import build_wheel, check, hint_of
from envsync.building.environments import BuildEnvironments
from envsync.errors import BuildError
from envsync.lockfile.sources import Sources
from envsync.python.facts import Interpreter
from envsync.python.interpreter import inspect, own_base
from envsync.store.store import Store
from envsync.system import processes
from tests import needs, pythons
from tests.projects import built, make_project, ran


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cache"))


@pytest.fixture
def python(store: Store) -> Interpreter:
    return inspect(own_base(), store.root)


@pytest.fixture
def build(tmp_path: Path, store: Store, python: Interpreter) -> Callable[..., str]:
    """Return a function that builds a tree and returns the path of the wheel."""

    def build(tree: Path, *, target: Interpreter = python, **options: Any) -> str:
        log, out = str(tmp_path / "log"), tmp_path / "out"
        out.mkdir(exist_ok=True)
        environments = BuildEnvironments(store, target, Sources(offline=True), package="demo", log=log)
        usual: dict[str, Any] = {"editable": False, "package": "demo 1.0", "config": {}, "requires": [], "log": log}
        usual |= {"environments": environments, "variables": variables.for_build(os.environ)}
        return build_wheel(str(tree), str(out), **{**usual, **options})

    return build


def names(wheel: str) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel(build: Callable[..., str], tmp_path: Path) -> None:
    """Its backend is asked what it requires, then for the wheel, with the same settings, in the tree."""
    tree = make_project(tmp_path / "demo", log=tmp_path / "hooks")
    wheel = build(tree, config={"a": "1", "b": ["2", "3"]}, variables={"PATH": os.environ["PATH"], "MARK": "x"})
    assert wheel == str(tmp_path / "out/demo-1.0-py3-none-any.whl")
    assert "demo/__init__.py" in names(wheel)
    hooks = ran(tmp_path / "hooks")
    assert [hook["hook"] for hook in hooks] == ["get_requires_for_build_wheel", "build_wheel"]
    for hook in hooks:
        assert hook["config"] == {"a": "1", "b": ["2", "3"]}
        assert hook["tree"] == str(tree)
        assert hook["variables"]["MARK"] == "x"
        assert hook["variables"]["PATH"].startswith(str(tmp_path / "cache/v1/build-environments"))
    assert "--- build_wheel of demo 1.0\n" in (tmp_path / "log").read_text()


def test_an_editable(build: Callable[..., str], tmp_path: Path) -> None:
    """It leads to the sources in the tree."""
    tree = make_project(tmp_path / "demo", log=tmp_path / "hooks")
    wheel = build(tree, editable=True)
    assert [hook["hook"] for hook in ran(tmp_path / "hooks")] == ["get_requires_for_build_editable", "build_editable"]
    with zipfile.ZipFile(wheel) as archive:
        (line,) = archive.read("__editable__.demo.pth").decode().splitlines()
    assert Path(line) == tree / "src"


@pytest.mark.parametrize("version", ["3.9", "3.12"])
def test_another_python(build: Callable[..., str], tmp_path: Path, store: Store, version: str) -> None:
    """The backend runs in the target's Python, by which it names the wheel."""
    target = inspect(pythons.need(version), store.root)
    wheel = build(make_project(tmp_path / "demo", native=True), target=target)
    check(wheel, "demo", "1.0", target)
    assert f"-cp{version.replace('.', '')}-" in wheel


def test_no_editables(build: Callable[..., str], tmp_path: Path) -> None:
    """A backend without the hook is told of, with what to do instead."""
    with pytest.raises(BuildError, match="missing the `build_editable` hook") as caught:
        build(make_project(tmp_path / "demo", editable=False), editable=True)
    assert "--no-editable" in caught.value.hint


TABLES = {
    "no requires": ('[build-system]\nbuild-backend = "x"\n', "`requires` is a required property"),
    "requires is a text": ('[build-system]\nrequires = "x"\n', "`requires` must be an array of strings"),
    "odd requirement": ('[build-system]\nrequires = ["=x="]\n', "its build requires `=x=`, which is no requirement"),
    "no table": ("build-system = 1\n", "`build-system` must be a table"),
    "no toml": ("[", "Failed to parse"),
    "path out": ('[build-system]\nrequires = []\nbackend-path = [".."]\n', "paths must be inside source tree"),
    "absolute path": ('[build-system]\nrequires = []\nbackend-path = ["/tmp"]\n', "paths must be relative"),
    "path that is not there": ('[build-system]\nrequires = []\nbackend-path = ["x"]\n', "does not exist"),
    "no backend": (
        '[build-system]\nrequires = []\nbuild-backend = "nowhere"\n',
        "its build backend cannot be imported",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_refused(build: Callable[..., str], tmp_path: Path, case: str) -> None:
    """Each with what is wrong with it."""
    text, problem = TABLES[case]
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/pyproject.toml").write_text(text)
    with pytest.raises(BuildError, match="cannot build `demo") as caught:
        build(tmp_path / "demo")
    assert problem in caught.value.problem
    assert "`" in caught.value.hint


def test_a_table_in_another_encoding(build: Callable[..., str], tmp_path: Path) -> None:
    """It is said to be no UTF-8, which TOML is."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/pyproject.toml").write_bytes('[project]\nname = "caf\u00e9"\n'.encode("latin-1"))
    with pytest.raises(BuildError, match=r"its pyproject.toml is not UTF-8 \(byte 21\)"):
        build(tmp_path / "demo")


@pytest.mark.parametrize("files", [[], ["setup.py"], ["pyproject.toml"]])
def test_what_needs_setuptools(build: Callable[..., str], tmp_path: Path, files: list[str]) -> None:
    """A tree without a table is setuptools'; one without any of the files is none."""
    (tmp_path / "demo").mkdir()
    for file in files:
        (tmp_path / "demo" / file).touch()
    problem = "its build requires `setuptools>=40.8.0`, and no such build environment is kept"
    with pytest.raises(BuildError, match=problem if files else "does not appear to be a Python project"):
        build(tmp_path / "demo")


def test_extra_requirements(build: Callable[..., str], tmp_path: Path) -> None:
    """Those of the project's rules, of the tree, and of the hook are all asked for."""
    for tree, options in (
        (make_project(tmp_path / "a", build_requires=["foo"]), {}),
        (make_project(tmp_path / "b", hook_requires=["foo"]), {}),
        (make_project(tmp_path / "c"), {"requires": ["foo"]}),
    ):
        with pytest.raises(BuildError, match="its build requires `foo`, and no such") as caught:
            build(tree, **options)
        assert "`envsync sync --no-offline`" in caught.value.hint


def test_a_build_that_fails(build: Callable[..., str], tmp_path: Path) -> None:
    """The last lines of what it has said are in the error, all of it is in the log, and no more."""
    said = "\n".join(f"line {number}" for number in range(50))
    (tmp_path / "log").write_text("earlier\n")
    with pytest.raises(BuildError) as caught:
        build(make_project(tmp_path / "demo", fails=said))
    error = caught.value
    assert error.log == str(tmp_path / "log")
    assert "`build_wheel` of its build backend failed; it says:\n" in error.problem
    assert "line 49" in error.problem
    assert "line 25\n" not in error.problem
    assert error.problem.count("\n") <= backend.LINES
    assert said in (tmp_path / "log").read_text()
    assert str(tmp_path / "log") in error.hint


def test_a_build_that_is_killed(build: Callable[..., str], tmp_path: Path) -> None:
    """By the kernel perhaps, for want of memory: the signal is named."""
    (tmp_path / "demo").mkdir()
    table = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    (tmp_path / "demo/pyproject.toml").write_text(table)
    (tmp_path / "demo/own.py").write_text("import os\ndef build_wheel(*words): os.kill(os.getpid(), 9)\n")
    with pytest.raises(BuildError, match="`build_wheel` of its build backend was killed by signal 9"):
        build(tmp_path / "demo")


@pytest.mark.parametrize("answer", ["None", "'missing.whl'", "'../log'", "'/etc/passwd'", "['a']"])
def test_a_backend_that_answers_nonsense(build: Callable[..., str], tmp_path: Path, answer: str) -> None:
    """What it says is there has to be there."""
    (tmp_path / "demo").mkdir()
    table = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    (tmp_path / "demo/pyproject.toml").write_text(table)
    (tmp_path / "demo/own.py").write_text(f"def build_wheel(*words): return {answer}\n")
    with pytest.raises(BuildError, match=r"cannot build `demo 1\.0`: its b"):
        build(tmp_path / "demo")


@needs.PROC
def test_a_daemon_is_ended(build: Callable[..., str], tmp_path: Path) -> None:
    """What a backend leaves running is gone when the wheel is there."""
    build(make_project(tmp_path / "demo", daemon=tmp_path / "pid"))
    assert not processes.is_alive(int((tmp_path / "pid").read_text()))


class Enough(Exception):  # noqa: N818  # it is no error
    """What a test's checkpoint raises."""


def test_what_a_checkpoint_raises(build: Callable[..., str], tmp_path: Path) -> None:
    """It ends the build, and comes out as it is."""
    tree = make_project(tmp_path / "demo", log=tmp_path / "hooks", wait_for=tmp_path / "never")

    def checkpoint() -> None:
        if built(tmp_path / "hooks"):
            raise Enough

    with pytest.raises(Enough):
        build(tree, checkpoint=checkpoint)
    assert not processes.is_alive(ran(tmp_path / "hooks")[-1]["pid"])
    assert os.listdir(tmp_path / "out") == []


SAID = {
    "ModuleNotFoundError: No module named 'pkg_resources'": "--build-constraint 'setuptools<81'",
    "ModuleNotFoundError: No module named 'torch'": "--no-build-isolation-package flash-attn",
    "ModuleNotFoundError: No module named 'numpy.core'": "--no-build-isolation-package flash-attn",
    "src/x.c:3:10: fatal error: mpi.h: No such file or directory": "module avail",
    "/bin/sh: 1: nvcc: not found": "module avail",
    "bash: line 1: cmake: command not found": "module avail",
    "error: command 'gcc' failed: No such file or directory: 'gcc'": "module avail",
    "CMake Error: No CMAKE_CXX_COMPILER could be found. The compiler was not found": "module avail",
}


@pytest.mark.parametrize("said", SAID)
def test_hints(said: str) -> None:
    """What is known to help is named, with a command."""
    for package in ("flash-attn 2.7", "flash-attn", "flash-attn==2.7"):
        assert SAID[said] in (hint_of(f"...\n{said}\n", package) or "")


def test_what_is_beside_it_already_is_not_hinted_at() -> None:
    """A build without isolation that does not find a module is helped by locking that."""
    hint = hint_of("ModuleNotFoundError: No module named 'torch'", "flash-attn 2.7", isolated=False) or ""
    assert "imports `torch`, which the lock file does not have" in hint
    assert "--no-build-isolation" not in hint


def test_the_log_is_named_in_any_case() -> None:
    """Whatever helps, the path of all that was said is told, once; and what is named leaves the package out."""
    usual = BuildError("flash-attn 2.7", "boom", log="/c/a log").hint
    assert usual.startswith("leave it out with `envsync sync --no-install-package flash-attn`; ")
    told = "; `less '/c/a log'` shows all that the build has said"
    error = BuildError("a 1", "boom", log="/c/a log", hint="do that")
    assert error.hint == BuildError("a 1", "boom", log=error.log, hint=error.hint).hint == f"do that{told}"
    assert BuildError("a", "b").hint == "leave it out with `envsync sync --no-install-package a`"


def test_no_hint() -> None:
    """Where nothing is known, nothing is said."""
    assert hint_of("error: expected ';' before '}' token", "demo") is None


@pytest.mark.parametrize(
    ("gives", "version", "problem"),
    [
        ({}, "1.0", ""),
        ({}, "1.0.0", ""),
        ({}, None, ""),
        ({"version": "1.0+cu12"}, "1.0", ""),
        ({"version": "2.0"}, None, ""),
        ({"name": "Demo"}, "1.0", ""),
        ({"version": "2.0"}, "1.0", "has version 2.0"),
        ({"version": "1.0"}, "1.0+cu12", "has version 1.0"),
        ({"version": "1.0+cu11"}, "1.0+cu12", r"has version 1.0\+cu11"),
        ({"name": "other"}, "1.0", "is a wheel of another package"),
        ({"name": "other"}, None, "is a wheel of another package"),
    ],
)
def test_what_a_wheel_has_to_be(
    build: Callable[..., str], tmp_path: Path, python: Interpreter, gives: dict[str, str], version: str, problem: str
) -> None:
    """The name always; a version if one is wanted, but for a local one that is added."""
    wheel = build(make_project(tmp_path / "demo", gives=gives))
    if not problem:
        check(wheel, "demo", version, python)
        return
    with pytest.raises(BuildError, match=problem):
        check(wheel, "demo", version, python)


@pytest.mark.parametrize(
    ("filename", "infos", "problem"),
    [
        ("demo.whl", ["demo-1.0"], "is no file name of a wheel"),
        ("demo-1.0-cp27-none-any.whl", ["demo-1.0"], "does not fit "),
        ("demo-1.0-py3-none-any.whl", [], "has 0 dist-info directories"),
        ("demo-1.0-py3-none-any.whl", ["demo-1.0", "demo-2.0"], "has 2 dist-info directories"),
        ("demo-1.0-py3-none-any.whl", ["demo-2.0"], "has the metadata of demo 2.0"),
        ("demo-1.0-py3-none-any.whl", ["odd-1.0"], "has the metadata of odd 1.0"),
        ("demo-1.0-py3-none-any.whl", ["demo-"], "cannot be read"),
        ("demo-1.0-py3-none-any.whl", None, "cannot be read"),
    ],
)
def test_wheels_that_are_refused(
    tmp_path: Path, python: Interpreter, filename: str, infos: list[str] | None, problem: str
) -> None:
    """By their name, their tags, or what is in them."""
    path = tmp_path / filename
    if infos is None:
        path.write_bytes(b"x")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("demo/x.py", "")
            for info in infos:
                name, _, version = info.partition("-")
                archive.writestr(f"{info}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    with pytest.raises(BuildError, match=problem):
        check(str(path), "demo", "1.0", python)


def test_this_python(python: Interpreter) -> None:
    """The tests above build with the Python that runs them."""
    assert python.version.split(".")[:2] == [str(part) for part in sys.version_info[:2]]
