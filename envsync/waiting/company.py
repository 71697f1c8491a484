"""What one who waits has to do with the others: be in the list, say for whom it waits, see whether that is itself.

Imported by who has waited for a while already; for less it is not worth it.
"""

from __future__ import annotations

from envsync.waiting import cycle, queue
from envsync.waiting.narrator import Narrator
from envsync.waiting.speaking import Circle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.errors import EnvsyncError
    from envsync.launch.demand import Demand
    from envsync.waiting.queue import Lookout, Rank
    from envsync.waiting.word import Identity

ENLIST_AGAIN_SECONDS = 60.0
"""After which a process tries again to put its name into the list, if that was not possible."""


class Company:
    """One who waits among the others who do, and for the leader.

    :param began: when the wait began, by time.monotonic()
    """

    __slots__ = ("_circle", "_enlist_at", "_holds", "_known", "_narrator", "_rank", "demand")

    def __init__(self, demand: Demand, began: float) -> None:
        self.demand = demand
        self._narrator = Narrator(demand.environment, began, quiet=demand.quiet)
        self._circle: Circle | None = None
        self._rank: Rank | None = None
        self._enlist_at = 0.0
        self._holds: tuple[str, ...] | None = None
        self._known: dict[str, Lookout] = {}
        """Of others' environments, who waits for them, as far as `cycle.find` has looked."""

    def look(self, now: float, *, spared: bool = False) -> None:
        """Put our name into the list, look whether those we wait for wait for us, and say for whom we wait.

        :param spared: somebody else on this node looks for us: its name in the list is enough
        :raises RefusedError: they do
        """
        if now >= self._enlist_at:
            self._be_known(now, spared=spared)
        if self._narrator.live or self._among_tasks(now).speaks(now):
            self._narrator.look(now)

    def _among_tasks(self, now: float) -> Circle:
        if self._circle is None:
            self._circle = Circle(self.demand, now)
        return self._circle

    def shorten(self, error: EnvsyncError, failure: Identity, now: float) -> None:
        """Let an error that all tasks of a step share be a line, if another one on this node tells it whole.

        :param failure: the identity of the failures that it was found in
        """
        brief = getattr(error, "brief", "")
        if brief and not self._narrator.live and not self._among_tasks(now).tells(now, failure):
            error.message, error.hint = brief, ""

    def _be_known(self, now: float, *, spared: bool) -> None:
        if self._holds is None:
            self._holds = cycle.holds()
        if spared and not self._holds:
            return
        self._enlist_at = now + (cycle.EVERY_SECONDS if self._holds else ENLIST_AGAIN_SECONDS)
        if self._rank is None:
            self._rank = queue.enlist(self.demand, self._holds)
        through = cycle.find(self.demand.environment, self._holds, self._known)
        if through is not None:
            raise cycle.refusal(self.demand.environment, through)

    def describe(self, now: float) -> str:
        """Say for whom this process waits."""
        return self._narrator.describe(now)

    def leave(self) -> None:
        """Take back what others see of us."""
        self._narrator.conclude()
        if self._circle is not None:
            self._circle.leave()
        if self._rank is not None:
            self._rank.leave()
            self._rank = None
