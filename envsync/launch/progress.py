"""How a sync says how far it is. The library reports through this; only the command line prints."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """How far a sync is. One that also has a method `detail` is told by that, before a report of bytes, which item is
    the slowest and how far that is, in a few words; one that has a method `announce`, what is worth knowing before it
    is done: that something is built. One whose `shows_notes` is true shows a person the notes of the result.

    Called whenever there is something new to say, from any thread; must return at once.

    What it raises ends the sync, at the latest before the commit is decided. Once it is, it must not raise.

    :param phase: what is being done: "resolving", "downloading", "unpacking", "compiling", "staging",
        "waiting for ...", "committing", "verifying"
    :param done: how many of the phase's items are done
    :param total: how many there are
    :param bytes_done: bytes done, where the phase counts bytes
    :param bytes_total: bytes in all, 0 if unknown
    """

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None: ...


def quiet(phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
    """Report nothing."""
