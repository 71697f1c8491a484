"""For any installed state and any target, the committed result is exactly the target.

A small universe of generated wheels is built once: each of a few distributions in two versions, each version in some
builds that differ in what they ship. They share directories and files, with the same and with different contents;
they have scripts, entry points, data, headers, namespace packages, modules of their own. Examples are sequences of
targets, synced one after the other into one environment by the real code, with everything between two syncs that
people and other tools do to an environment. After each sync the whole tree is compared with a model of what it has to
be, which knows the target and the user's files, and nothing of what was there before.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import json
import os
import random
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envsync
from envsync.errors import ConflictError
from envsync.leading.result import SyncResult
from envsync.staging import scripts
from envsync.system import forking
from envsync.waiting import pace
from envsync.wheel.manifest import Script
from tests import environments
from tests.wheels import build_wheel, sha256_of

VERSION = "%d.%d" % sys.version_info[:2]  # noqa: UP031
SITE = f"lib/python{VERSION}/site-packages"
HEADERS = f"include/site/python{VERSION}"
NAMES = ("alpha", "beta", "gamma-kit", "omega")
VERSIONS = ("1.0", "2.0")
BUILDS = range(4)
STATE = {"in-use", "locking", "installed.json", "stamp", "work"}


class Wheel(NamedTuple):
    """A wheel, and what of it has to be in an environment."""

    name: str
    version: str
    path: str
    sha256: str
    files: dict[str, bytes]
    """By path in the environment, without what names the environment's path."""
    entry_points: dict[str, tuple[str, str]]
    rewritten: dict[str, bytes]
    """Scripts that begin with `#!python`, by path in the environment."""
    executable: frozenset[str]

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def record(self) -> str:
        return f"{SITE}/{self.stem}.dist-info/RECORD"

    def contents(self, env: str) -> dict[str, bytes]:
        """Return all files but RECORD, by path in the environment."""
        python = f"{env}/bin/python"
        made = {path: scripts.rewrite(content, python) for path, content in self.rewritten.items()}
        for name, (module, attr) in self.entry_points.items():
            made[f"bin/{name}"] = scripts.entry_point(Script(name, module, attr, "console"), python)
        return {**self.files, **made}


def make_wheel(directory: Path, name: str, version: str, build: int) -> Wheel:
    """Build a wheel of which the name, version and build decide what is in it."""
    dice = random.Random(f"{name} {version} {build}")
    package = name.replace("-", "_")

    def maybe(chance: float = 0.5) -> bool:
        return dice.random() < chance

    files: dict[str, str] = {f"{package}/__init__.py": f"version = {version!r}\n"}
    data: dict[str, str] = {}
    entry_points: dict[str, str] = {}
    for path in (f"{package}/mod.py", f"{package}/sub/deep.py", f"{package}_single.py", f"shared/{package}.py"):
        if maybe():
            files[path] = f"x = {dice.choice('ab')!r}\n"
    if maybe(0.7):
        files["shared/__init__.py"] = ""
    if maybe():
        files["shared/common.py"] = f"winner = {dice.choice([name, 'anybody'])!r}\n"
    if maybe(0.3):
        files["loose.py"] = f"winner = {dice.choice(['xx', package[:2]])!r}\n"
    if maybe(0.4):
        files["shared/inner/data.txt"] = dice.choice(["same", f"{name} {version}"])
    if maybe():
        files[f"ns/{package}.py"] = f"version = {version!r}\n"
    if maybe(0.3):
        files[f"ns/inner/{package}/x.py"] = f"{build}\n"
    if maybe(0.4):
        entry_points[f"tool-{name}"] = f"{package}:main"
    tool = dice.choice(["", "", "entry point", "script", "data"])
    if tool == "entry point":
        entry_points["tool"] = dice.choice(["shared:main", f"{package}:main"])
    if maybe(0.3):
        data[f"scripts/run-{name}"] = f"#!python -u\nprint({version!r})\n"
    if tool == "script":
        data["scripts/tool"] = dice.choice(["#!/bin/sh\n", "#!python\n"]) + f"# {dice.choice(['same', name])}\n"
    if maybe(0.3):
        data[f"data/share/doc/{package}/README"] = f"{name} {dice.choice(['old', 'new'])}\n"
    if maybe(0.4):
        data["data/share/common.cfg"] = dice.choice(["same", f"{name} {version}"])
    if tool == "data":
        data["data/bin/tool"] = f"data of {name}\n"
    if maybe(0.2):
        data["data/top.txt"] = dice.choice(["same", name])
    if maybe(0.3):
        data[f"headers/{package}.h"] = f"#define VERSION {version}\n"
    if maybe(0.2):
        data[f"platlib/{package}_fast.py"] = f"fast = {build}\n"
    path = build_wheel(
        directory,
        name,
        version,
        files,
        data=data,
        entry_points={"console_scripts": entry_points} if entry_points else None,
        root_is_purelib=maybe(0.8),
        dist_info_files={"licenses/LICENSE": "free\n"} if maybe(0.3) else None,
        executable=[f"{package}/mod.py"] if maybe(0.2) else [],
        # So that each build is another wheel, even if nothing else is different.
        metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: build {build}\n",
    )
    return read_wheel(path, name, version)


