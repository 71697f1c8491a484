"""Sets of packages for the nodes, tasks that judge what they see of them, and what became of it."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envsync.launch import Environment
from envsync.system import records
from tests.contention import soak, verify
from tests.contention.verify import Order
from tests.lab.conftest import Cluster

Record = Mapping[str, Any]
LARGE = [f"soak-many-{number:02}" for number in range(60)]
SETS = {**soak.SETS, "large": dict.fromkeys(LARGE, "1.0"), "larger": dict.fromkeys(LARGE, "2.0")}
"""a, b, c: five to seven distributions, 244 to 308 files. large, larger: sixty; a sync of them takes a while."""
JUDGE = Path(__file__).parent / "judge.py"
POLL_SECONDS = 0.01
ROOM_SECONDS = 300.0


class Judged:
    """A project on the shared directory. Each task that runs in its environment judges what it sees.

    :param names: the sets that there are lock files for
    :ivar env: its environment, as this host sees it
    """

    def __init__(self, cluster: Cluster, names: Iterable[str]) -> None:
        self.cluster = cluster
        self.env = Environment(str(cluster.here / "env"))
        soak.build(str(cluster.here / "sets"), [], {name: SETS[name] for name in names})
        for module in (verify.__file__, JUDGE):
            shutil.copy(module, cluster.here)
        cluster.variables |= {"PYTHONDONTWRITEBYTECODE": "1", "ENVSYNC_ENV": f"{cluster.there}/env"}

    def words(self, want: str, *options: str, seconds: float = 0.0) -> str:
        """Return the command that judges, for a shell on a node.

        :param seconds: how long it stays between its two looks
        """
        there = self.cluster.there
        order = Order(f"{there}/sets", want, f"{there}/env", "plain", seconds, 0, -1)
        judge = ("python", "-s", f"{there}/judge.py", json.dumps(order._asdict()))
        return shlex.join(["envsync", "run", "--lock", f"{there}/sets/pylock.{want}.toml", *options, "--", *judge])

    def submit(self, want: str, *words: str, options: Sequence[str] = (), seconds: float = 0.0) -> str:
        """Submit a job whose tasks judge. Returns its id."""
        step = f"srun --overcommit {self.words(want, *options, seconds=seconds)}"
        output = f"{self.cluster.there}/job-%j.out"
        return self.cluster.submit("--no-requeue", "-o", output, *words, "--wrap", step)

    def verdicts(self, *jobs: str, seconds: float = ROOM_SECONDS) -> list[Record]:
        """Wait until jobs have ended, and return what their tasks have said."""
        said = [line for job in jobs for line in self.cluster.wait(job, seconds).splitlines()]
        return [json.loads(line) for line in said if line.startswith('{"host"')]

    def violations(self, verdicts: Sequence[Record]) -> list[object]:
        """Return what is wrong with what tasks saw: what they reported, and whose status is not 0."""
        path = self.cluster.here / "sets/violations.jsonl"
        reported: list[object] = list(path.read_text().splitlines()) if path.exists() else []
        return reported + [each for each in verdicts if each["status"] != 0]

    # What happened

    def events(self, *kinds: str) -> list[Record]:
        """Return what happened, in order."""
        found = [json.loads(line) for kind in kinds for line in self.cluster.happened(kind)]
        return sorted(found, key=lambda each: each["time"])

    def count(self, kind: str) -> int:
        return len(self.cluster.happened(kind))

    def leader(self, env: Environment | None = None) -> dict[str, object]:
        """Return what the leader says of itself; empty if there is none.

        :param env: another environment
        """
        try:
            return dict(records.load((env or self.env).progress))
        except OSError:
            return {}

    def until_leads(self, phase: str, then: float = 0.0, seconds: float = 240.0) -> Record:
        """Wait until somebody leads and is in a phase, and return what it says of itself after some more time.

        :param then: the time, in seconds
        """
        deadline = time.monotonic() + seconds
        synced = self.count("synced")
        while self.leader().get("phase") != phase:
            assert self.count("synced") == synced, f"it was synced, and nobody was seen {phase}"
            assert time.monotonic() < deadline, f"nobody was {phase}: {self.leader()}"
            time.sleep(POLL_SECONDS)
        time.sleep(then)
        said = self.leader()
        assert said, f"nobody leads {then:g} s after that"
        return said

    def after(self, moment: float, *kinds: str, but: Record | None = None, seconds: float = ROOM_SECONDS) -> Record:
        """Wait for an event of other processes after a moment, and return the first one.

        :param but: what one that does not count says of itself
        """
        found: list[Record] = []
        known = (but["host"], int(str(but["pid"]))) if but else None

        def happened() -> bool:
            later = (each for each in self.events(*kinds) if each["time"] > moment)
            found[:] = [each for each in later if (each["host"], each["pid"]) != known]
            return bool(found)

        self.cluster.until(happened, seconds)
        return found[0]
