"""Which records of a uv.lock are installed: a walk along its edges, as uv does it. Pure.

An extra of a package is a place of its own, whose edges count only if somebody asks for it. Where extras, groups or
projects exclude each other, one name leads to several records, and markers tell them apart by what is *active*: the
chosen projects, extras and groups, and every extra that some edge switches on. So there the way is walked twice: once
to learn what is active, and then with all of that known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from packaging.markers import Marker

from envsync.lockfile.uv.records import Edge, Exclusive, Lock

Spot = tuple[int, str]
"""A record, and one of its extras; the empty string is the record without any."""
Way = frozenset[str]
"""The markers about what is active that stand on a way; all of them have to hold."""
MOST_WAYS = 64
"""With more of them to one place, it is taken as reached anyway: that only lets the first walk see more."""
NONE_ACTIVE: frozenset[str] = frozenset()


class Roots(NamedTuple):
    """Where a walk begins."""

    installed: tuple[int, ...] = ()
    """Records that are installed, with what they require."""
    extras: tuple[tuple[int, str], ...] = ()
    """Chosen, by record."""
    groups: tuple[tuple[int, str], ...] = ()
    """Chosen, by record."""
    wishes: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Further records and their extras, from the manifest."""


class ExclusionError(Exception):
    """Two that exclude each other were chosen."""

    def __init__(self, first: Exclusive, second: Exclusive) -> None:
        super().__init__(f"{first} and {second} exclude each other")
        self.items = (first, second)


class Markers:
    """Evaluates markers in one environment, each once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known: dict[tuple[str, frozenset[str]], bool] = {}

    def hold(self, text: str, active: frozenset[str] = NONE_ACTIVE) -> bool:
        """Tell whether a marker holds.

        :param active: what is active, by the names that stand for it
        :raises ValueError: it is no marker
        """
        if not text:
            return True
        key = (text, active if depends(text) else NONE_ACTIVE)
        if key not in self._known:
            self._known[key] = Marker(text).evaluate({**self._environment, "extra": key[1]})
        return self._known[key]


def depends(marker: str) -> bool:
    """Tell whether a marker looks at what is active."""
    return "extra" in marker


def walk(lock: Lock, roots: Roots, markers: Markers) -> list[int]:
    """Return which records are reached, each once.

    :raises ExclusionError: what is active excludes each other
    """
    walker = _Walk(lock, roots, markers)
    if lock.conflicts:
        walker.learn()
        _check(lock, walker.active)
    return walker.reached()


class _Walk:
    def __init__(self, lock: Lock, roots: Roots, markers: Markers) -> None:
        self._lock = lock
        self._roots = roots
        self._markers = markers
        self.active = _chosen(lock, roots) if lock.conflicts else NONE_ACTIVE
        self._starts = list(self._start())

    def learn(self) -> None:
        """Walk to learn which extras are active."""
        ways: dict[Spot, list[Way]] = {}
        queue = deque(place for place, way in self._starts if _add(ways, place, way))
        while queue:
            place = queue.popleft()
            for edge in self._edges(place):
                further = [way | _way(edge) for way in ways[place]]
                if self._markers.hold(edge.marker, self._with(edge)):
                    passable = [way for way in further if self._passable(way, edge)]
                    if passable:
                        self.active = self._with(edge)
                        for target in _places(edge):
                            added = [_add(ways, target, way) for way in further]
                            if any(added):
                                queue.append(target)

    def reached(self) -> list[int]:
        """Walk, with what is active known."""
        seen = dict.fromkeys(place for place, _ in self._starts)
        queue = deque(seen)
        while queue:
            for edge in self._edges(queue.popleft()):
                if self._markers.hold(edge.marker, self.active):
                    new = [place for place in _places(edge) if place not in seen]
                    seen.update(dict.fromkeys(new))
                    queue.extend(new)
        return list(dict.fromkeys(number for number, _ in seen))

    def _start(self) -> Iterator[tuple[Spot, Way]]:
        always: Way = frozenset()
        for number in self._roots.installed:
            yield (number, ""), always
        for place in self._roots.extras:
            yield place, always
        for number, group in self._roots.groups:
            for edge in self._lock.records[number].groups.get(group, ()):
                if self._markers.hold(edge.marker, self._with(edge)):
                    self.active = self._with(edge)
                    yield from ((place, _way(edge)) for place in _places(edge))
        for number, extras in self._roots.wishes:
            edge = Edge(number, extras, "")
            self.active = self._with(edge)
            yield from ((place, always) for place in _places(edge))

    def _edges(self, place: Spot) -> tuple[Edge, ...]:
        record = self._lock.records[place[0]]
        return record.extras.get(place[1], ()) if place[1] else record.edges

    def _with(self, edge: Edge) -> frozenset[str]:
        """Return what is active if an edge is walked along."""
        if not self._lock.conflicts or not edge.extras:
            return self.active
        name = self._lock.records[edge.to].name
        return self.active | {Exclusive("extra", name, extra).variable for extra in edge.extras}

    def _passable(self, way: Way, edge: Edge) -> bool:
        return all(self._markers.hold(marker, self._with(edge)) for marker in way)


def _chosen(lock: Lock, roots: Roots) -> frozenset[str]:
    """Return what stands for all that was chosen."""
    items = [Exclusive("project", lock.records[number].name) for number in roots.installed]
    items += [Exclusive("extra", lock.records[number].name, extra) for number, extra in roots.extras]
    items += [Exclusive("group", lock.records[number].name, group) for number, group in roots.groups]
    return frozenset(item.variable for item in items)


def _check(lock: Lock, active: frozenset[str]) -> None:
    for excluding in lock.conflicts:
        chosen = [item for item in excluding if item.variable in active]
        if len(chosen) > 1:
            raise ExclusionError(chosen[0], chosen[1])


def _places(edge: Edge) -> list[Spot]:
    return [(edge.to, ""), *((edge.to, extra) for extra in edge.extras)]


def _way(edge: Edge) -> Way:
    return frozenset([edge.marker] if depends(edge.marker) else [])


def _add(ways: dict[Spot, list[Way]], place: Spot, way: Way) -> bool:
    """Note a way to a place. False: it was known, or one on which no more has to hold."""
    known = ways.setdefault(place, [])
    if any(other <= way for other in known):
        return False
    known.append(frozenset() if len(known) == MOST_WAYS else way)
    return True
