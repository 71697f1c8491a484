"""What markers look at beyond implementation, X.Y, machine and C library, and how it comes out here.

A marker that looks at the full version of Python, or at the kernel, may select something else after an upgrade in
place, or on another host. Then the digest has how each such comparison comes out, not the version itself: hosts that
differ in what no comparison cares about share an environment. Most comparisons with a full version are settled by X.Y,
as `python_full_version < "3.12"` is: these are left out, and cost a launch nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from packaging.markers import Marker, UndefinedComparison
from packaging.specifiers import SpecifierSet

from envsync.launch.stamp import checksum

if TYPE_CHECKING:
    from packaging.pylock import Pylock

KERNEL = ("platform_release", "platform_version")
FULL = ("python_full_version", "implementation_version")

_OPERAND = r"""([a-z_]+|"[^"]*"|'[^']*')"""
_COMPARISON = re.compile(rf"{_OPERAND} (===|==|~=|!=|<=|>=|<|>|not in|in) {_OPERAND}")
"""One comparison, in the form that `packaging` gives a marker's text."""
_ORDERS = frozenset({"<", "<=", "==", "!=", ">=", ">", "~="})
_CONTRARY = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}
_PLAIN = re.compile(r"\d+\.\d+\.\d+")
_LARGE = 10**6


class Conditions(NamedTuple):
    """What a lock file's markers look at that the digest does not cover anyway."""

    text: str = ""
    """Stands for how it comes out; empty if they look at nothing of the kind."""
    full: bool = False
    """They look at the full version of Python."""
    kernel: tuple[str, ...] = ()
    """The markers of the kernel that they look at."""


def of(markers: Iterable[str], environment: Mapping[str, str]) -> Conditions:
    """Find out what markers look at.

    :param markers: their texts, as `packaging` writes them
    :param environment: the target's markers
    """
    outcomes, names = {}, set[str]()
    for variables, text in _unsettled(markers, environment):
        outcomes[text] = _outcome(text, environment)
        names |= variables
    if not outcomes:
        return Conditions()
    lines = [f"{text} {outcome}" for text, outcome in outcomes.items()]
    return Conditions(
        checksum("\n".join(lines).encode("utf-8", "surrogateescape")),
        full=not names.isdisjoint(FULL),
        kernel=tuple(name for name in KERNEL if name in names),
    )


def clauses(markers: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Write as markers how each comparison comes out that X.Y does not settle: they are true here, and where all comes
    out the same.

    :param markers: as for `of`
    """
    return [_clause(variables, text, environment) for variables, text in _unsettled(markers, environment)]


def _unsettled(markers: Iterable[str], environment: Mapping[str, str]) -> Iterator[tuple[frozenset[str], str]]:
    for variables, text in sorted(set(_comparisons(markers)), key=lambda found: found[1]):
        if not _is_settled(variables, text, environment):
            yield variables, text


def _clause(variables: frozenset[str], text: str, environment: Mapping[str, str]) -> str:
    match = _COMPARISON.fullmatch(text)
    assert match is not None
    outcome = _outcome(text, environment)
    if outcome == "True":
        return text
    if outcome == "False" and match[2] in _CONTRARY:
        return f"{match[1]} {_CONTRARY[match[2]]} {match[3]}"
    return " and ".join(f'{name} == "{environment[name]}"' for name in sorted(variables))


def needs(requires_python: SpecifierSet | None) -> list[str]:
    """Write what Requires-Python says as markers."""
    return [str(Marker(f'python_full_version {each.operator} "{each.version}"')) for each in requires_python or ()]


def of_pylock(lock: Pylock) -> tuple[str, ...]:
    """Return the texts of all markers in a lock file of PEP 751, Requires-Python among them."""
    conditional = [*(lock.environments or ()), *(each.marker for each in lock.packages if each.marker)]
    needed = {lock.requires_python, *(each.requires_python for each in lock.packages)}
    return (*map(str, conditional), *(text for each in needed for text in needs(each)))


def _comparisons(markers: Iterable[str]) -> Iterator[tuple[frozenset[str], str]]:
    """Yield each comparison that looks at one of the variables, and which."""
    watched = frozenset(KERNEL + FULL)
    for marker in set(markers):
        if any(name in marker for name in watched):
            for match in _COMPARISON.finditer(marker):
                variables = watched.intersection((match[1], match[3]))
                if variables:
                    yield variables, match[0]


def _outcome(text: str, environment: Mapping[str, str]) -> str:
    try:
        return str(Marker(text).evaluate(dict(environment)))
    except UndefinedComparison:
        return "undefined"


def _is_settled(variables: frozenset[str], text: str, environment: Mapping[str, str]) -> bool:
    """Tell whether a comparison comes out the same for all releases of this X.Y.

    Those around each number in it are tried: between them, nothing changes. A pre-release is none of them.
    """
    full = environment["python_full_version"]
    match = _COMPARISON.fullmatch(text)
    assert match is not None
    if not variables.isdisjoint(KERNEL) or match[2] not in _ORDERS or not _PLAIN.fullmatch(full):
        return False
    if "implementation_version" in variables and environment["implementation_version"] != full:
        return False
    numbers = {int(number) for number in re.findall(r"\d+", text) if len(number) < 9}
    micros = {0, _LARGE, *(max(0, number + by) for number in numbers for by in (-1, 0, 1))}
    short = full.rpartition(".")[0]
    tried = ({**environment, **dict.fromkeys(FULL, f"{short}.{micro}")} for micro in micros)
    return len({_outcome(text, each) for each in tried}) == 1
