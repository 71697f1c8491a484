"""Do two lists of requirements ask for the same? Tools rewrite and merge them when they lock.

They are tried at every point at which one of them may turn: each version of Python around each number in a marker, each
system, each word that is compared with something; and there, each version of the package around each number in a
specifier. The same are those that at every point ask for the same extras and allow the same versions. Only points that
exist count: there is no Linux on which `os_name` is `nt`. What cannot be told is taken for the same. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from packaging.markers import Marker, UndefinedComparison
from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version

MOST_POINTS = 5_000
"""Markers that need more are taken for the same."""
_OPERAND = r"""([a-z_]+|"[^"]*"|'[^']*')"""
_COMPARISON = re.compile(rf"{_OPERAND} (===|==|~=|!=|<=|>=|<|>|not in|in) {_OPERAND}")
_PYTHON = frozenset({"python_version", "python_full_version"})
_SYSTEMS = (
    ("linux", "Linux", "posix"),
    ("darwin", "Darwin", "posix"),
    ("win32", "Windows", "nt"),
    ("cygwin", "CYGWIN_NT-10.0", "posix"),
    ("emscripten", "Emscripten", "posix"),
    ("freebsd14", "FreeBSD", "posix"),
    ("java", "Java", "java"),
)
_SYSTEM = ("sys_platform", "platform_system", "os_name")
_IMPLEMENTATIONS = (("cpython", "CPython"), ("pypy", "PyPy"), ("graalpy", "GraalVM"))
_IMPLEMENTATION = ("implementation_name", "platform_python_implementation")
_ELSE = "something-else"
_DEFAULTS = {
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "implementation_version": "3.12.0",
    "platform_machine": _ELSE,
    "platform_release": _ELSE,
    "platform_version": _ELSE,
    "extra": "",
    **dict(zip(_SYSTEM, _SYSTEMS[0], strict=True)),
    **dict(zip(_IMPLEMENTATION, _IMPLEMENTATIONS[0], strict=True)),
}
_LISTED = re.compile(r"""(python_version|python_full_version) (not in|in) ["']([0-9. ,]*)["']""")
"""Tools take this for a list of versions, and not for the text that it is."""
Point = Mapping[str, str]


class Wish(NamedTuple):
    """One requirement, of a project or as it is kept in a lock file."""

    name: str
    """Normalized."""
    extras: frozenset[str]
    versions: SpecifierSet | None
    """None for what is asked for by its place: versions do not matter."""
    marker: str
    """In the form that `packaging` gives it (`normal`); empty if it always holds."""
    text: str
    """As it is shown."""


def alike(some: Sequence[Wish], others: Sequence[Wish], pythons: SpecifierSet) -> bool:
    """Tell whether two lists ask for the same; both are of one name.

    :param pythons: the versions of Python that count
    """
    if {wish[:-1] for wish in some} == {wish[:-1] for wish in others}:
        return True
    points = _points([wish.marker for wish in (*some, *others)], pythons)
    versions = around(each for wish in (*some, *others) for each in wish.versions or ())
    try:
        return points is None or all(_asked(some, at, versions) == _asked(others, at, versions) for at in points)
    except UndefinedComparison:
        return True


def are_same(some: SpecifierSet, others: SpecifierSet) -> bool:
    """Tell whether two specifiers allow the same."""
    return some == others or _allowed([some], around([*some, *others])) == _allowed([others], around([*some, *others]))


def around(specifiers: Iterable[Specifier]) -> list[Version]:
    """List versions on both sides of every border that specifiers draw."""
    found = set()
    for specifier in specifiers:
        version = Version(specifier.version.removesuffix(".*"))
        epoch, release = f"{version.epoch}!", (*version.release, 0)
        found |= {version, Version(f"{version.base_version}a0"), Version(f"{version.base_version}.1")}
        nexts = ((*release[:place], release[place] + 1) for place in range(len(release)))
        found |= {Version(epoch + ".".join(map(str, each))) for each in nexts}
    return sorted(found)


def normal(marker: str) -> str:
    """Write a marker as `packaging` does.

    :raises InvalidMarker: it is none
    """
    return str(_parsed(_LISTED.sub(_each, marker))) if marker else ""


