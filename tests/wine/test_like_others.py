"""What is installed on Windows is what uv and pip install there, and what is built is what is built elsewhere."""

from __future__ import annotations

import csv
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.crash.test_builds import ALL_BUILT, LOCK
from tests.projects import built, make_project, make_sdist
from tests.wine.windows import SECONDS, Windows, finished, named

REAL = ("jupyter", "numpy")
"""With all that they want about a hundred wheels: compiled code, data, namespaces, scripts and launchers."""
WANTED = ("almanac_days-1.0", "almanac_words-1.0", "greet-1.0", "shout-1.0", "tally-1.0")
NOT_OURS = {"direct_url.json", "uv_cache.json", "REQUESTED"}
"""What others write besides, or not, of a wheel that was named by its path."""


def contents(environment: Path) -> dict[str, bytes | None]:
    """Return the files of an environment; of those that name it, or say who installed, only that they are there."""
    found: dict[str, bytes | None] = {}
    for path in (*environment.glob("Scripts/*"), *environment.glob("share/**/*"), *environment.glob("Lib/**/*")):
        name = str(path.relative_to(environment))
        if path.is_dir() or {".envsync", "__pycache__"} & set(path.parts) or path.name in NOT_OURS:
            continue
        if path.parent.name == "Scripts" or path.name in ("RECORD", "INSTALLER"):
            found[name] = None
        else:
            found[name] = path.read_bytes()
    return found


def test_the_files_are_those_of_uv_and_pip(windows: Windows) -> None:
    """Launchers, scripts, data and packages, byte by byte."""
    windows.sync()
    wheels = [named(windows.project / f"wheels/{name}-py3-none-any.whl") for name in WANTED]
    for tool in ("uv", "pip"):
        other = windows.project / f"by-{tool}"
        assert windows.python("-m", "venv", "--without-pip", named(other)).returncode == 0
        python = named(other / "Scripts/python.exe")
        if tool == "uv":
            words = ("wuv", "pip", "install", "--offline", "--no-index", "--no-deps", "--python", python, *wheels)
        else:
            words = ("wpy", "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", *wheels)
        done = finished(windows.open(*words))
        assert done.returncode == 0, done.stderr
        assert contents(windows.environment) == contents(other)


def rows(record: Path) -> set[tuple[str, str]]:
    """Return the paths and hashes of a RECORD, without those of files that each tool makes itself."""
    with record.open(newline="", encoding="utf-8") as file:
        found = {(path, digest) for path, digest, _ in csv.reader(file)}
    return {row for row in found if not row[0].startswith("../../Scripts/") and not row[0].endswith("INSTALLER")}


@pytest.mark.network
def test_a_real_set_is_that_of_uv(windows: Windows, tmp_path: Path) -> None:
    """The wheels of an index for Windows: the same names, and the same bytes but for launchers and shebangs."""
    lock = tmp_path / "pylock.real.toml"
    words = ("--python-platform", "windows", "--python-version", "3.11", "--only-binary", ":all:")
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *words, "--format", "pylock.toml", "-qo", lock, "-"],
        input="\n".join(REAL),
        text=True,
        check=True,
    )
    certificates = {"SSL_CERT_FILE": named("/etc/ssl/certs/ca-certificates.crt"), "SSL_CERT_DIR": ""}
    syncing = windows.start("sync", "--lock", named(lock), env=certificates)
    said = syncing.communicate(timeout=2 * SECONDS)[1]
    assert syncing.returncode == 0, said
    other = windows.project / "by-uv"
    assert windows.python("-m", "venv", "--without-pip", named(other)).returncode == 0
    python = named(other / "Scripts/python.exe")
    done = finished(windows.open("wuv", "pip", "sync", "--python", python, named(lock), env=certificates))
    assert done.returncode == 0, done.stderr
    assert contents(windows.environment) == contents(other)
    records = list(other.glob("Lib/site-packages/*/RECORD"))
    assert len(records) > 80
    for record in records:
        assert rows(windows.site / record.parent.name / "RECORD") == rows(record), record


def test_what_is_built(windows: Windows) -> None:
    """A linked project, a directory and a source distribution are built by their backends, once."""
    log = windows.project / "log"
    packed, app, _ = (make_project(windows.project / name, name, log=log) for name in ("packed", "app", "lib"))
    sdist = make_sdist(packed, filename="packed-1.0.tar.gz")
    lock = app / "uv.lock"
    lock.write_text(LOCK.format(sha256=sha256(sdist.read_bytes()).hexdigest()))
    assert windows.sync("--lock", named(lock))["outcome"] == "synced"
    assert sorted(built(log)) == ALL_BUILT
    done = windows.run(
        "run", "--lock", named(lock), "--", "python", "-c", "import app, lib, packed; print(app.__file__)"
    )
    assert done.stdout.strip() == named(app / "src/app/__init__.py").replace("/", "\\")
    assert windows.sync("--lock", named(lock))["outcome"] == "current"
    assert sorted(built(log)) == ALL_BUILT


def test_a_wait_for_itself_is_refused(windows: Windows) -> None:
    """A command that syncs its own environment to something else would wait until it has ended."""
    windows.sync()
    words = ("-m", "envsync", "sync", "--lock", "pylock.next.toml", "--timeout", "60")
    python = windows.python("-c", "import sys; print(sys.executable)").stdout.strip()
    done = windows.run("run", "--", python, *words)
    assert done.returncode == 124
    assert "this command runs within it: waiting would be for itself" in done.stderr
