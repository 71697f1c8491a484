"""SIGTERM and SIGHUP end a wait or a sync as Ctrl-C does: at once, cleaning up, and by the signal.

Schedulers send SIGTERM before they kill, and a terminal that goes away sends SIGHUP. Python would die of them on the
spot, and leave its name in the list of waiters. What was ignored at the start stays ignored (`nohup`).

A handler raises wherever the main thread happens to be. So nothing that loses exceptions may run there: an event loop
runs in a thread of its own (`envsync.cache.fetch`). What is raised within a destructor is shown and forgotten, whatever
one does; therefore who waits for long asks again (`heed`).

Uses `_signal`, which is built in, since `signal` takes 3 ms to import.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_came = 0
"""The signal that has come, if one has."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came."""


def listen() -> None:
    """Turn signals into `Terminated`, unless the process was started with them ignored. exec undoes it (signal(7))."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) == _signal.SIG_DFL:
            _signal.signal(number, _raise)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _raise)


def heed() -> None:
    """Raise again what a destructor may have swallowed."""
    if _came:
        _end(_came)


def die_of(error: KeyboardInterrupt) -> int:
    """End as the signal would have ended us, so that a shell stops its loop, too."""
    number = _signal.SIGINT
    if isinstance(error, Terminated):
        number = _came or _signal.SIGTERM
    _signal.signal(number, _signal.SIG_DFL)
    import os

    os.kill(os.getpid(), number)
    return 128 + int(number)


def _raise(number: int, _frame: object) -> NoReturn:
    global _came  # noqa: PLW0603  # a process has one set of handlers
    _came = number
    _signal.signal(number, _signal.SIG_DFL)  # a second one does not wait for the cleaning up
    _end(number)


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == _signal.SIGINT else Terminated
