"""When a waiter looks, and at what: often on a local disk, where a look costs microseconds; seldom over a network.

On a local disk a waiter looks for the stamp every 50 ms, so that it starts within 100 ms. On a network filesystem a
look is a request to one server that all nodes share, and 1,000 nodes ask at once: the pause begins at 0.1 s, grows by
a tenth of the time already waited to 2 s, and is spread by a quarter either way, so that those who started together
do not ask together. The environment lock, which costs the server more and is free only if a leader died, is tried
eight times less often.

One who looks for others on its node, too (`envsync.waiting.neighbours`), looks twice as often: what it says counts for
three of its pauses, which is less than two of those of one who is alone, and less than a fresh stamp is left in place.

A look that takes long says that the server has much to do: a hundred thousand who begin at once ask it for minutes. So
the pause is at least as long as the last look took, and who looks for others is heard for as much longer. Otherwise all
others would look for themselves, the server would never catch up, and the leader wait for each answer as they do.

All of it is decided here, and nothing done: `envsync.waiting.waiter` does it, and benchmarks/cluster.py computes by it
what a thousand nodes do.
"""

from __future__ import annotations

from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL_SECONDS = 0.05
LOCKS_APART = 8
"""Looks at the stamp for each try at the environment lock."""
NETWORK_LEAST_SECONDS = 0.1
NETWORK_MOST_SECONDS = 2.0
GROWTH = 0.1
"""Of the pause, over a network, for each second waited."""
SPREAD = 0.25
FOR_OTHERS = 0.5
"""Of the pause, over a network, of one who looks for others, too."""
TOOK_MOST_SECONDS = 10.0
"""For no longer than this a look is said to take: so nobody waits for longer than a minute for who looks for others."""
FAILURES_APART = 4
"""Looks at the stamp for each look at the failures."""
FOLLOWERS_SECONDS = 0.05
"""How often the word is read of who looks for all on this node: that costs microseconds there."""


def _by_chance() -> float:
    return int.from_bytes(os.urandom(2), "big") / 0x8000 - 1


class Pace:
    """The pauses of one waiter.

    :param network: whether others are asked over a network
    :param chance: returns another number from -1 to 1 each time; default: the system's
    """

    __slots__ = ("_chance", "network")

    def __init__(self, *, network: bool, chance: Callable[[], float] | None = None) -> None:
        self.network = network
        self._chance = chance or _by_chance

    def pause(self, waited: float, *, for_others: bool = False) -> float:
        """Return how many seconds to wait until the next look, after so many seconds of waiting."""
        if not self.network:
            return LOCAL_SECONDS
        return self.longest(waited, for_others=for_others) * (1 + SPREAD * self._chance()) / (1 + SPREAD)

    def longest(self, waited: float, *, for_others: bool = False) -> float:
        """Return how long that pause is at most, in seconds."""
        if not self.network:
            return LOCAL_SECONDS
        pause = min(NETWORK_MOST_SECONDS, max(NETWORK_LEAST_SECONDS, GROWTH * waited)) * (1 + SPREAD)
        return FOR_OTHERS * pause if for_others else pause

    @property
    def rest(self) -> float:
        """For how many seconds a stamp is left in place, so that everybody who waits for it has seen it."""
        return 2 * (NETWORK_MOST_SECONDS * (1 + SPREAD) if self.network else LOCAL_SECONDS)


class Rhythm:
    """One waiter's looks: what each is at, and how long it is until the next.

    :param began: since when it waits, by the clock by which it is told the time from then on
    """

    __slots__ = ("_looks", "_took", "_try_at", "began", "pace")

    def __init__(self, began: float, its_pace: Pace) -> None:
        self.began = began
        self.pace = its_pace
        self._looks = 0
        self._took = 0.0
        self._try_at = began

    def begin(self, now: float, took: float) -> None:
        """The environment lock was tried, and somebody had it: from now on it is tried as seldom as this pace says.

        :param took: how long that took, in seconds
        """
        self._try_at = self.began + self.between_tries(now)
        self.looked(took)

    def looked(self, took: float) -> None:
        """Take note of how long a look took, in seconds."""
        self._took = min(took, TOOK_MOST_SECONDS) if self.pace.network else 0.0

    def is_to_try(self, now: float, *, is_ours: bool = True) -> bool:
        """Tell whether it is time to try the environment lock.

        :param is_ours: False if somebody else does it for us
        """
        return is_ours and now >= self._try_at

    def is_to_heed(self, *, tries: bool, among_others: bool) -> bool:
        """Count a look at the stamp, and tell whether the failures are to be looked at, too.

        :param tries: the environment lock is to be tried
        :param among_others: there are neighbours: so this look is seldom, or for all of them
        """
        self._looks += 1
        return tries or among_others or self._looks % FAILURES_APART == 0

    def tries(self, now: float, *, for_others: bool = False) -> None:
        """The environment lock is tried now."""
        self._try_at = now + self.between_tries(now, for_others=for_others)

    def between_tries(self, now: float, *, for_others: bool = False) -> float:
        """Return how many seconds to leave between two tries at the environment lock."""
        return LOCKS_APART * self.pace.pause(now - self.began, for_others=for_others)

    def pause(self, now: float, *, for_others: bool = False, rests: bool = False) -> float:
        """Return how many seconds to wait until the next look.

        :param for_others: we look for others, too
        :param rests: somebody looks for us: how long until its word is read again
        """
        return FOLLOWERS_SECONDS if rests else max(self._took, self.pace.pause(now - self.began, for_others=for_others))

    def interval(self, now: float, *, for_others: bool = False) -> float:
        """Return in how many seconds we have looked again at the latest, if nobody looks for us."""
        return max(self._took, self.pace.longest(now - self.began, for_others=for_others)) + self._took
