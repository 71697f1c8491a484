"""pip, uv and importlib.metadata read what envsync installs, and envsync copes with what they do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES, site_packages, unverified

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
WHEELS = FIXTURES / "wheels"
uv = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH")


def output(*words: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pip(env: Path, *words: str) -> str:
    return output(
        sys.executable, "-m", "pip", "--python", env / "bin" / "python", "--disable-pip-version-check", *words
    )


def test_pip_agrees(run_envsync: Run, tmp_path: Path) -> None:
    """pip lists what is installed, finds no conflict, and can uninstall it without a trace."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    env = tmp_path / "env"
    listed = {item["name"]: item["version"] for item in json.loads(pip(env, "list", "--format=json"))}
    assert listed == {"almanac-days": "1.0", "almanac-words": "1.0", "greet": "1.0", "shout": "1.0", "tally": "1.0"}
    assert "No broken requirements" in pip(env, "check")
    pip(env, "uninstall", "--yes", "almanac-words", "tally")
    assert not (site_packages(env) / "almanac" / "words").exists()
    assert not (env / "share" / "tally").exists()
    done = run_envsync("sync", "--lock", LOCK, "--env", "env", "--json")
    assert json.loads(done.stdout)["installed"] == ["almanac-words==1.0", "tally==1.0"]
    assert unverified(env) == []


def test_the_environments_own_metadata_agrees(run_envsync: Run) -> None:
    """importlib.metadata finds versions, files and entry points."""
    ask = (
        "from importlib import metadata as m;"
        "print(m.version('greet'), len(m.files('greet')), m.entry_points(name='greet')['greet'].value,"
        " all(f.locate().is_file() for d in m.distributions() for f in d.files))"
    )
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "-q", "--", "python", "-c", ask)
    version, count, value, present = done.stdout.split()
    assert (version, value, present) == ("1.0", "greet.cli:main", "True") or value.startswith("greet")
    assert int(count) > 4
    assert present == "True"


def test_an_environment_made_by_venv_is_taken_over_and_keeps_pip(run_envsync: Run, tmp_path: Path) -> None:
    """The skeleton stays as it is; an exact sync leaves the pip that a fresh environment has."""
    env = tmp_path / "env"
    output(sys.executable, "-m", "venv", env)
    before = (env / "pyvenv.cfg").stat().st_ino
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert (env / "pyvenv.cfg").stat().st_ino == before
    assert "pip" in output(env / "bin" / "python", "-m", "pip", "--version")


def test_what_pip_changed_is_noticed_by_the_next_run(run_envsync: Run, tmp_path: Path) -> None:
    """A distribution that pip upgraded is put back before the command runs."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    env = tmp_path / "env"
    pip(env, "install", "--no-index", "--no-deps", str(WHEELS / "greet-2.0-py3-none-any.whl"))
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert unverified(env) == []


@uv
def test_uv_agrees(run_envsync: Run, tmp_path: Path) -> None:
    """uv lists what is installed and finds no conflict; what it installs besides is removed again."""
    run_envsync("sync", "--lock", NEXT, "--env", "env")
    env = tmp_path / "env"
    python = str(env / "bin" / "python")
    cache = ["--cache-dir", str(tmp_path / "uv")]
    listed = json.loads(output("uv", "pip", "list", "--python", python, "--format=json", *cache))
    assert {item["name"] for item in listed} == {"almanac-days", "greet", "shout", "tally"}
    output("uv", "pip", "check", "--python", python, *cache)
    words = WHEELS / "almanac_words-1.0-py3-none-any.whl"
    output("uv", "pip", "install", "--python", python, "--no-index", "--no-deps", str(words), *cache)
    done = run_envsync("sync", "--lock", NEXT, "--env", "env", "--json")
    assert json.loads(done.stdout)["removed"] == ["almanac-words==1.0"]
    assert unverified(env) == []


@uv
def test_an_environment_made_by_uv_is_taken_over(run_envsync: Run, tmp_path: Path) -> None:
    """uv's skeleton stays, and what uv installed is replaced by verified wheels."""
    env = tmp_path / "env"
    output("uv", "venv", "--python", sys.executable, str(env), "--cache-dir", str(tmp_path / "uv"))
    before = (env / "pyvenv.cfg").stat().st_ino
    words = ["--no-index", "--no-deps", "--cache-dir", str(tmp_path / "uv"), str(WHEELS / "greet-1.0-py3-none-any.whl")]
    output("uv", "pip", "install", "--python", str(env / "bin" / "python"), *words)
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert (env / "pyvenv.cfg").stat().st_ino == before
    assert (site_packages(env) / "greet-1.0.dist-info" / "INSTALLER").read_text() == "envsync\n"
