"""A process that may have few open files, or only small ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.environments import files, leftovers, unverified
from tests.rooms.inside import output, words
from tests.rooms.narrow import make_lock
from tests.wheels import build_wheel, sha256_of


def many_wheels(directory: Path, count: int, each: int) -> Path:
    """Make a lock file of many wheels with many files."""
    lines = ['lock-version = "1.0"', 'created-by = "tests"']
    for number in range(count):
        name = f"pack{number}"
        modules = {f"{name}/d{part % 8}/m{part}.py": f"V = {part}\n" for part in range(each)}
        wheel = build_wheel(directory, name, "1.0", {f"{name}/__init__.py": "", **modules})
        archive = f'[{{ path = "{wheel}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]'
        lines += ["[[packages]]", f'name = "{name}"', 'version = "1.0"', f"wheels = {archive}"]
    path = directory / "pylock.many.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("link_mode", ["auto", "copy"])
@pytest.mark.parametrize("limit", [64, 256, 1000])
def test_few_descriptors(tmp_path: Path, limit: int, link_mode: str) -> None:
    """Forty wheels of forty files each are installed with few open files, and a command runs with them."""
    lock = many_wheels(tmp_path, 40, 40)
    options = ["--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "--link-mode", link_mode]
    show = "import os, pack7.d3.m3; print(len(os.listdir('/proc/self/fd')))"
    script = f'ulimit -n {limit}; exec "$@"'
    for _ in range(2):
        done = output(["sh", "-c", script, "sh", *words("run", *options, "-q", "--", "python", "-c", show)])
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 10
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize("limit", [4, 8, 12, 16, 24])
def test_hardly_any_descriptors(tmp_path: Path, limit: int) -> None:
    """With so few that nothing works, whatever happens is an error, and the next command is none the worse for it."""
    lock = many_wheels(tmp_path, 4, 10)
    options = ["--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "-q"]
    done = output(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *words("sync", *options)])
    assert done.returncode >= 0, done.stderr
    done = output(words("sync", *options))
    assert done.returncode == 0, done.stderr
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize("kilobytes", [0, 1, 2, 4, 8, 64, 128])
def test_small_files_only(tmp_path: Path, kilobytes: int) -> None:
    """With a limit on the size of files, the one that is too large is named, and the old environment stays current."""
    old, new = (make_lock(tmp_path / "wheels", version) for version in ("1.0", "2.0"))
    options = ["--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "-q"]
    assert output(words("sync", "--lock", old, *options)).returncode == 0
    before = files(tmp_path / "env")
    small = ["prlimit", f"--fsize={kilobytes * 1024}"]
    done = output([*small, *words("sync", "--lock", new, *options, "--link-mode", "copy")])
    assert done.returncode == 125, done
    assert "File too large" in done.stderr
    assert str(tmp_path) in done.stderr
    assert files(tmp_path / "env") == before
    done = output([*small, *words("run", "--lock", old, *options, "--", "tool")])
    assert (done.returncode, done.stdout) == (0, "tool 1.0\n"), done.stderr
    done = output(words("run", "--lock", new, *options, "--", "tool"))
    assert (done.returncode, done.stdout) == (0, "tool 2.0\n"), done.stderr
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []
    assert os.listdir(tmp_path / "cache" / "v1" / "tmp") == []
