"""TerminateProcess at any moment, and at each change of a commit: the next sync makes it right.

Each round has an environment of one lock file changed to another one, and the one who does that killed: before its N-th
change, before the N-th of its commit, or after a while. What is left is never taken for current unless it is, and a
sync then makes it what the lock file says, with nothing left over.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter

import pytest

from tests.wine.strike import STATUS
from tests.wine.test_runs import FIRST, NEXT
from tests.wine.windows import SECONDS, Windows, wrong_with

TARGETS = (("pylock.toml", FIRST), ("pylock.next.toml", NEXT))
QUICK = ("kill:3", "kill:20", "kill:40", "kill:1:commit", "kill:2:commit", "kill:5:commit", "kill:9:commit")
PARTS, ROUNDS = 5, 100


class Rounds:
    """Rounds of kills in one project, and what they came to."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.number = 0
        self.counts: Counter[str] = Counter()

    def strike(self, when: str) -> None:
        """Change the environment to the other lock file, be killed, and try whether that does harm.

        :param when: as strike.py takes it, or `after:SECONDS`
        """
        self.number += 1
        lock, versions = TARGETS[self.number % 2]
        if when.startswith("after:"):
            killed = self._kill_after(lock, float(when.partition(":")[2]))
        else:
            killed = self._kill_at(lock, when)
        self.counts["killed"] += killed
        self.counts["within the commit"] += killed and (self.windows.environment / ".envsync" / "journal").exists()
        is_current = self._is_taken_for_current(lock)
        if is_current:
            assert wrong_with(self.windows, versions) == [], (when, "taken for current")
            self.counts["current when killed"] += killed
        outcome = self.windows.sync("--lock", lock)["outcome"]
        assert outcome == "current" or not is_current, when  # a commit that is only to be completed says so, too
        assert wrong_with(self.windows, versions) == [], when
        assert self._leftovers() == [], when

    def _is_taken_for_current(self, lock: str) -> bool:
        if not (self.windows.environment / ".envsync" / "stamp").exists():
            return False  # nobody enters without one
        return bool(json.loads(self.windows.run("status", "--json", "--lock", lock).stdout)["current"])

    def _kill_at(self, lock: str, when: str) -> bool:
        process = self.windows.struck(when, "sync", "--lock", lock)
        err = process.communicate(timeout=SECONDS)[1]
        assert process.returncode in (0, self.windows.killed_status), err
        return process.returncode != 0

    def _kill_after(self, lock: str, seconds: float) -> bool:
        process = self.windows.start("sync", "--lock", lock)
        time.sleep(seconds)  # at no moment in particular
        process.kill()
        process.communicate(timeout=SECONDS)
        return process.returncode != 0

    def _leftovers(self) -> list[str]:
        """Name what should be gone: the journal, and what lies in workspaces."""
        found = [self.windows.environment / ".envsync" / name for name in ("journal", "stamp.draining")]
        work = [self.windows.environment / ".envsync" / "work", self.windows.site / ".envsync"]
        below = [path for directory in work if directory.exists() for path in directory.iterdir()]
        return [os.fspath(path) for path in found + below if path.exists()]


def check_kills(windows: Windows) -> None:
    """Some moments before, within and after the commit: the next sync makes the environment right."""
    windows.sync()
    rounds = Rounds(windows)
    for when in QUICK:
        rounds.strike(when)
    assert rounds.counts["killed"] == len(QUICK)
    assert rounds.counts["within the commit"] >= 3


def test_a_killed_sync_does_no_harm(windows: Windows) -> None:
    """TerminateProcess, which nothing can help."""
    check_kills(windows)


def test_a_killed_first_sync_does_no_harm(windows: Windows) -> None:
    """An environment that is half made, in a cache that is half filled, is completed."""
    for number in (5, 25, 60):
        process = windows.struck(f"kill:{number}", "sync")
        process.communicate(timeout=SECONDS)
        assert process.returncode == STATUS
    assert windows.sync()["outcome"] == "synced"
    assert wrong_with(windows, FIRST) == []


@pytest.mark.slow
@pytest.mark.timeout(14400)
@pytest.mark.parametrize("part", range(PARTS))
def test_five_hundred_kills_do_no_harm(windows: Windows, part: int) -> None:
    """At random moments, at random changes, and one in three within the commit; now and then with a cache to be filled.

    In parts, which `-n` may have run at once; `-s` shows how far one is, and what the rounds came to.
    """
    chance = random.Random(part)
    windows.sync()
    rounds = Rounds(windows)
    for number in range(ROUNDS):
        if number % 10 == 9:
            shutil.rmtree(windows.project / "cache")
        kind = number % 3
        if kind == 0:
            when = f"kill:{chance.randint(1, 30)}:commit"
        elif kind == 1:
            when = f"kill:{chance.randint(1, 120)}"
        else:
            when = f"after:{chance.uniform(0.1, 2.5):.3f}"
        rounds.strike(when)
        print(number + 1, when, dict(rounds.counts), flush=True)
    assert rounds.counts["within the commit"] >= 20
