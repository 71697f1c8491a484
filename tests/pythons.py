"""The Pythons that this machine has, by version: on PATH, or where pyenv and uv keep theirs."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

VERSIONS = [f"3.{minor}" for minor in range(9, 16)]
_HOME = Path.home()  # the tests get another one
_ASK = "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"


@cache
def _all(version: str) -> list[str]:
    """Return the paths of all Pythons of a version, as in 3.9, outside any virtual environment."""
    places = [*sorted((_HOME / ".pyenv/versions").glob(f"{version}.*"), reverse=True)]
    places += sorted((_HOME / ".local/share/uv/python").glob(f"cpython-{version}.*"), reverse=True)
    on_path = [f"{directory}/python{version}" for directory in os.environ.get("PATH", "").split(os.pathsep)]
    found: dict[str, None] = {}
    for candidate in [*on_path, *(str(place / f"bin/python{version}") for place in places)]:
        if not os.access(candidate, os.X_OK):
            continue
        asked = subprocess.run([candidate, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
        said, _, path = asked.stdout.strip().partition(" ")
        if asked.returncode == 0 and said == version and os.access(path, os.X_OK):
            found[path] = None
    return list(found)


def find(version: str) -> str | None:
    """Return the path of a Python of a version, as in 3.9, outside any virtual environment; None if there is none."""
    return next(iter(_all(version)), None)


def need(version: str) -> str:
    """Return the path of a Python of a version, or skip the test."""
    path = find(version)
    if path is None:
        pytest.skip(f"there is no Python {version} here")
    return path


def pair() -> tuple[str, str]:
    """Return two Pythons of one X.Y and different full versions, or skip the test."""
    ask = "import platform; print(platform.python_version())"
    for version in VERSIONS:
        found: dict[str, str] = {}
        for path in _all(version):
            asked = subprocess.run([path, "-I", "-c", ask], capture_output=True, text=True, check=False)
            found.setdefault(asked.stdout, path)
        if len(found) > 1:
            one, other, *_ = found.values()
            return one, other
    pytest.skip("there are no two Pythons here that differ in the third number only")
