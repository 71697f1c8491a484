"""Environments for other Pythons than the one that envsync runs with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import pythons
from tests.environments import FIXTURES, site_packages, unverified

Run = Callable[..., subprocess.CompletedProcess[str]]
TELL = "import greet, json, sys; print(json.dumps([sys.version_info[:2], greet.__cached__]))"


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_made_filled_and_run(version: str, run_envsync: Run, tmp_path: Path) -> None:
    """An environment for each supported Python is made, filled, its bytecode compiled, and runs its command."""
    python = pythons.need(version)
    lock = ("--lock", str(FIXTURES / "pylock.toml"), "--env", "env", "--compile-bytecode")
    run_envsync("sync", *lock, "--python", python, check=True)
    assert unverified(tmp_path / "env") == []
    answer = json.loads(run_envsync("run", *lock, "--python", python, "--", "python", "-c", TELL, check=True).stdout)
    assert answer[0] == [int(part) for part in version.split(".")]
    assert Path(answer[1]).is_relative_to(site_packages(tmp_path / "env"))
    assert Path(answer[1]).is_file()


@pytest.mark.parametrize("version", ["3.8", "3.7"])
def test_too_old(version: str, run_envsync: Run, tmp_path: Path) -> None:
    """A Python that is too old is refused with its version, not with what does not import in it."""
    lock = ("--lock", str(FIXTURES / "pylock.toml"), "--env", "env")
    done = run_envsync("sync", *lock, "--python", pythons.need(version))
    assert done.returncode == 125
    assert f"is Python {version}." in done.stderr
    assert "hint: " in done.stderr
    assert "--python" in done.stderr
