"""What libraries say of a file, by `logging` or `warnings`: said as all else is, with the file's name.

Only the command line listens. In a program that uses the library, that program decides what is done with both.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from envsync.launch.messages import say

_subject = threading.local()
_listening = False


def listen() -> None:
    """Say what libraries say, from now on, in this process."""
    import warnings

    global _listening  # noqa: PLW0603
    _listening = True
    warnings.showwarning = lambda message, *_, **__: _tell(str(message))


def attach() -> None:
    """Say what is logged, too, where somebody listens. For those who import what imports `logging` in any case."""
    if not _listening:
        return
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _tell(record.getMessage())

    logging.lastResort = Handler(logging.WARNING)


@contextmanager
def about(what: str) -> Iterator[None]:
    """Name what this thread reads while the block runs."""
    attach()
    before = getattr(_subject, "what", "")
    _subject.what = what
    try:
        yield
    finally:
        _subject.what = before


def _tell(text: str) -> None:
    what = getattr(_subject, "what", "")
    say(f"warning: {f'`{what}`: ' if what else ''}{' '.join(text.split())}")