def _each(listed: re.Match[str]) -> str:
    variable, operator, versions = listed.groups()
    join, sign = (" or ", "==") if operator == "in" else (" and ", "!=")
    each = [f'{variable} {sign} "{version}"' for version in versions.replace(",", " ").split()]
    return f"({join.join(each)})" if each else listed[0]


@lru_cache
def _parsed(marker: str) -> Marker:
    return Marker(marker)


def _asked(wishes: Iterable[Wish], at: Point, versions: Sequence[Version]) -> object:
    """Say what is asked for at one point; for the extra alone, if it is one with an extra."""
    bare = {**at, "extra": ""}
    holding = [wish for wish in wishes if _holds(wish.marker, at)]
    holding = [wish for wish in holding if not at["extra"] or not _holds(wish.marker, bare)]
    extras = frozenset(extra for wish in holding for extra in wish.extras)
    places = any(wish.versions is None for wish in holding)
    return bool(holding), extras, places, _allowed([wish.versions for wish in holding if wish.versions], versions)


def _allowed(specifiers: Sequence[SpecifierSet], versions: Iterable[Version]) -> list[Version]:
    return [each for each in versions if all(some.contains(each, prereleases=True) for some in specifiers)]


def _holds(marker: str, at: Point) -> bool:
    return not marker or _parsed(marker).evaluate(dict(at))


def _points(markers: Sequence[str], pythons: SpecifierSet) -> list[Point] | None:
    """List all points at which one of the markers may turn; None if that are too many, or they cannot be told."""
    words: dict[str, set[str]] = {}
    for variable, operator, text in _comparisons(markers):
        if operator in ("in", "not in") and variable in _PYTHON:
            return None  # of versions, tools make more than of the text that it is
        words.setdefault(variable, set()).update({text, *(text.replace(",", " ").split() if "in" in operator else ())})
    axes = [*_axes(words, pythons)]
    size = 1
    for axis in axes:
        size *= len(axis)
    if size > MOST_POINTS:
        return None
    return [{**_DEFAULTS, **{key: value for part in parts for key, value in part.items()}} for parts in product(*axes)]


def _comparisons(markers: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for marker in markers:
        for left, operator, right in _COMPARISON.findall(marker):
            variable, text = (right, left) if left[0] in "\"'" else (left, right)
            yield variable, operator, text[1:-1]


def _axes(words: Mapping[str, set[str]], pythons: SpecifierSet) -> Iterator[list[Point]]:
    """Yield for each thing that markers look at what it can be: values that go together, by the variables' names."""
    numbers = {text for name in _PYTHON for text in words.get(name, ())}
    if numbers:
        yield [*_versions(numbers | {each.version for each in pythons}, pythons)]
    for names, known in ((_SYSTEM, _SYSTEMS), (_IMPLEMENTATION, _IMPLEMENTATIONS)):
        if any(name in words for name in names):
            yield [dict(zip(names, values, strict=True)) for values in [*known, *_unknown(names, known, words)]]
    for name in words.keys() - _PYTHON - {*_SYSTEM, *_IMPLEMENTATION}:
        yield [{name: text} for text in sorted({*words[name], _DEFAULTS.get(name, _ELSE)})]


def _unknown(
    names: Sequence[str], known: Sequence[Sequence[str]], words: Mapping[str, set[str]]
) -> Iterator[Sequence[str]]:
    """Yield what goes together with words that are none of the known values."""
    yield [_ELSE] * len(names)
    for place, name in enumerate(names):
        for word in sorted(words.get(name, set()) - {values[place] for values in known}):
            yield [word if each == place else _ELSE for each in range(len(names))]


def _versions(numbers: Iterable[str], pythons: SpecifierSet) -> Iterator[Point]:
    """Yield the releases of Python around some version numbers that are allowed."""
    releases = set()
    for number in numbers:
        parts = [int(part) for part in re.findall(r"\d+", number)[:3] if len(part) < 6]
        major, minor, micro = (*parts, 0, 0, 0)[:3]
        releases |= {(major, minor, each) for each in (0, micro, micro + 1, max(0, micro - 1), 99)}
        releases |= {(major, minor + 1, 0), (major + 1, 0, 0), (major, max(0, minor - 1), 99)}
    for major, minor, micro in sorted(releases):
        if pythons.contains(f"{major}.{minor}.{micro}"):
            yield {"python_version": f"{major}.{minor}", "python_full_version": f"{major}.{minor}.{micro}"}
