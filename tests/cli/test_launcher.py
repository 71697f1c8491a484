"""The launcher: which Python it starts, from wherever it was put, and what it hands on to the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import envsync
from tests.environments import FIXTURES

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SOURCE = Path(envsync.__file__).parent
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
LOOK = """\
import json, os, sys
print(json.dumps([dict(os.environ), sys.argv[1:]]))
"""
START = """\
import os, signal, sys
for name in sys.argv[1].split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
for name in {"SIGPIPE", "SIGXFSZ"} - set(sys.argv[1].split()):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def install(root: Path, *, python: str | None = "python3") -> Path:
    """Put the launcher where pip would put it: beside a Python, with the package in that one's site-packages."""
    (root / SITE).mkdir(parents=True)
    (root / SITE / "envsync").symlink_to(SOURCE)
    (root / "bin").mkdir()
    if python is not None:
        (root / "bin" / python).symlink_to(sys.executable)
    launcher = root / "bin" / "envsync"
    shutil.copy(SOURCE / "launcher.sh", launcher)
    launcher.chmod(0o755)
    return launcher


@pytest.fixture
def current(tmp_path: Path, run_envsync: Run) -> list[str]:
    """The options of a `run` in an environment that is current."""
    options = ["--lock", str(FIXTURES / "pylock.toml"), "--env", str(tmp_path / "env")]
    assert run_envsync("sync", *options).returncode == 0
    return options


