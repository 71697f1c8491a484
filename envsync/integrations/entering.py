"""What tox and nox have in common: an environment from the words of `envsync sync`, shown as that shows it, and held.

What is to be said goes to standard error, as from the command line: who is waited for, how far a sync is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from envsync.cli.display import Display
from envsync.errors import UsageError
from envsync.errors.hints import HELP
from envsync.launch import options, request
from envsync.library import blocking, syncing


def enter(
    words: Sequence[str], *, project: str, env: str, python: str = "", check: Callable[[], None] | None = None
) -> blocking.Hold:
    """Make an environment current, and hold it until the hold is released or the process ends.

    :param words: options of `envsync sync`, as on a command line
    :param project: the directory where the lock file is looked for if the words name none, absolute
    :param env: the environment, absolute, if the words name none
    :param python: the Python to make it with, if the words name none; empty: as `envsync sync` chooses
    :param check: called now and then, in this thread; what it raises ends a wait or a sync
    :raises EnvsyncError: as `envsync.sync`
    """
    given: options.Settings = {"project": project, "env": env}
    if python:
        given["python"] = python
    asked = request.resolve({**given, **_settings(words)}, os.environ)
    hold = None
    while hold is None:  # somebody else's turn came in between
        with Display(asked) as display:
            result = syncing.run(asked, report=display, check=check)
            display.conclude(result)
        hold = blocking.enter(asked, result)
    return hold


def _settings(words: Sequence[str]) -> options.Settings:
    """Read words as `envsync sync` does.

    :raises UsageError: they are no options of it
    """
    parsed = options.parse(words, options.PREPARE)
    if parsed is None or parsed[1]:
        raise UsageError(f"these are not options of `envsync sync` alone: {' '.join(words)}", hint=HELP)
    return parsed[0]
