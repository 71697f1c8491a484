"""One lock file for several Pythons: each selects from it just the wheels that were chosen for it. Pure.

What all of them want has no marker. What only some want has one that is true for these and false for the others, made
of what they differ in: version, implementation, system, machine, and how comparisons with a full version come out. A
package that has the same version for all is one entry, with all the wheels that were chosen; `packaging` picks by
their tags, as every installer does. Where that would pick another one (two builds of one wheel, say), each gets an
entry of its own. In the end the very selection is done for each Python, and compared.

Whatever is none of these Pythons is refused by `environments`, which lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from packaging.markers import Marker
from packaging.pylock import Package, PackageWheel, Pylock, PylockSelectError
from packaging.tags import Tag
from packaging.utils import NormalizedName
from packaging.version import Version

from envsync.bundling.directory import FORMAT
from envsync.bundling.keeping import Wheel
from envsync.errors import UsageError
from envsync.lockfile.bundled import BYTECODE, BytecodeFile, table_of
from envsync.python.facts import Interpreter

if TYPE_CHECKING:
    from packaging.markers import Environment

DIFFERENCES = ("implementation_name", "python_version", "sys_platform", "platform_machine")
"""The markers that tell Pythons apart."""


class Chosen(NamedTuple):
    """What one Python is to have."""

    title: str
    """What it is called in messages."""
    interpreter: Interpreter
    wheels: tuple[Wheel, ...]
    """One for each package."""
    clauses: tuple[str, ...] = ()
    """How what the lock file looks at besides comes out, as markers (`envsync.lockfile.conditions.clauses`)."""


def combined(chosen: Sequence[Chosen], bytecode: Iterable[BytecodeFile] = ()) -> Pylock:
    """Make the lock file.

    :param bytecode: what the bundle has of it
    :raises UsageError: some of the Pythons want different things and cannot be told apart
    """
    targets = _Targets(chosen)
    packages = [package for name in targets.names for package in targets.entries(name)]
    lock = replace(targets.empty, packages=packages, tool={"envsync": {"bundle": _about(bytecode)}})
    lock.validate()
    for each in chosen:
        if _selected(lock, each) != {wheel.name: wheel.sha256 for wheel in each.wheels}:
            raise _not_apart(each.title)
    return lock


def _about(bytecode: Iterable[BytecodeFile]) -> dict[str, Any]:
    listed = table_of(bytecode)
    return {"format": FORMAT, **({BYTECODE: listed} if listed else {})}


class _Targets:
    """What each Python is to have, and what tells it from the others."""

    def __init__(self, chosen: Sequence[Chosen]) -> None:
        self._chosen = chosen
        parts = [_parts(each) for each in chosen]
        differing = [number for number, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
        self._telling = [" and ".join(filter(None, (each[number] for number in differing))) for each in parts]
        """What is true for it, and not for any other that can be told apart; empty if there is nothing of the kind."""
        self.names = sorted({wheel.name for each in chosen for wheel in each.wheels})
        self.empty = Pylock(
            lock_version=Version("1.0"),
            environments=list(dict.fromkeys(Marker(" and ".join(filter(None, each))) for each in parts)),
            created_by="envsync",
            packages=[],
        )

    def entries(self, name: str) -> list[Package]:
        """Return what the lock file has of a package: as few entries as tell the right wheel to each Python."""
        wanting = [
            (number, wheel) for number, each in enumerate(self._chosen) for wheel in each.wheels if wheel.name == name
        ]
        for key in (lambda pair: pair[1].version, lambda pair: pair[1].place):
            groups = [list(group) for _, group in groupby(sorted(wanting, key=key), key)]
            entries = list(map(self._entry, groups))
            if all(self._picks(entries, number, wheel) for number, wheel in wanting):
                return entries
        titles = " and ".join(self._chosen[number].title for number, _ in wanting)
        raise _not_apart(titles, name)

    def _entry(self, group: Sequence[tuple[int, Wheel]]) -> Package:
        """Make one entry of a version's wheels, for those who want them."""
        wheels = {wheel.place: wheel for _, wheel in group}
        first = group[0][1]
        return Package(
            name=cast("NormalizedName", first.name),
            version=Version(first.version),
            marker=self._marker({number for number, _ in group}),
            wheels=[
                PackageWheel(path=place, size=wheel.size, hashes={"sha256": wheel.sha256})
                for place, wheel in sorted(wheels.items(), key=lambda item: item[1].filename)
            ],
        )

    def _marker(self, numbers: set[int]) -> Marker | None:
        if len(numbers) == len(self._chosen):
            return None
        texts = dict.fromkeys(self._telling[number] for number in sorted(numbers))
        # Those of which nothing is known that tells them apart are found out by what they would pick.
        return Marker(" or ".join(texts)) if all(texts) else None

    def _picks(self, entries: Sequence[Package], number: int, wheel: Wheel) -> bool:
        found = _selected(replace(self.empty, packages=list(entries)), self._chosen[number])
        return found == {wheel.name: wheel.sha256}


def _parts(each: Chosen) -> list[str]:
    """Say what a Python is, one thing at a time."""
    markers = each.interpreter.markers
    return [*(f'{name} == "{markers[name]}"' for name in DIFFERENCES), " and ".join(each.clauses)]


def _selected(lock: Pylock, each: Chosen) -> dict[str, str] | None:
    """Select as an installer does: the hash of a wheel for each package; None if it is refused."""
    try:
        found = list(
            lock.select(
                environment=cast("Environment", dict(each.interpreter.markers)),
                tags=[Tag(*text.split("-", 2)) for text in each.interpreter.tags],
            )
        )
    except PylockSelectError:
        return None
    return {str(package.name): cast("PackageWheel", file).hashes["sha256"] for package, file in found}


def _not_apart(titles: str, name: str = "") -> UsageError:
    what = f"different wheels of `{name}`" if name else "different packages"
    return UsageError(
        f"one lock file cannot give {what} to {titles}: nothing that installers look at tells these apart",
        hint="make a bundle for each: `envsync bundle --platform manylinux_2_28_x86_64 --to bundle-2`, and so on",
    )


def wheels_in(table: Mapping[str, Any]) -> Iterator[tuple[str, str, int | None, str]]:
    """Yield all wheels that a lock file names: path, sha256, size, and the name of the package.

    :param table: it, parsed
    :raises PylockValidationError: it is none
    """
    for package in sorted(Pylock.from_dict(table).packages, key=attrgetter("name")):
        for wheel in _files(package):
            yield wheel.path or "", str(wheel.hashes.get("sha256", "")), wheel.size, str(package.name)


def _files(package: Package) -> Iterable[PackageWheel]:
    return package.wheels or ()
