"""All that is printed: plain lines on stderr, and what was asked for on stdout; neither with secrets.

For the paths that cannot afford a library, so none is imported.
"""

from __future__ import annotations

import sys

from envsync.errors.redact import everything_redacted, redacted
from envsync.system import core

os = core.os

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


def show(line: str) -> None:
    """Print one line of what was asked for. It may hold names of files that are no text at all."""
    encoding = sys.stdout.encoding or "utf-8"
    print(redacted(line).encode(encoding, "backslashreplace").decode(encoding))


def show_json(value: object) -> None:
    """Print plain data as one JSON value on one line."""
    import json

    print(json.dumps(everything_redacted(value)))