def read_wheel(path: str, name: str, version: str) -> Wheel:
    """Read what is in a wheel, without the code that is tested."""
    stem = f"{name.replace('-', '_')}-{version}"
    files: dict[str, bytes] = {}
    executable = set()
    bases = {"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "", "headers": f"{HEADERS}/{name}"}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            scheme, inner = "purelib", member.filename
            if inner.startswith(f"{stem}.data/"):
                _, scheme, inner = inner.split("/", 2)
            final = "/".join(part for part in (bases[scheme], inner) if part)
            files[final] = archive.read(member)
            if scheme == "scripts" or member.external_attr >> 16 & stat.S_IXUSR:
                executable.add(final)
    info = f"{SITE}/{stem}.dist-info"
    del files[f"{info}/RECORD"]
    files |= {f"{info}/INSTALLER": b"envsync\n", f"{info}/REQUESTED": b""}
    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(files.get(f"{info}/entry_points.txt", b"").decode())
    points = dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}
    for point in points:
        if f"bin/{point}" in files and f"bin/{point}" in executable:
            del files[f"bin/{point}"]
        executable.add(f"bin/{point}")
    rewritten = {final: content for final, content in files.items() if content.startswith(b"#!python")}
    return Wheel(
        name,
        version,
        path,
        sha256_of(path),
        {final: content for final, content in files.items() if final not in rewritten},
        {point: (value.partition(":")[0], value.partition(":")[2]) for point, value in points.items()},
        rewritten,
        frozenset(executable),
    )


def wheel(directory: Path, name: str, version: str = "1", files: Mapping[str, str] | None = None, **more: Any) -> Wheel:
    """Build one particular wheel."""
    return read_wheel(build_wheel(directory, name, version, files, **more), name, version)


Choice = tuple[str, int]
"""Version and build."""
Target = Mapping[str, Choice]
Action = tuple[str, object]


