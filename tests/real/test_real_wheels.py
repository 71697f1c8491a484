"""Real wheels beside pip: each is installed by both into an environment at one path, and compared file by file.

    REAL_WHEELS=DIR python -m pytest -m slow -s tests/real/test_real_wheels.py

DIR holds wheels, at whatever depth (`pip download --no-deps --only-binary :all: NAME==VERSION`). Each is installed with
the first Python that it fits, of those that are found. All is equal but for what docs/wheels.md says: names, bytes,
modes under one umask, the files that RECORD names and their hashes.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.utils import parse_wheel_filename

from envsync.errors import InterpreterError
from envsync.python import interpreter
from envsync.python.facts import Interpreter
from tests.environments import site_packages, unverified
from tests.wheels import sha256_of

WHEELS = sorted(Path(os.environ.get("REAL_WHEELS", "/dev/null")).rglob("*.whl"))
PYTHONS = ("3.11", "3.12", "3.13", "3.10", "3.9")
OURS = re.compile(r"\.lock|\.gitignore|CACHEDIR\.TAG|\.envsync/.*|lib/[^/]+/site-packages/\.envsync/.*")
GENERATED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
VERSIONED = re.compile(r"bin/(pip|easy_install-)\d+\.\d+")
"""Scripts that pip gives the version of the target Python, whatever the wheel says; here they are as the wheel says."""
ENTRY_POINT = re.compile(rb"from (\S+) import (\S+)\n.*sys\.exit\((\S+)\(\)\)", re.DOTALL)
WHOLE_HASH = re.compile(r"sha256=[\w-]{43}=?")


class File(NamedTuple):
    mode: int
    digest: str
    content: bytes
    """Empty if it is not short."""


Files = dict[str, File]


@cache
def pythons() -> tuple[Interpreter, ...]:
    """Find the Pythons to install for."""
    found = []
    for version in PYTHONS:
        try:
            found.append(interpreter.inspect(interpreter.find(version), "/dev/null"))
        except InterpreterError:
            continue
    return tuple(found)


def python_for(wheel: Path) -> str:
    """Choose the first Python that a wheel fits."""
    _, _, _, tags = parse_wheel_filename(wheel.name)
    names = {str(tag) for tag in tags}
    for python in pythons():
        if not names.isdisjoint(python.tags):
            return python.executable
    pytest.skip("no Python was found that it fits")


def files(env: Path) -> Files:
    """Take down the files of an environment, without bytecode."""
    found = {}
    for directory, names, entries in os.walk(env):
        names[:] = [name for name in names if name != "__pycache__"]
        for entry in entries:
            path = Path(directory, entry)
            if not path.is_symlink() and not VERSIONED.fullmatch(path.relative_to(env).as_posix()):
                data = path.read_bytes()
                content = data if len(data) < 100_000 else b""
                digest = hashlib.sha256(data).hexdigest()
                found[path.relative_to(env).as_posix()] = File(path.stat().st_mode & 0o7777, digest, content)
    return found


def record(env: Path) -> dict[str, str]:
    """Return the hashes in RECORD by path in the environment; of RECORDs that pip has written over, too."""
    (path,) = site_packages(env).glob("*.dist-info/RECORD")
    site = site_packages(env).relative_to(env).as_posix()
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = {posixpath.normpath(posixpath.join(site, row[0])): row[1] for row in csv.reader(file) if row}
    return {path: hash_ for path, hash_ in rows.items() if not VERSIONED.fullmatch(path)}


def by_pip(wheel: Path, python: str, env: Path) -> Files:
    """Install with pip. Returns what came."""
    subprocess.run([python, "-m", "venv", "--without-pip", env], check=True)
    before = files(env)
    options = "--quiet --no-deps --no-index --no-compile --no-warn-script-location --no-cache-dir"
    words = [sys.executable, "-m", "pip", "--python", f"{env}/bin/python", "--disable-pip-version-check", "install"]
    done = subprocess.run([*words, *options.split(), wheel], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip does not install it: {done.stderr.strip()}")
    return {path: file for path, file in files(env).items() if path not in before}


def by_envsync(run_envsync: Callable[..., object], wheel: Path, python: str, env: Path, skeleton: set[str]) -> Files:
    """Install with envsync, from a lock file with the hash. Returns what came."""
    name, version, _, _ = parse_wheel_filename(wheel.name)
    lock = env.parent / "requirements.txt"
    lock.write_text(f"{name} @ {wheel.as_uri()} --hash=sha256:{sha256_of(wheel)}\n")
    words = ("sync", "--lock", lock, "--env", env, "--python", python, "--link-mode", "copy", "--verbose")
    done = run_envsync(*words, timeout=600)
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    prefix = f"envsync: {name}=={version}: "
    odd = [line for line in done.stderr.splitlines() if line.startswith(prefix)]  # type: ignore[attr-defined]
    print(*odd, sep="\n")
    return {path: file for path, file in files(env).items() if path not in skeleton and not OURS.fullmatch(path)}


def is_same_script(ours: File, theirs: File) -> bool:
    """Tell whether two scripts call one function, or differ in the first line only."""
    mine, other = ENTRY_POINT.search(ours.content), ENTRY_POINT.search(theirs.content)
    if mine is not None and other is not None:
        return mine.groups() == other.groups()
    bodies = {content.partition(b"\n")[2] for content in (ours.content, theirs.content)}
    return len(bodies) == 1 and ours.content.startswith(b"#!") and theirs.content.startswith(b"#!")


def compare_files(ours: Files, theirs: Files) -> list[str]:
    found = [f"only by pip: {path}" for path in sorted(theirs.keys() - ours.keys())]
    found += [f"only by envsync: {path}" for path in sorted(ours.keys() - theirs.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        mine, other = ours[path], theirs[path]
        if mine.mode != other.mode:
            found.append(f"mode {mine.mode:o}, by pip {other.mode:o}: {path}")
        script = path.startswith("bin/") and is_same_script(mine, other)
        if mine.digest != other.digest and not script and posixpath.basename(path) not in GENERATED:
            found.append(f"contents: {path}")
    return found


def compare_records(ours: dict[str, str], theirs: dict[str, str], installed: Files) -> list[str]:
    """Compare two RECORDs. Lines of pip for what is not there, and hashes that are none, do not count."""
    theirs = {path: hash_.rstrip("=") for path, hash_ in theirs.items() if path in installed}
    found = [f"only in RECORD by pip: {path}" for path in sorted(theirs.keys() - ours.keys())]
    found += [f"not in RECORD: {path}" for path in sorted(installed.keys() - ours.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        generated = posixpath.basename(path) in GENERATED or path.startswith("bin/")
        if not generated and WHOLE_HASH.fullmatch(theirs[path]) and theirs[path] != ours[path]:
            found.append(f"hash in RECORD: {path}")
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_a_real_wheel_is_installed_as_by_pip(
    run_envsync: Callable[..., object], tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files with the same bytes and modes, and a RECORD that names each of them."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip to compare with")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    env = tmp_path / "env"
    python = python_for(wheel)
    theirs = by_pip(wheel, python, env)
    skeleton = files(env).keys() - theirs.keys()
    their_record = record(env)
    env.rename(tmp_path / "by-pip")
    ours = by_envsync(run_envsync, wheel, python, env, skeleton)
    assert unverified(env) == []
    differences = compare_files(ours, theirs) + compare_records(record(env), their_record, ours)
    print(f"{wheel.name}: {'equal' if not differences else differences[:10]}, {len(ours)} files")
    for place in (env, tmp_path / "by-pip", tmp_path / "cache"):
        shutil.rmtree(place, ignore_errors=True)
    assert differences == []
