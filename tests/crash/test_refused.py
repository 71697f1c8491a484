"""A first sync that is refused, and is struck while it removes what it has made: whatever comes next is not bothered.

The other commands of the crash tests succeed if nobody strikes them; this one has to fail.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.launch import request
from envsync.launch.progress import quiet
from envsync.library import blocking
from tests.crash.harness import KILLS, LASTING, SIGNALS, Blow, Kind, strike
from tests.environments import leftovers, unowned, unverified
from tests.wheels import build_wheel, sha256_of

UNTOUCHED = Kind("none")
LEAST = 20
"""Changes at least of a refused sync: if it made fewer, nothing would be shown."""


class Refused:
    """A lock file that is refused once all else is done, one that is not, and a place for the environment of both.

    The wheel of the one puts a file where the environment has its python: that is seen when the skeleton is made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = root / "envs" / "env"
        self.cache = str(root / "cache")
        self.good = self._lock("good", build_wheel(root, "good"))
        self.bad = self._lock("bad", build_wheel(root, "bad", data={"scripts/python": "#!/bin/sh\n"}))
        self.sync(self.good)
        self.clear()
        blow = self.strike(0, UNTOUCHED)
        assert os.waitstatus_to_exitcode(blow.status) == 125, blow.said
        assert not self.env.parent.exists()
        assert blow.changes >= LEAST
        self.changes = blow.changes

    def _lock(self, name: str, wheel: str | Path) -> Path:
        path = self.root / f"pylock.{name}.toml"
        path.write_text(
            f'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "{name}"\nversion = "1.0"\n'
            f'wheels = [{{ path = "{wheel}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]\n'
        )
        return path

    def clear(self) -> None:
        subprocess.run(["rm", "-rf", self.env.parent], check=True)

    def strike(self, nth: int, kind: Kind) -> Blow:
        words = ["sync", "--lock", str(self.bad), "--env", str(self.env), "--cache-dir", self.cache]
        return strike(words, nth, kind)

    def sync(self, lock: Path) -> None:
        settings = {"lock": str(lock), "env": str(self.env), "cache_dir": self.cache, "timeout": 20.0}
        blocking.run(request.resolve(settings, {}), report=quiet)


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    return Refused(tmp_path)


def strike_all(refused: Refused, kinds: Callable[[int], tuple[Kind, ...]], judge: Callable[[Blow, str], None]) -> None:
    """Strike at each change, and judge each outcome."""
    for nth in range(1, refused.changes + 1):
        for kind in kinds(nth):
            refused.clear()
            blow = refused.strike(nth, kind)
            assert "Traceback" not in blow.said
            judge(blow, f"{kind.name} at change {nth} ({', '.join(map(str, blow.struck))})")


@pytest.mark.timeout(300)
def test_killed_at_any_change_and_refused_again(refused: Refused) -> None:
    """The next that is refused removes what is left, but for directories that are empty."""

    def judge(blow: Blow, what: str) -> None:
        assert os.WIFSIGNALED(blow.status) or not blow.struck, what
        again = refused.strike(0, UNTOUCHED)
        assert os.waitstatus_to_exitcode(again.status) == 125, f"{what}: {again.said}"
        assert "keeps its own files" in again.said, what
        assert list(refused.root.glob("envs/env/*")) == [], what
        assert [path for path in refused.root.glob("envs/*") if path != refused.env] == [], what

    strike_all(refused, lambda nth: (KILLS[nth % 2],), judge)


@pytest.mark.timeout(300)
def test_killed_at_any_change_and_then_served(refused: Refused) -> None:
    """The next that can be served is, and nothing is left over."""

    def judge(_: Blow, what: str) -> None:
        refused.sync(refused.good)
        assert unverified(refused.env) == [], what
        assert unowned(refused.env) == set(), what
        assert leftovers(refused.env) == [], what

    strike_all(refused, lambda nth: (KILLS[nth % 2],), judge)


@pytest.mark.timeout(300)
def test_a_signal_at_any_change(refused: Refused) -> None:
    """What an interrupt meets before the removal is removed; what it stops of that, the next removes."""

    def judge(blow: Blow, what: str) -> None:
        refused.strike(0, UNTOUCHED)
        assert list(refused.root.glob("envs/env/*")) == [], what

    strike_all(refused, lambda nth: (SIGNALS[nth % len(SIGNALS)],), judge)


@pytest.mark.timeout(300)
def test_a_disk_that_stays_full_or_turns_read_only(refused: Refused) -> None:
    """What cannot be removed stays, and the error is that of the sync; the next that is refused removes it."""

    def judge(blow: Blow, what: str) -> None:
        assert os.waitstatus_to_exitcode(blow.status) == 125, f"{what}: {blow.said}"
        refused.strike(0, UNTOUCHED)
        assert list(refused.root.glob("envs/env/*")) == [], what

    strike_all(refused, lambda nth: (LASTING[nth % 2],), judge)
