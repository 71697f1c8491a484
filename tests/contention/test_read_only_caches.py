"""Caches that cannot be written to, and caches that somebody has written to."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contention.test_many_processes import LOCK, NEXT, envsync
from tests.environments import FIXTURES, files, leftovers, unowned, unverified
from tests.rooms import inside
from tests.rooms.conftest import shared, synced, unshare
from tests.wheels import build_wheel, sha256_of

__all__ = ["shared", "synced", "unshare"]
NOTE = "cannot be written to: what it lacked"
NOBODY = 65534

Run = Callable[..., subprocess.CompletedProcess[str]]


class Room:
    """A populated cache that cannot be written to, and a directory beside it that can.

    :ivar call: runs envsync where that is so
    """

    def __init__(self, work: Path, cache: Path, call: Run) -> None:
        self.work = work
        self.cache = cache
        self.call = call
        self.before = self.look()

    def look(self) -> dict[str, tuple[int, int]]:
        """Return what there is in the cache, wherever that is."""
        found = (path.lstat() for path in self.cache.rglob("*"))
        return {str(status.st_ino): (status.st_size, status.st_mtime_ns) for status in found}

    def sync(self, lock: str, env: str, *options: object) -> subprocess.CompletedProcess[str]:
        where = ["--lock", FIXTURES / lock, "--env", self.work / env, "--cache-dir", self.cache]
        done = self.call("sync", *where, "--json", *options)
        if done.returncode == 0:
            assert unverified(self.work / env) == []
            assert unowned(self.work / env) == set()
            assert leftovers(self.work / env) == []
        return done


def bind_mount(place: Path) -> Room:
    cache = place / "cache"
    return Room(place, cache, lambda *words: inside.read_only(cache, inside.words(*words)))


def squashfs(place: Path) -> Room:
    if shutil.which("mksquashfs") is None:
        pytest.skip("there is no `mksquashfs` here")
    image, cache = place / "cache.sqfs", place / "mounted"
    cache.mkdir()
    subprocess.run(["mksquashfs", place / "cache", image, "-quiet"], check=True, stdout=subprocess.DEVNULL)
    script = 'mount -t squashfs -o ro,loop "$1" "$2" && shift 2 && exec "$@"'
    start = ["unshare", "--mount", "sh", "-c", script, "sh", str(image), str(cache)]
    probe = inside.output([*start, "true"])
    if probe.returncode:
        pytest.skip(f"no squashfs can be mounted here: {probe.stderr.strip()}")
    return Room(place, cache, lambda *words: inside.output([*start, *inside.words(*words)]))


def of_another_user(place: Path) -> Room:
    cache = place / "cache"

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        return inside.as_user(NOBODY, inside.words(*words), cwd=place)

    return Room(place / "work", cache, call)


KINDS = {"bind mount": bind_mount, "squashfs": squashfs, "another user's": of_another_user}


def make_room(kind: str, request: pytest.FixtureRequest) -> Room:
    place: Path = request.getfixturevalue("shared" if kind == "another user's" else "synced")
    if kind == "another user's":
        done = envsync(place, "sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache")
        assert done.returncode == 0, done.stderr
    return KINDS[kind](place)


@pytest.fixture(params=KINDS)
def room(request: pytest.FixtureRequest) -> Room:
    """Each kind of a cache that cannot be written to, with the wheels of `pylock.toml`."""
    return make_room(request.param, request)


def test_a_populated_one_is_used_as_it_is(room: Room) -> None:
    """Nothing is said of it and nothing written to it."""
    done = room.sync("pylock.toml", "new")
    assert done.returncode == 0, done.stderr
    assert NOTE not in done.stderr
    assert len(json.loads(done.stdout)["installed"]) == 5
    assert room.look() == room.before


def test_what_it_lacks_goes_to_the_environment_alone(room: Room) -> None:
    """One note says so, and that is gone in the end."""
    done = room.sync("pylock.next.toml", "new")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(NOTE) == 1
    assert "was fetched for this environment alone; --cache-fallback DIR names a place to keep it" in done.stderr
    again = room.sync("pylock.next.toml", "new")
    assert (json.loads(again.stdout)["outcome"], again.stderr.count(NOTE)) == ("current", 0)
    assert room.look() == room.before


def test_what_it_lacks_is_kept_in_the_fallback(room: Room) -> None:
    """The second environment gets it from there without a word, though no wheel can be had any more."""
    fallback = room.work / "mine"
    done = room.sync("pylock.next.toml", "new", "--cache-fallback", fallback)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(NOTE) == 1
    assert f"went to `{fallback}`" in done.stderr
    wheels = sorted((fallback / "v1" / "wheels").iterdir())
    assert 0 < len(wheels) < len(json.loads(done.stdout)["installed"])
    done = room.sync("pylock.next.toml", "second", "--cache-fallback", fallback)
    assert (done.returncode, done.stderr.count(NOTE)) == (0, 0), done.stderr
    assert sorted((fallback / "v1" / "wheels").iterdir()) == wheels
    assert room.look() == room.before


@pytest.mark.parametrize("command", ["clean", "prune"])
def test_it_is_not_cleaned(room: Room, command: str) -> None:
    """That is an error which names it, and nothing is gone; what is in it can be told."""
    done = room.call(
        "cache", command, "--cache-dir", room.cache, *(["--older-than", "0"] if command == "prune" else [])
    )
    assert done.returncode == 125
    assert str(room.cache) in done.stderr
    assert room.call("cache", "size", "--cache-dir", room.cache).stdout.startswith(f"`{room.cache}`: 5 wheels")
    assert room.call("cache", "verify", "--cache-dir", room.cache).stdout.endswith("5 wheels verified, 0 removed\n")
    assert room.look() == room.before


@pytest.mark.parametrize("kind", ["bind mount", "another user's"])
def test_a_damaged_entry_in_it_is_not_used(kind: str, request: pytest.FixtureRequest) -> None:
    """It cannot be removed: it is fetched again all the same, and `verify` names it."""
    room = make_room(kind, request)
    module = next(room.cache.glob("v1/wheels/*/purelib/greet/__init__.py"))
    module.chmod(0o644)
    module.write_text("poison = 1\n")
    done = room.sync("pylock.toml", "new")
    assert done.returncode == 0, done.stderr
    assert "the cached files of `greet-1.0-py3-none-any.whl` have been changed" in done.stderr
    assert done.stderr.count(NOTE) == 1
    assert module.read_text() == "poison = 1\n"
    done = room.call("cache", "verify", "--cache-dir", room.cache)
    assert done.returncode == 1
    assert (
        "damaged: `greet-1.0-py3-none-any.whl`: `purelib/greet/__init__.py` is not what the wheel holds" in done.stdout
    )


def test_a_killed_sync_leaves_its_private_cache_to_the_next(synced: Path) -> None:
    """It is in the environment, where the next sync clears it away."""
    left = synced / "env" / ".envsync" / "work" / "cache-0123456789abcdef" / "v1" / "wheels" / "x"
    left.mkdir(parents=True)
    done = envsync(synced, "sync", "--lock", NEXT, "--env", "env", "--cache-dir", "cache")
    assert done.returncode == 0, done.stderr
    assert leftovers(synced / "env") == []


def test_a_sync_that_fails_takes_its_private_cache_along(synced: Path) -> None:
    """Nothing of it is left in the environment, not even until the next sync."""
    wheels = [build_wheel(synced, name) for name in ("one", "two")]
    lock = synced / "requirements.txt"
    hashes = (sha256_of(wheels[0]), "0" * 64)
    lines = (
        f"{name} @ file://{path} --hash=sha256:{hash_}"
        for name, path, hash_ in zip(("one", "two"), wheels, hashes, strict=True)
    )
    lock.write_text("\n".join(lines))
    command = inside.words("sync", "--lock", lock, "--env", synced / "env", "--cache-dir", synced / "cache")
    done = inside.read_only(synced / "cache", command)
    assert done.returncode == 125
    assert "the sha256 of" in done.stderr
    assert leftovers(synced / "env") == []


def test_a_home_that_cannot_be_written_to(shared: Path) -> None:
    """There is no cache, and none can be made: the environment alone gets the wheels."""
    command = inside.words("sync", "--lock", FIXTURES / "pylock.toml", "--env", shared / "work" / "env")
    done = inside.as_user(NOBODY, ["env", "-u", "XDG_CACHE_HOME", "HOME=/nonexistent", *command], cwd=shared)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the cache `/nonexistent/.cache/envsync` " + NOTE) == 1
    assert unverified(shared / "work" / "env") == []
    assert leftovers(shared / "work" / "env") == []


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """Only what is refused is done without: anything else is for the user to put right."""
    (tmp_path / "cache").write_text("")
    done = envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache")
    assert done.returncode == 125
    assert f"cannot create `{tmp_path}/cache/v1/wheels`: {os.strerror(errno.ENOTDIR)}" in done.stderr


# Damage


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with five wheels."""
    done = envsync(tmp_path, "sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache", "--link-mode", "copy")
    assert done.returncode == 0, done.stderr
    return tmp_path / "cache"


