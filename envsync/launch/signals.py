"""SIGTERM and SIGHUP end a wait or a sync as Ctrl-C does: at once, cleaning up, and by the signal.

Schedulers send SIGTERM before they kill, and a terminal that goes away sends SIGHUP. Python would die of them on the
spot, and leave its name in the list of waiters. What was ignored at the start stays ignored (`nohup`).

Only the first signal raises. A second one, of whatever kind, ends the process on the spot: two often come at once (a
terminal and a wrapper that hands on, say), and what the second raised would come out of the handling of the first. A
process that ends so leaves what one that was killed leaves. A signal is never given back to Python's default while
it may have come already: Python would show that it lost it.

A handler raises wherever the main thread happens to be. So nothing that loses exceptions may run there: downloads have
threads of their own (`envsync.fetching.crew`). What is raised within a destructor is shown and forgotten,
whatever one does; therefore who waits for long asks again (`heed`).

Uses `_signal`, which is built in, since `signal` takes 3 ms to import.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_came = 0
"""The signal that has come, if one has."""
_NAMES = ("SIGTERM", "SIGHUP", "SIGINT")


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came."""


def listen() -> None:
    """Turn signals into `Terminated`, unless the process was started with them ignored. exec undoes it (signal(7))."""
    for name in _NAMES:
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) in (_signal.SIG_DFL, _signal.default_int_handler):
            _signal.signal(number, _raise)


def heed() -> None:
    """Raise again what a destructor may have swallowed."""
    if _came:
        _end(_came)


def end_if_one_came() -> None:
    """End of a signal that came, whatever has become of what it raised: something else was raised on its way, say."""
    if _came:
        _die(_came)


def die_of(error: KeyboardInterrupt) -> int:
    """End as the signal would have ended us, so that a shell stops its loop, too."""
    number = _signal.SIGINT
    if isinstance(error, Terminated):
        number = _came or _signal.SIGTERM
    return _die(number)


def _die(number: int) -> int:
    """End by a signal. Returns the status to end with where the kernel keeps it from us: pid 1, or a blocked one."""
    import os

    sys.unraisablehook = _show_nothing
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + int(number)


def _show_nothing(_: Any) -> None:
    """Take in that Python has lost what a signal raised, in a destructor say: it is heeded all the same."""


def _raise(number: int, _frame: object) -> None:
    global _came  # noqa: PLW0603  # a process has one set of handlers
    if _came:  # a second one does not wait for the cleaning up
        import os

        os._exit(_die(number))
    _came = number
    sys.unraisablehook = _show_nothing
    _end(number)


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == _signal.SIGINT else Terminated
