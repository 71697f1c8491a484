"""Sync in rooms that are too small, room by room: a program that runs in a mount namespace of its own.

    unshare --mount python -m tests.rooms.narrow WHERE WHAT HOW DIRECTORY

WHERE is small: `env`, `cache` or `both` (then files are linked, not copied). WHAT is scarce: `size` or `inodes`. HOW it
is before: `warm` (an old environment, the new wheels in the cache), `cold` (they are not) or `first` (no environment).
It is synced with less room than that takes, more and more by steps, so that ENOSPC strikes wherever anything is
written. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from envsync import fastlane, request
from envsync.__main__ import main
from envsync.environment import Environment
from tests.environments import files, leftovers, unowned, unverified
from tests.wheels import build_wheel, sha256_of

PAGE = 4096
PLENTY = {"size": "64m", "nr_inodes": "100000"}
COARSE, FINE = 10, 8
"""How many rooms to try of all sizes, and of the last few sizes before it is enough, where the commit is."""


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

    def __init__(self, where: str, what: str, how: str, directory: Path) -> None:
        self.where, self.what, self.how, self.directory = where, what, how, directory
        self.option = {"size": "size", "inodes": "nr_inodes"}[what]
        self.small, self.large = directory / "small", directory / "large"
        self.env = (self.small if where in ("env", "both") else self.large) / "env"
        self.cache = (self.small if where in ("cache", "both") else self.large) / "cache"
        self.old = make_lock(directory / "wheels", "1.0")
        self.new = make_lock(directory / "wheels", "2.0")
        self.problems: list[str] = []
        self.errors: Counter[str] = Counter()
        self.mounted = False
        self.room = 0

    def fresh(self) -> None:
        """Begin anew, with plenty of room."""
        self.close()
        shutil.rmtree(self.large, ignore_errors=True)
        for path in (self.small, self.large):
            path.mkdir(exist_ok=True)
        options = ",".join(f"{name}={value}" for name, value in PLENTY.items())
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.small], check=True)
        self.mounted = True

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.small], check=True)
            self.mounted = False

    def used(self) -> int:
        status = os.statvfs(self.small)
        return status.f_blocks - status.f_bfree if self.what == "size" else status.f_files - status.f_ffree

    def limit(self, room: int | None) -> None:
        """Leave so many pages or inodes; None: plenty."""
        unit = PAGE if self.what == "size" else 1
        value = PLENTY[self.option] if room is None else str(max(1, room) * unit)  # 0 is without limit
        subprocess.run(["mount", "-o", f"remount,{self.option}={value}", self.small], check=True)

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
        entry = fastlane.enter(asked, Environment(str(self.env)))
        if entry is not None:
            os.close(entry.fd)
        return entry is not None

    def expect(self, what: bool, problem: str) -> None:
        if not what:
            self.problems.append(f"{self.room}: {problem}")

    # The trial

    def prepare(self) -> None:
        """Have the old environment, or none, and plenty of room; the new wheels are in the cache, or are not."""
        if not self.mounted:
            self.fresh()
            for lock in (self.new, self.old):
                status, said = self.sync(lock)
                assert status == 0, said
        self.limit(None)
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
        self.limit(self.used() + room)

    def try_all(self) -> dict[str, object]:
        """Try room after room, from none at all to just enough."""
        self.prepare()
        old = files(self.env) if self.how != "first" else set()
        enough = self._enough()
        new = files(self.env)
        coarse = range(0, max(0, enough - FINE), max(1, enough // COARSE))
        outcomes: Counter[str] = Counter()
        for room in [*coarse, *range(max(0, enough - FINE), enough + 1)]:
            self.narrow(room)
            outcomes[self.try_one(old, new)] += 1
        self.close()
        return {"problems": self.problems, "outcomes": outcomes, "errors": self.errors, "enough": enough}

    def _enough(self) -> int:
        """Find the least room that suffices, by halves."""
        low, high = 0, 4096
        while low < high:
            middle = (low + high) // 2
            self.narrow(middle)
            if self.sync(self.new)[0]:
                low = middle + 1
            else:
                high = middle
        self.narrow(low)
        status, said = self.sync(self.new)
        assert status == 0, said
        return low

    def try_one(self, old: set[str], new: set[str]) -> str:
        """Sync with the room that there is. Returns what came of it."""
        status, said = self.sync(self.new)
        if status == 0:
            self.check(new, "with just enough room")
            return "enough"
        self.expect(status == 125, f"exit status {status}: {said}")
        named = re.search(r"envsync: .*`(/[^`]*)`.*No space left on device", said)
        self.expect(named is not None, f"no path, or no reason: {said}")
        if named is not None:
            name = re.sub(r"[0-9a-f]{16,64}", "ID", named[1].removeprefix(str(self.directory)))
            self.errors[re.sub(r"/x[0-9]+", "/x", re.sub(r"part[0-9]", "part", name))] += 1
        journal = (self.env / ".envsync" / "journal").exists()
        if self.how == "first":
            outcome = "decided" if journal else "begun"
        elif files(self.env) == old and not journal:
            outcome = "unchanged"
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
        self.limit(None)
        ran = self.run(self.new)
        self.expect(ran == (0, "tool 2.0\n"), f"with more room: {ran}")
        status, said = self.sync(self.new)
        self.expect(status == 0, f"with more room: {said}")
        self.check(new, "with more room")
        return outcome

    def check(self, new: set[str], when: str) -> None:
        self.expect(unverified(self.env) == [], f"{when}: {unverified(self.env)}")
        self.expect(unowned(self.env) == set(), f"{when}: {unowned(self.env)}")
        self.expect(files(self.env) == new, f"{when}: {files(self.env) ^ new}")
        self.expect(leftovers(self.env) == [], f"{when}, left over: {leftovers(self.env)}")
        tmp = self.cache / "v1" / "tmp"
        left = os.listdir(tmp) if tmp.is_dir() else []
        left = [name for name in left if not name.startswith("unpack-")]  # see test_cleaning_up_is_not_interrupted
        self.expect(left == [], f"{when}, left over in the cache: {left}")
        self.expect(self.is_current(self.new), f"{when}: not current")


if __name__ == "__main__":
    where, what, how, directory = sys.argv[1:]
    tried = Room(where, what, how, Path(directory))
    try:
        print(json.dumps(tried.try_all()))
    finally:
        tried.close()
