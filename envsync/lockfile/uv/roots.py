"""Which projects, extras and groups of a uv.lock are chosen: where the walk begins, and what is left out of its end.

As uv has it: without an option, the project one stands in; in the root of a workspace that is no project itself, all
members. A member's command may ask for a group of the root that it has not itself. What is chosen if nothing is said
of groups, stands in pyproject.toml; the lock file has it, too, from revision 5 on. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from packaging.utils import canonicalize_name

from envsync.launch.finding import DEFAULTS_SINCE
from envsync.lockfile.choice import Choice
from envsync.lockfile.uv.project import Project
from envsync.lockfile.uv.records import Defaults, Lock, ManifestRequirement, PackageRecord
from envsync.lockfile.uv.walk import Roots

Find = Callable[[ManifestRequirement], int | None]
"""Gives the record of what the manifest names, None if it is not wanted here."""


class ChoiceError(Exception):
    """What was asked for is not in the lock file; the text says what is."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


class Projects(NamedTuple):
    """The projects that are chosen."""

    roots: tuple[int, ...]
    """Their records."""
    alone: int | None = None
    """If it is one project that was chosen or is stood in: its record."""
    standing: int | None = None
    """The project one stands in; None: no project."""
    named: bool = False
    """By `--package`."""


def target_of(lock: Lock, choice: Choice) -> Projects:
    """Tell which projects are chosen.

    :raises ChoiceError: one that is named, or stood in, is none of them
    """
    if not choice.packages and not choice.all_packages:
        _check_standing(lock, choice.member)
    standing = _standing(lock, choice.member)
    if choice.packages:
        roots = tuple(dict.fromkeys(_named(lock, name) for name in choice.packages))
        return Projects(roots, roots[0] if len(roots) == 1 else None, standing, named=True)
    if choice.all_packages or standing is None:
        alone = lock.root if not lock.members else None
        return Projects(tuple(_number(lock, name) for name in lock.projects), alone, standing)
    return Projects((standing,), standing, standing)


def _check_standing(lock: Lock, member: str) -> None:
    """Check that the project one stands in is one of the lock file's, and not one that was never locked.

    :raises ChoiceError: it is not
    """
    directory = _normal(member)
    if directory != "." and directory not in _directories(lock):
        number = lock.root
        name = lock.records[number].name if number is not None else "".join(lock.projects[:1])
        other = f"; or take one that it has: `envsync sync --package {name}`" if name else ""
        problem = f"it does not have the project in `{directory}`, in which one stands"
        raise ChoiceError(problem, f"lock that one: `uv lock`{other}")


def roots_of(lock: Lock, target: Projects, choice: Choice, defaults: Defaults, find: Find) -> Roots:
    """Tell where the walk begins.

    :param defaults: the groups that are chosen if nothing is said
    :raises UndefinedError: an extra or a group was asked for that is not defined
    """
    owners = {number: lock.records[number].known_groups for number in target.roots}
    root = lock.root
    if target.alone is not None and root is not None:
        owners.setdefault(root, lock.records[root].known_groups)
    defined = {*lock.groups, *(name for known in owners.values() for name in known)}
    groups = choice.groups_of(defined, defined if defaults is None else defaults)
    asked = groups if choice.all_groups else groups & set(map(canonicalize_name, (*choice.groups, *choice.only_groups)))
    own = lock.records[target.alone].known_groups if target.alone is not None else frozenset[str]()
    borrowed = groups if target.alone is None else frozenset(asked - own)
    chosen = [
        (number, group)
        for number, known in owners.items()
        for group in sorted(known & (groups if number in target.roots else borrowed))
    ]
    wishes = [wish for group in sorted(borrowed & lock.groups.keys()) for wish in lock.groups[group]]
    extras = () if choice.only_groups else tuple(_extras(lock, target, choice))
    return Roots(
        () if choice.only_groups else target.roots,
        extras,
        tuple(chosen),
        tuple(_found([*lock.requirements, *wishes], find)),
    )


def defaults_of(lock: Lock, target: Projects, projects: Mapping[str, Project]) -> Defaults:
    """Tell which groups are chosen if nothing is said, from where uv reads it.

    :param projects: what pyproject.toml files say, by directory
    """
    if target.named and target.alone is not None and lock.revision >= DEFAULTS_SINCE:
        return lock.records[target.alone].default_groups
    record = None if target.standing is None else lock.records[target.standing]
    directory = "." if record is None else record.directory or "."
    if directory in projects:
        return projects[directory].default_groups
    return lock.default_groups if record is None else record.default_groups


def needs_project(lock: Lock, record: PackageRecord) -> bool:
    """Tell whether only the pyproject.toml of a member says which of its groups are chosen."""
    return lock.revision < DEFAULTS_SINCE and bool(record.known_groups)


def _extras(lock: Lock, target: Projects, choice: Choice) -> Iterable[tuple[int, str]]:
    defined = {extra for number in target.roots for extra in lock.records[number].known_extras}
    chosen = choice.extras_of(defined)
    for number in target.roots:
        yield from ((number, extra) for extra in sorted(chosen & lock.records[number].known_extras))


def _found(wishes: Iterable[ManifestRequirement], find: Find) -> Iterable[tuple[int, tuple[str, ...]]]:
    for wish in wishes:
        number = find(wish)
        if number is not None:
            yield number, wish.extras


def _standing(lock: Lock, member: str) -> int | None:
    """Return the project of a directory, or of the nearest one above it."""
    directories = _directories(lock)
    directory = _normal(member)
    while directory not in directories:
        if directory in (".", "/", "") or directory.startswith(".."):
            return lock.root
        directory = posixpath.dirname(directory) or "."
    return directories[directory]


def _directories(lock: Lock) -> Mapping[str | None, int]:
    """Return the projects' records by their directories."""
    return {lock.records[number].directory: number for name in lock.projects for number in lock.by_name.get(name, ())}


def _normal(member: str) -> str:
    return posixpath.normpath(member.replace("\\", "/"))


def _named(lock: Lock, name: str) -> int:
    if canonicalize_name(name) not in lock.projects:
        members = ", ".join(lock.projects) or "none"
        example = f"`envsync sync --package {lock.projects[0]}`" if lock.projects else "leave out `--package`"
        raise ChoiceError(
            f"it has no workspace member `{name}`; its members: {members}", f"name one of them: {example}"
        )
    return _number(lock, canonicalize_name(name))


def _number(lock: Lock, name: str) -> int:
    numbers = lock.by_name.get(name, ())
    if len(numbers) != 1:
        problem = f"it has {len(numbers)} packages named `{name}`, which is a member of the workspace"
        raise ChoiceError(problem, "lock again: `uv lock`")
    return numbers[0]
