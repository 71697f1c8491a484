"""How far a fetch is: what its workers say, counted."""

from __future__ import annotations

import os
from collections.abc import Sequence

from envsync.lockfile.target import Artifact
from envsync.waiting.shortening import volume


class Progress:
    """Counts: downloads as long as there are any, then unpacking, so that nobody sees the two alternate.

    :param artifacts: what is to be got
    """

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        sizes = {number: artifact.size for number, artifact in enumerate(artifacts) if artifact.path is None}
        self._artifacts = artifacts
        self._size = 0 if None in sizes.values() else sum(size or 0 for size in sizes.values())
        self._awaited = set(sizes)
        """Downloads that are not done."""
        self._downloads = len(sizes)
        self._received = 0
        self._unpacked = 0
        self._running: dict[int, int] = {}
        """How many bytes have come of what comes now."""

    def receive(self, number: int, count: int) -> None:
        """Count bytes; negative if some were thrown away."""
        self._received += count
        self._running[number] = self._running.get(number, 0) + count

    def finish_download(self, number: int) -> None:
        self._awaited.discard(number)
        self._running.pop(number, None)

    def finish(self, number: int) -> None:
        """Count one that is done with, whether or not it had to be downloaded."""
        self.finish_download(number)
        self._unpacked += 1

    def now(self) -> tuple[str, int, int] | tuple[str, int, int, int, int]:
        """Return how far it is, as the arguments of a report."""
        if self._awaited:
            return "downloading", self._downloads - len(self._awaited), self._downloads, self._received, self._size
        return "unpacking", *self.unpacked

    @property
    def unpacked(self) -> tuple[int, int]:
        """How many are done with, and of how many."""
        return self._unpacked, len(self._artifacts)

    @property
    def slowest(self) -> str:
        """The download that most is missing of, in a few words; where sizes are not known, the one that has begun
        first. Empty if nothing comes."""
        if not (self._awaited and self._running):
            return ""

        def missing(item: tuple[int, int]) -> int:
            number, done = item
            return max(0, (self._artifacts[number].size or 0) - done)

        number, done = max(self._running.items(), key=missing)
        artifact = self._artifacts[number]
        return f"{artifact.name} {volume(done, artifact.size or 0)}"


def size_of(artifact: Artifact) -> int:
    """Return the size of an artifact in bytes, 0 if it is not known."""
    if artifact.size is None and artifact.path is not None:
        try:
            return os.stat(artifact.path).st_size
        except OSError:
            return 0  # whoever opens it will say what is wrong
    return artifact.size or 0
