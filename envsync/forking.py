"""Share numbered pieces of work with forked children, for work that the GIL would slow down.

Each process takes the next number from one pipe until none is left. A child that fails says nothing: all that was
not done in the parent is then done again there, so that what is wrong shows itself in the open, and a child that was
killed costs nothing but time. So every piece has to be one that may be done twice.

Children inherit all descriptors, the environment lock among them: it is held until the last of them has ended,
whatever becomes of the parent. A process with other threads does not fork: their locks would stay locked in the child.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

_NUMBER_BYTES = 2
_PIPE_BYTES = 4096
"""What fits into a pipe everywhere that matters (Linux has 65,536)."""


def can_share(count: int) -> bool:
    """Tell whether this process may fork for so many pieces."""
    return hasattr(os, "fork") and threading.active_count() == 1 and 1 < count <= _PIPE_BYTES // _NUMBER_BYTES


def share(count: int, work: Callable[[int], None], *, children: int = 1) -> None:
    """Do the pieces 0 to count - 1, in order of being taken, in this process and its children.

    :raises BaseException: what a piece raised; the children have ended by then
    """
    reading, writing = os.pipe()
    os.write(writing, b"".join(number.to_bytes(_NUMBER_BYTES, "big") for number in range(count)))
    os.close(writing)
    running: list[int] = []
    done: set[int] = set()
    failed = False
    try:
        for _ in range(children):
            try:
                running.append(_fork(reading, work))
            except OSError:
                break  # no more processes allowed, or no memory: then the work is done here
        for number in _numbers(reading):
            work(number)
            done.add(number)
        while running:
            failed |= _wait(running[-1]) != 0
            running.pop()
    finally:
        for child in running:  # something went wrong here
            os.kill(child, signal.SIGTERM)
        for child in running:
            _wait(child)
        os.close(reading)
    if failed:
        for number in sorted(set(range(count)) - done):
            work(number)


def _wait(child: int) -> int:
    """Wait for a child and return its status; 1 where nobody is told (SIGCHLD is ignored, as some daemons do)."""
    try:
        return os.waitpid(child, 0)[1]
    except ChildProcessError:
        return 1


def _numbers(reading: int) -> Iterator[int]:
    while data := os.read(reading, _NUMBER_BYTES):
        yield int.from_bytes(data, "big")


def _fork(reading: int, work: Callable[[int], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is cleaned up
        for number in _numbers(reading):
            work(number)
        os._exit(0)
    finally:
        os._exit(1)
