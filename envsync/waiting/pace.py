"""How often a waiter looks: often on a local disk, where a look costs microseconds; seldom over a network.

On a local disk a waiter looks for the stamp every 50 ms, so that it starts within 100 ms. On a network filesystem a
look is a request to one server that all nodes share, and 1,000 nodes ask at once: the pause begins at 0.1 s, grows by
a tenth of the time already waited to 2 s, and is spread by a quarter either way, so that those who started together
do not ask together. The environment lock, which costs the server more and is free only if a leader died, is tried
eight times less often.

One who looks for others on its node, too (`envsync.waiting.neighbours`), looks twice as often: what it says counts for
three of its pauses, which is less than two of those of one who is alone, and less than a fresh stamp is left in place.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import os
else:
    import posix as os

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


class Pace:
    """The pauses of one waiter.

    :param network: whether others are asked over a network
    """

    __slots__ = ("network",)

    def __init__(self, *, network: bool) -> None:
        self.network = network

    def pause(self, waited: float, *, for_others: bool = False) -> float:
        """Return how many seconds to wait until the next look, after so many seconds of waiting."""
        if not self.network:
            return LOCAL_SECONDS
        chance = int.from_bytes(os.urandom(2), "big") / 0x8000 - 1
        return self.longest(waited, for_others=for_others) * (1 + SPREAD * chance) / (1 + SPREAD)

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
