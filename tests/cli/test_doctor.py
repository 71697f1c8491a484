"""`envsync doctor` on real filesystems."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES, site_packages

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def everything(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


def test_a_local_disk(tmp_path: Path, run_envsync: Run) -> None:
    """It is safe; that is said line by line, and nothing is left behind."""
    done = run_envsync("doctor", "--env", "env")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"tried in `{tmp_path}`")
    assert any(line.startswith("fine    locks: ") for line in lines)
    assert lines[-1].startswith("`env`: safe to sync here")
    assert everything(tmp_path) == []


def test_what_was_found_out(tmp_path: Path, run_envsync: Run) -> None:
    """The facts of a local disk, as one JSON object."""
    done = run_envsync("doctor", "--env", "env", "--cache-dir", "cache", "--json")
    said = json.loads(done.stdout)
    assert said["safe"] is True
    assert said["facts"]["locks"] == {
        "exclusive": "",
        "excludes": True,
        "shared": "",
        "shared_together": True,
        "shared_excludes": True,
        "keeps_out_shared": True,
        "inherited": True,
        "freed": True,
        "local": "",
    }
    names = said["facts"]["names"]
    assert (names["hard_link"], names["symlink"], names["rename_over"], names["rename_directory"]) == ("", "", "", "")
    assert (names["folds_case"], names["hidden"]) == (False, [])
    assert said["facts"]["cache"]["same_filesystem"] is True
    assert said["facts"]["cache"]["link"] == ""
    assert set(said["facts"]["times"]["calls"]) == {"stat", "create", "link", "rename", "mkdir", "flock", "unlink"}


def test_a_cache_elsewhere(tmp_path: Path, run_envsync: Run) -> None:
    """Between two filesystems there are no hard links: that is said."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev or not os.access(other, os.W_OK):
        pytest.skip("there is no second filesystem at /dev/shm")
    done = run_envsync("doctor", "--env", other / "no-environment", "--cache-dir", tmp_path, "--json")
    said = json.loads(done.stdout)
    assert said["facts"]["cache"]["link"] == "EXDEV"
    assert any(each["level"] == "slow" and "copied" in each["text"] for each in said["findings"])
    assert not list(other.glob(".envsync-doctor-*"))
    assert everything(tmp_path) == []


def test_an_environment_stays_current(tmp_path: Path, run_envsync: Run) -> None:
    """What is tried in an environment disturbs neither its stamp nor anything else in it."""
    request = ["--lock", str(FIXTURES / "pylock.toml"), "--env", "env"]
    assert run_envsync("sync", *request).returncode == 0
    before = everything(tmp_path / "env")
    changed = site_packages(tmp_path / "env").stat().st_mtime_ns
    done = run_envsync("doctor", *request, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["facts"]["recorded"]) == (0, "flock")
    assert said["facts"]["directory"] == str(tmp_path / "env")
    assert everything(tmp_path / "env") == before
    assert site_packages(tmp_path / "env").stat().st_mtime_ns == changed
    assert json.loads(run_envsync("sync", *request, "--json").stdout)["outcome"] == "current"


def test_environments_by_digest(tmp_path: Path, run_envsync: Run) -> None:
    """Tried is the directory that they are made in."""
    (tmp_path / "envs").mkdir()
    done = run_envsync("doctor", "--env", "envs/for-{digest}", "--json")
    assert json.loads(done.stdout)["facts"]["directory"] == str(tmp_path / "envs")


def test_nothing_can_be_written(tmp_path: Path, run_envsync: Run) -> None:
    """A read-only filesystem is not safe to sync to."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting takes root")
    script = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    room = tmp_path / "room"
    room.mkdir()
    from tests.conftest import envsync_command

    words = [*envsync_command(), "doctor", "--env", f"{room}/env"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(room), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 1, done.stderr
    assert "EROFS" in done.stdout
    assert "not safe to sync here" in done.stdout


def test_a_lock_file_that_is_not_there(run_envsync: Run) -> None:
    """What was named and is not there is an error, not a verdict on the filesystem."""
    done = run_envsync("doctor", "--lock", "missing.toml")
    assert (done.returncode, done.stdout) == (125, "")
    assert "missing.toml" in done.stderr
