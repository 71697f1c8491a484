"""Plain lines on stderr, for the paths that cannot afford a library. Imports no library."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import os
else:
    import posix as os

from envsync.redact import redacted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.errors import EnvsyncError


def say(text: str) -> None:
    """Write one line to stderr, without secrets, in one write, so that the lines of many processes do not mix."""
    data = f"envsync: {redacted(text)}\n".encode("utf-8", "backslashreplace")
    try:
        os.write(2, data)
    except OSError:
        pass  # stderr is closed: there is nobody to tell, and the command matters more


def say_error(error: EnvsyncError) -> None:
    """Say what failed, then the hint on a line of its own."""
    text = f"error: {error.message}"
    if error.hint:
        text += f"\nhint: {error.hint}"
    say(text)
