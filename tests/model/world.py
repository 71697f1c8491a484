"""An environment, everything that happens to one, and a plain model of what must be in it afterwards.

The model knows the wheels, what the user has put there, and what the fast lane can see: nothing of journals, plans and
stages. What it does not promise is written down where it is allowed for (`World.harm`, `World.orphans`,
`World.fragile`), so that it can be read off here.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from envsync import fastlane, library, request
from envsync.__main__ import main
from envsync.cache.manifest import Script
from envsync.environment import Environment
from envsync.errors import ConflictError
from envsync.library import SyncResult
from envsync.transaction import scripts
from tests import environments
from tests.wheels import build_wheel, sha256_of

VERSION = "%d.%d" % sys.version_info[:2]  # noqa: UP031
SITE = f"lib/python{VERSION}/site-packages"
HEADERS = f"include/site/python{VERSION}"
PARTS = ("bin/", "include/", "lib/", "lib64/", "share/", "etc/", "man/")
"""What goes with the skeleton of an environment that has to be remade, the user's files in it included."""
CHANGES = frozenset(
    {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
)
STATE = {"in-use", "installed.json", "stamp", "work", "failure.json"}


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

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.version

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
            library.sync(lock, env=root / f"warm{number}", cache_dir=self.cache)
        library.sync(self.locks[TARGETS.index(())], env=root / "warm", cache_dir=self.cache)
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


def is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") and "/__pycache__/" in path


def source_of(path: str) -> str:
    """Return the path of the source of bytecode."""
    directory, _, name = path.rpartition("/")
    return f"{directory.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"


class Struck(NamedTuple):
    """How a command ended that was to be killed."""

    killed: bool
    status: int
    said: str


def strike(arguments: list[str], is_due: Callable[[int], bool], log: Path) -> Struck:
    """Run a command line in a child that is killed before the first change of the file system that is due."""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        said = log.read_text() if log.exists() else ""
        return Struck(os.WIFSIGNALED(status), -1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), said)
    count = 0

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or writes:
            count += 1
            if is_due(count):
                os.kill(os.getpid(), signal.SIGKILL)

    status = 70
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.addaudithook(audit)
        status = main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)


