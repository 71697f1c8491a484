"""What somebody has open when it is to go: renamed away if it is shared, as running programs are; else refused."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from tests.wheels import build_wheel
from tests.wine.test_runs import FIRST, NEXT
from tests.wine.windows import HOLDS, Windows, finished, named, said, wrong_with

NEXT_LOCK = ("--lock", "pylock.next.toml")
OPENS = f"import sys; file = open(sys.argv[1]); {HOLDS.removeprefix('import sys; ')}"
LOADS = f"import sys; sys.path.insert(0, sys.argv[1]); import binary._uuid; {HOLDS.removeprefix('import sys; ')}"
STARTS = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
"""Run a program as Windows does."""
FILES = """
import _uuid, sys, venv, pathlib
print(_uuid.__file__)
print(pathlib.Path(venv.__file__).parent / "scripts" / "nt" / "python.exe")
"""


@pytest.fixture
def binary(windows: Windows) -> str:
    """Return a lock file of a package with a program and an extension module."""
    said_files = windows.python("-c", FILES).stdout.splitlines()
    module, program = (Path(line.removeprefix("Z:").replace("\\", "/")).read_bytes() for line in said_files)
    files = {"binary/__init__.py": "", "binary/_uuid.pyd": module}
    wheel = Path(build_wheel(windows.project / "wheels", "binary", "1.0", files, data={"scripts/held.exe": program}))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = windows.project / "pylock.binary.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "binary"\nversion = "1.0"\n'
        f'wheels = [{{ path = "wheels/{wheel.name}", hashes = {{ sha256 = "{digest}" }} }}]\n'
    )
    return lock.name


def trash(windows: Windows) -> list[str]:
    """Name the files in workspaces, which only a sync may have, and what resisted."""
    return [path.name for path in (windows.site / ".envsync").rglob("*") if path.is_file()]


@pytest.mark.parametrize("what", ["library", "program"])
def test_what_runs_is_renamed_away_and_removed_later(windows: Windows, binary: str, what: str) -> None:
    """A loaded library, and a running program, started past envsync: they go on, and a later sync tidies up."""
    windows.sync("--lock", binary)
    if what == "library":
        user = windows.open("wpy", "-c", LOADS, named(windows.site))
    else:
        user = windows.open("wpy", "-c", STARTS, named(windows.environment / "Scripts" / "held.exe"), "-c", HOLDS)
    said(user, "in")
    assert windows.sync()["outcome"] == "synced"
    assert wrong_with(windows, FIRST) == []
    assert user.poll() is None
    assert trash(windows) != []
    done = finished(user)
    assert (done.returncode, done.stdout.split()) == (0, ["out"]), done.stderr
    assert windows.sync(*NEXT_LOCK)["outcome"] == "synced"
    assert trash(windows) == []


def test_what_somebody_reads_is_refused_before_anything_is_decided(windows: Windows) -> None:
    """The error names the file, and the environment is as it was, and current."""
    windows.sync()
    path = windows.site / "greet" / "phrases.py"
    reader = windows.open("wpy", "-c", OPENS, named(path))
    said(reader, "in")
    refused = windows.run("sync", *NEXT_LOCK)
    assert refused.returncode == 125, refused.stderr
    assert f"cannot move `{named(path)}`" in refused.stderr
    assert "hint:" in refused.stderr
    assert wrong_with(windows, FIRST) == []
    assert windows.sync()["outcome"] == "current"
    finished(reader)
    assert windows.sync(*NEXT_LOCK)["outcome"] == "synced"
    assert wrong_with(windows, NEXT) == []


def test_who_reads_for_a_moment_is_waited_for(windows: Windows) -> None:
    """As a virus scanner does: the sync insists, and is served."""
    windows.sync()
    reader = windows.open("wpy", "-c", OPENS, named(windows.site / "greet" / "phrases.py"))
    said(reader, "in")
    syncing = windows.start("sync", *NEXT_LOCK)
    time.sleep(2)  # it tries by now, or will find nobody
    finished(reader)
    assert finished(syncing).returncode == 0
    assert wrong_with(windows, NEXT) == []


def test_a_directory_that_somebody_is_in_is_refused(windows: Windows) -> None:
    """It is the working directory of a process, and cannot go: that is known before anything is decided."""
    windows.sync()
    reader = windows.open("wpy", "-c", HOLDS, cwd=windows.site / "almanac" / "words")
    said(reader, "in")
    refused = windows.run("sync", *NEXT_LOCK)
    assert refused.returncode == 125, refused.stderr
    assert f"cannot move `{named(windows.site)}/almanac/words`" in refused.stderr
    assert wrong_with(windows, FIRST) == []
    finished(reader)
    assert windows.sync(*NEXT_LOCK)["outcome"] == "synced"
