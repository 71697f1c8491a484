"""Wheels with names that differ by case only, where one of the two filesystems does not tell them apart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments import site_packages, unverified
from tests.filesystems import mounted
from tests.wheels import build_wheel, sha256_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """Mount a filesystem that does not tell case apart."""
    with mounted("ntfs", tmp_path, 60 << 20) as place:
        (place / "a").touch()
        assert (place / "A").exists()
        (place / "a").unlink()
        yield place


@pytest.fixture
def lock(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a lock file with the wheel that the test is about."""
    path = tmp_path / "requirements.txt"
    wheel = build_wheel(tmp_path, "demo", "1.0", **WHEELS[request.param])
    path.write_text(f"demo @ {Path(wheel).as_uri()} --hash=sha256:{sha256_of(wheel)}\n")
    return path


WHEELS: dict[str, dict[str, object]] = {
    "files": {"files": {"demo/xt_MARK.h": "a", "demo/xt_mark.h": "b"}},
    "directories": {"files": {"demo/x/a.py": "a", "demo/X/b.py": "b"}},
    "file and directory": {"files": {"demo/x": "a", "demo/X/b.py": "b"}},
    "scripts": {"entry_points": {"console_scripts": {"demo": "demo:f", "Demo": "demo:f"}}},
    "headers": {"data": {"headers/a.h": "a", "headers/A.h": "b"}},
    "purelib and platlib": {"files": {"demo/a.py": "a"}, "data": {"platlib/demo/A.py": "b"}},
}
every = pytest.mark.parametrize("lock", WHEELS, indirect=True)
files_only = pytest.mark.parametrize("lock", ["files"], indirect=True)


def refusal(done: subprocess.CompletedProcess[str], whose: str, option: str) -> None:
    assert done.returncode == 125
    assert re.search(rf"it has `.*` and `.*`, which are one file on the filesystem of the {whose}\n", done.stderr)
    assert re.search(rf"^hint: .* `envsync sync .*{option} '?/var/tmp/", done.stderr, re.MULTILINE)


@every
def test_the_filesystem_of_the_environment_is_asked(
    run_envsync: Run, tmp_path: Path, folding: Path, lock: Path
) -> None:
    """What would be one file there is refused before anything is installed; elsewhere the same entry serves."""
    cache = ("--cache-dir", tmp_path / "cache")
    refusal(run_envsync("sync", "--lock", lock, "--env", folding / "env", *cache), "environment", "--env")
    # Locks that are open when they are removed have FUSE keep the directory, and what says that it is to go.
    assert {path.name for path in (folding / "env").rglob("*") if path.parent.name != "bare"} <= {".envsync", "bare"}
    assert run_envsync("sync", "--lock", lock, "--env", "env", *cache).returncode == 0
    assert unverified(tmp_path / "env") == []


@files_only
def test_an_environment_there_is_left_as_it_was(run_envsync: Run, tmp_path: Path, folding: Path, lock: Path) -> None:
    """It is asked before anything is taken away, also where the environment would have to be made anew."""
    sound = tmp_path / "sound.txt"
    sound.write_text(f"other @ {Path(build_wheel(tmp_path, 'other', '1.0')).as_uri()}\n")
    words = ("--env", folding / "env", "--cache-dir", tmp_path / "cache")
    assert run_envsync("sync", "--lock", sound, *words).returncode == 0
    before = sorted(folding.rglob("*"))
    (folding / "env" / "bin" / "python").unlink()
    refusal(run_envsync("sync", "--lock", lock, *words), "environment", "--env")
    gone = {path for path in before if not os.path.lexists(path)}
    assert gone <= {folding / "env" / "bin" / "python"}


@every
def test_that_of_the_cache_is_asked(run_envsync: Run, tmp_path: Path, folding: Path, lock: Path) -> None:
    """What would be one file in the store is not unpacked there, and nothing of it is left."""
    cache = folding / "cache"
    refusal(run_envsync("sync", "--lock", lock, "--env", "env", "--cache-dir", cache), "cache", "--cache-dir")
    assert os.listdir(cache / "v1" / "wheels") == os.listdir(cache / "v1" / "tmp") == []


@files_only
def test_an_entry_that_was_copied_to_where_two_files_are_one(
    run_envsync: Run, tmp_path: Path, folding: Path, lock: Path
) -> None:
    """Both files have one size and time, so only their names say that one of them is lost: it is never installed."""
    assert run_envsync("sync", "--lock", lock, "--env", "env", "--cache-dir", "cache").returncode == 0
    shutil.copytree(tmp_path / "cache", folding / "cache")
    done = run_envsync("sync", "--lock", lock, "--env", "other", "--cache-dir", folding / "cache")
    refusal(done, "cache", "--cache-dir")
    assert not list((tmp_path / "other").rglob("xt_*"))


@files_only
def test_where_case_is_told_apart_both_are_installed_and_go(run_envsync: Run, tmp_path: Path, lock: Path) -> None:
    """By every way of linking, with their own contents."""
    for mode in ("hardlink", "copy", "symlink"):
        words = ("sync", "--lock", lock, "--env", f"env-{mode}", "--cache-dir", "cache", "--link-mode", mode)
        assert run_envsync(*words).returncode == 0
        demo = site_packages(tmp_path / f"env-{mode}") / "demo"
        assert [(demo / name).read_text() for name in ("xt_MARK.h", "xt_mark.h")] == ["a", "b"]
        assert unverified(tmp_path / f"env-{mode}") == []
