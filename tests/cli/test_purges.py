"""Purges of scratch filesystems: files go by their age, directories stay, and no command starts in what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.launch import stamp
from tests.environments import FIXTURES, leftovers, site_packages, unverified
from tests.wheels import build_wheel

LOCK = str(FIXTURES / "pylock.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]
DAYS = 86400


def purge(*places: Path, spare: tuple[str, ...] = (), links: bool = False) -> None:
    """Remove all files, and leave directories, as `find -type f -delete` does."""
    for place in places:
        for directory, _, names in os.walk(place):
            for name in names:
                path = Path(directory, name)
                if (links or not path.is_symlink()) and not any(part in spare for part in path.parts):
                    path.unlink()


def purge_by_age(place: Path, seconds: float) -> int:
    """Remove the files that were neither read nor changed since then. Returns how many are left."""
    left = 0
    for directory, _, names in os.walk(place):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            if max(status.st_atime, status.st_mtime) < seconds:
                path.unlink()
            else:
                left += 1
    return left


def make_older(place: Path, days: float) -> None:
    """Let days pass for all that is there."""
    for directory, _, names in os.walk(place):
        for name in names:
            path = Path(directory, name)
            status = path.lstat()
            if not path.is_symlink():
                os.utime(path, ns=(status.st_atime_ns - int(days * DAYS * 1e9), status.st_mtime_ns))


PURGES: dict[str, Callable[[Path], None]] = {
    "packages": lambda env: purge(site_packages(env), spare=(".envsync",)),
    "modules": lambda env: purge(site_packages(env), spare=("RECORD", "METADATA", ".envsync")),
    "all": purge,
    "all and links": lambda env: purge(env, links=True),
    "all but the state": lambda env: purge(env, spare=(".envsync",)),
    "the state": lambda env: purge(env / ".envsync"),
    "pyvenv.cfg": lambda env: (env / "pyvenv.cfg").unlink(),
    "scripts": lambda env: purge(env / "bin"),
    "python": lambda env: purge(env / "bin", links=True),
}


WAYS = (("hardlink", False), ("symlink", True), ("hardlink", True), ("symlink", False))
"""How the environment is linked, and whether the cache goes, too."""
QUICK = {*((what, *WAYS[0]) for what in PURGES), ("all", *WAYS[1]), ("packages", *WAYS[1]), ("the state", *WAYS[1])}


@pytest.mark.parametrize(
    ("what", "link", "cache_too"),
    [
        pytest.param(what, *way, marks=() if (what, *way) in QUICK else pytest.mark.slow)
        for way in WAYS
        for what in PURGES
    ],
)
def test_a_purged_environment_is_healed(
    run_envsync: Run, tmp_path: Path, what: str, link: str, *, cache_too: bool
) -> None:
    """Whatever goes of it, and of the cache with it, the next command runs with everything there."""
    words = ("run", "--lock", LOCK, "--env", "env", "--cache-dir", "cache", "--link-mode", link, "--", "greet")
    run_envsync(*words, check=True)
    PURGES[what](tmp_path / "env")
    if cache_too:
        purge(tmp_path / "cache")
    done = run_envsync(*words)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    if (what, cache_too, link) != ("modules", False, "symlink"):  # of which nothing is missed
        assert unverified(tmp_path / "env") == []
        assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_what_nothing_but_the_guard_tells(run_envsync: Run, tmp_path: Path, link: str) -> None:
    """Where all is in packages, a purge changes neither site-packages nor anything else that a stamp names: `sync`,
    `status` and `run` notice it by one file."""
    wheel = build_wheel(tmp_path, "demo", "1.0", {"demo/__init__.py": "VALUE = 1\n", "demo/data/table.txt": "x"})
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"demo @ file://{wheel}\n")
    words = ("--lock", str(lock), "--env", "env")
    for command in (("run", *words, "--", "python", "-c", "import demo; demo.VALUE"), ("sync", *words)):
        run_envsync("sync", *words, "--link-mode", link, check=True)
        site = site_packages(tmp_path / "env")
        before = site.stat().st_mtime_ns
        purge(site, spare=(".envsync",))
        assert site.stat().st_mtime_ns == before
        assert run_envsync("status", "--env", "env", "--exit-code").returncode == 1
        done = run_envsync(*command)
        assert done.returncode == 0, done.stderr
        assert unverified(tmp_path / "env") == []


def test_a_purged_cache_is_noticed_by_who_links_to_it(run_envsync: Run, tmp_path: Path) -> None:
    """The environment's own files are all there, and what it imports is not."""
    words = ("run", "--lock", LOCK, "--env", "env", "--cache-dir", "cache", "--link-mode", "symlink", "--", "greet")
    run_envsync(*words, check=True)
    purge(tmp_path / "cache")
    done = run_envsync(*words)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert unverified(tmp_path / "env") == []


