"""What installed packages require and nobody has pinned. Pure.

A requirements file may lack what its packages need: written by hand, or pinned for another Python. That is no error,
for not every requirement is needed by everybody, and it is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.utils import canonicalize_name

_LINE = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?([^;]*)(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"""\bextra\s*==\s*['"]([^'"]*)['"]""")
_OR = re.compile(r"\bor\b")
MOST = 10
"""So many are named; then it is said how many more there are."""


def missing(
    requires: Mapping[str, Sequence[str]],
    present: Collection[str],
    extras: Mapping[str, Collection[str]],
    markers: Mapping[str, str],
) -> dict[str, list[str]]:
    """Find what is required and not present.

    Lines that cannot be understood require nothing: the wheel was accepted, and that is for its author to mend.

    :param requires: the Requires-Dist of each package that is looked at, by normalized name
    :param present: the normalized names of all that is installed
    :param extras: those that are asked for, normalized, by package
    :param markers: of the target Python
    :returns: who requires each of them, by name, both sorted
    """
    active = {name: {"", *extras.get(name, ())} for name in requires}
    queue = sorted(requires)
    found: dict[str, set[str]] = {}
    while queue:
        package = queue.pop()
        for name, wanted in _required(requires[package], present, active[package], markers):
            if name not in present:
                found.setdefault(name, set()).add(package)
            elif name in active and not wanted <= active[name]:
                active[name] |= wanted
                queue.append(name)
    return {name: sorted(packages) for name, packages in sorted(found.items())}


def _required(
    lines: Sequence[str], present: Collection[str], active: Collection[str], markers: Mapping[str, str]
) -> Iterator[tuple[str, set[str]]]:
    """Yield the packages that lines require, with their extras; of those that are present, only those with extras."""
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        name = canonicalize_name(match[1])
        if name in present and not match[2]:
            continue  # by far the most: no marker needs to be parsed
        if match[4] is None or _holds(match[4], active, markers):
            yield name, {canonicalize_name(each) for each in re.findall(r"[\w.-]+", match[2] or "")}


def _holds(text: str, active: Collection[str], markers: Mapping[str, str]) -> bool:
    extras = _EXTRA.findall(text)
    if extras and not _OR.search(text) and not any(canonicalize_name(extra) in active for extra in extras):
        return False  # of extras that nobody wants: most markers are, and none of those needs to be parsed
    try:
        marker = Marker(text)
        return any(marker.evaluate({**markers, "extra": extra}) for extra in active)
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return False


def described(found: Mapping[str, Sequence[str]]) -> str:
    """Say in a line what is missing and who requires it."""
    named = [f"`{name}` (of {', '.join(packages[:3])})" for name, packages in list(found.items())[:MOST]]
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(named) + more
