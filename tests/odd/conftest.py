"""Filesystems that misbehave, mounted by the lab's `oddfs-up` where that is at hand: it takes root and FUSE."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

LAB = os.environ.get("LAB_SCRIPTS", "")

Mount = Callable[..., Path]


def start_process(words: Sequence[str], directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a process in a directory, whose output is read once it ends."""
    return subprocess.Popen(
        words,
        cwd=directory,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return a function that mounts a filesystem with some settings, and returns a directory on it."""
    mounted: list[str] = []
    variables = {**os.environ, "LAB_DIR": str(tmp_path / "lab")}

    def up(*settings: str) -> Path:
        if not LAB:
            pytest.skip("LAB_SCRIPTS does not name the lab's directory")
        name = f"odd{os.urandom(3).hex()}"
        done = subprocess.run(
            [f"{LAB}/oddfs-up", name, *settings], env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(name)
        return tmp_path / "lab" / "odd" / name

    yield up
    for name in mounted:
        subprocess.run([f"{LAB}/oddfs-down", name], env=variables, capture_output=True, check=True)
