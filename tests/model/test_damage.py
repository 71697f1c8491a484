"""Each kind of damage by itself: what the next sync repairs, what it names, and what it is not promised to see.

What is right after a sync is judged by the model (`tests.model.world`), which knows the limits: damage inside packages
that the fast lane cannot see stays while nothing else is in doubt, and so does damage of equal size until the
distribution is reinstalled.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import ConflictError
from envsync.launch import Environment, fast_lane, request
from envsync.library import blocking
from tests.conftest import envsync_command
from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified
from tests.model.conftest import base_python
from tests.model.strike import strike
from tests.model.universe import SITE, walk
from tests.model.world import World

FIRST, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"
WHEELS = FIXTURES / "wheels"
NAMES = ["alpha", "beta", "gamma", "delta"]
THEN = ["nothing", "doubt", "another lock file"]
OTHER = 5
"""The number of the lock file that upgrades all but delta."""


def crossed(first: Iterable[object], *rest: Iterable[object]) -> list[Any]:
    """Combine everything with everything. Without `-m slow`, only each of the first, and each combination of the rest.

    All of them take minutes.
    """
    ones, others = list(first), list(itertools.product(*rest))
    return [
        pytest.param(one, *other, marks=() if i % len(others) == j or j % len(ones) == i else pytest.mark.slow)
        for i, one in enumerate(ones)
        for j, other in enumerate(others)
    ]


def go_on(world: World, then: str) -> None:
    """Sync again: as it is, with the slow path in doubt, or to another lock file."""
    if then == "doubt":
        os.utime(world.env / SITE)
    world.sync(OTHER if then == "another lock file" else 0)


FILES = {
    "module": f"{SITE}/alpha/mod.py",
    "module in site-packages": f"{SITE}/beta_single.py",
    "shared by several": f"{SITE}/shared/common.py",
    "in a namespace": f"{SITE}/ns/gamma.py",
    "shared object": f"{SITE}/delta/fast.abi3.so",
    "data": "share/alpha/readme",
    "script": "bin/beta-run",
    "entry point": "bin/alpha-tool",
    "METADATA": f"{SITE}/alpha-1.dist-info/METADATA",
    "entry_points.txt": f"{SITE}/alpha-1.dist-info/entry_points.txt",
}


TREES = ["lib", SITE, f"{SITE}/alpha", f"{SITE}/ns", f"{SITE}/alpha-1.dist-info", "bin", ""]


@pytest.mark.parametrize(("what", "how", "then"), crossed(FILES, ["gone", "empty", "flip"], THEN))
def test_a_damaged_file(world: World, what: str, how: str, then: str) -> None:
    """A file that is gone or emptied is back as soon as anything is in doubt, and what is reinstalled is whole."""
    world.check_imports(write=True)
    world.damage_file(FILES[what], how)
    go_on(world, then)
    if then == "doubt" and how != "flip":
        assert world.harm == {}


@pytest.mark.parametrize(("name", "how", "then"), crossed(NAMES, ["gone", "empty", "cut", "flip"], THEN))
def test_a_damaged_record(world: World, name: str, how: str, then: str) -> None:
    """Whatever has become of its RECORD, the store knows the files of a wheel: none is left, none is in the way."""
    world.damage_record(name, how)
    go_on(world, then)
    assert world.orphans == set()
    world.sync(4)
    assert world.orphans == set()


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_damaged_record_of_what_stays(world: World, how: str) -> None:
    """An inexact sync does not forget whose files they are that it leaves."""
    world.damage_record("gamma", how)
    world.sync(2, exact=False)
    world.sync(OTHER)
    assert world.orphans == set()


@pytest.mark.parametrize("target", [0, OTHER, 4])
@pytest.mark.parametrize("name", ["alpha", "gamma"])
def test_a_lost_dist_info(world: World, name: str, target: int) -> None:
    """Its files are nobody's (PEP 376): the same come back, others are named to the user, none is taken for ours."""
    world.lose_info(name)
    world.sync(target)
    world.sync(0)


@pytest.mark.parametrize(("directory", "half", "then"), crossed(TREES, [0, 1], THEN))
def test_a_tree_half_deleted(world: World, directory: str, half: int, then: str) -> None:
    """Every second file of a tree is gone."""
    world.use_space(f"{SITE}/alpha/user.py")
    world.lose_half_a_tree(directory, half)
    go_on(world, then)


@pytest.mark.parametrize("target", [0, OTHER])
@pytest.mark.parametrize("path", ["bin/python", "bin/python*", "pyvenv.cfg"])
def test_a_lost_skeleton(world: World, path: str, target: int) -> None:
    """Without a Python or pyvenv.cfg, an environment is remade. (The base Python is compared by the fixture.)"""
    world.use_space("notes.txt")
    world.lose_skeleton(path)
    world.sync(target)
    assert "notes.txt" in world.users


