"""Start programs that lack what macOS lacks, and look at what they have made, as `tests.wine.windows` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import darwin
from tests.conftest import ROOT
from tests.contention.test_uv_excludes import UV
from tests.environments import site_packages
from tests.wine.windows import INSTALL, Windows

STRIKE = Path(__file__).parent / "strike.py"


class Mac(Windows):
    """A project directory, and the programs that run in it."""

    killed_status = -signal.SIGKILL

    @property
    def site(self) -> Path:
        return site_packages(self.environment)

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ENVSYNC_CACHE_DIR": str(self.project / "cache"),
            "ENVSYNC_ENV": str(self.environment),
            "ENVSYNC_EVENTS": str(self.events / "all.jsonl"),
            "ENVSYNC_DEBUG": "1",
            "LAB_DIR": str(self.project / "subtracted"),  # where a script may keep its own
            "LD_PRELOAD": str(darwin.standing_in()),
            "DARWIN_CALLS": str(self.project / "calls"),
            **(more or {}),
        }

    def open(
        self, program: str, *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a program, with pipes for its streams."""
        return super().open(
            os.fspath(self.programs), "--python", sys.executable, program, *arguments, env=env, **options
        )

    def start(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """Start an envsync command."""
        return self.open(sys.executable, darwin.__file__, *arguments, **options)

    def struck(self, at: str, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """Start an envsync command that is struck at one of its changes.

        :param at: as tests/wine/strike.py takes it
        """
        return self.open(sys.executable, STRIKE, at, *arguments, **options)

    def uv_install(self, *what: str) -> subprocess.Popen[str]:
        """Start `uv pip install` in the environment; without a uv, skip the test."""
        if UV is None:
            pytest.skip("uv is neither beside this Python nor on PATH")
        there = str(self.environment / "bin" / "python")
        return self.open(UV, *INSTALL, there, *what, env={"UV_CACHE_DIR": str(self.project / "uv-cache")})
