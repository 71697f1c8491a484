"""Whatever goes wrong that nobody has expected: one line, 125, and a traceback only for who asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import envsync
from envsync.cli.last_error import unexpected
from envsync.errors import FetchError
from tests.environments import FIXTURES

LOCK = str(FIXTURES / "pylock.toml")
ROOT = str(Path(envsync.__file__).parent.parent)


def spoiled(tmp_path: Path, raising: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of an envsync in which resolving a request raises something."""
    program = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from envsync.launch import request\n"
        f"def resolve(*_): {raising}\n"
        "request.resolve = resolve\n"
        "from envsync.__main__ import start\n"
        "start()\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", program, *arguments],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


RAISED = {
    "ValueError": "raise ValueError('odd\\nthing')",
    "RecursionError": "return resolve(*_)",
    "MemoryError": "raise MemoryError",
    "ImportError": "import no_such_module_anywhere",
    "OSError": "raise OSError(5, 'Input/output error', 'x')",
    "ExceptionGroup": "raise ExceptionGroup('some', [ExceptionGroup('more', [KeyError('odd')]), ValueError('other')])",
    "UnicodeEncodeError": "'\\udcff'.encode()",
}


@pytest.mark.parametrize("command", [("run", "--", "true"), ("sync",), ("status", "--json")])
@pytest.mark.parametrize("raising", RAISED.values(), ids=RAISED)
def test_one_line_and_125(tmp_path: Path, raising: str, command: tuple[str, ...]) -> None:
    """Under `run`, 1 is the command's own status; and a traceback says nothing to who reads it at night."""
    done = spoiled(tmp_path, raising, *command)
    assert done.returncode == 125
    lines = done.stderr.splitlines()
    assert lines[0].startswith("envsync: error: ")
    assert [line.partition(":")[0] for line in lines[1:]] == ["hint"]
    assert "Traceback" not in done.stderr


def test_who_asks_for_it_sees_where(tmp_path: Path) -> None:
    """ENVSYNC_DEBUG=1, for a report."""
    done = spoiled(tmp_path, RAISED["ValueError"], "sync", ENVSYNC_DEBUG="1")
    assert done.returncode == 125
    assert "Traceback" in done.stderr
    assert "envsync: error: a fault of envsync: ValueError: odd thing" in done.stderr


def test_who_asks_for_it_sees_no_password(tmp_path: Path) -> None:
    """What is sent along with a report is for others to read."""
    done = spoiled(tmp_path, "raise ValueError('https://me:hunter2@host/x')", "sync", ENVSYNC_DEBUG="1")
    assert "ValueError: https://host/x\n" in done.stderr
    assert "hunter2@" not in done.stderr.replace("raise ValueError('https://me:hunter2@", "")


def test_an_error_of_ours_in_a_group_is_said_as_itself(tmp_path: Path) -> None:
    """What a task group of the network has wrapped is what the user can do something about."""
    raising = "from envsync.errors import FetchError; raise ExceptionGroup('x', [FetchError('no answer')])"
    done = spoiled(tmp_path, raising, "sync")
    assert (done.returncode, done.stderr) == (125, "envsync: error: no answer\nhint: `envsync sync` tries again\n")


def test_an_interrupt_in_a_group_ends_as_the_interrupt(tmp_path: Path) -> None:
    """A shell has to see that its loop was interrupted."""
    done = spoiled(tmp_path, "raise BaseExceptionGroup('x', [ValueError(), KeyboardInterrupt()])", "sync")
    assert done.returncode == -2


def test_where_nobody_listens_the_status_says_it(tmp_path: Path) -> None:
    """With stderr and stdout closed, too."""
    words = [sys.executable, "-m", "envsync", "sync", "--json", "--lock", "nowhere"]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&- 2>&-', "sh", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT}, check=False
    )
    assert done.returncode == 125


@pytest.mark.parametrize(
    "missing", ["cli/tell.py", "cli/last_error.py", "errors/__init__.py", "launch/messages.py", "launch/request.py"]
)
def test_a_broken_installation_says_so(tmp_path: Path, missing: str) -> None:
    """Some of its own files are gone: still one line, and no status that could be the command's."""
    shutil.copytree(Path(ROOT) / "envsync", tmp_path / "envsync", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "envsync" / missing).unlink()
    words = [sys.executable, "-m", "envsync", "run", "--lock", "nowhere.toml", "--", "true"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("envsync: error: ")


def test_passwords_are_not_shown() -> None:
    """What an error says may be a URL."""
    said = str(unexpected(ValueError("cannot parse https://me:secret@host/x")))
    assert "secret" not in said
    assert "https://host/x" in said


def test_no_beginning_of_a_password_is_shown() -> None:
    """It is hidden before the line is cut, in whatever form it is one."""
    for url in ("https://me:secret/", "https%3A%2F%2Fme%3Asecret%2F", "https:/me:secret"):
        said = str(unexpected(ValueError(f"{'x' * 170} {url}{'y' * 60}@host")))
        assert "secret" not in said


def test_a_long_error_is_cut() -> None:
    """One line is one line."""
    assert len(str(unexpected(ValueError("x\n" * 100_000)))) < 300


@pytest.mark.parametrize(
    "words", [("sync", "--cache-dir", "c"), ("sync", "--cache-fallback", "f"), ("cache", "prune", "--cache-dir", "c")]
)
def test_the_working_directory_was_removed(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A job whose directory was cleaned away is told so."""
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    named = ("--lock", LOCK, "--env", str(tmp_path / "env")) if words[0] == "sync" else ()
    program = f"import sys; sys.path.insert(0, {ROOT!r}); from envsync.__main__ import start; start()"
    command = ["sh", "-c", script, "sh", sys.executable, "-I", "-c", program, *words, *named]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("envsync: error: the working directory was removed")
    assert not (tmp_path / "env").exists()


def test_the_known_error_keeps_its_status() -> None:
    """The handler is for the others."""
    assert FetchError("x").exit_code == 125