@pytest.mark.parametrize("name", ["bin", "lib", "include"])
def test_a_lost_directory(world: World, name: str) -> None:
    """A whole directory is gone."""
    shutil.rmtree(world.env / name)
    world.lose_skeleton("pyvenv.cfg")
    world.sync(0)


def test_a_lost_site_packages(world: World) -> None:
    """All distributions are gone at once: all are installed, the skeleton stays."""
    config = (world.env / "pyvenv.cfg").stat().st_ino
    shutil.rmtree(world.env / SITE)
    world.installed = {}
    world.possible = None
    for path in ("bin/alpha-tool", "bin/beta-run", "share/alpha/readme", "etc/gamma.cfg"):
        world.orphans.add(path)
    world.sync(0)
    assert (world.env / "pyvenv.cfg").stat().st_ino == config


READ_ONLY = """\
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
if touch "$1/lib/written" 2>/dev/null; then exit 99; fi
shift
exec "$@"
"""


@pytest.mark.parametrize("path", ["pyvenv.cfg", "bin/python"])
def test_the_base_python_may_be_read_only(tmp_path: Path, path: str) -> None:
    """An environment that lost its pyvenv.cfg is remade while the base Python cannot be written to: nobody tries."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` here")
    rootless = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = ["unshare", *rootless, "--mount", "sh", "-c", READ_ONLY, "sh", sys.base_prefix]
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"the base Python cannot be bound read-only here: {probe.stderr.strip()}")
    env = tmp_path / "env"
    blocking.sync(FIRST, env=env, cache_dir=tmp_path / "cache")
    expected = files(env)
    before = base_python()
    (env / path).unlink()
    words = [*envsync_command(), "run", "--lock", FIRST, "--env", env, "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [*inside, *map(str, words), "--", "greet"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert files(env) == expected
    assert base_python() == before


# Our own files


def enters(world: World, number: int = 0) -> bool:
    asked = request.resolve({"lock": str(world.universe.locks[number]), "env": str(world.env)}, {})
    entry = fast_lane.enter(asked, Environment(str(world.env)))
    if entry is not None:
        os.close(entry.fd)
    return entry is not None


def test_a_damaged_stamp_is_none(world: World) -> None:
    """A stamp that is cut anywhere, or of which any bit is flipped, vouches for nothing; a sync writes another."""
    stamp = world.env / ".envsync" / "stamp"
    content = stamp.read_bytes()
    assert enters(world)
    for end in range(len(content)):
        stamp.write_bytes(content[:end])
        assert not enters(world), end
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        stamp.write_bytes(flipped)
        assert not enters(world), place
    stamp.write_bytes(content)
    assert enters(world)
    for how in ("cut", "flip", "gone"):
        for number in (0, 1, 100, len(content) - 1):
            world.damage_state("stamp", how, number)
            world.sync(0)


@pytest.mark.parametrize(
    ("how", "step"),
    [
        ("gone", 4000),
        ("cut", 400),
        ("flip", 400),
        pytest.param("cut", 23, marks=pytest.mark.slow),
        pytest.param("flip", 23, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_ledger(world: World, how: str, step: int) -> None:
    """Damage anywhere in installed.json never decides what is installed or whose a file is, nor that all is remade."""
    content = (world.env / ".envsync" / "installed.json").read_bytes()
    world.use_space(f"{SITE}/shared/user.txt")
    # Where the environment is decides whether it is remade; who has files in a directory, who may remove them.
    told = [match.start() for match in re.finditer(b'(?<="environment": "/)|shared', content)]
    assert len(told) >= 4
    for number, target in [
        *((n, 1) for n in told),
        *((n, 3 if n % 2 else OTHER) for n in range(0, len(content), step)),
    ]:
        world.damage_state("installed.json", how, number)
        world.sync(target)
        assert f"{SITE}/shared/user.txt" in world.users
        world.sync(0)


@pytest.mark.parametrize(("seen", "how", "target"), crossed([1, 6, 12, 20], ["cut", "flip", "gone"], [0, 1, OTHER]))
def test_a_damaged_journal(world: World, how: str, seen: int, target: int) -> None:
    """What was decided is lost with it: files half moved are nobody's, and named or left; all else is the target."""
    journal = world.env / ".envsync" / "journal"
    count = 0

    def is_due(_: int) -> bool:
        nonlocal count
        count += journal.exists()
        return count == seen

    assert world.crash(OTHER, is_due)
    assert journal.exists()
    world.damage_state("journal", how, 40)
    world.sync(target)
    world.sync(0)


def test_all_of_our_own_files_are_lost(world: World) -> None:
    """Without `.envsync`, everything is reinstalled from verified wheels, once."""
    world.use_space(f"{SITE}/alpha/user.py")
    world.lose_state()
    world.sync(0)
    assert f"{SITE}/alpha/user.py" in world.users


