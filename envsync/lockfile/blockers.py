"""What keeps a lock file from being installed, all of it at once: who mends one does not want to find the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from envsync.errors import LockFileError, NoWheelError, remedies

MOST = 20
"""So many are named; then it is said how many more there are."""
MOST_HINTS = 2


class Blocker(NamedTuple):
    """One package or line that cannot be installed."""

    problem: str
    """With the package or the line."""
    hint: str = ""
    build: str = ""
    """What `pip wheel` would make a wheel of, if that helps."""
    kind: type[LockFileError] = NoWheelError


def of_project(name: str) -> Blocker:
    """Say that a project itself would have to be built."""
    hint = "leave the project itself out with `envsync sync --no-install-project`"
    return Blocker(f"package `{name}`: it is the project itself, and envsync installs wheels", hint)


def unbuilt(name: str, what: str, forbidden_by: str, *, member_of: str = "") -> Blocker:
    """Say that a package would have to be built, which something forbids.

    :param what: there is of it, as in "it comes from a directory"
    :param forbidden_by: an option, or a key in pyproject.toml, as a message has it
    :param member_of: `project` or `workspace`, if it is a part of what one stands in
    """
    hint = f"leave it out with `envsync sync --no-install-package {name}`"
    if member_of == "project":
        hint = "leave the project itself out with `envsync sync --no-install-project`"
    elif member_of:
        hint = "leave the members of the workspace out with `envsync sync --no-install-workspace`"
    return Blocker(f"package `{name}`: {what}, and {forbidden_by} forbids to build it", hint)


class BlockedError(Exception):
    """Raised where one is found, by who goes on to find the others."""

    def __init__(self, blocker: Blocker) -> None:
        super().__init__(blocker.problem)
        self.blocker = blocker


def refusal(path: str, blockers: Sequence[Blocker]) -> LockFileError:
    """Return the error that names them all, a line each.

    :param path: the lock file
    :param blockers: at least one
    """
    problem = blockers[0].problem
    if len(blockers) > 1:
        lines = [blocker.problem for blocker in blockers[:MOST]]
        if len(blockers) > MOST:
            lines.append(f"and {len(blockers) - MOST} more")
        problem = "\n  ".join([f"{len(blockers)} of its packages cannot be installed:", *lines])
    kinds = {blocker.kind for blocker in blockers}
    kind = kinds.pop() if len(kinds) == 1 else LockFileError
    return kind(path, problem, hint=_advice(blockers))


def _advice(blockers: Sequence[Blocker]) -> str | None:
    hints = list(dict.fromkeys(blocker.hint for blocker in blockers if blocker.hint))[:MOST_HINTS]
    builds = [blocker.build for blocker in blockers if blocker.build]
    return ", or ".join([*hints, *([remedies.build(builds)] if builds else [])]) or None
