"""A line for a terminal of any width: what matters least is left out first. Pure.

Whoever has something to say gives it in several forms, the fullest first, each with less in it; the first that fits is
shown. A line that is too long even in its last form is cut, for one that wraps could not be taken back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DRAINING = "waiting for commands"
"""How the phase of a leader begins that waits for the commands in the environment to end."""


def fitted(forms: Iterable[str], columns: int) -> str:
    """Return the first of some forms that fits into so many columns, or what fits of the last one."""
    form = ""
    for form in forms:
        if width(form) <= columns:
            return form
    return cut(form, columns)


def width(text: str) -> int:
    """Return how many columns a printable text takes."""
    return len(text) if text.isascii() else sum(_widths(text))


def cut(text: str, columns: int) -> str:
    """Cut a text to so many columns."""
    if text.isascii():
        return text[:columns]
    taken = 0
    for position, wide in enumerate(_widths(text)):
        taken += wide
        if taken > columns:
            return text[:position]
    return text


def _widths(text: str) -> list[int]:
    from unicodedata import combining, east_asian_width

    return [0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text]


def briefly(phase: str) -> tuple[str, str]:
    """Return a phase without what it tells of others after a colon, and what is the least that says what is done."""
    brief = phase.partition(":")[0]
    if brief.startswith(DRAINING):
        return brief, DRAINING
    return brief, brief.partition(",")[0]


def volume(done: float, total: float) -> str:
    """Say how many bytes are done, and of how many if that is known; empty if none are."""
    if done <= 0:
        return ""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"


def human(size: int) -> str:
    """Write a number of bytes as people do."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
