"""What the command line says of an error that nobody has expected: one line and status 125, never a traceback.

A traceback helps nobody at three in the morning, and Python's own status for it, 1, is the command's under `run`.
`ENVSYNC_DEBUG=1` shows it all the same, for whoever reports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from envsync.cli.tell import tell
from envsync.errors import EnvsyncError
from envsync.errors.redact import redacted
from envsync.launch.signals import die_of
from envsync.system import core

DEBUG = "ENVSYNC_DEBUG"
SHOWN = 200
"""Characters of what an error says of itself."""


class UnexpectedError(EnvsyncError):
    """An error that envsync should have known: a fault of its own, or of its installation."""


def last(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what went wrong. Returns the exit status.

    :param arguments: the command line
    """
    errors = list(_leaves(error))
    for one in errors:
        if isinstance(one, KeyboardInterrupt):
            return die_of(one)
    known = next((one for one in errors if isinstance(one, EnvsyncError)), None)
    if known is None and os.environ.get(DEBUG, "") not in ("", "0"):
        import traceback

        print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    try:
        return tell(known or unexpected(errors[0]), arguments)
    except OSError:  # nobody listens
        return EnvsyncError.exit_code


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that a group is of, or the one."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def unexpected(error: BaseException) -> EnvsyncError:
    """Build the error for one that nobody has expected."""
    if isinstance(error, FileNotFoundError) and not _is_somewhere():
        hint = "go to one that is there: `cd /`"
        return UnexpectedError(
            "the working directory was removed, and what is named from there is not found", hint=hint
        )
    said = "".join(c if c.isprintable() else " " for c in redacted(str(error)))
    said = said if len(said) <= SHOWN else said[: SHOWN - 3] + "..."
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, ImportError):
        return UnexpectedError(
            f"envsync is not installed as a whole ({what})",
            hint="install it again: `pip install --force-reinstall envsync`",
        )
    if isinstance(error, MemoryError):
        hint = "allow more memory: `ulimit -v` says how much this shell may have, in kB"
        return UnexpectedError(f"there was not enough memory ({what})", hint=hint)
    return UnexpectedError(f"a fault of envsync: {what}", hint=f"see where with `export {DEBUG}=1`, and report that")


def _is_somewhere() -> bool:
    """Tell whether the working directory is still there."""
    try:
        core.getcwd()
    except OSError:
        return False
    return True
