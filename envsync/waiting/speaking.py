"""Who speaks for a parallel step: of its tasks on one node that wait, one says for whom, and the others are silent.

A thousand tasks would write the same line a thousand times a minute into one log. So those of one step (`step`) who
wait for the same on one node have a place, as those have who poll (`envsync.waiting.neighbours`), and whoever has it
speaks, whatever its rank. It says all the time that it lives: if it ends, the next who looks speaks; if it is stopped,
another does after three seconds. A failure of the sync is told whole by one, and by the others in a line.

All speak where there is no such step, on a terminal, with `--verbose`, and where there is no place for a place.
"""

from __future__ import annotations

from envsync.system import core, processes
from envsync.waiting import neighbours

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.launch.demand import Demand
    from envsync.waiting.word import Identity

RANKS = {
    "SLURM_PROCID": "SLURM_STEP_NUM_TASKS",
    "PMIX_RANK": "",
    "PMI_RANK": "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
}
"""Variables that say which of a step's tasks a process is → how many there are."""
STEPS = (("SLURM_JOB_ID", "SLURM_STEP_ID"), ("PMIX_NAMESPACE",), ("PMI_JOBID",))
"""Variables that say which step that is."""
LIVES_SECONDS = 1.0
"""For how long at most the one who speaks does not say that it lives; on a network filesystem it may be a bit more."""
NOTHING = (0, 0)


def step() -> str:
    """Name the parallel step that this process is a task of; empty if it is of none, or the only one."""
    for rank, size in RANKS.items():
        if core.variable(rank):
            if size and core.variable(size) == "1":
                return ""
            names = [".".join(map(core.variable, variables)) for variables in STEPS]
            return next((name for name in names if name.strip(".")), f"of {os.getppid()}")
    return ""


class Circle:
    """What one task has to do with the others of its step on this node.

    :param now: by time.monotonic()
    """

    __slots__ = ("_neighbours", "told")

    def __init__(self, demand: Demand, now: float) -> None:
        name = "" if demand.quiet or demand.verbose else step()
        self._neighbours = neighbours.find(demand, now, may_poll=True, circle=name) if name else None
        self.told: Identity = NOTHING
        """Which failures have been told whole."""

    def speaks(self, now: float) -> bool:
        """Tell whether it is for this process to say something; from then on it is, until it leaves."""
        others = self._neighbours
        if others is None or others.is_over:
            return True
        others.spares(now)
        if others.said is not None and others.said.seen[1] != NOTHING:
            self.told = others.said.seen[1]
        is_due = others.said is None or processes.clock() - others.said.when >= LIVES_SECONDS / 3
        if others.polls and is_due:
            others.looked(now, (NOTHING, self.told), LIVES_SECONDS, is_for_us=False, entered=False)
        return others.polls

    def tells(self, now: float, failure: Identity) -> bool:
        """Tell whether it is for this process to tell a failure whole. Then it counts as told."""
        is_ours = self.speaks(now) and (self._neighbours is None or self.told != failure)
        if is_ours and self._neighbours is not None:
            self._neighbours.looked(now, (NOTHING, failure), LIVES_SECONDS, is_for_us=False, entered=False)
        return is_ours

    def leave(self) -> None:
        """Let the next one speak."""
        if self._neighbours is not None:
            self._neighbours.leave()
