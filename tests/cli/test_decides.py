"""Whatever decides what is installed is noticed by the next launch, and nothing else is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.environments import FIXTURES

Run = Callable[..., subprocess.CompletedProcess[str]]
WHICH = "import importlib.metadata as m; print(m.version('greet'))"
HASH = {
    version: hashlib.sha256((FIXTURES / f"wheels/greet-{version}-py3-none-any.whl").read_bytes()).hexdigest()
    for version in ("1.0", "2.0")
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with wheels of two versions, each also in a directory of its own."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    for version in ("1.0", "2.0"):
        (tmp_path / version).mkdir()
        shutil.copy(tmp_path / f"wheels/greet-{version}-py3-none-any.whl", tmp_path / version)
    return tmp_path


def runs(run_envsync: Run, environ: Mapping[str, str | None]) -> str:
    """Return the version of `greet` that a command finds."""
    done = run_envsync("run", "-q", "--env", "env", "--", "python", "-c", WHICH, env=environ)
    return done.stdout.strip() or done.stderr


def is_current(run_envsync: Run, environ: Mapping[str, str | None]) -> bool:
    return run_envsync("status", "--env", "env", "--exit-code", env=environ).returncode == 0


PLACES: dict[str, dict[str, str]] = {
    "pin": {"requirements.txt": "--no-index\n--find-links wheels\ngreet==${V}\n"},
    "a whole line": {"requirements.txt": "--no-index\n-f wheels\n${LINE}\n"},
    "pin in an included file": {
        "requirements.txt": "--no-index\n--find-links wheels\n-r more.txt\n",
        "more.txt": "greet==${V}\n",
    },
    "name of an included file": {
        "requirements.txt": "--no-index\n--find-links wheels\n-r more-${V}.txt\n",
        "more-1.0.txt": "greet==1.0\n",
        "more-2.0.txt": "greet==2.0\n",
    },
    "name of constraints": {
        "requirements.txt": "--no-index\n--find-links wheels\ngreet\n-c only-${V}.txt\n",
        "only-1.0.txt": "greet==1.0\n",
        "only-2.0.txt": "greet==2.0\n",
    },
    "constraint": {
        "requirements.txt": "--no-index\n--find-links wheels\ngreet\n-c only.txt\n",
        "only.txt": "greet==${V}\n",
    },
    "path of a wheel": {"requirements.txt": "./wheels/greet-${V}-py3-none-any.whl\n"},
    "URL of a wheel": {"requirements.txt": "greet @ file://${HERE}/wheels/greet-${V}-py3-none-any.whl\n"},
    "hash": {"requirements.txt": "--no-index\n--find-links wheels\ngreet==${V} --hash=sha256:${HASH}\n"},
}


@pytest.mark.parametrize("place", PLACES)
def test_variables(place: str, project: Path, run_envsync: Run) -> None:
    """The value of a variable counts wherever a requirements file takes it; another value is another set."""
    for name, text in PLACES[place].items():
        (project / name).write_text(text)

    def environ(version: str) -> dict[str, str]:
        line = f"greet=={version}"
        return {"V": version, "HASH": HASH[version], "LINE": line, "HERE": str(project), "OTHER": version}

    assert runs(run_envsync, environ("1.0")) == "1.0"
    assert is_current(run_envsync, {**environ("1.0"), "OTHER": "x"})
    assert not is_current(run_envsync, environ("2.0"))
    assert not is_current(run_envsync, {**environ("1.0"), "V": None, "LINE": None})
    assert runs(run_envsync, environ("2.0")) == "2.0"
    assert runs(run_envsync, environ("1.0")) == "1.0"


@pytest.mark.parametrize("option", ["--find-links", "-f"])
def test_where_wheels_come_from(option: str, project: Path, run_envsync: Run) -> None:
    """A directory of wheels that a variable names counts where nothing has a hash, and only there."""
    (project / "requirements.txt").write_text(f"--no-index\n{option} ${{DIR}}\ngreet==1.0\n")
    shutil.copytree(project / "1.0", project / "copy")
    assert runs(run_envsync, {"DIR": "1.0"}) == "1.0"
    assert is_current(run_envsync, {"DIR": "1.0"})
    assert not is_current(run_envsync, {"DIR": "copy"})
    (project / "requirements.txt").write_text(
        f"--no-index\n{option} ${{DIR}}\ngreet==1.0 --hash=sha256:{HASH['1.0']}\n"
    )
    assert runs(run_envsync, {"DIR": "1.0"}) == "1.0"
    assert is_current(run_envsync, {"DIR": "copy"})


def test_a_password_is_neither_kept_nor_counted(project: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """A token that is another for each job changes no digest, and no file has it, nor has what is printed."""
    (project / "requirements.txt").write_text(
        "--extra-index-url https://me:${TOKEN}@127.0.0.1:9/simple\n--no-index\n--find-links wheels\ngreet==1.0\n"
    )
    first = run_envsync("sync", "-v", "--env", "env", env={"TOKEN": "hunter2secret"}, check=True)
    said = [first, run_envsync("status", "--json", "--env", "env", env={"TOKEN": "hunter2secret"})]
    assert is_current(run_envsync, {"TOKEN": "anotherSecret"})
    assert not any("hunter2secret" in each.stdout + each.stderr for each in said)
    kept = [path for root in (project / "env", nobodys_home) for path in root.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"hunter2secret" in path.read_bytes() for path in kept)


def test_a_value_is_not_kept(project: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """Of a value that counts, only a checksum goes into the digest: the stamp names the variable."""
    (project / "requirements.txt").write_text("--no-index\n--find-links wheels\ngreet==1.0 # ${NOT_THIS}\n${SECRET}\n")
    value = "greet == 1.0 ; python_version > '3.1'"
    run_envsync("sync", "--env", "env", env={"SECRET": value}, check=True)
    stamp = (project / "env/.envsync/stamp").read_text()
    assert "\nvariable SECRET\n" in stamp
    assert "NOT_THIS" not in stamp
    assert "python_version" not in stamp


def test_wheels_beside_another_lock_file(project: Path, run_envsync: Run) -> None:
    """One file in two directories, each with its own wheels beside it: without hashes, they ask for two sets."""
    text = "--no-index\n--find-links wheels\ngreet==1.0\n"
    for name in ("a", "b"):
        (project / name).mkdir()
        shutil.copytree(project / "wheels", project / name / "wheels")
        (project / name / "requirements.txt").write_text(text)
    run_envsync("sync", "--env", "../env", cwd=project / "a", check=True)
    assert run_envsync("status", "--env", "../env", "--exit-code", cwd=project / "a").returncode == 0
    assert run_envsync("status", "--env", "../env", "--exit-code", cwd=project / "b").returncode == 1
