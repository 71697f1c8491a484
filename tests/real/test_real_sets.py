"""Real packages, hundreds of megabytes of them: run with

    REAL_SETS=DIR python -m pytest -m "slow or network" tests/real

DIR holds `jupyter/pylock.toml` and `small/pylock.toml` (123 and 12 wheels, with URLs and hashes), and `wheelhouse/`
with the wheels of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import files, leftovers, unowned, unverified

Run = Callable[..., "subprocess.CompletedProcess[str]"]
IMPORTS = "import numpy, pandas, scipy, sklearn, pyarrow, polars, numba, IPython, jupyterlab, zmq, google.protobuf, six"


@pytest.fixture
def sets() -> Path:
    directory = os.environ.get("REAL_SETS")
    if not directory:
        pytest.skip("REAL_SETS names no directory with real sets")
    return Path(directory)


def sync(run_envsync: Run, *arguments: object) -> dict[str, object]:
    done = run_envsync("sync", "--json", *map(str, arguments), timeout=1200)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    counts = f"{len(value['installed'])} installed, {len(value['removed'])} removed"
    print(f"{value['outcome']}: {counts}, {value['seconds']} s")
    assert isinstance(value, dict)
    return value


def check(env: Path) -> None:
    assert unverified(env) == []
    assert unowned(env) == set()
    assert leftovers(env) == []
    words = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(env / "bin" / "python"),
        "--disable-pip-version-check",
        "check",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jupyter_from_a_wheelhouse_and_back(run_envsync: Run, sets: Path, tmp_path: Path) -> None:
    """Cold without an index, warm, to the small set and back: every file verifies, none is left that nobody names."""
    jupyter, small = sets / "jupyter" / "pylock.toml", sets / "small" / "pylock.toml"
    places = ["--find-links", sets / "wheelhouse", "--no-index"]
    cold = sync(run_envsync, "--lock", jupyter, "--env", "env", *places)
    assert len(cold["installed"]) == 123  # type: ignore[arg-type]
    env = tmp_path / "env"
    check(env)
    first = files(env)
    sync(run_envsync, "--lock", jupyter, "--env", "warm", "--offline")
    check(tmp_path / "warm")
    done = run_envsync("run", "--lock", jupyter, "--env", "env", "--", "python", "-c", IMPORTS, timeout=300)
    assert done.returncode == 0, done.stderr
    sync(run_envsync, "--lock", small, "--env", "env", *places)
    check(env)
    sync(run_envsync, "--lock", jupyter, "--env", "env", "--offline")
    check(env)
    assert files(env) == first


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["small", "jupyter"])
def test_from_an_empty_cache_through_the_network(run_envsync: Run, sets: Path, tmp_path: Path, name: str) -> None:
    """All wheels are downloaded and verified."""
    sync(run_envsync, "--lock", sets / name / "pylock.toml", "--env", "env")
    check(tmp_path / "env")


@pytest.mark.network
@pytest.mark.timeout(600)
def test_pinned_requirements_through_the_network(run_envsync: Run, sets: Path, tmp_path: Path) -> None:
    """Pins without hashes are found on the default index."""
    (tmp_path / "requirements.txt").write_text((sets / "small" / "pins.txt").read_text())
    assert len(sync(run_envsync, "--env", "env")["installed"]) == 12  # type: ignore[arg-type]
    check(tmp_path / "env")
    assert sync(run_envsync, "--env", "env")["outcome"] == "current"