class World:
    """The wheels, the environment, and what the user has put into it."""

    def __init__(self, root: Path, builds: Iterable[int] = BUILDS) -> None:
        self.root = root
        self.env = root / "env"
        self.cache = root / "cache"
        self.lock = root / "pylock.toml"
        self.wheels: dict[tuple[str, str, int], Wheel] = {}
        for build in builds:
            (root / f"build{build}").mkdir()
            for name in NAMES:
                for version in VERSIONS:
                    wheel = make_wheel(root / f"build{build}", name, version, build)
                    self.wheels[name, version, build] = wheel
        self.users: dict[str, bytes] = {}
        self.users_directories: set[str] = set()
        self.compiled: dict[str, bytes] = {}
        """Bytecode → the content that its source had."""
        self.sync([])
        self.skeleton = {path: self.identity(path) for path in self.walk()[0]}
        self.skeleton_directories = self.walk()[1]
        self.reset()

    # The environment

    def walk(self) -> tuple[set[str], set[str]]:
        """List the files and directories of the environment, without our own."""
        files, directories = set(), set()
        pending = [""]
        while pending:
            directory = pending.pop()
            with os.scandir(self.env / directory) as entries:
                for entry in entries:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    if entry.name == ".envsync" and directory in ("", SITE):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        directories.add(path)
                        pending.append(path)
                    else:
                        files.add(path)
        return files, directories

    def identity(self, path: str) -> tuple[int, int, int]:
        status = os.lstat(self.env / path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def reset(self) -> None:
        """Bring the environment back to what it was when it was made."""
        files, directories = self.walk()
        for path in files - self.skeleton.keys():
            os.unlink(self.env / path)
        for path in sorted(directories - self.skeleton_directories, reverse=True):
            os.rmdir(self.env / path)
        for name in os.listdir(self.env / ".envsync"):
            if name != "in-use":
                environments_path = self.env / ".envsync" / name
                shutil.rmtree(environments_path) if environments_path.is_dir() else environments_path.unlink()
        shutil.rmtree(self.env / SITE / ".envsync", ignore_errors=True)
        self.users, self.users_directories, self.compiled = {}, set(), {}

    def write(self, path: str, content: bytes) -> None:
        """Write a file as another installer would: never into a link of the store's."""
        full = self.env / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.unlink(missing_ok=True)
        full.write_bytes(content)

    # The target

    def chosen(self, target: Target) -> list[Wheel]:
        return [self.wheels[name, *choice] for name, choice in target.items()]

    def sync(self, wheels: Iterable[Wheel], **options: object) -> SyncResult:
        """Sync the environment by a pylock.toml of these wheels."""
        wheels = list(wheels)
        lines = ['lock-version = "1.0"', 'created-by = "tests"', "" if wheels else "packages = []"]
        for wheel in wheels:
            lines += [
                "[[packages]]",
                f'name = "{wheel.name}"',
                f'version = "{wheel.version}"',
                f'wheels = [{{ path = "{wheel.path}", hashes = {{ sha256 = "{wheel.sha256}" }} }}]',
            ]
        self.lock.write_text("\n".join(lines) + "\n")
        return envsync.sync(self.lock, env=self.env, cache_dir=self.cache, **options)  # type: ignore[arg-type]

    def expected(self, wheels: Iterable[Wheel]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return what has to be there, RECORDs apart, and by whom: of several that have a file the last name wins."""
        contents: dict[str, bytes] = {}
        providers: dict[str, str] = {}
        for wheel in sorted(wheels):
            for path, content in wheel.contents(str(self.env)).items():
                contents[path] = content
                providers[path] = wheel.name
        return contents, providers

    # What happens between two syncs

    def happen(self, action: Action) -> None:
        kind, value = action
        getattr(self, f"_{kind}")(value)

    def _owned(self) -> list[str]:
        found: set[str] = set()
        for record in (self.env / SITE).glob("*.dist-info/RECORD"):
            with record.open(newline="") as file:
                found |= {os.path.normpath(f"{SITE}/{row[0]}") for row in csv.reader(file)}
        return sorted(path for path in found if os.path.isfile(self.env / path))

    def _dist_infos(self) -> list[str]:
        return sorted(name for name in os.listdir(self.env / SITE) if name.endswith(".dist-info"))

    def _user(self, path: str) -> None:
        if path.endswith("/"):
            if not any(file.startswith(path) for file in self.users):
                (self.env / path).mkdir(parents=True, exist_ok=True)
                self.users_directories.add(path[:-1])
        else:
            self.users[path] = f"the user's {path}".encode()
            self.write(path, self.users[path])

    def _compile(self, choice: tuple[int, str]) -> None:
        """Leave bytecode, of what was in a source at this time, as an interpreter with that tag does."""
        number, tag = choice
        sources = sorted(
            path
            for path in self.walk()[0]
            if path.startswith(SITE) and path.endswith(".py") and os.path.isfile(self.env / path)
        )
        if sources:
            source = sources[number % len(sources)]
            directory, _, name = source.rpartition("/")
            compiled = f"{directory}/__pycache__/{name[:-3]}.{tag}.pyc"
            self.write(compiled, b"bytecode")
            self.compiled[compiled] = (self.env / source).read_bytes()

    def _damage(self, choice: tuple[int, str]) -> None:
        """Lose or change a file, and with it the certainty that the environment is what the records say."""
        number, how = choice
        self._doubt(None)
        if owned := [path for path in self._owned() if not path.endswith("/RECORD")]:
            path = self.env / owned[number % len(owned)]
            content = path.read_bytes()
            path.unlink()
            if how == "longer":
                path.write_bytes(content + b"# more")
            elif how == "link":
                path.symlink_to("nowhere")

    def _doubt(self, _: object) -> None:
        (self.env / ".envsync" / "stamp").unlink(missing_ok=True)

    def _forget(self, _: object) -> None:
        """Lose our record of what we installed."""
        self._doubt(None)
        if all((self.env / SITE / info / "RECORD").exists() for info in self._dist_infos()):  # else nobody knows
            (self.env / ".envsync" / "installed.json").unlink(missing_ok=True)

    def _reinstall(self, number: int) -> None:
        """Do what pip does when it installs the same version again: the same RECORD, written anew."""
        if infos := self._dist_infos():
            record = f"{SITE}/{infos[number % len(infos)]}/RECORD"
            if os.path.exists(self.env / record):
                self.write(record, (self.env / record).read_bytes())
                os.utime(self.env / SITE)

    def _twice(self, number: int) -> None:
        """Leave a second dist-info of one name, as an installer does that was interrupted between two versions."""
        if infos := self._dist_infos():
            info = infos[number % len(infos)]
            other = f"{info.partition('-')[0]}-0.9.dist-info"
            if not (self.env / SITE / other).exists():
                shutil.copytree(self.env / SITE / info, self.env / SITE / other, symlinks=True)

    def _lose_record(self, number: int) -> None:
        """Lose the RECORD of what we installed: the wheel in the store still says what it owns."""
        self._doubt(None)
        infos = [info for info in self._dist_infos() if not info.startswith("foreign")]
        if infos and (self.env / ".envsync" / "installed.json").exists():
            (self.env / SITE / infos[number % len(infos)] / "RECORD").unlink(missing_ok=True)

    def _foreign(self, paths: Iterable[str]) -> None:
        """Install a distribution that nobody wants, over whatever is there, as pip does."""
        info = f"{SITE}/foreign-1.dist-info"
        if (self.env / info).exists():
            return
        rows = []
        for path in paths:
            if path in self.users or os.path.isdir(self.env / path):
                continue
            self.write(path, b"foreign = 1\n")
            digest = base64.urlsafe_b64encode(hashlib.sha256(b"foreign = 1\n").digest()).rstrip(b"=").decode()
            rows.append(f"{os.path.relpath(path, SITE)},sha256={digest},12\n")
        self.write(f"{info}/INSTALLER", b"pip\n")
        self.write(f"{info}/RECORD", "".join([*rows, "foreign-1.dist-info/INSTALLER,,\n"]).encode())

    # The judgement

    def check(self, wheels: Sequence[Wheel]) -> None:
        """Compare the whole environment with what it has to be."""
        contents, providers = self.expected(wheels)
        files, directories = self.walk()
        bytecode = {path for path in files if self._is_live_bytecode(path, files)}
        files -= bytecode
        wanted = {*contents, *self.users, *self.skeleton, *(wheel.record for wheel in wheels)}
        assert sorted(files - wanted) == [], "files are left that belong to nobody"
        assert sorted(wanted - files) == [], "files are missing"
        for path, identity in self.skeleton.items():
            assert self.identity(path) == identity, f"{path} of the environment's own has been changed"
        for path, content in {**contents, **self.users}.items():
            assert (self.env / path).read_bytes() == content, path
        for wheel in wheels:
            for path in wheel.executable:
                assert os.access(self.env / path, os.X_OK) or providers[path] != wheel.name, path
            self._check_record(wheel, contents)
        self._check_bytecode(bytecode)
        self._check_directories(directories, wanted | bytecode)
        assert environments.leftovers(self.env) == []
        assert set(os.listdir(self.env / ".envsync")) <= STATE

    def _is_live_bytecode(self, path: str, files: set[str]) -> bool:
        directory, _, name = path.rpartition("/")
        source = f"{directory.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"
        return directory.endswith("/__pycache__") and path not in self.users and source in files

    def _check_record(self, wheel: Wheel, contents: Mapping[str, bytes]) -> None:
        own = wheel.contents(str(self.env))
        listed = {}
        with (self.env / wheel.record).open(newline="") as file:
            for row in csv.reader(file):
                path = os.path.normpath(f"{SITE}/{row[0]}")
                assert path not in listed, f"{path} is listed twice"
                listed[path] = (row[1], row[2])
        assert listed.pop(wheel.record) == ("", "")
        assert listed.keys() == own.keys()
        for path, recorded in listed.items():
            if own[path] == contents[path]:  # else another distribution's content was installed, and said so
                digest = base64.urlsafe_b64encode(hashlib.sha256(contents[path]).digest()).rstrip(b"=").decode()
                assert recorded == (f"sha256={digest}", str(len(contents[path]))), path

    def _check_bytecode(self, bytecode: Iterable[str]) -> None:
        for path in bytecode & self.compiled.keys():
            directory, _, name = path.rpartition("/")
            source = self.env / os.path.dirname(directory) / f"{name.partition('.')[0]}.py"
            assert source.read_bytes() == self.compiled[path], f"{path} is the bytecode of other code"
        self.compiled = {path: content for path, content in self.compiled.items() if path in bytecode}

    def _check_directories(self, directories: set[str], files: Iterable[str]) -> None:
        needed = set(self.skeleton_directories)
        for path in [*files, *(f"{path}/x" for path in self.users_directories), f"{HEADERS}/x"]:
            while path := path.rpartition("/")[0]:
                needed.add(path)
        spare = {path for path in directories - needed if not path.endswith("/__pycache__")}
        assert sorted(spare) == [], "empty directories are left"
        missing = self.users_directories - directories
        assert sorted(missing) == [], "directories of the user's are gone"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all examples: wheels, store and skeleton are made once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace, "LOCAL_SECONDS", 0.0)  # nobody waits for the stamps here
        patched.setattr(forking, "can_share", lambda count: False)  # a fork takes longer than all of a small sync
        for name in [name for name in os.environ if name.startswith("ENVSYNC_")]:
            patched.delenv(name)
        yield World(tmp_path_factory.mktemp("world"))


TARGETS = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.sampled_from(VERSIONS), st.sampled_from(BUILDS)), max_size=len(NAMES)
)
NUMBERS = st.integers(0, 60)
TAGS = st.sampled_from([f"cpython-{VERSION.replace('.', '')}", "cpython-39", "cpython-311.opt-1"])
USERS = st.sampled_from(
    [
        "user.txt",
        "bin/user",
        "share/user.txt",
        "share/doc/alpha/user.txt",
        "share/empty/",
        f"{HEADERS}/beta/user.h",
        f"{SITE}/user.py",
        f"{SITE}/__pycache__/user.cpython-311.pyc",
        f"{SITE}/shared/user.py",
        f"{SITE}/shared/__pycache__/user.cpython-311.pyc",
        f"{SITE}/shared/inner/user.txt",
        f"{SITE}/alpha/user/__init__.py",
        f"{SITE}/alpha/empty/",
        f"{SITE}/gamma_kit/sub/user.txt",
        f"{SITE}/omega/__pycache__/user.cpython-311.pyc",
        f"{SITE}/ns/user.py",
        f"{SITE}/ns/empty/",
        f"{SITE}/userpkg/__init__.py",
    ]
)
FOREIGN = st.sets(
    st.sampled_from(
        [
            "bin/foreign",
            "bin/tool",
            "share/common.cfg",
            f"{SITE}/foreign/__init__.py",
            f"{SITE}/shared/__init__.py",
            f"{SITE}/shared/common.py",
            f"{SITE}/shared/foreign.py",
            f"{SITE}/loose.py",
            f"{SITE}/alpha/mod.py",
            f"{SITE}/ns/foreign.py",
        ]
    )
)
ACTIONS = st.one_of(
    st.tuples(st.just("user"), USERS),
    st.tuples(st.just("compile"), st.tuples(NUMBERS, TAGS)),
    st.tuples(st.just("compile"), st.tuples(NUMBERS, TAGS)),
    st.tuples(st.just("damage"), st.tuples(NUMBERS, st.sampled_from(["gone", "longer", "link"]))),
    st.tuples(st.sampled_from(["doubt", "forget"]), st.none()),
    st.tuples(st.sampled_from(["reinstall", "twice", "lose_record"]), NUMBERS),
    st.tuples(st.just("foreign"), FOREIGN.map(sorted)),
)
LINKS = st.sampled_from(["auto", "auto", "auto", "copy"])
STEPS = st.lists(st.tuples(st.lists(ACTIONS, max_size=3), TARGETS, LINKS), min_size=2, max_size=3)
Steps = Sequence[tuple[Sequence[Action], Target, str]]


@settings(max_examples=2 * settings.default.max_examples)
@given(STEPS)
def test_the_result_is_exactly_the_target(world: World, steps: Steps) -> None:
    """Whatever was there and whatever happened, after a sync there are the target's files and the user's, no others."""
    world.reset()
    for actions, target, link_mode in steps:
        for action in actions:
            world.happen(action)
        wheels = world.chosen(target)
        world.sync(wheels, link_mode=link_mode)
        world.check(wheels)
        assert world.sync(wheels).outcome == "current"


@settings(max_examples=settings.default.max_examples // 4)
@given(st.lists(TARGETS, min_size=1, max_size=2), st.lists(TARGETS, max_size=2), TARGETS)
def test_history_leaves_no_trace(world: World, one: list[Target], other: list[Target], last: Target) -> None:
    """What an environment is depends on its target alone: two that came different ways are the same."""
    trees = []
    for history in (one, other):
        world.reset()
        for target in [*history, last]:
            world.sync(world.chosen(target))
        trees.append({path: (world.env / path).read_bytes() for path in world.walk()[0] - world.skeleton.keys()})
    assert trees[0] == trees[1]


@settings(max_examples=settings.default.max_examples // 4)
@given(st.lists(TARGETS, min_size=2, max_size=3))
def test_inexact_syncs_add_up(world: World, targets: list[Target]) -> None:
    """Without exactness, what a target does not name stays as it was installed, whole."""
    world.reset()
    there: dict[str, Choice] = {}
    for target in targets:
        before, after = world.expected(world.chosen(there)), world.expected(world.chosen({**there, **target}))
        if any(
            before[0][path] != after[0][path] and after[1][path] not in target for path in before[0].keys() & after[0]
        ):
            return  # what stays would get back a file that another one had won: see the test below
        world.sync(world.chosen(target), exact=False)
        there |= target
        world.check(world.chosen(there))


def test_an_inexact_sync_gives_back_what_another_had_won(world: World, tmp_path: Path) -> None:
    """If the winner of a shared file goes, the next one's content comes back, even if the target does not name it."""
    world.reset()
    loser = wheel(tmp_path, "a", files={"a.py": "", "shared.py": "a"})
    winner = wheel(tmp_path, "b", files={"b.py": "", "shared.py": "b"})
    without = wheel(tmp_path, "b", "2", {"b.py": ""})
    world.sync([loser, winner])
    world.sync([without], exact=False)
    world.check([loser, without])


@settings(max_examples=settings.default.max_examples // 4)
@given(TARGETS)
def test_a_lost_stamp_costs_no_reinstallation(world: World, target: Target) -> None:
    """An environment that is as it should be is found to be so without a stamp: nothing is installed again."""
    world.reset()
    wheels = world.chosen(target)
    world.sync(wheels)
    world.happen(("doubt", None))
    result = world.sync(wheels)
    assert (result.outcome, result.installed, result.removed) == ("current", (), ())
    world.check(wheels)


@settings(max_examples=settings.default.max_examples // 4)
@given(TARGETS, TARGETS, NUMBERS)
def test_a_users_file_in_the_way(world: World, before: Target, target: Target, number: int) -> None:
    """A file of the user's where the target wants its own is named, and nothing is changed; without it, all is well."""
    world.reset()
    old, new = world.chosen(before), world.chosen(target)
    world.sync(old)
    there, directories = world.walk()
    coming = world.expected(new)[0]
    free = [path for path in coming if path not in there and ".dist-info/" not in path and path not in directories]
    if not free:
        return
    path = sorted(free)[number % len(free)]
    world.write(path, b"the user's")
    before_tree = {each: world.identity(each) for each in world.walk()[0]}
    with pytest.raises(ConflictError) as caught:
        world.sync(new)
    assert path in caught.value.files
    assert {each: world.identity(each) for each in world.walk()[0]} == before_tree
    os.unlink(world.env / path)
    world.sync(new)
    world.check(new)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("together", [False, True])
def test_a_script_and_an_entry_point(world: World, tmp_path: Path, names: tuple[str, str], together: bool) -> None:
    """A script of one and an entry point of another with one name: the last name wins, in whatever order they come."""
    world.reset()
    both = [
        wheel(tmp_path, names[0], data={"scripts/tool": "#!/bin/sh\n"}),
        wheel(tmp_path, names[1], entry_points={"console_scripts": {"tool": "x:main"}}),
    ]
    if not together:
        world.sync(both[:1])
    world.sync(both)
    world.check(both)
    for one in both:
        world.sync([one])
        world.check([one])


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("where", ["bin/tool", f"{SITE}/module.py", f"{HEADERS}/x/x.h"])
def test_data_that_leads_into_another_scheme(world: World, tmp_path: Path, names: tuple[str, str], where: str) -> None:
    """A data file that ends up among the scripts or libraries is shared with those like any other."""
    world.reset()
    scheme = {"bin/tool": "scripts/tool", f"{SITE}/module.py": "purelib/module.py"}.get(where, f"data/{where}")
    both = [
        wheel(tmp_path, names[0], data={f"data/{where}": "same\n"}, executable=[f"{names[0]}-1.data/data/bin/tool"]),
        wheel(tmp_path, names[1], data={scheme: "same\n"}),
    ]
    world.sync(both[:1])
    world.sync(both)
    world.check(both)
    for one in both:
        world.sync(both)
        world.sync([one])
        world.check([one])


def test_the_same_content_with_another_mode(world: World, tmp_path: Path) -> None:
    """A script stays executable when a data file of the same content, which was not, goes."""
    world.reset()
    plain = wheel(tmp_path, "a", data={"data/bin/tool": "#!/bin/sh\n"})
    script = wheel(tmp_path, "b", data={"scripts/tool": "#!/bin/sh\n"})
    world.sync([plain])
    world.sync([plain, script])
    world.check([plain, script])
    world.sync([script])
    world.check([script])


@pytest.mark.parametrize("what", ["directory", "link", "file"])
def test_what_a_user_puts_into_a_dist_info(world: World, tmp_path: Path, what: str) -> None:
    """All in a .dist-info goes with it, whatever it is: what is left of one would be a distribution for ever."""
    world.reset()
    old, new = wheel(tmp_path, "a", "1"), wheel(tmp_path, "a", "2")
    world.sync([old])
    extra = world.env / os.path.dirname(old.record) / "extra"
    if what == "directory":
        extra.mkdir()
    elif what == "link":
        extra.symlink_to("/")
    else:
        extra.touch()
    world.sync([new])
    world.check([new])
    world.happen(("doubt", None))
    assert world.sync([new]).outcome == "current"


@pytest.mark.parametrize("path", ["pyvenv.cfg", "bin/python", ".lock", ".envsync/in-use", ".envsync/installed.json"])
def test_a_record_that_claims_the_environment(tmp_path: Path, path: str) -> None:
    """Whatever a RECORD claims, what makes the environment one, and what is our own, is no distribution's."""
    world = World(tmp_path, builds=[])
    world.sync([])
    info = f"{SITE}/foreign-1.dist-info"
    world.write(f"{info}/RECORD", f"../../../{path},,\n".encode())
    os.utime(world.env / SITE)
    before = os.lstat(world.env / ".envsync" / "in-use").st_ino
    world.sync([])
    world.check([])
    assert os.path.lexists(world.env / path)
    assert os.lstat(world.env / ".envsync" / "in-use").st_ino == before


def test_one_lock_file_in_two_places(tmp_path: Path) -> None:
    """Where a wheel came from is said by this lock file, not by one elsewhere with the same content."""
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        path = build_wheel(tmp_path / place, "demo", "1")
        lock = tmp_path / place / "pylock.toml"
        archive = f'{{ path = "{os.path.basename(path)}", hashes = {{ sha256 = "{sha256_of(path)}" }} }}'
        lock.write_text(
            'lock-version = "1.0"\ncreated-by = "tests"\n'
            f'[[packages]]\nname = "demo"\nversion = "1"\narchive = {archive}\n'
        )
        envsync.sync(lock, cache_dir=tmp_path / "cache")
        direct_url = tmp_path / place / ".venv" / SITE / "demo-1.dist-info" / "direct_url.json"
        assert json.loads(direct_url.read_text())["url"] == f"file://{path}"


def test_what_venv_seeds_is_spared(world: World) -> None:
    """An exact sync keeps pip, which no lock file names."""
    world.reset()
    users = {f"{SITE}/pip/__init__.py": b"", f"{SITE}/pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\n"}
    for path, content in users.items():
        world.write(path, content)
    world.users |= users
    for target in ({"alpha": ("1.0", 0)}, {}):
        world.sync(world.chosen(target))
        world.check(world.chosen(target))


def test_the_store_is_as_it_was(world: World) -> None:
    """After all of that the files in the store are still those of the wheels: nothing was written through a link."""
    for each in world.wheels.values():
        world.reset()
        world.sync([each], link_mode="copy")
        world.check([each])
        entry = world.cache / "v1" / "wheels" / each.sha256
        mtimes = {os.lstat(path).st_mtime_ns for path in entry.rglob("*") if path.is_file()}
        assert len(mtimes) == 1, "a file of the store has been changed"
