"""What all environments of a test run share: wheels with everything that makes wheels hard, lock files, the cache."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from envsync.library import blocking
from envsync.staging import scripts
from envsync.wheel.manifest import Script
from tests.wheels import build_wheel, sha256_of

VERSION = "%d.%d" % sys.version_info[:2]  # noqa: UP031
SITE = f"lib/python{VERSION}/site-packages"
HEADERS = f"include/site/python{VERSION}"


class Wheel(NamedTuple):
    """A wheel, and what of it has to be in an environment."""

    name: str
    version: str
    path: str
    sha256: str
    files: tuple[tuple[str, bytes], ...]
    """By path in the environment; without RECORD, entry points and what names the environment's path."""
    tool: str
    """The name of its entry point."""
    script: str
    """The name of its script that begins with `#!python`."""

    @property
    def info(self) -> str:
        return f"{SITE}/{self.name}-{self.version}.dist-info"

    def contents(self, env: Path) -> dict[str, bytes]:
        """Return all files but RECORD, as envsync installs them."""
        python = f"{env}/bin/python"
        found = {**dict(self.files), f"{self.info}/INSTALLER": b"envsync\n", f"{self.info}/REQUESTED": b""}
        if self.tool:
            found[f"bin/{self.tool}"] = scripts.entry_point(Script(self.tool, self.name, "main", "console"), python)
        if self.script:
            found[f"bin/{self.script}"] = scripts.rewrite(found[f"bin/{self.script}"], python)
        return found


def make_wheel(
    directory: Path, name: str, version: str, modules: Iterable[str], data: Iterable[str] = (), tool: str = ""
) -> Wheel:
    """Build a wheel. A file has the same size in all versions, and differs in all but `shared/__init__.py`."""

    def content(path: str) -> str:
        if path.endswith("shared/__init__.py"):
            return ""
        start = "#!python\n" if path.startswith("scripts/") else ""
        return f"{start}V = '{name} {version} {path}'\n" + ("def main(): print(V)\n" if path == f"{name}.py" else "")

    files = {path: content(path) for path in modules}
    extra = {path: content(path) for path in data}
    points = {"console_scripts": {tool: f"{name}:main"}} if tool else None
    path = build_wheel(directory, name, version, files, data=extra, entry_points=points)
    stem = f"{name}-{version}"
    bases = {"purelib": SITE, "scripts": "bin", "data": "", "headers": f"{HEADERS}/{name}"}
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            scheme, inner = "purelib", member
            if member.startswith(f"{stem}.data/"):
                _, scheme, inner = member.split("/", 2)
            found["/".join(part for part in (bases[scheme], inner) if part)] = archive.read(member)
    del found[f"{SITE}/{stem}.dist-info/RECORD"]
    script = next((each[8:] for each in extra if each.startswith("scripts/")), "")
    return Wheel(name, version, path, sha256_of(path), tuple(sorted(found.items())), tool, script)


def make_wheels(directory: Path) -> dict[tuple[str, str], Wheel]:
    """Build the universe.

    Renamed modules (`old` and `new`; `gamma.py` becomes a package), modules of equal size with other content, a
    namespace package (`ns`), files that several have (`shared/`, with the same and with different contents), scripts,
    entry points, data, headers.
    """
    ship: dict[tuple[str, str], tuple[list[str], list[str], str]] = {
        ("alpha", "1"): (
            ["alpha/__init__.py", "alpha/mod.py", "alpha/old.py", "shared/__init__.py", "shared/a.py"],
            ["data/share/alpha/readme"],
            "alpha-tool",
        ),
        ("alpha", "2"): (
            ["alpha/__init__.py", "alpha/mod.py", "alpha/new.py", "alpha/sub/deep.py", "shared/__init__.py"],
            ["data/share/alpha/readme"],
            "alpha-tool",
        ),
        ("beta", "1"): (
            ["ns/beta/__init__.py", "beta_single.py", "shared/__init__.py", "shared/common.py"],
            ["scripts/beta-run"],
            "",
        ),
        ("beta", "2"): (
            ["ns/beta/__init__.py", "ns/beta/more.py", "beta_single.py", "shared/__init__.py", "shared/common.py"],
            ["scripts/beta-run", "headers/beta.h"],
            "",
        ),
        ("gamma", "1"): (["gamma.py", "ns/gamma.py", "shared/common.py"], ["data/etc/gamma.cfg"], ""),
        ("gamma", "2"): (["gamma/__init__.py", "gamma/inner/x.py", "ns/gamma.py"], ["data/etc/gamma.cfg"], "g-tool"),
        ("delta", "1"): (["delta/__init__.py", "delta/deep/er/est.py", "delta/fast.abi3.so"], [], ""),
        ("stranger", "1"): (["stranger/__init__.py", "shared/__init__.py", "ns/stranger.py"], [], "stranger"),
    }
    return {
        (name, version): make_wheel(directory, name, version, modules, data, tool)
        for (name, version), (modules, data, tool) in ship.items()
    }


TARGETS: tuple[tuple[str, ...], ...] = (
    ("alpha 1", "beta 1", "gamma 1", "delta 1"),
    ("alpha 2", "beta 1", "gamma 2"),
    ("alpha 1", "beta 2"),
    ("beta 2", "gamma 1", "delta 1"),
    (),
    ("alpha 2", "beta 2", "gamma 2", "delta 1"),
)
ALIENS = ("alpha 1", "alpha 2", "beta 2", "gamma 1", "gamma 2", "stranger 1")
"""What other tools install."""


class Universe:
    """What all environments of a test run share: wheels, lock files and the cache. Never changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        (root / "wheels").mkdir(parents=True)
        self.wheels = make_wheels(root / "wheels")
        self.locks = [self._lock(number, target) for number, target in enumerate(TARGETS)]
        for number, lock in enumerate(self.locks):
            blocking.sync(lock, env=root / f"warm{number}", cache_dir=self.cache)
        blocking.sync(self.locks[TARGETS.index(())], env=root / "warm", cache_dir=self.cache)
        self.skeleton = frozenset(walk(root / "warm"))

    def wheel(self, text: str) -> Wheel:
        name, version = text.split()
        return self.wheels[name, version]

    def target(self, number: int) -> dict[str, Wheel]:
        return {text.split()[0]: self.wheel(text) for text in TARGETS[number]}

    def _lock(self, number: int, target: Iterable[str]) -> Path:
        lines = ['lock-version = "1.0"', 'created-by = "tests"', "" if target else "packages = []"]
        for wheel in map(self.wheel, target):
            archive = f'[{{ path = "{wheel.path}", hashes = {{ sha256 = "{wheel.sha256}" }} }}]'
            lines += ["[[packages]]", f'name = "{wheel.name}"', f'version = "{wheel.version}"', f"wheels = {archive}"]
        path = self.root / f"pylock.{number}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path


def walk(env: Path) -> dict[str, tuple[int, int, int]]:
    """Return the files of an environment and their identities, without our own."""
    found = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(env / directory) as entries:
            for entry in entries:
                path = f"{directory}/{entry.name}" if directory else entry.name
                if entry.name == ".envsync" and directory in ("", SITE):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                else:
                    status = entry.stat(follow_symlinks=False)
                    found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def fingerprint(content: bytes) -> tuple[str, str]:
    """Return hash and size as RECORD has them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest}", str(len(content))
