"""An environment, everything that happens to one, and the comparison with the model of what must be in it then."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping

from envsync.errors import ConflictError
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment, fast_lane, request, stamp
from envsync.leading.result import SyncResult
from envsync.library import blocking
from tests import environments
from tests.model.happenings import Happenings
from tests.model.model import PARTS
from tests.model.strike import strike
from tests.model.universe import SITE, Wheel, fingerprint, walk

STATE = {"in-use", "locking", "installed.json", "stamp", "work", "failure.json"}


def is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") and "/__pycache__/" in path


def source_of(path: str) -> str:
    """Return the path of the source of bytecode."""
    directory, _, name = path.rpartition("/")
    return f"{directory.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"


class World(Happenings):
    """One environment that can be synced, and is then compared with the model."""

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
                *self._guards(),
            )
        except OSError:
            return ()

    def _guards(self) -> Iterator[tuple[int, int]]:
        """Look at what would be purged first, as the stamp names it."""
        known = stamp.load((self.env / ".envsync" / "stamp").read_bytes())
        for guard in known.guards if known is not None else ():
            status = os.stat(guard.path)
            yield status.st_ino, status.st_mtime_ns

    def is_untouched(self) -> bool:
        return self.witness != () and self.look() == self.witness

    def is_current(self, number: int, *, exact: bool = True) -> bool:
        """Ask the fast lane."""
        lock = str(self.universe.locks[number])
        asked = request.resolve({"lock": lock, "env": str(self.env), "inexact": not exact}, {})
        entry = fast_lane.enter(asked, Environment(str(self.env)))
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
            result = self.try_sync(number, exact=exact)
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
        result = self.try_sync(number, exact=exact)
        assert (result.outcome, result.installed, result.removed) == ("current", (), ()), "a second sync did something"
        assert walk(self.env) == again
        assert self.look() == self.witness

    def try_sync(self, number: int, *, exact: bool) -> SyncResult:
        return blocking.sync(self.universe.locks[number], env=self.env, cache_dir=self.universe.cache, exact=exact)

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
        self.lose_track()
        assert self.possible is not None
        if exact:
            self.kept &= self.universe.target(number).keys()
        for name, wheel in self.universe.target(number).items():
            self.possible.setdefault(name, set()).add(wheel)

    def _will_remake(self) -> bool:
        env = self.env
        if (env / ".envsync" / "making").exists() or not (env / "pyvenv.cfg").is_file():
            return True
        if not os.access(env / "bin" / "python", os.X_OK):
            return True
        told = load_ledger(Environment(str(env))).path
        return bool(told) and told != str(env)

    # The judgement

    def settle(self, number: int, exact: bool, reinstalled: set[str], *, doubt: bool, clean: bool = True) -> None:
        """Compare the environment with what it must be after a sync that succeeded, and take that for the model."""
        target = self.universe.target(number)
        stay: dict[str, Wheel] = {}
        if not exact:
            stay = self._staying(target)
        state = {**stay, **target}
        self.aliens &= stay.keys()
        expected, providers, several = self.expected(state, {*stay})
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
