"""Sync in rooms that are too small, room by room: a program that runs in a mount namespace of its own.

    unshare --mount python -m tests.rooms.narrow KIND WHERE WHAT HOW DIRECTORY COARSE FINE

KIND of file system (`tests.rooms.small`). WHERE is small: `env`, `cache` or `both` (then files are linked, not copied).
WHAT is scarce: `size`, `inodes` or `quota`. HOW it is before: `warm` (an old environment, the new wheels in the cache),
`cold` (they are not) or `first` (no environment). It is synced with less room than that takes, more and more by COARSE
steps, and then by FINE ones, so that the error strikes wherever anything is written. Prints one JSON object. What was
mounted goes with the namespace.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from envsync.__main__ import main
from envsync.launch import Environment, fast_lane, request
from tests.environments import files, leftovers, unowned, unverified
from tests.rooms.small import make
from tests.wheels import build_wheel, sha256_of


def make_lock(directory: Path, version: str) -> Path:
    """Make a lock file and its wheels: many small files, one large file, scripts; most of it changes."""
    directory.mkdir(exist_ok=True)
    dice = random.Random(version)
    wheels = [
        build_wheel(
            directory,
            "many",
            version,
            {f"many/part{number % 4}/x{number}.py": f"V = {version}\n" for number in range(30)},
        ),
        build_wheel(directory, "large", version, {"large/__init__.py": "", "large/data": dice.randbytes(150_000)}),
        build_wheel(
            directory,
            "tool",
            version,
            {"tool.py": f"def main():\n    print('tool {version}')\n"},
            entry_points={"console_scripts": {"tool": "tool:main"}},
            data={"scripts/more": "#!python\nprint(1)\n", "data/share/tool/readme": "read me\n"},
        ),
        build_wheel(directory, "stays", "1.0", {"stays/__init__.py": ""}),
    ]
    lines = ['lock-version = "1.0"', 'created-by = "tests"']
    for wheel in wheels:
        name, number = os.path.basename(wheel).split("-")[:2]
        archive = f'[{{ path = "{wheel}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]'
        lines += ["[[packages]]", f'name = "{name}"', f'version = "{number}"', f"wheels = {archive}"]
    path = directory / f"pylock.{'old' if version == '1.0' else 'new'}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


class Room:
    """A small file system, and an environment or a cache or both in it."""

    def __init__(self, kind: str, where: str, what: str, how: str, directory: Path) -> None:
        self.how, self.directory = how, directory
        small, self.large = directory / "small", directory / "large"
        self.small = make(kind, what, small)
        self.env = (small if where in ("env", "both") else self.large) / "env"
        self.cache = (small if where in ("cache", "both") else self.large) / "cache"
        self.old = make_lock(directory / "wheels", "1.0")
        self.new = make_lock(directory / "wheels", "2.0")
        self.problems: list[str] = []
        self.errors: Counter[str] = Counter()
        self.room = 0
        for path in (small, self.large):
            path.mkdir()
        self.small.mount()
        for lock in (self.new, self.old):
            status, said = self.sync(lock)
            assert status == 0, said

    def command(self, *words: str) -> tuple[int, str]:
        """Run a command line in a child. Returns its status and what it said."""
        log = self.directory / "log"
        pid = os.fork()
        if not pid:
            status = 70
            try:
                fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, 1)
                os.dup2(fd, 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                status = main(list(words))
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException as error:  # noqa: BLE001  # what a user would see as a traceback
                os.write(2, f"Traceback: {error!r}\n".encode())
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), log.read_text()

    def options(self, lock: Path) -> list[str]:
        return ["--lock", str(lock), "--env", str(self.env), "--cache-dir", str(self.cache), "-q"]

    def sync(self, lock: Path) -> tuple[int, str]:
        return self.command("sync", *self.options(lock))

    def run(self, lock: Path) -> tuple[int, str]:
        return self.command("run", *self.options(lock), "--", "tool")

    def is_current(self, lock: Path) -> bool:
        asked = request.resolve({"lock": str(lock), "env": str(self.env)}, {})
        entry = fast_lane.enter(asked, Environment(str(self.env)))
        if entry is not None:
            os.close(entry.fd)
        return entry is not None

    def expect(self, what: bool, problem: str) -> None:
        if not what:
            self.problems.append(f"{self.room}: {problem}")

    # The trial

    def prepare(self) -> None:
        """Have the old environment, or none, and plenty of room; the new wheels are in the cache, or are not."""
        self.small.widen()
        if self.how == "first":
            shutil.rmtree(self.env, ignore_errors=True)
        elif not self.is_current(self.old):
            status, said = self.sync(self.old)
            assert status == 0, said
        if self.how == "cold":
            for wheel in self.directory.glob("wheels/*-2.0-*"):
                shutil.rmtree(self.cache / "v1" / "wheels" / sha256_of(wheel), ignore_errors=True)

    def narrow(self, room: int) -> None:
        """Prepare, and leave so much room."""
        self.room = room
        self.prepare()
        self.small.leave(room)

    def try_all(self, coarse: int, fine: int) -> dict[str, object]:
        """Try room after room: so many of all sizes, and so many just below enough, where the commit is."""
        self.prepare()
        old = files(self.env) if self.how != "first" else set()
        enough = self._enough()
        new = files(self.env)
        rooms = {enough, *range(0, enough, max(1, enough // coarse)), *range(max(0, enough - fine), enough)}
        outcomes: Counter[str] = Counter()
        for room in sorted(rooms):
            self.narrow(room)
            outcomes[self.try_one(old, new)] += 1
        return {"problems": self.problems, "outcomes": outcomes, "errors": self.errors, "enough": enough}

    def _enough(self) -> int:
        """Find the least room that suffices, by halves."""
        low, high = 0, 1024
        while low < high:
            middle = (low + high) // 2
            self.narrow(middle)
            if self.sync(self.new)[0]:
                low = middle + 1
            else:
                high = middle
        self.narrow(low)
        while self.sync(self.new)[0]:  # btrfs does not always take the same
            low += 1
            self.narrow(low)
        return low

    def try_one(self, old: set[str], new: set[str]) -> str:
        """Sync with the room that there is. Returns what came of it."""
        status, said = self.sync(self.new)
        if status == 0:
            self.check(new, "with just enough room")
            return "enough"
        self.expect(status == 125, f"exit status {status}: {said}")
        named = re.search(rf"envsync: .*`(/[^`]*)`.*{self.small.reason}", said)
        self.expect(named is not None, f"no path, or no reason: {said}")
        if named is not None:
            name = re.sub(r"[0-9a-f]{16,64}", "ID", named[1].removeprefix(str(self.directory)))
            self.errors[re.sub(r"/x[0-9]+", "/x", re.sub(r"part[0-9]", "part", name))] += 1
        journal = (self.env / ".envsync" / "journal").exists()
        if self.how == "first":
            outcome = "decided" if journal else "begun"
        elif files(self.env) == old and not journal:
            outcome = "unchanged"
            self.expect(leftovers(self.env) == [], f"left over: {leftovers(self.env)}")
            self.expect(self.left_in_cache() == [], f"left over in the cache: {self.left_in_cache()}")
            self.expect(self.is_current(self.old), f"the old environment is not current any more: {said}")
            self.expect(unverified(self.env) == [], "the old environment is not whole")
            ran = self.run(self.old)
            self.expect(ran == (0, "tool 1.0\n"), f"the old environment does not run: {ran}")
        else:
            outcome = "decided"
            self.expect(not self.is_current(self.old), "it is taken for the old one")
        self.expect(not self.is_current(self.new), "it is taken for the new one")
        if outcome == "decided":
            self.errors["decided: " + said.strip().splitlines()[0].replace(str(self.directory), "")] += 1
        self.small.widen()
        ran = self.run(self.new)
        self.expect(ran == (0, "tool 2.0\n"), f"with more room: {ran}")
        status, said = self.sync(self.new)
        self.expect(status == 0, f"with more room: {said}")
        self.check(new, "with more room")
        return outcome

    def left_in_cache(self) -> list[str]:
        tmp = self.cache / "v1" / "tmp"
        return os.listdir(tmp) if tmp.is_dir() else []

    def check(self, new: set[str], when: str) -> None:
        self.expect(unverified(self.env) == [], f"{when}: {unverified(self.env)}")
        self.expect(unowned(self.env) == set(), f"{when}: {unowned(self.env)}")
        self.expect(files(self.env) == new, f"{when}: {files(self.env) ^ new}")
        self.expect(leftovers(self.env) == [], f"{when}, left over: {leftovers(self.env)}")
        self.expect(self.left_in_cache() == [], f"{when}, left over in the cache: {self.left_in_cache()}")
        self.expect(self.is_current(self.new), f"{when}: not current")


if __name__ == "__main__":
    kind, where, what, how, directory, coarse, fine = sys.argv[1:]
    print(json.dumps(Room(kind, where, what, how, Path(directory)).try_all(int(coarse), int(fine))))
