"""What is worth knowing of a sync, once it is done."""

from __future__ import annotations


class Notes:
    """Sentences, each said once: some for everybody, some for those who ask for more."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._details: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user may want to know."""
        return (*self._notes,)

    @property
    def details(self) -> tuple[str, ...]:
        """What only those want to know who ask for more."""
        return (*self._details,)

    def note(self, *sentences: str) -> None:
        """Add to what everybody is told."""
        self._notes.update(dict.fromkeys(sentences))

    def detail(self, *sentences: str) -> None:
        """Add to what those are told who ask for more."""
        self._details.update(dict.fromkeys(sentences))
