"""`envsync.status` and `envsync.check`: look at an environment, and restore what is damaged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

from envsync.checking import repair
from envsync.launch import options as settings
from envsync.launch.progress import Report, quiet
from envsync.library import blocking, meant
from envsync.library import status as module

if TYPE_CHECKING:
    from envsync.checking.repair import Checked
    from envsync.library.blocking import SyncOptions
    from envsync.library.status import Status


def status(lock: str | os.PathLike[str] | None = None, **options: Unpack[SyncOptions]) -> Status:
    """Say what is known of an environment: whether it is current, who syncs it, waits for it, and runs in it.

    Takes no lock, disturbs nobody, changes nothing. It is how things were a moment ago.

    :param lock: for which lock file; without one, `env` says which environment is meant, and whether it is current for
        something is not known
    :param options: as for `envsync.sync`
    :raises EnvsyncError: it makes no sense, or the lock file cannot be read
    """
    environment, asked = meant.environment_meant(blocking.given(lock, options), os.environ)
    return module.look(environment, asked)


def check(
    lock: str | os.PathLike[str] | None = None,
    *,
    repair_damage: bool = False,
    report: Report | None = None,
    **options: Unpack[SyncOptions],
) -> Checked:
    """Verify every file of an environment by its hash, and restore what is missing or changed if that is asked for.

    Waits for who changes it. A repair changes it as a sync does: it waits for commands that run in it; interrupted, it
    leaves what the next sync or repair finishes.

    :param lock: from which lock file wheels can be had that the cache lacks; without one, `env` says which is meant
    :param repair_damage: restore what is damaged
    :param report: is told how far it is, from any thread
    :param options: as for `envsync.sync`
    :returns: what was found; `is_sound` sums it up
    :raises NoEnvironmentError: there is none
    :raises EnvsyncError: as `envsync.sync`
    """
    given = blocking.given(lock, options)
    environment, asked = meant.environment_meant(given, os.environ)
    known = asked.settings if asked is not None else {**settings.from_variables(os.environ), **given}
    request = repair.request_of(known, environment.path)
    told = quiet if report is None else report
    if repair_damage:
        return repair.check_and_repair(request, asked, environment, told)
    return repair.check(request, environment, told)


for _function in (status, check):
    _function.__module__ = "envsync"
