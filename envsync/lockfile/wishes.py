"""Pairs of options of requirements files that wish for opposite things, and for which packages each of them counts.

`--no-binary` and `--only-binary`, `--only-final` and `--all-releases`: as pip decides it, a name goes before `:all:`, a
later option before an earlier one, and `:none:` takes back what was wished before. Pure.
"""

from __future__ import annotations

from packaging.utils import canonicalize_name

OPPOSITE = {
    "no-binary": "only-binary",
    "only-binary": "no-binary",
    "only-final": "all-releases",
    "all-releases": "only-final",
}
_ALL, _NONE = ":all:", ":none:"


class Wishes:
    """What a file has wished so far, and where."""

    def __init__(self) -> None:
        self._wished: dict[str, dict[str, str]] = {option: {} for option in OPPOSITE}
        """Option → package or `:all:` → where."""

    def add(self, option: str, value: str, where: str) -> None:
        """Take down an option.

        :param value: names with commas between them, `:all:` or `:none:`
        """
        mine, others = self._wished[option], self._wished[OPPOSITE[option]]
        names = [name.strip() for name in value.split(",")]
        while _ALL in names:
            mine.clear()
            others.clear()
            mine[_ALL] = where
            del names[: names.index(_ALL) + 1]
        for name in names:
            if name == _NONE:
                mine.clear()
            elif name:
                others.pop(canonicalize_name(name), None)
                mine[canonicalize_name(name)] = where

    def where(self, option: str, name: str) -> str | None:
        """Say where an option was given that counts for a package; None if none does."""
        wished = self._wished[option]
        by_all = None if name in self._wished[OPPOSITE[option]] else wished.get(_ALL)
        return wished.get(name, by_all)
