"""A script with a lock file beside it (PEP 723, as uv locks it) runs in an environment of its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES

Run = Callable[..., subprocess.CompletedProcess[str]]
GREET = "greet-1.0-py3-none-any.whl"
SCRIPT = """\
# /// script
# requires-python = ">=3.9"
# dependencies = ["greet"]
# ///
import importlib.metadata, sys
print(importlib.metadata.version("greet"), sys.prefix, *sys.argv[1:])
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    (tmp_path / "x.py").write_text(SCRIPT)
    sha256 = hashlib.sha256((tmp_path / "wheels" / GREET).read_bytes()).hexdigest()
    (tmp_path / "x.py.lock").write_text(
        'version = 1\nrevision = 5\nrequires-python = ">=3.9"\n\n[manifest]\nrequirements = [{ name = "greet" }]\n\n'
        '[[package]]\nname = "greet"\nversion = "1.0"\nsource = { registry = "wheels" }\n'
        f'wheels = [{{ path = "{GREET}", hash = "sha256:{sha256}" }}]\n'
    )
    return tmp_path / "x.py"


def environments(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache" / "environments").iterdir() if not path.name.startswith(".")]


def test_a_script_is_run_by_the_python_of_its_environment(script: Path, tmp_path: Path, run_envsync: Run) -> None:
    """It is in the cache, whether the lock file is found beside the script or named; the project's is left alone."""
    (tmp_path / "pyproject.toml").write_text('[tool.envsync]\nenv = "theirs"\n')
    for words in (
        ("x.py", "a b"),
        ("./x.py", "a b"),
        ("--lock", "x.py.lock", "--", "x.py", "a b"),
        ("--lock", "x.py.lock", "--", "python", "x.py", "a b"),
    ):
        done = run_envsync("run", *words, env={"ENVSYNC_CACHE_DIR": str(tmp_path / "cache")})
        (name,) = environments(tmp_path)
        assert name.startswith("x-")
        assert done.stdout == f"1.0 {tmp_path}/cache/environments/{name} a b\n", done.stderr
    assert not (tmp_path / ".venv").exists()
    assert not (tmp_path / "theirs").exists()


def test_env_says_where_it_is_to_be(script: Path, tmp_path: Path, run_envsync: Run) -> None:
    """As for any other lock file."""
    assert run_envsync("run", "--env", "here", "x.py").stdout == f"1.0 {tmp_path}/here\n"


def test_a_script_without_a_lock_file_is_a_command_as_any_other(tmp_path: Path, run_envsync: Run) -> None:
    """Then the lock file is the project's."""
    (tmp_path / "y.py").write_text("")
    done = run_envsync("run", "y.py")
    assert done.returncode == 125
    assert "no lock file" in done.stderr


def test_a_script_that_asks_for_something_else_is_noticed(script: Path, tmp_path: Path, run_envsync: Run) -> None:
    """What it says of itself is compared, whatever pyproject.toml beside it says."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "1"\n')
    assert run_envsync("run", "--env", "here", "--locked", "x.py").returncode == 0
    script.write_text(SCRIPT.replace('"greet"', '"greet<9"'))
    done = run_envsync("sync", "--lock", "x.py.lock", "--env", "there")
    assert "not what its script asks for: the script requires `greet<9`" in done.stderr
    done = run_envsync("run", "--env", "here", "--locked", "x.py")
    assert done.returncode == 125
    assert "`uv lock --script x.py` locks that" in done.stderr


@pytest.mark.parametrize("home", [None, "relative"])
def test_without_a_home_there_is_no_place_for_it(script: Path, run_envsync: Run, home: str | None) -> None:
    """The error says what to name."""
    done = run_envsync("run", "x.py", env={"HOME": home, "XDG_CACHE_HOME": None, "ENVSYNC_CACHE_DIR": None})
    assert done.returncode == 125
    assert "there is no place for the environment of a script" in done.stderr
    assert "--env '.venvs/{digest}'" in done.stderr
