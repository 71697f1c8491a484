"""What is worth knowing of a sync, once it is done: what happened, and what lasts.

That files had to be copied from another filesystem, or that the cache must not be written to, is so at the next sync,
too. It is said once for an environment: `.envsync/told` has what was said of it, without the paths that are examples.
An environment that is made anew says it again. If the file is lost, damaged or of a newer envsync, so does this one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError
from envsync.launch.stamp import checksum
from envsync.system import atomic, records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from envsync.launch import Environment

KEPT = 16
"""So many notes are remembered, the latest."""


class Notes:
    """Sentences, each said once: some for everybody, some for those who ask for more."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._lasting: dict[str, None] = {}
        self._details: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user may want to know of this sync."""
        return (*self._notes,)

    @property
    def lasting(self) -> tuple[str, ...]:
        """What the user may want to know of the environment's place, and is likely to be so the next time."""
        return (*self._lasting,)

    @property
    def details(self) -> tuple[str, ...]:
        """What only those want to know who ask for more."""
        return (*self._details,)

    def note(self, *sentences: str) -> None:
        """Add to what everybody is told."""
        self._notes.update(dict.fromkeys(sentences))

    def lasts(self, *sentences: str) -> None:
        """Add to what everybody is told once for an environment."""
        self._lasting.update(dict.fromkeys(sentences))

    def detail(self, *sentences: str) -> None:
        """Add to what those are told who ask for more."""
        self._details.update(dict.fromkeys(sentences))


def said_before(environment: Environment, lasting: Iterable[str], *, saying: bool) -> tuple[str, ...]:
    """Return which notes were said of an environment before. The caller holds the environment lock.

    :param saying: the others are about to be said, and count from now on; those who cannot be remembered are said again
    """
    known = [*map(str, _known(environment))]
    keys = {note: _key(note) for note in lasting}
    new = [key for key in dict.fromkeys(keys.values()) if key not in known]
    if new and saying:
        with suppress(FilesystemError):
            atomic.write(environment.told, records.dump({"notes": " ".join([*known, *new][-KEPT:])}))
    return tuple(note for note, key in keys.items() if key in known)


def forget(environment: Environment) -> None:
    """Forget what was said: the environment is made anew."""
    atomic.discard(environment.told)


def _known(environment: Environment) -> list[str]:
    return records.text(records.load(environment.told), "notes").split()


def _key(note: str) -> str:
    """Return what stands for a note, whichever file it names as an example, and for how many files it is so."""
    text = note.rpartition(" (`")[0] if note.endswith("`)") else note
    return checksum(text.removeprefix("some ").encode("utf-8", "surrogateescape"))