def test_a_user_is_in_the_way(world: World) -> None:
    """A file of the user's where the target wants its own is named, and nothing is changed."""
    world.use_space(f"{SITE}/alpha/new.py")
    before = walk(world.env)
    with pytest.raises(ConflictError, match=r"alpha/new\.py"):
        world.try_sync(OTHER, exact=True)
    assert walk(world.env) == before
    assert enters(world)


def test_written_through_a_link(world: World) -> None:
    """Whoever writes into an installed file in place writes into the store: the next sync that needs it finds out."""
    world.damage_file(f"{SITE}/alpha/mod.py", "in place")
    os.utime(world.env / SITE)
    world.sync(0)
    assert world.harm == {}
    elsewhere = World(world.universe, world.root)
    elsewhere.env = world.root / "elsewhere"
    elsewhere.sync(0)


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy(world: World, linked: bool) -> None:
    """A copy, even one of hard links, is another environment: syncing it does not touch the original."""
    with world.copied(linked=linked) as copy:
        copy.sync(OTHER)
    world.sync(0)


# Other tools, the real ones

Tool = Callable[..., None]


@pytest.fixture
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    """Return a function that runs `pip install` and the like in an environment, offline."""
    name = request.param
    if name == "uv" and shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")

    def run(env: Path, command: str, *words: str) -> None:
        python = str(env / "bin" / "python")
        if name == "pip":
            start = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", command]
            start += ["--yes"] if command == "uninstall" else ["--no-index", "--no-deps"]
        else:
            start = ["uv", "pip", command, "--python", python, "--cache-dir", str(tmp_path / "uv")]
            start += [] if command == "uninstall" else ["--no-index", "--no-deps"]
        done = subprocess.run([*start, *words], capture_output=True, text=True, check=False, timeout=100)
        if done.returncode:
            raise RuntimeError(done.stderr)

    return run


CHANGES: dict[str, list[tuple[str, ...]]] = {
    "installed": [("install", "{wheels}/almanac_words-1.0-py3-none-any.whl"), ("uninstall", "shout")],
    "removed": [("uninstall", "greet", "tally")],
    "upgraded": [("install", "{wheels}/greet-2.0-py3-none-any.whl")],
    "reinstalled": [("install", "--force-reinstall", "{wheels}/greet-1.0-py3-none-any.whl")],
}


def change(tool: Tool, env: Path, what: str) -> None:
    for command, *words in CHANGES[what]:
        tool(env, command, *(word.format(wheels=WHEELS) for word in words))


def check_target(lock: Path, env: Path, cache: Path) -> None:
    """Sync, and compare with an environment that nobody has touched."""
    clean = cache.parent / "clean"
    blocking.sync(lock, env=clean, cache_dir=cache)
    blocking.sync(lock, env=env, cache_dir=cache)
    assert unverified(env) == []
    assert unowned(env) == set()
    assert files(env) == files(clean)
    assert leftovers(env) == []
    assert blocking.sync(lock, env=env, cache_dir=cache).outcome == "current"
    words = [str(env / "bin" / "python"), "-I", "-c", "import greet, json; print(json.dumps(greet.__file__))"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(said).startswith(str(site_packages(env)))


@pytest.mark.parametrize(
    ("what", "tool", "lock"), crossed(CHANGES, ["pip", "uv"], ["pylock.toml", "pylock.next.toml"]), indirect=["tool"]
)
def test_others_were_here(tmp_path: Path, tool: Tool, what: str, lock: str) -> None:
    """What pip or uv has installed, removed or upgraded meanwhile is put right."""
    env, cache = tmp_path / "env", tmp_path / "cache"
    blocking.sync(FIRST, env=env, cache_dir=cache)
    change(tool, env, what)
    check_target(FIXTURES / lock, env, cache)


@pytest.mark.parametrize(("what", "tool", "seen"), crossed(CHANGES, ["pip", "uv"], [1, 5, 9]), indirect=["tool"])
def test_others_were_here_before_the_recovery(tmp_path: Path, quick: None, tool: Tool, what: str, seen: int) -> None:
    """A commit is cut short, then somebody installs over it: the next sync finishes it, and puts that right."""
    env, cache = tmp_path / "env", tmp_path / "cache"
    for lock in (NEXT, FIRST):
        blocking.sync(lock, env=env, cache_dir=cache)
    journal = env / ".envsync" / "journal"
    count = 0

    def is_due(_: int) -> bool:
        nonlocal count
        count += journal.exists()
        return count == seen

    words = ["sync", "--lock", str(NEXT), "--env", str(env), "--cache-dir", str(cache), "-q"]
    assert strike(words, is_due, tmp_path / "log").killed
    assert journal.exists()
    # What pip is to remove may not be there, or has no RECORD any more: it says so and does nothing.
    with contextlib.suppress(RuntimeError):
        change(tool, env, what)
    check_target(NEXT, env, cache)
    check_target(FIRST, env, cache)