class World:
    """One environment and what must hold of it.

    What plain `sync` does not promise, by name:

    - `harm`: damage inside installed packages. "blind" is of equal size: only reinstalling repairs it. "seen" is a
      missing file, or one of another size: repaired as soon as anything makes the slow path doubt (a recovery, a change
      of a site-packages directory, a stamp that is gone). Both stay in distributions that a sync keeps while all that
      the fast lane looks at is as it was: `check` is for that.
    - `orphans`: files of distributions whose .dist-info, RECORD or journal was destroyed. Nobody owns them (PEP 376):
      they stay, or are in the way of others and then named.
    - `fragile`: an environment that lost its skeleton or was moved is remade, and loses what is in `PARTS`.
    """

    def __init__(self, universe: Universe, root: Path) -> None:
        self.universe = universe
        self.root = root
        self.env = root / "env"
        self.installed: dict[str, Wheel] = {}
        self.aliens: set[str] = set()
        """Names of those in `installed` that others have installed."""
        self.possible: dict[str, set[Wheel]] | None = None
        """After a crash: what may be there of each name. None: `installed` is."""
        self.kept: set[str] = set()
        """After a crash: what has to be there, of whatever version."""
        self.users: dict[str, bytes] = {}
        self.harm: dict[str, str] = {}
        self.orphans: set[str] = set()
        self.fragile = False
        self.unrecorded: set[str] = set()
        """Names of those that may not have the RECORD that was written for them."""
        self.forgotten = False
        """`installed.json` was lost or damaged: of a distribution without RECORD, nobody knows the files."""
        self.compiled_in_between = False
        self.witness: tuple[object, ...] = ()
        self.request: tuple[int, bool] | None = None
        """The target and exactness of the last success."""

    # What the fast lane can see

    def look(self) -> tuple[object, ...]:
        """Return what the fast lane looks at, besides the request."""
        env = self.env
        try:
            site, config, in_use = (os.stat(env / path) for path in (SITE, "pyvenv.cfg", ".envsync/in-use"))
            return (
                str(env),
                (env / ".envsync" / "stamp").read_bytes(),
                in_use.st_ino,
                (site.st_ino, site.st_mtime_ns),
                (config.st_size, config.st_mtime_ns),
                os.access(env / "bin" / "python", os.X_OK),
            )
        except OSError:
            return ()

    def is_untouched(self) -> bool:
        return self.witness != () and self.look() == self.witness

    def is_current(self, number: int, *, exact: bool = True) -> bool:
        """Ask the fast lane."""
        lock = str(self.universe.locks[number])
        asked = request.resolve({"lock": lock, "env": str(self.env), "inexact": not exact}, {})
        entry = fastlane.enter(asked, Environment(str(self.env)))
        if entry is not None:
            os.close(entry.fd)
        return entry is not None

    # Syncs

    def sync(self, number: int, *, exact: bool = True) -> None:
        """Sync, and compare with the model. What it knows to be in the way is moved away, as the hint says."""
        self._note_unrecorded()
        before = walk(self.env) if self.env.exists() else {}
        calm = self.possible is None and not self._will_remake()
        untouched = self.is_untouched()
        conflict = None
        try:
            result = self._sync(number, exact=exact)
        except ConflictError as error:
            conflict = error
        if conflict is not None:
            in_the_way = set(conflict.files)
            assert in_the_way <= self.orphans | self.users.keys(), f"named, but somebody's: {conflict}"
            if calm:
                assert walk(self.env) == before, "refused, and yet changed something"
            for path in in_the_way:
                (self.env / path).unlink()
                self.orphans.discard(path)
                self.users.pop(path, None)
            self.sync(number, exact=exact)
            return
        if untouched and self.request == (number, exact):
            assert (result.outcome, result.installed, result.removed) == ("current", (), ())
            assert self._without_bytecode(walk(self.env)) == self._without_bytecode(before)
        reinstalled = {each.partition("==")[0] for each in result.installed}
        self.settle(number, exact, reinstalled, doubt=not untouched)
        again = walk(self.env)
        result = self._sync(number, exact=exact)
        assert (result.outcome, result.installed, result.removed) == ("current", (), ()), "a second sync did something"
        assert walk(self.env) == again
        assert self.look() == self.witness

    def _sync(self, number: int, *, exact: bool) -> SyncResult:
        return library.sync(self.universe.locks[number], env=self.env, cache_dir=self.universe.cache, exact=exact)

    @staticmethod
    def _without_bytecode(files: Mapping[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
        return {path: identity for path, identity in files.items() if not is_bytecode(path)}

    def crash(self, number: int, is_due: Callable[[int], bool], *, exact: bool = True) -> bool:
        """Sync in a child that is killed. Returns whether it was."""
        self._note_unrecorded()
        before = walk(self.env) if self.env.exists() else {}
        untouched, remake = self.is_untouched(), self._will_remake()
        words = ["sync", "--lock", str(self.universe.locks[number]), "--env", str(self.env)]
        words += ["--cache-dir", str(self.universe.cache), "--json", *([] if exact else ["--inexact"])]
        done = strike(words, is_due, self.root / "log")
        if not done.killed:
            if done.status == 125 and "no distribution owns" in done.said:
                if self.possible is None and not remake:
                    assert walk(self.env) == before, "refused, and yet changed something"
                return False
            assert done.status == 0, done.said
            said = json.loads(next(line for line in done.said.splitlines() if line.startswith("{")))
            self.settle(
                number, exact, {each.partition("==")[0] for each in said["installed"]}, doubt=not untouched or remake
            )
            return False
        stamp = self.env / ".envsync" / "stamp"
        if untouched and stamp.exists() and stamp.read_bytes() == self.witness[1]:
            assert self._without_bytecode(walk(self.env)) == self._without_bytecode(before), "changed under its stamp"
        elif self.is_current(number, exact=exact):
            target = self.universe.target(number)
            new = {name for name, wheel in target.items() if self.installed.get(name) != wheel or name in self.aliens}
            self.settle(number, exact, new if self.possible is None else set(), doubt=not untouched, clean=False)
        else:
            self._be_uncertain(number, exact=exact, remake=remake)
        return True

    def _note_unrecorded(self) -> None:
        """Without RECORD and `installed.json`, the files of a distribution are nobody's."""
        if self.forgotten:
            possible = self.possible or {name: {wheel} for name, wheel in self.installed.items()}
            for wheels in possible.values():
                for wheel in wheels:
                    if wheel.name in self.unrecorded:
                        self.orphans |= {path for path in wheel.contents(self.env) if (self.env / path).is_file()}

    def _be_uncertain(self, number: int, *, exact: bool, remake: bool) -> None:
        self.fragile |= remake
        self._doubt()
        assert self.possible is not None
        if exact:
            self.kept &= self.universe.target(number).keys()
        for name, wheel in self.universe.target(number).items():
            self.possible.setdefault(name, set()).add(wheel)

    def _doubt(self) -> None:
        if self.possible is None:
            self.possible = {name: {wheel} for name, wheel in self.installed.items()}
            self.kept = set(self.installed)

    def _will_remake(self) -> bool:
        env = self.env
        if (env / ".envsync" / "making").exists() or not (env / "pyvenv.cfg").is_file():
            return True
        if not os.access(env / "bin" / "python", os.X_OK):
            return True
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads((env / ".envsync" / "installed.json").read_bytes().partition(b"\n")[0])["environment"]
            return bool(told) and told != str(env)
        return False

    # The judgement

    def settle(self, number: int, exact: bool, reinstalled: set[str], *, doubt: bool, clean: bool = True) -> None:
        """Compare the environment with what it must be after a sync that succeeded, and take that for the model."""
        target = self.universe.target(number)
        stay: dict[str, Wheel] = {}
        if not exact:
            stay = self._staying(target)
        state = {**stay, **target}
        self.aliens &= stay.keys()
        expected, providers, several = self._expected(state, {*stay})
        files = walk(self.env)
        if self.fragile:
            self.users = {p: c for p, c in self.users.items() if p in files or not p.startswith(PARTS)}
        harm: dict[str, str] = {}
        for path, content in expected.items():
            full = self.env / path
            found = full.read_bytes() if full.is_file() else None
            kind = self.harm.get(path)
            if found == content or (found is not None and found in several.get(path, ())):
                continue
            name = providers[path]
            assert kind is not None, f"{path} is {found!r}, not {content!r}"
            assert name not in reinstalled, f"{path} of {name}, which was reinstalled, is {found!r}, not {content!r}"
            assert name in stay or not doubt or kind == "blind", f"{path} was damaged and is {found!r}"
            harm[path] = kind
        for path, content in self.users.items():
            assert (self.env / path).read_bytes() == content, f"{path} is the user's"
        records = {f"{wheel.info}/RECORD" for wheel in state.values()}
        known = {*expected, *self.users, *self.universe.skeleton, *records}
        spare = {path for path in files if path not in known and not self._is_live_bytecode(path, files)}
        assert spare <= self.orphans, f"left over: {sorted(spare - self.orphans)}"
        for name, wheel in target.items():
            if f"{wheel.info}/RECORD" not in self.harm or name in reinstalled:
                self._check_record(wheel, expected)
            else:
                harm[f"{wheel.info}/RECORD"] = self.harm[f"{wheel.info}/RECORD"]
        if clean:
            assert environments.leftovers(self.env) == []
            assert set(os.listdir(self.env / ".envsync")) <= STATE
            assert self.is_current(number, exact=exact)
        self.orphans = spare
        self.harm = harm
        self.installed, self.possible, self.fragile = state, None, False
        self.compiled_in_between = False
        self.unrecorded &= self.aliens | stay.keys()
        self.forgotten &= bool(self.unrecorded)  # what is not asked for is not written down again
        self.request, self.witness = (number, exact), self.look()
        self.check_imports()

    def _staying(self, target: Mapping[str, Wheel]) -> dict[str, Wheel]:
        """Return what an inexact sync leaves. After a crash: what is there, which must be something that may be."""
        if self.possible is None:
            return {name: wheel for name, wheel in self.installed.items() if name not in target}
        stay = {}
        for info in (self.env / SITE).glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            if name not in target:
                stay[name] = self.universe.wheels[name, version]
                assert stay[name] in self.possible.get(name, set()), f"{info.name} comes from nowhere"
        gone = self.kept - stay.keys() - target.keys() if not self.fragile else set()
        assert not gone, f"{gone} is gone"
        return stay

    def _expected(
        self, state: Mapping[str, Wheel], stay: set[str]
    ) -> tuple[dict[str, bytes], dict[str, str], dict[str, set[bytes]]]:
        """Return what must be there, by whom, and what else may be where others have installed over it."""
        contents: dict[str, bytes] = {}
        providers: dict[str, str] = {}
        several: dict[str, set[bytes]] = {}
        for name, wheel in sorted(state.items()):
            for path, content in wheel.contents(self.env).items():
                if name in self.aliens and path.endswith(("/INSTALLER", "/REQUESTED")):
                    continue
                contents[path], providers[path] = content, name
        for wheel in self.universe.wheels.values():
            for path, content in wheel.files:
                owners = {name for name, each in state.items() if path in dict(each.files)}
                if len(owners) > 1 and owners & stay:
                    several.setdefault(path, set()).add(content)
        for name in self.aliens & state.keys():
            contents[f"{state[name].info}/INSTALLER"], providers[f"{state[name].info}/INSTALLER"] = b"pip\n", name
        return contents, providers, several

    def _check_record(self, wheel: Wheel, expected: Mapping[str, bytes]) -> None:
        own = wheel.contents(self.env)
        with (self.env / wheel.info / "RECORD").open(newline="") as file:
            listed = {os.path.normpath(f"{SITE}/{row[0]}"): tuple(row[1:]) for row in csv.reader(file)}
        assert listed.pop(f"{wheel.info}/RECORD") == ("", "")
        assert listed.keys() == own.keys()
        for path, recorded in listed.items():
            assert own[path] != expected[path] or recorded == fingerprint(own[path]), path

    def _is_live_bytecode(self, path: str, files: Iterable[str]) -> bool:
        if not is_bytecode(path):
            return False
        source = source_of(path)
        return source in files or source in self.harm or self.compiled_in_between

    def check_imports(self, *, write: bool = False) -> None:
        """Import everything with the environment's Python: bytecode must not be that of another version."""
        found = self.run_python(write=write)
        assert found is not None, "there is no Python"
        for path, said in found.items():
            if path in self.harm or f"{path[:-3]}/__init__.py" in found:
                continue  # it may be no Python; a package hides a module, if one of them is nobody's
            _, quote, rest = (self.env / path).read_text().partition("V = '")
            assert not quote or said == rest.partition("'")[0], f"{path} runs as {said}"

    def run_python(self, *, write: bool) -> dict[str, str] | None:
        """Import all modules that are there. None if there is no Python to do it."""
        program = (
            "import importlib, json, sys\n"
            "found = {}\n"
            "for path in sys.argv[2:]:\n"
            "    name = path[len(sys.argv[1]) + 1:-3].replace('/', '.').removesuffix('.__init__')\n"
            "    try: found[path] = getattr(importlib.import_module(name), 'V', '')\n"
            "    except (Exception, SystemExit) as error: found[path] = repr(error)\n"
            "print(json.dumps(found))\n"
        )
        modules = sorted(path for path in walk(self.env) if path.startswith(SITE) and path.endswith(".py"))
        words = [f"{self.env}/bin/python", "-I", *([] if write else ["-B"]), "-c", program, SITE, *modules]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            return None
        if done.returncode:
            return None
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    # What others do

    def write(self, path: str, content: bytes) -> None:
        """Write a file as another installer would: never into a link of the store's."""
        full = self.env / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.unlink(missing_ok=True)
        full.write_bytes(content)

    def use_space(self, path: str) -> None:
        """Put a file of the user's somewhere."""
        if not (self.env / path).parent.is_symlink() and not (self.env / path).exists():
            self.users[path] = f"the user's {path}".encode()
            self.write(path, self.users[path])

    def infos(self) -> dict[str, Path]:
        """Return the .dist-infos that are there, by name."""
        return {info.name.partition("-")[0]: info for info in sorted((self.env / SITE).glob("*.dist-info"))}

    def pip_install(self, text: str) -> None:
        """Install as pip does: the old one goes first. There is no pip without a Python."""
        if not (self.env / "pyvenv.cfg").exists() or not os.access(self.env / "bin" / "python", os.X_OK):
            return
        wheel = self.universe.wheel(text)
        self.pip_uninstall(wheel.name)
        contents = wheel.contents(self.env)
        contents[f"{wheel.info}/INSTALLER"] = b"pip\n"
        del contents[f"{wheel.info}/REQUESTED"]
        if any(path in self.users for path in contents):
            return
        rows = []
        for path, content in contents.items():
            self.write(path, content)
            if path.startswith("bin/"):
                (self.env / path).chmod(0o755)
            rows.append(",".join([os.path.relpath(path, SITE), *fingerprint(content)]))
            self.orphans.discard(path)
            self.harm.pop(path, None)
        record = f"{wheel.info}/RECORD"
        self.write(record, "\n".join([*rows, f"{os.path.relpath(record, SITE)},,\n"]).encode())
        self._note_alien(wheel)

    def _note_alien(self, wheel: Wheel) -> None:
        self.installed[wheel.name] = wheel
        self.aliens.add(wheel.name)
        self.harm = {path: kind for path, kind in self.harm.items() if not path.startswith(wheel.info)}
        self.unrecorded.discard(wheel.name)
        if self.possible is not None:
            self.possible.setdefault(wheel.name, set()).add(wheel)

    def pip_uninstall(self, name: str, *, half: int | None = None) -> None:
        """Uninstall as pip does; with `half`, be killed after so many files, before the .dist-info goes."""
        info = self.infos().get(name)
        if info is None or not (info / "RECORD").is_file():
            return
        with (info / "RECORD").open(newline="") as file:
            paths = sorted(os.path.normpath(f"{SITE}/{row[0]}") for row in csv.reader(file) if row)
        paths.sort(key=lambda path: ".dist-info/" in path)
        if half is not None:
            paths = [path for path in paths if ".dist-info/" not in path][: half + 1]
        for path in paths:
            full = self.env / path
            if path in self.universe.skeleton or not full.parent.is_dir():
                continue
            full.unlink(missing_ok=True)
            for compiled in (full.parent / "__pycache__").glob(f"{full.stem}.*.pyc"):
                compiled.unlink()
            self._prune(full.parent)
            self.harm[path] = "seen"
        if half is None:
            shutil.rmtree(info, ignore_errors=True)
            if name in self.unrecorded:
                self._orphan(name)
            self._forget(name)

    def _prune(self, directory: Path) -> None:
        keep = {self.env / SITE, self.env / "bin", self.env / "lib", self.env / "include", self.env / HEADERS, self.env}
        while directory not in keep:
            with contextlib.suppress(OSError):
                (directory / "__pycache__").rmdir()
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent

    def _forget(self, name: str) -> None:
        self.installed.pop(name, None)
        self.aliens.discard(name)
        self.kept.discard(name)
        if self.possible is not None:
            self.possible.pop(name, None)

    # Damage

    def owned(self) -> list[str]:
        """List what the distributions of the model have, as far as it is there."""
        if self.possible is not None:
            found: set[str] = set()
            for wheels in self.possible.values():
                for wheel in wheels:
                    found.update(wheel.contents(self.env))
        else:
            found = set(self._expected(self.installed, set())[0])
        return sorted(path for path in found if (self.env / path).is_file() and path not in self.users)

    def damage(self, number: int, how: str) -> None:
        """Damage a file of some distribution."""
        if paths := self.owned():
            self.damage_file(paths[number % len(paths)], how)

    def damage_file(self, path: str, how: str) -> None:
        """Damage a file: `gone`, `empty`, or `flip` for another content of the same size."""
        full = self.env / path
        content = full.read_bytes()
        if how == "flip" and not content:
            return
        if how == "in place":
            # Through the hard link into the store, whose next user has to find out.
            full.write_bytes(content + b"# more\n")
        elif how in ("gone", "empty", "flip"):
            full.unlink()
            if how == "empty":
                full.write_bytes(b"")
            elif how == "flip":
                full.write_bytes(flipped(content))
        now = full.read_bytes() if full.exists() else None
        if now != content:
            self.harm[path] = "blind" if now is not None and len(now) == len(content) else "seen"

    def damage_record(self, name: str, how: str) -> None:
        """Damage a RECORD: what it does not list any more is nobody's."""
        info = self.infos().get(name)
        if info is None or name in self.aliens or not (info / "RECORD").is_file():
            return
        record = info / "RECORD"
        content = record.read_bytes()
        record.unlink()
        self.unrecorded.add(name)
        if how == "empty":
            record.write_bytes(b"")
        elif how == "cut":
            record.write_bytes(content[: len(content) // 2])
        elif how == "flip":
            record.write_bytes(flipped(content))
        self.harm[f"{SITE}/{info.name}/RECORD"] = "seen"

    def lose_info(self, name: str) -> None:
        """Delete a .dist-info: its files are nobody's."""
        info = self.infos().get(name)
        if info is not None:
            shutil.rmtree(info)
            self._orphan(name)

    def _orphan(self, name: str) -> None:
        wheels = {self.installed.get(name)} if self.possible is None else self.possible.get(name, set())
        for wheel in wheels - {None}:
            assert wheel is not None
            self.orphans |= {path for path in wheel.contents(self.env) if (self.env / path).is_file()}
        self._forget(name)

    def lose_half_a_tree(self, directory: str, number: int) -> None:
        """Delete every second file below a directory, as an interrupted `rm -r` may."""
        paths = [path for path in self.owned() if path.startswith(directory)]
        for path in paths[number % 2 :: 2]:
            (self.env / path).unlink()
            self.harm[path] = "seen"
            if path.endswith(".dist-info/RECORD"):
                self.damage_record(path.split("/")[-2].partition("-")[0], "gone")

    def lose_skeleton(self, path: str) -> None:
        """Lose a part of the skeleton. The environment is remade, as long as anything says that it is one.

        It takes pyvenv.cfg, or a `bin/python` that leads out of it, or our word for it; and that is not given for an
        environment in which nothing was ever installed.
        """
        other = "pyvenv.cfg" if path.startswith("bin") else "bin/python"
        if not (self.env / ".envsync").exists() or not os.path.lexists(self.env / other):
            return
        for each in self.env.glob(path):
            each.unlink()
        self.fragile = True
        self._doubt()

    def damage_state(self, name: str, how: str, number: int) -> None:
        """Damage one of our own files."""
        path = self.env / ".envsync" / name
        if not path.is_file():
            return
        content = path.read_bytes()
        if how == "cut":
            path.write_bytes(content[: number % max(1, len(content))])
        elif how == "flip" and content:
            path.write_bytes(flipped(content, number))
        elif how == "gone":
            path.unlink()
        if name == "journal":
            self._lose_journal()
        self.forgotten |= name == "installed.json"

    def _lose_journal(self) -> None:
        """A commit was decided, and nobody can know it any more: what was half moved is nobody's."""
        self.kept = set()
        for wheels in (self.possible or {}).values():
            for wheel in wheels:
                self.orphans |= wheel.contents(self.env).keys() | {f"{wheel.info}/RECORD"}

    def lose_state(self) -> None:
        """Remove all that we know of the environment."""
        if not (self.env / "pyvenv.cfg").exists() or not (self.env / "bin" / "python").exists():
            return
        if (self.env / ".envsync" / "journal").exists():
            self._lose_journal()
        shutil.rmtree(self.env / ".envsync", ignore_errors=True)
        self.forgotten = True

    # Moves and copies

    def move(self, to: Path) -> None:
        self.env.rename(to)
        self.env = to
        self.fragile = True
        self._doubt()

    @contextlib.contextmanager
    def copied(self, *, linked: bool) -> Iterator[World]:
        """Copy the environment, with hard links or without, and give a model of the copy."""
        copy = World(self.universe, self.root / "copied")
        copy.env = self.root / "copy"
        shutil.rmtree(copy.env, ignore_errors=True)
        copy.root.mkdir(exist_ok=True)
        before = walk(self.env)
        subprocess.run(["cp", "-al" if linked else "-a", self.env, copy.env], check=True)
        copy.possible = {name: {wheel} for name, wheel in self.installed.items()}
        copy.fragile = True
        copy.installed, copy.aliens, copy.users = dict(self.installed), set(self.aliens), dict(self.users)
        copy.harm, copy.orphans = dict(self.harm), set(self.orphans)
        copy.unrecorded, copy.forgotten = set(self.unrecorded), self.forgotten
        yield copy
        assert walk(self.env) == before, "a sync of the copy changed the original"
        shutil.rmtree(copy.env)


def fingerprint(content: bytes) -> tuple[str, str]:
    """Return hash and size as RECORD has them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest}", str(len(content))


def flipped(content: bytes, number: int = -1) -> bytes:
    """Return the content with one bit flipped, such that text stays text."""
    if not content:
        return b"\1"
    place = (len(content) // 2 if number < 0 else number) % len(content)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