def look(words: Sequence[str | Path], env: dict[str, str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Let a `run` become a Python that says what it has got."""
    done = subprocess.run(
        [*map(str, words), "python", "-I", "-c", LOOK, "a b", ""],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    variables, arguments = json.loads(done.stdout)
    return variables, arguments


IGNORED = ["grep", "^SigIgn:", "/proc/self/status"]


def ignored(said: str) -> set[str]:
    """Name the signals that a command was started with ignored."""
    bits = int(said.split()[1], 16)
    return {number.name for number in signal.Signals if bits & (1 << (number - 1))}


def shells() -> list[str]:
    """Name what may be /bin/sh somewhere and is here."""
    return [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


class TestPlaces:
    """Wherever it is, it starts the Python that it was installed with."""

    @pytest.mark.parametrize("name", ["simple", "with a space", "with 'quotes' $HOME", "long" * 40])
    @pytest.mark.parametrize("python", ["python3", "python"])
    def test_installed(self, tmp_path: Path, current: list[str], name: str, python: str) -> None:
        """A path may have spaces, and may be longer than the kernel takes for an interpreter's."""
        launcher = install(tmp_path / name, python=python)
        assert look([launcher, "run", *current, "--"])[1] == ["a b", ""]

    def test_linked_to(self, tmp_path: Path, current: list[str]) -> None:
        """Through symbolic links, absolute and relative ones, it finds its Python."""
        launcher = install(tmp_path / "an installation")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "first").symlink_to(os.path.relpath(launcher, tmp_path / "bin"))
        (tmp_path / "bin" / "envsync").symlink_to(tmp_path / "bin" / "first")
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        assert look(["env", f"PATH={path}", "envsync", "run", *current, "--"])[1] == ["a b", ""]

    def test_as_a_script_of_a_shell(self, tmp_path: Path) -> None:
        """`sh envsync` in its own directory is no other one."""
        launcher = install(tmp_path / "installation")
        done = subprocess.run(["sh", "envsync", "--version"], cwd=launcher.parent, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_as_a_script_of_python(self, tmp_path: Path) -> None:
        """`shiv -c envsync` runs it as Python: the command works all the same."""
        launcher = install(tmp_path / "installation")
        code = (
            f"import runpy, sys; sys.argv = ['x', '--version']; runpy.run_path({str(launcher)!r}, run_name='__main__')"
        )
        env = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
        assert (done.returncode, done.stdout[:8]) == (0, b"envsync ")


class TestNoPython:
    """Where its Python is not to be had it says so, and starts no other one."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        """A directory for PATH, with a Python that tells that it was started."""
        (tmp_path / "other").mkdir()
        for name in ("python", "python3"):
            (tmp_path / "other" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
            (tmp_path / "other" / name).chmod(0o755)
        return tmp_path / "other"

    def refused(self, launcher: Path, other: Path) -> str:
        done = subprocess.run(
            [launcher, "run", "true"],
            env={**os.environ, "PATH": f"{other}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (125, "")
        assert not (other.parent / "started").exists()
        *_, error, hint = done.stderr.splitlines()
        assert error.startswith("envsync: error: ")
        assert hint.startswith("hint: ")
        return error

    def test_gone(self, tmp_path: Path, other: Path) -> None:
        """The base Python was removed: it is named."""
        launcher = install(tmp_path / "installation", python=None)
        (launcher.parent / "python3").symlink_to("/nowhere/python3")
        assert "is gone: `" + str(launcher.parent / "python3") in self.refused(launcher, other)

    def test_never_there(self, tmp_path: Path, other: Path) -> None:
        """`pip install --target`, `--prefix` or `--user` put it where no Python is."""
        launcher = install(tmp_path / "installation", python=None)
        assert "has no python3 beside it" in self.refused(launcher, other)

    @pytest.mark.parametrize("python", [None, "/nowhere/python3", "spoiled", "whole"])
    def test_in_a_directory_that_is_a_url(self, tmp_path: Path, other: Path, python: str | None) -> None:
        """Its password is not in what the launcher says, whatever is wrong there; the shell speaks for itself."""
        launcher = install(tmp_path / "https:" / "user:hunter2@host", python="python3" if python == "whole" else None)
        beside = launcher.parent / "python3"
        if python == "spoiled":
            beside.write_text("#!/nowhere/python3\n")
            beside.chmod(0o755)
        elif python == "whole":
            (launcher.parent.parent / SITE / "envsync").unlink()
        elif python is not None:
            beside.symlink_to(python)
        done = subprocess.run([launcher, "run", "true"], capture_output=True, text=True, check=False)
        assert done.returncode == 125
        assert "https:/host/" in done.stderr
        assert "hunter2" not in done.stderr.partition("envsync: error:")[2]

    def test_not_to_be_started(self, tmp_path: Path, other: Path) -> None:
        """What has the name of a Python and is no program."""
        launcher = install(tmp_path / "installation", python=None)
        (launcher.parent / "python3").write_text("#!/nowhere/python3\n")
        (launcher.parent / "python3").chmod(0o755)
        assert "cannot start the Python" in self.refused(launcher, other)

    def test_without_the_package(self, tmp_path: Path, other: Path) -> None:
        """The Python is there, and envsync was removed from it."""
        launcher = install(tmp_path / "installation")
        (tmp_path / "installation" / SITE / "envsync").unlink()
        assert "has no envsync" in self.refused(launcher, other)

    def test_what_the_hint_says(self, tmp_path: Path, other: Path) -> None:
        """The command that is named works, with the Python that has the libraries."""
        root = tmp_path / "target"
        install(root, python=None)
        shutil.rmtree(root / "lib")
        (root / "envsync").symlink_to(SOURCE)
        done = subprocess.run([root / "bin" / "envsync"], capture_output=True, text=True, check=False)
        command = done.stderr.splitlines()[-1].partition("as in: ")[2].replace("python3", sys.executable)
        assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("shell", shells())
class TestInheritance:
    """The command gets what envsync got, whatever shell is /bin/sh."""

    @pytest.fixture
    def launcher(self, tmp_path: Path, shell: str) -> list[str]:
        words = [shutil.which(shell) or "", *(["sh"] if shell == "busybox" else [])]
        return [*words, str(install(tmp_path / "installation"))]

    def test_variables(self, launcher: list[str], current: list[str]) -> None:
        """All variables, whatever their names: exported functions, dots, digits in front; and their very values."""
        odd = {
            "BASH_FUNC_module%%": "() {  echo loaded $*\n}",
            "odd.name-1": "kept",
            "1": "a\n\nb\n",
            "with space": "  'x' \"y\" $z `w` \\n * ",
            "empty-one": "",
            "umläut": "ö",
            "bin": "b",
            "python": "p",
            "self": "s",
            "link": "l",
        }
        got = look([*launcher, "run", *current, "--"], odd)[0]
        assert {name: value for name, value in got.items() if name in odd} == odd
        expected = os.environ.keys() | odd.keys() | {"VIRTUAL_ENV", "ENVSYNC_IN", "PWD", "SHLVL", "_", "OLDPWD"}
        assert {name for name in got if not name.startswith("ENVSYNC_IN")} <= expected

    def test_more_than_fits_into_one(self, launcher: list[str], current: list[str]) -> None:
        """The functions of a large cluster take more than the 128 KB that the kernel takes in one variable."""
        odd = {f"BASH_FUNC_module{number}%%": "() {  " + "x" * 20_000 + "\n}" for number in range(12)}
        got = look([*launcher, "run", *current, "--"], odd)[0]
        assert {name: value for name, value in got.items() if name.startswith("BASH_FUNC_")} == odd
        assert not [name for name in got if name.startswith("_envsync")]

    def test_without_a_path(self, launcher: list[str], current: list[str]) -> None:
        """Where PATH leads to no command, they are kept, too."""
        got = look([*launcher, "run", *current, "--"], {"odd.name": "kept", "PATH": "/nowhere"})[0]
        assert got["odd.name"] == "kept"

    def test_a_locale_that_is_not_set(self, launcher: list[str], current: list[str]) -> None:
        """What Python sets for itself where the locale is C is not the command's."""
        words = ["env", "-u", "LANG", "-u", "LC_ALL", "-u", "LC_CTYPE", *launcher]
        look_at = subprocess.run([*words, "run", *current, "--", "env"], capture_output=True, text=True, check=True)
        assert "LC_CTYPE" not in look_at.stdout
        words = ["env", "-u", "LANG", "-u", "LC_ALL", "LC_CTYPE=C", *launcher]
        look_at = subprocess.run([*words, "run", *current, "--", "env"], capture_output=True, text=True, check=True)
        assert "LC_CTYPE=" in look_at.stdout

    @pytest.mark.parametrize("before", ["", "SIGPIPE", "SIGXFSZ", "SIGPIPE SIGXFSZ SIGTERM SIGHUP"])
    @pytest.mark.parametrize("lane", ["fast", "slow"])
    def test_signals(self, launcher: list[str], current: list[str], before: str, lane: str, tmp_path: Path) -> None:
        """A signal is ignored in the command if it was when envsync began, and only then."""
        if lane == "slow":
            (tmp_path / "env" / ".envsync" / "stamp").unlink()
        words = [sys.executable, "-c", START, before, *launcher, "run", "-q", *current, "--", *IGNORED]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert ignored(done.stdout) == set(before.split())


@pytest.mark.parametrize("lane", ["fast", "slow"])
def test_as_a_module(run_envsync: Run, current: list[str], tmp_path: Path, lane: str) -> None:
    """`python -m envsync` cannot know, so the command has the signals as commands have them."""
    if lane == "slow":
        (tmp_path / "env" / ".envsync" / "stamp").unlink()
    assert ignored(run_envsync("run", "-q", *current, "--", *IGNORED).stdout) == set()


def test_a_pipeline_ends_by_sigpipe(run_envsync: Run, current: list[str]) -> None:
    """A writer whose reader has gone ends by the signal, and without a word."""
    script = "yes | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}"
    done = run_envsync("run", *current, "--", "bash", "-c", script)
    assert (done.stdout, done.stderr) == (f"{128 + signal.SIGPIPE}\n", "")


def test_a_command_that_is_not_there_leaves_signals_alone(run_envsync: Run, current: list[str]) -> None:
    """What could not be executed is said, though nobody reads it: no signal ends that."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        assert run_envsync("run", *current, "--", "no-such", capture_output=False, stderr=nobody).returncode == 127
