"""What the tests under wine get: a project, and a Windows that runs envsync in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import FIXTURES
from tests.wine.windows import Windows

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs wine."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.wine)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Windows Python keeps the bytecode of envsync's sources, not beside them."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """Return where the Windows programs are, with one of them running for as long as there are tests.

    Wine's server ends soon after the last program, and who starts one in that moment may not reach it.
    """
    given = os.environ.get("WINE_PYTHON", "")
    if not given or not (Path(given) / "wpy").exists():
        pytest.skip(f"no Windows Python: WINE_PYTHON is {given!r}, and should name a directory with wpy and wuv")
    directory = Path(given).resolve()
    words = [directory / "wpy", "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"up"
        yield directory
        process.communicate()


@pytest.fixture
def windows(tmp_path: Path, bytecode: Path, programs: Path) -> Iterator[Windows]:
    """Return a Windows with a project in the test's directory, and end all that was started there."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    for name in ("pylock.toml", "pylock.next.toml"):
        shutil.copyfile(FIXTURES / name, tmp_path / name)
    started = Windows(programs, tmp_path, bytecode)
    yield started
    started.end()
