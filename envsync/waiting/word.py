"""What the poller of a node says after each look: when it was, and the identities of what it saw. Pure.

It says only when to look again. Nobody starts a command by it, or fails: for that, each has looked itself.
"""

from __future__ import annotations

from envsync.system import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    Identity = tuple[int, int]
    Seen = tuple[Identity, Identity]

INTERVALS = 3
"""For how many of the poller's intervals its word counts."""
INTERVAL_MOST_SECONDS = 20.0
"""Where looks take seconds. Where they take none, nothing is believed for longer than a fresh stamp is left in place
(`envsync.waiting.pace.Pace.rest`)."""


class Word:
    """One word of a poller.

    :ivar when: by the clock since boot, in seconds
    :ivar interval: how long it is from one look to the next, in seconds
    :ivar seen: the identities of the stamp and of the failures, as the poller saw them
    :ivar entered: how many pollers have entered: what one of them could, all may
    :ivar count: of the words of this node, so that two are never the same
    """

    __slots__ = ("count", "entered", "interval", "seen", "when")

    def __init__(self, when: float, interval: float, seen: Seen, entered: int = 0, count: int = 0) -> None:
        self.when = when
        self.interval = interval
        self.seen = seen
        self.entered = entered
        self.count = count

    @property
    def news(self) -> tuple[Seen, int]:
        """What others should look at for themselves, once it is another."""
        return self.seen, self.entered

    def dump(self) -> bytes:
        """Write it down, with a seal: it is written in place, and half of it counts as none."""
        seen = " ".join(str(number) for identity in self.seen for number in identity)
        said: dict[str, object] = {"count": self.count, "when": self.when, "interval": self.interval}
        return records.dump({**said, "seen": seen, "entered": self.entered})


def load(data: bytes) -> Word | None:
    """Read a word; None if there is none that is whole."""
    said = records.understood(data)
    try:
        stamp_inode, stamp_time, failure_inode, failure_time = map(int, records.text(said, "seen").split(" "))
    except ValueError:
        return None
    return Word(
        records.number(said, "when"),
        min(max(0.0, records.number(said, "interval")), INTERVAL_MOST_SECONDS),
        ((stamp_inode, stamp_time), (failure_inode, failure_time)),
        int(records.number(said, "entered")),
        int(records.number(said, "count")),
    )
