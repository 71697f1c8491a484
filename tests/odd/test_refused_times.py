"""Filesystems on which the times of files cannot be set: CIFS mounted for another user, some of FUSE."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, site_packages, unverified
from tests.odd.conftest import Mount

LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")


def refused(code: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run envsync where utimensat(2) answers with an error, for whatever file."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = [
        "strace",
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-e",
        f"inject=utimensat:error={code}",
        "-e",
        "trace=utimensat",
    ]
    done = subprocess.run(
        [*strace, *envsync_command(), *words], cwd=directory, check=False, capture_output=True, text=True, timeout=100
    )
    if "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    return done


@pytest.mark.parametrize("link", ["auto", "copy", "symlink"])
@pytest.mark.parametrize("code", ["EPERM", "ENOSYS"])
def test_everything_is_installed_and_it_is_said_once(tmp_path: Path, code: str, link: str) -> None:
    """Cache and environment have files with times of their own, no bytecode of the cache, and are current."""
    words = ["--env", "env", "--cache-dir", "cache", "--compile-bytecode", "--link-mode", link]
    for lock in (LOCK, NEXT):  # what is replaced takes its bytecode with it
        done = refused(code, tmp_path, "sync", "--lock", lock, *words)
        said = done.stderr.count("the times of files cannot be set")
        assert (done.returncode, said) == (0, lock == LOCK), done.stderr  # once for an environment
        assert unverified(tmp_path / "env") == []
        assert list(site_packages(tmp_path / "env").rglob("*.pyc")) == []
        assert '"current"' in refused(code, tmp_path, "sync", "--lock", lock, *words, "--json").stdout
        ran = refused(code, tmp_path, "run", "--lock", lock, *words, "--", "python", "-c", "import greet; print('ran')")
        assert ran.stdout == "ran\n", ran.stderr
    assert refused(code, tmp_path, "check", "--env", "env", "--cache-dir", "cache").returncode == 0


def test_a_cache_with_times_and_an_environment_without(tmp_path: Path) -> None:
    """Copies come without the cache's times, and so without its bytecode, whose leftovers would not fit."""
    words = ["--cache-dir", "cache", "--compile-bytecode", "--link-mode", "copy", "--lock", LOCK]
    done = subprocess.run(
        [*envsync_command(), "sync", *words, "--env", "first"], cwd=tmp_path, check=True, capture_output=True
    )
    assert list(site_packages(tmp_path / "first").rglob("*.pyc"))
    done = refused("EPERM", tmp_path, "sync", *words, "--env", "env")
    assert (done.returncode, done.stderr.count("the times of files cannot be set")) == (0, 1), done.stderr
    assert list(site_packages(tmp_path / "env").rglob("*.pyc")) == []
    assert unverified(tmp_path / "env") == []


@pytest.mark.parametrize("setting", ["err=utimens:EPERM", "err=utimens:ENOTSUP", "mtime_gran=60"])
def test_on_a_filesystem_that_is_so(tmp_path: Path, mount: Mount, setting: str) -> None:
    """For all that is on it, the kernel's own calls included; and where times are taken and not kept."""
    directory = mount(setting)
    words = ["--lock", LOCK, "--env", "env", "--cache-dir", "cache", "--compile-bytecode"]
    for _ in range(2):
        done = subprocess.run(
            [*envsync_command(), "sync", *words], cwd=directory, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert unverified(directory / "env") == []


def test_a_bundle(tmp_path: Path) -> None:
    """It has the wheels, and no bytecode, which is said with what helps."""
    done = refused(
        "EPERM", tmp_path, "bundle", "--lock", LOCK, "--to", "bundle", "--cache-dir", "cache", "--compile-bytecode"
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is compiled, for files in cache" in done.stderr
    assert " --cache-dir cache` says what can be done there" in done.stderr
    assert "has 5 wheels, " in done.stdout
    assert not (tmp_path / "bundle/bytecode").exists()
