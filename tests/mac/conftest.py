"""What the tests by subtraction get: a project, and something like a Mac that runs envsync in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import FIXTURES
from tests.mac.mac import Mac

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs the script."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mac)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Mac]:
    """Return something like a Mac with a project in the test's directory, and end all that was started there."""
    given = os.environ.get("MAC_SUBTRACT", "")
    if not os.access(given, os.X_OK):
        pytest.skip(f"no Mac: MAC_SUBTRACT is {given!r}, and should name a script (tests/mac/__init__.py)")
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    for name in ("pylock.toml", "pylock.next.toml"):
        shutil.copyfile(FIXTURES / name, tmp_path / name)
    started = Mac(Path(given).resolve(), tmp_path, tmp_path / "bytecode")
    yield started
    started.end()