def damage(cache: Path, *, covered_up: bool) -> Path:
    """Overwrite a cached file in place, as root and its owner can."""
    module = next(cache.glob("v1/wheels/*/purelib/greet/__init__.py"))
    status = module.stat()
    module.chmod(0o644)
    module.write_bytes(b"#" * (status.st_size + (not covered_up)))
    if covered_up:
        os.utime(module, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return module


@pytest.mark.parametrize("link_mode", ["hardlink", "copy"])
def test_damage_is_found_before_it_is_linked(cache: Path, link_mode: str) -> None:
    """By size and time: it is named, set aside, and fetched again; its bytes are in no environment."""
    module = damage(cache, covered_up=False)
    options = ["--env", "new", "--cache-dir", "cache", "--link-mode", link_mode]
    done = envsync(cache.parent, "run", "--lock", LOCK, *options, "--", "greet")
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")
    assert "the cached files of `greet-1.0-py3-none-any.whl` have been changed" in done.stderr
    assert "it was set aside and fetched again" in done.stderr
    assert not module.read_bytes().startswith(b"#####")
    assert unverified(cache.parent / "new") == []
    assert os.listdir(cache / "v1" / "tmp") == []
    done = envsync(cache.parent, "run", "--lock", LOCK, *options, "--", "greet")
    assert (done.stdout, done.stderr) == ("HELLO, WORLD!\n", "")


def test_damage_that_was_covered_up_is_found_by_its_hash(cache: Path) -> None:
    """Of equal size and time, it is linked; `cache verify` finds it, and `check` finds it in the environment."""
    module = damage(cache, covered_up=True)
    sync = ["sync", "--lock", LOCK, "--env", "new", "--cache-dir", "cache"]
    assert envsync(cache.parent, *sync).returncode == 0
    assert unverified(cache.parent / "new") != []
    done = envsync(cache.parent, "cache", "verify", "--cache-dir", "cache")
    assert done.returncode == 1
    assert "removed `greet-1.0-py3-none-any.whl`: `purelib/greet/__init__.py` is not" in done.stdout
    assert not module.exists()
    done = envsync(cache.parent, "check", *sync[1:], "--repair")
    assert done.returncode == 0, done.stderr
    assert unverified(cache.parent / "new") == []
    assert files(cache.parent / "new") == files(cache.parent / "env")
    assert module.exists()
