"""SIGTERM ends a wait or a sync as Ctrl-C does: at once, cleaning up, and by the signal.

Schedulers send it before they kill. Python would die of it on the spot, and leave its name in the list of waiters.
Uses `_signal`, which is built in, since `signal` takes 3 ms to import.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def listen() -> None:
    """Turn SIGTERM into `Terminated`, unless the process was started with it ignored. exec undoes it (signal(7))."""
    if _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGTERM, _raise)


def die_of(error: KeyboardInterrupt) -> int:
    """End as the signal would have ended us, so that a shell stops its loop, too."""
    number = _signal.SIGTERM if isinstance(error, Terminated) else _signal.SIGINT
    _signal.signal(number, _signal.SIG_DFL)
    import os

    os.kill(os.getpid(), number)
    return 128 + int(number)


def _raise(number: int, _frame: object) -> NoReturn:
    _signal.signal(number, _signal.SIG_DFL)  # a second one does not wait for the cleaning up
    raise Terminated
