"""A lock file that asks for nothing does not empty an environment, unless that is said."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import envsync
from envsync.errors import LockFileError
from tests.environments import FIXTURES, site_packages
from tests.wheels import build_wheel

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAD = 'lock-version = "1.0"\ncreated-by = "test"\n'
EMPTY = {
    "no bytes": ("requirements.txt", ""),
    "comments": ("requirements.txt", "# made by a tool\n\n"),
    "an index": ("requirements.txt", "--index-url https://index.example/simple\n"),
    "no packages": ("pylock.toml", HEAD + "packages = []\n"),
    "a marker": ("requirements.txt", "greet==1.0 ; sys_platform == 'no such'\n"),
    "an extra": (
        "pylock.toml",
        HEAD
        + 'extras = ["more"]\n[[packages]]\nname = "greet"\nversion = "1.0"\nmarker = "\'more\' in extras"\n'
        + f'wheels = [{{path = "greet-1.0-py3-none-any.whl", hashes = {{sha256 = "{"0" * 64}"}}}}]\n',
    ),
}
empty = pytest.mark.parametrize(("name", "text"), EMPTY.values(), ids=EMPTY)


@pytest.fixture
def project(tmp_path: Path, run_envsync: Run) -> Path:
    """An environment that has what its lock file says."""
    (tmp_path / "full").mkdir()
    shutil.copy(FIXTURES / "pylock.toml", tmp_path / "full")
    shutil.copytree(FIXTURES / "wheels", tmp_path / "full" / "wheels")
    assert run_envsync("sync", "-q", "--lock", "full/pylock.toml", "--env", "env").returncode == 0
    return tmp_path


def installed(env: Path) -> list[str]:
    return sorted(path.name for path in site_packages(env).glob("*.dist-info"))


@empty
@pytest.mark.parametrize("command", [("run", "--", "true"), ("sync",), ("sync", "--dry-run")], ids=" ".join)
def test_it_is_refused(project: Path, run_envsync: Run, name: str, text: str, command: tuple[str, ...]) -> None:
    """A file that is being written begins empty, and `run` starts just then: nothing is removed, and it is said."""
    (project / name).write_text(text)
    before = installed(project / "env")
    done = run_envsync(command[0], "--lock", name, "--env", "env", *command[1:])
    assert done.returncode == 125
    assert f"`{name}`" in done.stderr
    assert f"all {len(before)} of environment `env` would be removed: " in done.stderr
    assert "--allow-empty" in done.stderr
    assert installed(project / "env") == before
    done = run_envsync("run", "--lock", "full/pylock.toml", "--env", "env", "--", "greet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO, WORLD!\n", "")


@empty
def test_it_is_done_if_that_is_said(project: Path, run_envsync: Run, name: str, text: str) -> None:
    """By the option, a variable, the file, or the library; afterwards the environment is current without it, too."""
    (project / name).write_text(text)
    done = run_envsync("sync", "--lock", name, "--env", "env", "--allow-empty")
    assert done.returncode == 0, done.stderr
    assert installed(project / "env") == []
    assert run_envsync("run", "--lock", name, "--env", "env", "--", "true").returncode == 0


def test_by_a_variable_or_in_the_file(project: Path, run_envsync: Run) -> None:
    """As every option."""
    (project / "requirements.txt").touch()
    done = run_envsync("sync", "--lock", "requirements.txt", "--env", "env", env={"ENVSYNC_ALLOW_EMPTY": "1"})
    assert done.returncode == 0, done.stderr
    assert run_envsync("sync", "-q", "--lock", "full/pylock.toml", "--env", "env").returncode == 0
    (project / "pyproject.toml").write_text("[tool.envsync]\nallow-empty = true\n")
    assert run_envsync("sync", "--lock", "requirements.txt", "--env", "env").returncode == 0
    assert installed(project / "env") == []


def test_by_the_library(project: Path) -> None:
    """It has the option, too."""
    (project / "requirements.txt").touch()
    lock, env = project / "requirements.txt", project / "env"
    with pytest.raises(LockFileError, match="would be removed"):
        envsync.sync(lock, env=env)
    assert envsync.sync(lock, env=env, allow_empty=True).removed


@empty
def test_a_new_environment_may_be_empty(tmp_path: Path, run_envsync: Run, name: str, text: str) -> None:
    """Where nothing is, nothing is lost; so it is where only what it was seeded with is."""
    (tmp_path / name).write_text(text)
    done = run_envsync("run", "--lock", name, "--env", "env", "--", "true")
    assert done.returncode == 0, done.stderr
    assert run_envsync("sync", "--lock", name, "--env", "env").returncode == 0


def test_what_it_was_seeded_with_does_not_count(tmp_path: Path, run_envsync: Run) -> None:
    """An exact sync keeps pip, so that nothing would be removed."""
    build_wheel(tmp_path, name="pip", version="1.0")
    (tmp_path / "pip.txt").write_text("./pip-1.0-py3-none-any.whl\n")
    assert run_envsync("sync", "--lock", "pip.txt", "--env", "env").returncode == 0
    (tmp_path / "requirements.txt").touch()
    done = run_envsync("sync", "--lock", "requirements.txt", "--env", "env")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "env") == ["pip-1.0.dist-info"]


def test_an_inexact_sync_removes_nothing(project: Path, run_envsync: Run) -> None:
    """So there is nothing to refuse."""
    (project / "requirements.txt").touch()
    before = installed(project / "env")
    done = run_envsync("sync", "--lock", "requirements.txt", "--env", "env", "--inexact")
    assert done.returncode == 0, done.stderr
    assert installed(project / "env") == before


def test_an_environment_that_has_to_be_remade_is_not_emptied_either(project: Path, run_envsync: Run) -> None:
    """Its packages would go with its Python."""
    (project / "requirements.txt").touch()
    (project / "env" / "pyvenv.cfg").unlink()
    before = installed(project / "env")
    done = run_envsync("sync", "--lock", "requirements.txt", "--env", "env")
    assert done.returncode == 125
    assert "would be removed" in done.stderr
    assert installed(project / "env") == before


OTHERS = {
    "tool.py": ("x = 1\n", "a Python script"),
    "job.sh": ("echo\n", "a script"),
    "lock": ("#!/usr/bin/env python3\n# /// script\n# ///\n", "a script"),
    "requirements.txt": ("import os\nos.abort()\n", "a Python script"),
    "page.txt": ("<!DOCTYPE html>\n<html><body>404</body></html>\n", "a page of HTML"),
    "lock.txt": ('{"packages": []}\n', "JSON"),
    "greet-1.0-py3-none-any.whl": ("PK\3\4", "a wheel"),
    "zipped": ("PK\3\4\0\0\0", "an archive"),
    "ls": ("\x7fELF\2\1\1\0\0", "a program"),
    "data": ("\0\0\0", "no text"),
}


@pytest.mark.parametrize(("name", "text", "what"), [(name, *rest) for name, rest in OTHERS.items()], ids=OTHERS)
def test_a_file_of_another_kind_is_told(tmp_path: Path, run_envsync: Run, name: str, text: str, what: str) -> None:
    """What was named by mistake is said, not that its first line is no requirement."""
    (tmp_path / name).write_text(text)
    done = run_envsync("sync", "--lock", name, "--env", "env")
    assert done.returncode == 125
    assert f"envsync: error: cannot use lock file `{name}`: it is {what}" in done.stderr


def test_requirements_with_an_interpreter_of_their_own_are_read(tmp_path: Path, run_envsync: Run) -> None:
    """`#!/usr/bin/env -S pip install -r` is a line that some have."""
    (tmp_path / "requirements.txt").write_text("#!/usr/bin/env -S pip install -r\n")
    assert run_envsync("sync", "--env", "env").returncode == 0
