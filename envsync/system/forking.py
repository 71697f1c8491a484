"""Share numbered pieces of work with forked children, for work that the GIL would slow down.

Each process takes the next number from one pipe until none is left. A child that fails says at which, and the parent
does that one itself, so that what is wrong shows itself in the open; if a child was killed, the parent does again all
that it has not done itself. So every piece has to be one that may be done twice.

What does not fit into that, downloads say, starts children by the same rules (`start`).

Children inherit all descriptors, the environment lock among them: it is held until the last of them has ended,
whatever becomes of the parent. A process with other threads does not fork: their locks would stay locked in the child.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from envsync.system import forks, native

TELL_SECONDS = 0.25
_NUMBER_BYTES = 2
_PIPE_BYTES = 4096
"""What fits into a pipe everywhere that matters (Linux has 65,536)."""


def can_share(count: int) -> bool:
    """Tell whether this process may fork for so many pieces."""
    return native.CAN_FORK and threading.active_count() == 1 and 1 < count <= _PIPE_BYTES // _NUMBER_BYTES


def share(
    count: int,
    work: Callable[[int], None],
    *,
    children: int = 1,
    tell: Callable[[int | None], None] = lambda _: None,
) -> None:
    """Do the pieces 0 to count - 1, in order of being taken, in this process and its children.

    :param tell: called in this process alone: with each piece that was done here, and with None a few times a second
        while the children are waited for; what it raises ends the work
    :raises BaseException: what a piece raised; the children have ended by then
    """
    reading = pieces(range(count))
    failing, failed = os.pipe()
    native.set_nonblocking(failing)
    running: list[int] = []
    done: set[int] = set()

    def do(number: int) -> None:
        work(number)
        done.add(number)
        tell(number)

    def look() -> None:
        for number in _numbers(failing):  # a child could not do it: here, what is wrong shows itself
            do(number)

    all_well = True
    try:
        for _ in range(children):
            try:
                _fork(reading, failed, work, running)
            except OSError:
                break  # no more processes allowed, or no memory: then the work is done here
        for number in _numbers(reading):
            do(number)
            look()
        while running:
            all_well &= wait(running[-1], look, tell) == 0
            running.pop()
        look()
    finally:
        for child in running:  # something went wrong here
            try:
                os.kill(child, signal.SIGTERM)
            except ProcessLookupError:
                pass  # we were interrupted just after it was waited for
        for child in running:
            wait(child)
        for descriptor in (reading, failing, failed):
            os.close(descriptor)
    if not all_well:
        for number in sorted(set(range(count)) - done):
            do(number)


def pieces(numbers: Iterable[int]) -> int:
    """Return the reading end of a pipe that has these numbers, for all who `take` from it; as many as `can_share`."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(number.to_bytes(_NUMBER_BYTES, "big") for number in numbers))
    os.close(writing)
    return reading


def take(reading: int) -> int | None:
    """Take the next number; None if none is left."""
    data = os.read(reading, _NUMBER_BYTES)
    return int.from_bytes(data, "big") if data else None


def wait(
    child: int, look: Callable[[], None] | None = None, tell: Callable[[int | None], None] = lambda _: None
) -> int:
    """Wait for a child and return its status; 1 where nobody is told (SIGCHLD is ignored, as some daemons do)."""
    if sys.platform == "win32":
        return 1  # nobody forks there
    pause, told = 0.0002, time.monotonic()
    try:
        while look is not None:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            look()
            time.sleep(pause)
            pause = min(0.02, pause * 1.2)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                tell(None)
        return os.waitpid(child, 0)[1]
    except ChildProcessError:
        return 1


def _numbers(reading: int) -> Iterator[int]:
    try:
        while (number := take(reading)) is not None:
            yield number
    except BlockingIOError:
        pass  # there is none now


def start(body: Callable[[], int], end: Callable[[], object], running: list[int]) -> None:
    """Start a child that has all locks of this process, and add it to those that are running before anything can
    interrupt us.

    :param body: what the child does; it exits with what this returns, or 1 if this raises
    :param end: called in the child at SIGTERM, and at SIGINT and SIGHUP unless they are ignored; may raise
    :raises OSError: no more processes are allowed, there is no memory, or no fork
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # A signal that comes while the child is still being set up would be shown and forgotten (`os.register_at_fork`).
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    child = -1
    try:
        child = forks.fork()
        if child:
            running.append(child)
    finally:
        if child:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if child:
        return
    try:
        sys.unraisablehook = lambda _: None  # what `end` raises may come in a destructor, which would show it
        signal.signal(signal.SIGTERM, lambda *_: end())  # the parent sends it, even if nobody else is to be heeded
        for interrupt in ending[1:]:
            if signal.getsignal(interrupt) != signal.SIG_IGN:
                signal.signal(interrupt, lambda *_: end())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os._exit(body())
    finally:
        os._exit(1)


def _fork(reading: int, failed: int, work: Callable[[int], None], running: list[int]) -> None:
    """Start a child that takes pieces until none is left."""
    handled, ending = sys.exception(), False

    def end() -> None:
        """Have what was begun cleaned up, unless that is what is being done: on a full disk, all fail at once."""
        nonlocal ending
        ending = True
        if sys.exception() is handled:
            raise KeyboardInterrupt

    def body() -> int:
        for number in _numbers(reading):
            try:
                work(number)
            except Exception:  # noqa: BLE001  # the parent meets it, too
                os.write(failed, number.to_bytes(_NUMBER_BYTES, "big"))
                break
            if ending:
                break
        return int(ending)

    start(body, end, running)
