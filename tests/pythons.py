"""The Pythons that this machine has, by version: on PATH, or where pyenv and uv keep theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

VERSIONS = [f"3.{minor}" for minor in range(9, 16)]
_HOME = Path.home()  # the tests get another one
_ASK = "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"


@cache
def find(version: str) -> str | None:
    """Return the path of a Python of a version, as in 3.9, outside any virtual environment; None if there is none."""
    places = [*sorted((_HOME / ".pyenv/versions").glob(f"{version}.*"), reverse=True)]
    places += sorted((_HOME / ".local/share/uv/python").glob(f"cpython-{version}.*"), reverse=True)
    named = shutil.which(f"python{version}")
    for candidate in [*([named] if named else []), *(str(place / f"bin/python{version}") for place in places)]:
        asked = subprocess.run([candidate, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
        said, _, path = asked.stdout.strip().partition(" ")
        if asked.returncode == 0 and said == version and os.access(path, os.X_OK):
            return path
    return None


def need(version: str) -> str:
    """Return the path of a Python of a version, or skip the test."""
    path = find(version)
    if path is None:
        pytest.skip(f"there is no Python {version} here")
    return path
