"""What a command that only looks is asked about, with or without a lock file, and how it answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from envsync.cli.tell import completed_by
from envsync.errors import LockFileError, UsageError
from envsync.launch import Environment, finding, options, request
from envsync.launch.messages import show
from envsync.library import meant


def environment_meant(settings: options.Settings) -> tuple[Environment, request.Request | None]:
    """Find out which environment is meant, and what for; without a lock file, that is `--env` and nothing else."""
    finding.go_to(settings, os.environ)
    return meant.environment_meant(settings, os.environ)


def request_meant(settings: options.Settings) -> request.Request:
    """Return the request that is meant; without a lock file, one that stands for none."""
    finding.go_to(settings, os.environ)
    try:
        return request.resolve(settings, os.environ)
    except (UsageError, LockFileError):
        if "lock" in settings:
            raise
    known = {**options.from_variables(os.environ), **settings}
    env = known.get("env")
    return request.Request(known, "", "", env.rstrip("/") or "/" if isinstance(env, str) else ".venv")


def answer(lines: Iterable[str], settings: options.Settings, table: Sequence[options.Option]) -> None:
    """Print lines; what they hint at gets the options of this command line."""
    for line in lines:
        show(completed_by(line, settings, table))
