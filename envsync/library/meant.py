"""Which environment is meant, by who only looks: with or without a lock file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from envsync.errors import LockFileError, UsageError
from envsync.launch import Environment, configuration, fast_lane, request
from envsync.library.reach import named_by_digest

if TYPE_CHECKING:
    from envsync.launch.options import Settings


def environment_meant(given: Settings, environ: Mapping[str, str]) -> tuple[Environment, request.Request | None]:
    """Return the environment, and what it is to be current for; without a lock file, that is `env` and nothing else.

    :raises EnvsyncError: it makes no sense, or a lock file that is named cannot be read
    """
    try:
        asked = request.resolve(given, environ)
    except (UsageError, LockFileError):
        env = given.get("env") or environ.get("ENVSYNC_ENV")
        if "lock" in given or not isinstance(env, str) or request.is_named_later(env) or not env.strip("/"):
            raise
        path = configuration.filled({"env": env}, environ)["env"]
        return Environment(str(path).rstrip("/")), None
    return fast_lane.environment_of(asked) or named_by_digest(asked), asked
