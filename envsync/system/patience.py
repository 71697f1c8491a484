"""Try again for a while what a network filesystem refuses for a moment.

Where one client has just renamed a file over another, a second one's open says ESTALE for up to a second or so (NFS,
Gluster), or ENOENT; and EEXIST where two have created it at once (MooseFS). Neither says that anything is wrong. So
whatever reads an input, a state file or a file of the store asks again before it believes it; a filesystem on which
that does not pass answers after a while as it did at once.

Is not imported until something was refused where a launch would have to import it.
"""

from __future__ import annotations

import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

STALE = frozenset({errno.ESTALE})
READING = frozenset({errno.ESTALE, errno.EEXIST})
SECONDS = 2.0
"""For how long it is tried again."""
LEAST_SECONDS, MOST_SECONDS = 0.01, 0.2
"""Between two tries."""


def patiently(call: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Call a function until it raises something else than ESTALE, itself or as the cause of an error of ours.

    It may be called more than once, so what it has done by then has to be of no account.
    """
    return _insist(lambda: call(*arguments, **keywords), STALE)


def reading(call: Callable[[str], T], path: str) -> T:
    """Call a function that reads or looks at a file, which may as well be missing."""
    return _insist(lambda: call(path), READING)


def reading_what_is_there(call: Callable[[str], T], path: str) -> T:
    """Call a function that reads a file that ought to be there: somebody has named it. Else other hosts replace it."""
    try:
        return reading(call, path)
    except FileNotFoundError:
        from envsync.system.mounts import is_network

        if not is_network(path.rpartition("/")[0] or "/" * path.startswith("/") or "."):
            raise
    return _insist(lambda: call(path), READING | {errno.ENOENT})


def _insist(call: Callable[[], T], passing: Collection[int]) -> T:
    waited, pause = 0.0, LEAST_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            if waited >= SECONDS or not (_number(error) in passing or _is_refused_for_a_moment(error)):
                raise
        time.sleep(pause)
        waited += pause
        pause = min(MOST_SECONDS, 2 * pause)


def _is_refused_for_a_moment(error: BaseException) -> bool:
    """Tell whether Windows has refused it since somebody else has the file open, or is about to remove it."""
    from envsync.system import refusals

    return any(each is not None and refusals.passes(each) for each in (error, error.__cause__))


def _number(error: BaseException) -> int | None:
    """Return the system's number for an error, or for what it was made of."""
    for each in (error, error.__cause__):
        number = getattr(each, "errno", None)
        if isinstance(number, int):
            return number
    return None
