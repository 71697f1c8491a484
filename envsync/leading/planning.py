"""What has to change: the plan by which what is installed becomes what is wanted, as the request's options say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envsync.errors import EnvironmentRefusedError, LockFileError
from envsync.errors.hints import OWN_ENVIRONMENTS
from envsync.installed.plan import Plan, Wanted, plan
from envsync.installed.scan import normalized
from envsync.launch import Environment
from envsync.launch.request import Request
from envsync.leading.goal import Goal
from envsync.system import native

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from envsync.installed.ledger import Ledger
    from envsync.installed.plan import Installed

SEEDS = frozenset({"pip"})
SEEDS_BEFORE_3_12 = SEEDS | {"setuptools", "wheel"}
"""What `venv` and uv seed an environment with; an exact sync keeps them."""


def make_plan(
    request: Request,
    goal: Goal,
    installed: Sequence[Installed],
    *,
    unasked: Sequence[Wanted] = (),
    reinstall: frozenset[str] = frozenset(),
    uncompiled: frozenset[str] = frozenset(),
) -> Plan:
    """Plan how what is installed becomes what is wanted, as the request's options say."""
    return plan(
        installed,
        without([*goal.wanted, *unasked], uncompiled),
        exact=not request.flag("inexact"),
        spare=spare_of(goal),
        reinstall=reinstall,
    )


def without(wanted: Iterable[Wanted], uncompiled: frozenset[str]) -> Iterable[Wanted]:
    """Do without bytecode where there is none to be had."""
    return (item._replace(bytecode="") if item.origin.sha256 in uncompiled else item for item in wanted)


def spare_of(goal: Goal) -> frozenset[str]:
    """Name what an exact sync keeps though nobody asks for it: what the environment was seeded with."""
    major, minor = goal.python.interpreter.version.split(".")[:2]
    return SEEDS if (int(major), int(minor)) >= (3, 12) else SEEDS_BEFORE_3_12


def may_adopt(ledger: Ledger, installed: Sequence[Installed]) -> bool:
    """Tell whether others have filled an environment that envsync has not changed yet (`envsync.leading.adopt`)."""
    return not ledger.path and not ledger.entries and any(item.origin is None for item in installed)


def refuse_to_empty(request: Request, environment: Environment, goal: Goal) -> None:
    """Refuse to remove all that is installed because a lock file asks for nothing: hardly anybody means that.

    A file that is being written begins empty, and one that was named by mistake has nothing that is understood, or
    nothing for this Python. What the environment was seeded with does not count, nor does a new environment.

    :raises LockFileError: the environment would be emptied
    """
    if goal.wanted or request.flag("inexact") or request.flag("allow_empty"):
        return
    names = sorted(_names_in(environment) - spare_of(goal))
    if names:
        some = f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        raise LockFileError(
            request.lock,
            f"it asks for no package, for this Python and these options, and all {len(names)} of environment "
            f"`{environment.path}` would be removed: {some}",
            hint="is it the right file, and written to its end? If all are to go: `envsync sync --allow-empty`",
        )


def refuse_to_replace(request: Request, environment: Environment, goal: Goal, former: str) -> None:
    """Refuse to remove what another lock file beside this one has asked for, where nobody has named the environment.

    Lock files of one directory have the same `.venv` if nothing is said, and would take each other's packages away by
    turns. A lock file that was found, and not named, is the project's own: it is meant.

    :param former: the name of the lock file that the environment was synced with last; empty if nobody knows
    :raises EnvironmentRefusedError: packages would be removed
    """
    named = request.text("lock") and not request.text("env") and not request.flag("active")
    if not named or not former or former == os.path.basename(request.lock) or request.flag("inexact"):
        return
    other = f"{request.directory}{former}"
    names = sorted(_names_in(environment) - spare_of(goal) - {want.name for want in goal.wanted})
    if names and os.path.exists(other):
        some = f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        raise EnvironmentRefusedError(
            environment.path,
            f"it was synced with `{other}`, which is still there; `{request.lock}` would remove {len(names)} of its "
            f"packages: {some}",
            hint=f"{OWN_ENVIRONMENTS}, or say that this one is to change: `envsync sync --env {environment.path}`",
        )


def _names_in(environment: Environment) -> set[str]:
    """Name the distributions of an environment, whichever Python it was made for."""
    found: set[str] = set()
    for site in native.site_packages(environment.path):
        for name in _listed(f"{environment.path}/{site}"):
            if name.endswith(".dist-info") and not name.startswith("~"):
                found.add(normalized(name.partition("-")[0]))
    return found


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []  # it is not there, or no directory
