"""What type checkers make of the library: a program that uses all of it passes, and one that misuses it does not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import envsync
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")

GOOD = """\
import os
from pathlib import Path
from typing import assert_type

import envsync
from envsync import events
from envsync.errors import HashMismatchError, RefusedError, SharedFailureError, WaitTimeoutError

options: envsync.SyncOptions = {
    "env": Path(".venv"),
    "python": "3.12",
    "extras": ["x"],
    "groups": ("g",),
    "exact": False,
    "index_urls": ["https://example.invalid/simple"],
    "find_links": [Path("wheels"), "more"],
    "mirrors": {"https://a.invalid": "https://b.invalid"},
    "no_index": True,
    "offline": True,
    "cache_dir": os.fspath("cache"),
    "link_mode": "copy",
    "compile_bytecode": True,
    "timeout": 3.5,
    "busy": "fail",
}


def report(phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
    print(phase, done, total, bytes_done, bytes_total)


def script() -> None:
    result = envsync.sync("pylock.toml", **options)
    assert_type(result, envsync.SyncResult)
    envsync.sync(Path("pylock.toml"), report=report, timeout=None)
    assert_type(result.outcome, str)
    assert_type(result.env, str)
    assert_type(result.digest, str)
    assert_type(result.installed, tuple[str, ...])
    assert_type(result.removed, tuple[str, ...])
    assert_type(result.notes, tuple[str, ...])
    assert_type(result.seconds, float)
    assert_type(result.python, str)
    with envsync.use(Path("pylock.toml"), **options) as hold:
        assert_type(hold, envsync.Hold)
        assert_type(hold.fd, int)
        assert_type(hold.python, str)
        assert_type(hold.result, envsync.SyncResult)
        assert_type(hold.variables(), dict[str, str])
        assert_type(hold.variables({"PATH": "/usr/bin"}), dict[str, str])
        assert_type(hold.activation(os.environ), dict[str, str])
        hold.popen(["greet"], env={}, cwd=Path("work")).wait()
        hold.release()
    try:
        envsync.sync("pylock.toml", busy="wait")
    except (WaitTimeoutError, RefusedError, SharedFailureError, HashMismatchError) as error:
        assert_type(error.message, str)
        assert_type(error.retryable, bool)
        if isinstance(error, SharedFailureError):
            assert_type(error.original, str)
    except envsync.EnvsyncError as error:
        assert_type(error.hint, str)
        assert_type(error.exit_code, int)


def tell(event: events.Event) -> None:
    assert_type(event.env, str)
    match event:
        case events.Waiting(message=message):
            assert_type(message, str)
        case events.Started(digest=digest):
            assert_type(digest, str)
        case events.Progress(phase=phase, done=done, total=total, bytes_done=got, bytes_total=size):
            report(phase, done, total, got, size)
        case events.TookOver(host=host, pid=pid):
            print(host, pid + 1)
        case events.Recovered(steps=steps):
            assert_type(steps, int)
        case events.Finished(result=result):
            assert_type(result, envsync.SyncResult)
        case events.Failed(error=error):
            assert_type(error, envsync.EnvsyncError)
        case events.Cancelled():
            pass


def keeper() -> None:
    assert_type(envsync.command("pylock.toml", **options), list[str])
    assert_type(envsync.status("pylock.toml", **options).current, bool | None)
    assert_type(envsync.status(env=".venv").digest, str)
    assert_type(envsync.check(env=".venv", repair_damage=True, report=report).is_sound, bool)
    known = envsync.list_environments(Path(".venvs") / "{digest}", sizes=True)
    assert_type([each.kept for each in envsync.remove_environments(known, timeout=1.5, dry_run=True)], list[str])
    assert_type(envsync.cache_directory(), str)
    assert_type([item.bytes for item in envsync.cache_contents(Path("cache"))], list[int])
    assert_type(envsync.add_to_cache("pylock.toml", report=report, **options).wheels, tuple[str, ...])
    assert_type([item.wheel for item in envsync.prune_cache(older_than=60.0, max_size=10**9)], list[str])


async def plug_in() -> None:
    assert_type(await envsync.sync_async("pylock.toml", **options), envsync.SyncResult)
    async with envsync.use_async("pylock.toml", env=".venv") as hold:
        assert_type(hold, envsync.Hold)


async def program() -> None:
    async with envsync.Coordinator(jobs=2, on_event=tell) as coordinator:
        assert_type(coordinator, envsync.Coordinator)
        assert_type(await coordinator.sync("pylock.toml", env=".venv", timeout=1), envsync.SyncResult)
        await coordinator.sync(Path("pylock.toml"), **options)
        async with coordinator.use("pylock.toml", **options) as hold:
            assert_type(hold, envsync.Hold)
        done = await coordinator.run_process("pylock.toml", ["greet"], check=False, variables={}, **options)
        assert_type(done.stdout, bytes)
    async with envsync.Coordinator():
        print(envsync.__version__)
"""

BAD = """\
import envsync

envsync.sync()  # error
envsync.sync("pylock.toml", ".venv")  # error
envsync.sync("pylock.toml", colour="green")  # error
envsync.sync("pylock.toml", timeout="3")  # error
envsync.sync("pylock.toml", link_mode="sideways")  # error
envsync.command("pylock.toml", busy="maybe")  # error
envsync.Coordinator(jobs="2")  # error
envsync.Coordinator(2)  # error


async def program(coordinator: envsync.Coordinator) -> None:
    await coordinator.sync("pylock.toml", colour="green")  # error
    coordinator.use("pylock.toml", busy=1)  # error
    result = await coordinator.sync("pylock.toml")
    result.outcome = "synced"  # error
"""


def check(tmp_path: Path, *paths: Path) -> list[str]:
    """Check a user's programs as `mypy --strict` does; return the lines of what it says."""
    options = ["--strict", "--config-file=", "--cache-dir", os.fspath(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *paths],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_program_that_uses_all_of_the_library_is_accepted(tmp_path: Path) -> None:
    """Every public name, option, event and field has the type that the documentation says. So are the examples."""
    assert all(f"envsync.{name}" in GOOD for name in envsync.__all__)
    program = tmp_path / "program.py"
    program.write_text(GOOD)
    examples = sorted((ROOT / "docs" / "examples").glob("*.py"))
    said = check(tmp_path, program, *examples)
    assert said == [f"Success: no issues found in {1 + len(examples)} source files"]


def test_misuse_is_found_before_it_runs(tmp_path: Path) -> None:
    """Unknown options and wrong types are errors in each place, and nothing else is."""
    expected = {number for number, line in enumerate(BAD.splitlines(), 1) if "# error" in line}
    program = tmp_path / "program.py"
    program.write_text(BAD)
    said = [line for line in check(tmp_path, program) if ": error:" in line]
    assert {int(line.split(":")[1]) for line in said} == expected, said
