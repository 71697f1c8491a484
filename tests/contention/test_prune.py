"""`env prune` in a loop against launches in a loop: each has its environment whole from its start to its end."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES
from tests.unit.scene import holder

LOCKS = (("pylock.toml",), ("pylock.next.toml",), ("pylock.toml", "--inexact"))
TEMPLATE = "envs/{digest}/venv"
VERIFY = f"""\
import os, random, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.environments import unverified
env = Path(sys.prefix)
before = os.stat(env), unverified(env)
import greet, shout
time.sleep(random.random() / 20)
after = os.stat(env), unverified(env)
assert before[1] == after[1] == [], (before, after)
assert before[0].st_ino == after[0].st_ino
assert (env / ".envsync/stamp").is_file()
"""
"""What each launch runs: its packages are whole, and its environment is the same all the while."""
PRUNE = [*envsync_command(), "env", "prune", TEMPLATE, "--older-than", "0s", "--yes", "--json"]


@contextmanager
def pruned(directory: Path) -> Iterator[list[str]]:
    """Prune in a loop meanwhile. Yields what was removed."""
    removed: list[str] = []
    wrong: list[str] = []
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            done = subprocess.run(PRUNE, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                wrong.append(done.stdout + done.stderr)
                return
            removed.extend(each["path"] for each in json.loads(done.stdout)["removed"])

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield removed
    finally:
        over.set()
        thread.join()
    assert wrong == []


def launch(directory: Path, nth: int) -> subprocess.Popen[str]:
    lock, *options = LOCKS[nth % len(LOCKS)]
    words = ["run", "--lock", str(FIXTURES / lock), "--env", TEMPLATE, *options, "--", "python", "-c", VERIFY]
    return subprocess.Popen(
        [*envsync_command(), *words], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def launch_all(directory: Path, launches: int, at_once: int) -> None:
    """Run so many, some of them at once, and see that none fails."""
    running: list[subprocess.Popen[str]] = []
    for nth in range(launches):
        running.append(launch(directory, nth))
        while len(running) == at_once or (nth == launches - 1 and running):
            process = running.pop(0)
            _, said = process.communicate(timeout=100)
            assert process.returncode == 0, said


def fight(directory: Path, launches: int, at_once: int) -> None:
    with pruned(directory) as removed:
        launch_all(directory, launches, at_once)
    assert removed
    subprocess.run(PRUNE, cwd=directory, stdout=subprocess.DEVNULL, check=True)
    assert os.listdir(directory / "envs") == []


def test_a_few(tmp_path: Path) -> None:
    """Environments of three lock files are removed under those who launch in them, and made anew."""
    fight(tmp_path, launches=12, at_once=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_at_once(tmp_path: Path) -> None:
    """The same for a while."""
    fight(tmp_path, launches=500, at_once=50)


def test_one_who_waits_gets_a_whole_one(tmp_path: Path) -> None:
    """It came while somebody held the lock; a prune that waits for the same lock may come before it or after it."""
    subprocess.run(
        [*envsync_command(), "sync", "--lock", FIXTURES / "pylock.toml", "--env", TEMPLATE], cwd=tmp_path, check=True
    )
    (environment,) = (tmp_path / "envs").glob("*/venv")
    (environment / ".envsync/stamp").unlink()
    with holder(str(environment / ".lock")) as somebody:
        prune = subprocess.Popen([*PRUNE, "--timeout", "60"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        command = launch(tmp_path, 0)
        assert command.stderr is not None
        command.stderr.readline()  # it says for whom it waits
        somebody.kill()
        said, _ = prune.communicate(timeout=60)
        _, error = command.communicate(timeout=60)
    assert (prune.returncode, command.returncode) == (0, 0), error
    assert len(json.loads(said)["removed"]) + len(json.loads(said)["kept"]) == 1
