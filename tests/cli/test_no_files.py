"""What is no file where a file belongs: a pipe, a socket, a device, a directory. It is said, and not waited for."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")


def make_socket(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # its path may be too long for an address
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(place)


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": make_socket,
    "directory": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: path.symlink_to("/dev/null"),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
some_kinds = pytest.mark.parametrize("make", [os.mkfifo, KINDS["directory"]], ids=["fifo", "directory"])


def one_sentence(done: subprocess.CompletedProcess[str], status: int = 125) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("envsync: error: ")


@kinds
@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt", "pylock.x.toml", "uv.lock"])
def test_as_lock_file(tmp_path: Path, run_envsync: Run, make: Callable[[Path], None], name: str) -> None:
    """It is refused at once, by its name, and no environment is made."""
    make(tmp_path / name)
    done = run_envsync("run", "--lock", name, "--env", "env", "--", "true", timeout=20)
    one_sentence(done)
    assert name in done.stderr
    assert not (tmp_path / "env").exists()


@kinds
@pytest.mark.parametrize("option", ["-r", "-c"])
def test_as_included_file(tmp_path: Path, run_envsync: Run, make: Callable[[Path], None], option: str) -> None:
    """The line that includes it is named."""
    make(tmp_path / "more.txt")
    (tmp_path / "requirements.txt").write_text(f"\n{option} more.txt\n")
    done = run_envsync("run", "--env", "env", "--", "true", timeout=20)
    one_sentence(done)
    assert "line 2" in done.stderr
    assert "more.txt" in done.stderr


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"directory"}))
def test_as_pyproject(tmp_path: Path, run_envsync: Run, name: str) -> None:
    """It is refused, too: what options it has cannot be known. A directory has none, and is passed over."""
    shutil.copy(FIXTURES / "pylock.toml", tmp_path)
    KINDS[name](tmp_path / "pyproject.toml")
    done = run_envsync("run", "--env", "env", "--", "true", timeout=20)
    one_sentence(done)
    assert "pyproject.toml" in done.stderr


def test_what_is_written_to_a_pipe_is_not_read(tmp_path: Path, run_envsync: Run) -> None:
    """`--lock <(tool)`: the sentence says what it is, and what to do instead."""
    reading, writing = os.pipe()
    os.write(writing, (FIXTURES / "requirements.txt").read_bytes())
    os.close(writing)
    done = run_envsync("sync", "--lock", f"/dev/fd/{reading}", "--env", "env", pass_fds=(reading,), timeout=20)
    os.close(reading)
    one_sentence(done)
    assert "pipe" in done.stderr
    assert "hint: " in done.stderr


@kinds
def test_as_events_file(tmp_path: Path, run_envsync: Run, make: Callable[[Path], None]) -> None:
    """Events are never in the way of the command; what cannot be written is said once."""
    make(tmp_path / "events")
    words = ("--lock", LOCK, "--env", "env")
    environ = {"ENVSYNC_EVENTS": str(tmp_path / "events")}
    done = run_envsync("run", "-q", *words, "--", "greet", env=environ, timeout=20)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")
    assert done.stderr.count("events file") <= 1
    done = run_envsync("run", "-q", *words, "--", "greet", env=environ, timeout=20)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")


def test_a_reader_of_an_events_pipe_gets_them(tmp_path: Path, run_envsync: Run) -> None:
    """A pipe that is read serves as an events file."""
    os.mkfifo(tmp_path / "events")
    fd = os.open(tmp_path / "events", os.O_RDONLY | os.O_NONBLOCK)
    environ = {"ENVSYNC_EVENTS": str(tmp_path / "events")}
    assert run_envsync("sync", "-q", "--lock", LOCK, "--env", "env", env=environ).stderr == ""
    assert b'"synced"' in os.read(fd, 1 << 16)
    os.close(fd)


STATE = ["stamp", "stamp.draining", "journal", "installed.json", "progress.json", "failure.json", "turn", "locking"]


@some_kinds
@pytest.mark.parametrize("name", STATE)
def test_as_state_file(tmp_path: Path, run_envsync: Run, make: Callable[[Path], None], name: str) -> None:
    """It counts as absent and is replaced; a directory or a link to a device may be refused, but in a sentence."""
    words = ("--lock", LOCK, "--env", "env")
    assert run_envsync("sync", "-q", *words).returncode == 0
    path = tmp_path / "env" / ".envsync" / name
    path.unlink(missing_ok=True)
    make(path)
    done = run_envsync("status", *words, timeout=20)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    for lock in (NEXT, LOCK):
        done = run_envsync("run", "--lock", lock, "--env", "env", "--", "python", "-c", "import greet", timeout=30)
        if make is KINDS["directory"] or (name == "locking" and make is not KINDS["fifo"]):
            assert done.returncode in (0, 125)
            assert "Traceback" not in done.stderr
        else:
            assert done.returncode == 0, done.stderr
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@some_kinds
@pytest.mark.parametrize("name", [".lock", ".envsync/in-use", ".envsync/leading"])
def test_as_lock(tmp_path: Path, run_envsync: Run, make: Callable[[Path], None], name: str) -> None:
    """It is refused in a sentence, or replaced; nobody hangs."""
    words = ("--lock", LOCK, "--env", "env")
    assert run_envsync("sync", "-q", *words).returncode == 0
    path = tmp_path / "env" / name
    path.unlink(missing_ok=True)
    make(path)
    for command in (("status", "--env", "env"), ("run", "--lock", NEXT, "--env", "env", "--", "true")):
        done = run_envsync(*command, timeout=30)
        assert done.returncode in (0, 125), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["pyvenv.cfg", "RECORD", "wheel"])
def test_a_pipe_elsewhere(tmp_path: Path, run_envsync: Run, name: str) -> None:
    """Nor does anybody wait for one that has become a part of the environment, or a wheel."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    (tmp_path / "requirements.txt").write_text("greet @ file:wheels/greet-1.0-py3-none-any.whl\n")
    assert run_envsync("sync", "-q", "--env", "env").returncode == 0
    env = tmp_path / "env"
    path = {
        "pyvenv.cfg": env / "pyvenv.cfg",
        "RECORD": next(env.glob("lib/python*/site-packages/greet-1.0.dist-info/RECORD")),
        "wheel": tmp_path / "wheels/greet-1.0-py3-none-any.whl",
    }[name]
    path.unlink()
    os.mkfifo(path)
    for command in (("sync", "--env", "env"), ("check", "--env", "env"), ("status",)):
        done = run_envsync(*command, timeout=30)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 125)
