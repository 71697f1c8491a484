"""The source trees of tests are sound: pip, which knows nothing of them, installs them without the network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import built, git, make_project, make_repository, make_sdist, ran


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The Python of an environment that has nothing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    return str(tmp_path / "env" / "bin" / "python")


def install(python: str, *words: str | os.PathLike[str]) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-cache-dir", *words]
    subprocess.run(command, capture_output=True, check=True)


def says(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_tree_is_installed_as_an_editable_and_as_a_wheel(tmp_path: Path, python: str) -> None:
    """Both by hooks that the log counts; an editable sees what is written into the tree later."""
    tree = make_project(tmp_path / "a-b", "a-b", "1.5", log=tmp_path / "log", scripts={"ab": "a_b:main"})
    install(python, "-e", tree, "--config-settings", "x=1")
    (tree / "src/a_b/__init__.py").write_text("def main(): print('later')\n")
    assert subprocess.check_output([os.path.join(os.path.dirname(python), "ab")], text=True) == "later\n"
    install(python, "--force-reinstall", make_sdist(tree))
    assert says(python, "import a_b; print(a_b.__file__)").endswith("site-packages/a_b/__init__.py")
    assert built(tmp_path / "log") == ["build_editable a-b", "build_wheel a-b"]
    assert ran(tmp_path / "log")[0]["config"] == {"x": "1"}


def test_the_same_again_gives_the_same_bytes(tmp_path: Path, python: str) -> None:
    """Of two trees that were made alike: the sdist, the commit and the wheel."""
    found = []
    for place in (tmp_path / "one", tmp_path / "two"):
        tree = make_project(place / "demo", native=True)
        digest = hashlib.sha256(make_sdist(tree).read_bytes()).hexdigest()
        command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--wheel-dir", str(place), str(tree)]
        subprocess.run(command, capture_output=True, check=True)
        (wheel,) = place.glob("*.whl")
        found.append((digest, wheel.name, wheel.read_bytes(), make_repository(tree)))
    assert found[0] == found[1]


def test_a_commit_is_installed(tmp_path: Path, python: str) -> None:
    """Of a repository that went on since."""
    tree = make_project(tmp_path / "demo")
    commit = make_repository(tree)
    make_project(tree, version="2.0")
    assert make_repository(tree, "Go on") != commit
    install(python, f"demo @ git+file://{tree}@{commit}")
    code = (
        "import importlib.metadata as m; d = m.distribution('demo'); print(d.version, d.read_text('direct_url.json'))"
    )
    version, _, text = says(python, code).partition(" ")
    assert version == "1.0"
    assert json.loads(text)["vcs_info"]["commit_id"] == commit
    assert git(tree, "status", "--porcelain") == ""


def test_a_build_waits_leaves_a_process_and_fails(tmp_path: Path, python: str) -> None:
    """As it is told to. The process that is left holds what it was given: pip waits for the end of its output."""
    daemon, flag = tmp_path / "daemon", tmp_path / "flag"
    tree = make_project(tmp_path / "demo", log=tmp_path / "log", fails="no cc", daemon=daemon, wait_for=flag)
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        while not daemon.exists() or not daemon.read_text():
            assert pip.poll() is None
        assert built(tmp_path / "log") == ["build_wheel demo"]
        flag.touch()
        os.kill(int(daemon.read_text()), 9)
        assert "no cc" in pip.communicate()[0]
    assert pip.returncode != 0


def test_what_is_built_is_something_else(tmp_path: Path, python: str) -> None:
    """The wheel says another version than the tree."""
    tree = make_project(tmp_path / "demo", gives={"version": "3.0"})
    install(python, tree)
    assert says(python, "import importlib.metadata as m; print(m.version('demo'))") == "3.0"