@pytest.mark.parametrize("days", [6.5, 7.5, 8.5])
def test_a_purge_by_age_takes_the_guard_before_the_rest(run_envsync: Run, tmp_path: Path, days: float) -> None:
    """Linked from a cache that is almost a day old, and never run: however old it is when the purge comes, either the
    environment is whole or it is not taken for current."""
    words = ("sync", "--lock", LOCK, "--cache-dir", "cache", "--link-mode", "hardlink")
    run_envsync(*words, "--env", "first", check=True)
    make_older(tmp_path / "cache", 0.9)
    run_envsync(*words, "--env", "env", check=True)
    env = tmp_path / "env"
    for path in (env / "pyvenv.cfg", *(env / ".envsync").iterdir(), *(env / "bin").iterdir()):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (time.time() + 30 * DAYS, path.stat().st_mtime))  # these are read at every launch
    make_older(tmp_path / "cache", days)
    make_older(env, days)  # what is linked is twice as old by now, and the test is the stricter for it
    purge_by_age(site_packages(env), time.time() - 7 * DAYS)
    done = run_envsync("run", "--lock", LOCK, "--cache-dir", "cache", "--env", "env", "--", "greet")
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert unverified(env) == []


def guards(env: Path) -> list[str]:
    vouched = stamp.load((env / ".envsync" / "stamp").read_bytes())
    assert vouched is not None
    return [guard.path for guard in vouched.guards]


def test_the_guard_is_nobody_elses(run_envsync: Run, tmp_path: Path) -> None:
    """It is a file of this environment alone, and neither commands nor `check` read it."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--link-mode", "hardlink", check=True)
    (guard,) = map(Path, guards(tmp_path / "env"))
    assert (guard.name, guard.stat().st_nlink) == ("REQUESTED", 1)
    assert guard.is_relative_to(site_packages(tmp_path / "env"))
    os.utime(guard, (time.time() - 3 * DAYS, guard.stat().st_mtime))
    before = guard.stat().st_atime_ns
    program = "import importlib.metadata as m; [list(map(str, d.files)) for d in m.distributions()]"
    run_envsync("run", "--lock", LOCK, "--env", "env", "--", "python", "-c", program, check=True)
    run_envsync("check", "--env", "env", check=True)
    assert guard.stat().st_atime_ns == before


def test_the_guard_is_of_who_was_there_longest(run_envsync: Run, tmp_path: Path) -> None:
    """It stays the same while others come, and when its distribution goes, it is one of those that stay."""
    later = FIXTURES / "pylock.next.toml"
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    (first,) = guards(tmp_path / "env")
    run_envsync("sync", "--lock", later, "--env", "env", check=True)
    (second,) = guards(tmp_path / "env")
    assert second == first or not Path(first).exists()
    shutil.rmtree(Path(second).parent)
    run_envsync("sync", "--lock", later, "--env", "env", check=True)
    (third,) = guards(tmp_path / "env")
    assert third != second
    assert Path(third).exists()
