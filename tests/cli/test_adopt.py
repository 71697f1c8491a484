"""What uv has installed is taken over if it is the wheel that is wanted, and installed anew if it is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES, site_packages, unverified

UV = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))
pytestmark = pytest.mark.skipif(UV is None, reason="uv is neither beside this Python nor on PATH")
Run = Callable[..., subprocess.CompletedProcess[str]]
LOCK = str(FIXTURES / "requirements.txt")
ALL = ["almanac-days==1.0", "almanac-words==1.0", "greet==1.0", "shout==1.0", "tally==1.0"]
INFO = "greet-1.0.dist-info"


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An environment that uv has filled from the same lock file."""
    path = tmp_path / "env"
    common = ["--offline", "--no-config", "--no-cache", "-q"]
    subprocess.run([str(UV), "venv", *common, "--python", sys.executable, path], check=True)
    subprocess.run([str(UV), "pip", "sync", *common, "--python", path, LOCK], check=True)
    return path


@pytest.fixture
def sync(run_envsync: Run) -> Callable[..., dict[str, list[str]]]:
    """Sync, and return what was done."""

    def sync(*words: str) -> dict[str, list[str]]:
        done: dict[str, list[str]] = json.loads(
            run_envsync("sync", "--json", "--lock", LOCK, "--env", "env", *words, check=True).stdout
        )
        return done

    return sync


def test_no_file_is_touched(env: Path, sync: Callable[..., dict[str, list[str]]], run_envsync: Run) -> None:
    """It is current as it is; nobody who runs in it is waited for; it stays so, and can be checked and changed."""
    before = {path: path.lstat() for path in site_packages(env).rglob("*") if ".envsync" not in path.parts}
    done = sync()
    assert (done["outcome"], done["installed"], done["removed"]) == ("current", [], [])
    after = {path: path.lstat() for path in before}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in after.items() if not p.is_dir()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in before.items() if not p.is_dir()
    }
    (env / ".envsync/stamp").unlink()
    assert sync()["installed"] == []
    assert run_envsync("check", "--lock", LOCK, "--env", "env").returncode == 0
    lock = str(FIXTURES / "pylock.next.toml")
    run_envsync("sync", "--lock", lock, "--env", "env", check=True)
    assert run_envsync("run", "--lock", lock, "--env", "env", "--", "greet").returncode == 0
    assert run_envsync("check", "--lock", lock, "--env", "env").returncode == 0
    assert unverified(env) == []


@pytest.mark.empty_cache
def test_a_dry_run_says_so(env: Path, sync: Callable[..., dict[str, list[str]]], run_envsync: Run) -> None:
    """Once the wheels are in the cache: before, nobody knows what is in them."""
    assert sync("--dry-run")["installed"] == ALL
    run_envsync("sync", "--lock", LOCK, "--env", "other", check=True)
    done = sync("--dry-run")
    assert (done["outcome"], done["installed"]) == ("current", [])
    assert not (env / ".envsync/installed.json").exists()


def edit(path: Path) -> None:
    """As large as before."""
    path.write_bytes(bytes(reversed(path.read_bytes())))


def list_another(path: Path) -> None:
    (path.parents[1] / "strange.py").touch()
    path.write_text(path.read_text() + "strange.py,,\n")


def leave_out(path: Path) -> None:
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "phrases" not in line))


def link(path: Path) -> None:
    """To a file of the same content, elsewhere."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (edit, "greet/phrases.py"),
        (edit, f"{INFO}/METADATA"),
        (edit, "../../../bin/greet"),
        (Path.unlink, "greet/phrases.py"),
        (link, "greet/phrases.py"),
        (list_another, f"{INFO}/RECORD"),
        (leave_out, f"{INFO}/RECORD"),
        (
            lambda path: path.write_text('{"url": "file:///elsewhere.whl", "archive_info": {}}'),
            f"{INFO}/direct_url.json",
        ),
        (lambda path: path.write_text("["), f"{INFO}/direct_url.json"),
    ],
)
def test_what_is_not_the_wheel_is_installed_anew(
    env: Path, sync: Callable[..., dict[str, list[str]]], change: Callable[[Path], object], name: str
) -> None:
    """Whatever differs, if only in what RECORD lists: nobody knows what is in it. The others are taken over."""
    change(site_packages(env) / name)
    done = sync()
    assert done["installed"] == ["greet==1.0"]
    assert unverified(env) == []


def test_what_uv_installs_later_is_installed_anew(env: Path, sync: Callable[..., dict[str, list[str]]]) -> None:
    """And so is what pip has installed, and all of an environment that has lost what envsync knew of it."""
    sync()
    common = ["--offline", "--no-config", "--no-cache", "-q", "--no-index", "--find-links", str(FIXTURES / "wheels")]
    subprocess.run(
        [str(UV), "pip", "install", *common, "--python", env, "--reinstall", "--no-deps", "greet<2"], check=True
    )
    assert sync()["installed"] == ["greet==1.0"]
    (env / ".envsync/installed.json").unlink()
    (env / ".envsync/stamp").unlink()
    assert "greet==1.0" in sync()["installed"]
    assert unverified(env) == []


def test_bytecode_of_others_is_no_difference(env: Path, sync: Callable[..., dict[str, list[str]]]) -> None:
    """Python has written it beside its source; what was compiled in advance is asked for, and installed."""
    subprocess.run([env / "bin/greet"], check=True, capture_output=True)
    assert sync()["installed"] == []
    assert sync("--compile-bytecode")["installed"] == ALL
