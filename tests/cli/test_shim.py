"""`envsync shim`: a file that behaves as the Python of an environment, and a kernel of Jupyter that does."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES

Run = Callable[..., subprocess.CompletedProcess[str]]
LOCK = FIXTURES / "pylock.toml"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    shutil.copy(LOCK, tmp_path)
    return tmp_path / "pylock.toml"


def output(*words: str | os.PathLike[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def test_it_is_the_python_of_the_environment(
    run_envsync: Run, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any directory: with its modules, the arguments as they are, and the exit status."""
    monkeypatch.chdir(tmp_path)
    done = run_envsync("shim", "py", "--env", "env")
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "env").exists(), "nothing is synced before"
    monkeypatch.chdir("/")
    python = tmp_path / "py"
    assert output(python, "-c", "import sys, greet; print(sys.prefix, sys.argv[1:])", "a  b", "*", "") == (
        f"{tmp_path / 'env'} ['a  b', '*', '']\n"
    )
    assert subprocess.run([python, "-c", "raise SystemExit(7)"], check=False).returncode == 7
    script = tmp_path / "script"
    script.write_text(f"#!{python}\nimport greet, sys\nprint(sys.prefix)\n")
    script.chmod(0o755)
    assert output(script) == f"{tmp_path / 'env'}\n"


def test_each_start_makes_it_current(run_envsync: Run, lock: Path, tmp_path: Path) -> None:
    """After the lock file has changed, too; and if that cannot be, the reason is on stderr."""
    python = tmp_path / "py"
    run_envsync("shim", python, "--lock", lock, "--env", tmp_path / "env")
    version = "import importlib.metadata as m; print(m.version('greet'))"
    before = output(python, "-c", version)
    shutil.copy(FIXTURES / "pylock.next.toml", lock)
    assert output(python, "-c", version) != before
    lock.write_text("lock-version = '9.0'\n")
    done = subprocess.run([python, "-c", "print(1)"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"cannot use lock file `{lock}`" in done.stderr


def test_another_command(run_envsync: Run, lock: Path, tmp_path: Path) -> None:
    """For what takes the path of a shell, or of a tool that is in the environment."""
    shell = tmp_path / "shell"
    run_envsync("shim", shell, "--lock", lock, "--env", tmp_path / "env", "--quiet", "--", "bash", "-e")
    assert output(shell, "-c", 'greet "$0"', "you") == "HELLO, YOU!\n"
    assert subprocess.run([shell, "-c", "false; true"], capture_output=True, check=False).returncode == 1


def test_whatever_is_in_a_path(run_envsync: Run, lock: Path, tmp_path: Path) -> None:
    """Words of a shell are not taken apart."""
    odd = tmp_path / "it's $HOME `x`\n\"*"
    odd.mkdir()
    python = odd / "\udcff"  # in the name of an environment, venv takes no such thing
    run_envsync("shim", python, "--lock", lock, "--env", odd / "env")
    same = "import greet, os, sys; print(os.path.samefile(sys.prefix, sys.argv[1]))"
    assert output(python, "-c", same, odd / "env") == "True\n"


def test_what_is_somebody_elses_stays(run_envsync: Run, lock: Path, tmp_path: Path) -> None:
    """Its own file it replaces, as a whole, with a new inode: somebody may be reading the one before."""
    python = tmp_path / "py"
    python.write_text("#!/bin/sh\necho mine\n")
    done = run_envsync("shim", python, "--lock", lock)
    assert done.returncode == 2
    assert "has not written it" in done.stderr
    assert f"`envsync shim {python}-2`" in done.stderr
    assert python.read_text() == "#!/bin/sh\necho mine\n"
    python.unlink()
    run_envsync("shim", python, "--lock", lock, "--env", tmp_path / "one")
    inode = python.stat().st_ino
    assert run_envsync("shim", python, "--lock", lock, "--env", tmp_path / "two").returncode == 0
    assert python.stat().st_ino != inode
    assert str(tmp_path / "two") in python.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["py", "pylock.toml", "wheels"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say either where"),
        (["py", "--jupyter", "name"], "say either where"),
        (["--jupyter", "a/b"], "cannot be the name of a kernel"),
        (["missing/py"], "No such file or directory"),
        (["py", "--index-url", "https://user:hunter2@host.test/"], "holds a password"),
        (["py", "--lock", "missing.toml"], "missing.toml"),
    ],
)
def test_what_cannot_be(
    run_envsync: Run, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    """It is said, with what to do, and nothing is written."""
    del lock
    monkeypatch.chdir(tmp_path)
    done = run_envsync("shim", *words)
    assert done.returncode in (2, 125)
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "hunter2" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pylock.toml", "wheels"]


def test_it_can_be_run_by_those_whom_the_umask_lets(run_envsync: Run, lock: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run_envsync("shim", tmp_path / "py", "--lock", lock)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "py").stat().st_mode) == 0o750


def test_a_kernel_of_jupyter(run_envsync: Run, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words run the environment's Python; a kernel that somebody else has made stays."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    words = ("shim", "--lock", lock, "--env", tmp_path / "env", "--jupyter")
    assert run_envsync(*words, "Mine", "--display-name", "My project").returncode == 0
    path = tmp_path / "jupyter" / "kernels" / "mine" / "kernel.json"
    found = json.loads(path.read_text())
    assert (found["display_name"], found["language"]) == ("My project", "python")
    assert found["argv"][-5:] == ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert output(*found["argv"][:-4], "-c", "import greet, sys; print(sys.prefix)") == f"{tmp_path / 'env'}\n"
    assert run_envsync(*words, "mine").returncode == 0
    assert json.loads(path.read_text())["display_name"] == "mine"
    path.write_text('{"argv": ["python"]}')
    done = run_envsync(*words, "mine")
    assert done.returncode == 2
    assert "`jupyter kernelspec list`" in done.stderr
    assert path.read_text() == '{"argv": ["python"]}'
