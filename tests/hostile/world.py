"""The world in which a hostile wheel is synced: all that it could reach, as it was and as it is."""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import envsync
from tests.environments import site_packages
from tests.hostile.cases import SITE
from tests.wheels import sha256_of

Snapshot = dict[str, tuple[object, ...]]


@dataclass(frozen=True)
class World:
    """A directory in which all of a test takes place, so that what is written outside of the environment is seen."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def project(self) -> Path:
        return self.root / "home" / "project"

    @property
    def env(self) -> Path:
        return self.project / "envs" / "env"

    def lock(self, name: str, *packages: tuple[str, str, Path]) -> Path:
        """Write a lock file that names these packages, each with its name, version and wheel."""
        lines = ['lock-version = "1.0"', 'created-by = "hostile"']
        for package, version, wheel in packages:
            lines += ["[[packages]]", f'name = "{package}"', f'version = "{version}"', "[[packages.wheels]]"]
            lines += [f"name = {json.dumps(wheel.name)}", f"path = {json.dumps(str(wheel))}"]
            lines += [f'hashes = {{sha256 = "{sha256_of(wheel)}"}}']
        path = self.project / f"pylock.{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def sync(self, lock: Path) -> envsync.SyncResult:
        return envsync.sync(lock, env=self.env, cache_dir=self.cache, offline=True)

    def around(self) -> Snapshot:
        """Take down all that is neither in the environment nor in the cache."""
        return snapshot(self.root, but=(self.cache, self.env))

    def stored(self) -> set[str]:
        """Name the wheels in the cache; there is nothing in progress."""
        assert os.listdir(self.cache / "v1" / "tmp") == []
        return set(os.listdir(self.cache / "v1" / "wheels"))


def snapshot(root: Path, *, but: tuple[Path, ...] = ()) -> Snapshot:
    """Take down everything below a directory: what it is, and when it was changed."""
    found: Snapshot = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if Path(directory, name) not in but]
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            times = () if name in names else (status.st_size, status.st_mtime_ns, status.st_ino)
            found[os.path.relpath(path, root)] = (status.st_mode, *times)
    return found


def installed(env: Path) -> set[str]:
    """List the files of an environment but for its skeleton, as the corpus does."""
    site = site_packages(env).relative_to(env).as_posix()
    skeleton = re.compile(
        rf"pyvenv\.cfg|\.lock|\.gitignore|CACHEDIR\.TAG|bin/(python[\d.]*|[Aa]ctivate(\.\w+)?)|{site}/\.envsync/.*"
    )
    found = set()
    for directory, names, files in os.walk(env):
        names[:] = [name for name in names if Path(directory, name) != env / ".envsync"]
        found |= {os.path.relpath(os.path.join(directory, name), env) for name in files}
    return {re.sub(f"^{site}/", f"{SITE}/", path) for path in found if not skeleton.fullmatch(path)}


class Meter:
    """Counts the bytes that are written, in this process and in its children."""

    def __init__(self) -> None:
        self.count = mmap.mmap(-1, 8)

    def __int__(self) -> int:
        return int.from_bytes(self.count[:], "little")

    def add(self, count: int) -> None:
        self.count[:] = (int(self) + count).to_bytes(8, "little")


@contextmanager
def limited(memory: int) -> Iterator[None]:
    """Let this process and its children take no more than so many bytes besides what it has."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[5])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + memory, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def make_world(root: Path) -> World:
    world = World(root)
    for path in (world.project / "envs", root / "tmp", root / "wheels"):
        path.mkdir(parents=True)
    (root / "home" / ".profile").write_text("# nobody's\n")
    return world


def enter(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("HOME", str(world.root / "home"))
    monkeypatch.setenv("TMPDIR", str(world.root / "tmp"))
    monkeypatch.chdir(world.project)
    return world
