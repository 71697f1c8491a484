"""What Windows refuses: one table of its error codes, and how long to insist where it may change its mind.

Windows opens no file that somebody has opened without sharing it, and renames and removes none: virus scanners,
indexers and backups open files for a moment, others for longer. All of that comes as PermissionError, errno EACCES;
only `winerror` says what it was. Other systems' errors have no such code, and pass here untouched.
"""

from __future__ import annotations

import errno
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION = 5, 32, 33
NOT_EMPTY, USER_MAPPED = 145, 1224

HELD = frozenset({SHARING_VIOLATION, LOCK_VIOLATION})
"""The codes of who meets a lock. To somebody who tries a lock they are an answer, not a failure."""
IN_USE = frozenset({SHARING_VIOLATION, LOCK_VIOLATION, USER_MAPPED})
"""Those that say that somebody has the file open, or mapped."""
PASSING = IN_USE | {ACCESS_DENIED, NOT_EMPTY}
"""Those that may pass. Access is denied to a running program and to a name that is about to go, too, and a directory
is not empty while such a name is in it. Final: 183 (it exists), 206 (too long), 1314 (no privilege), 50, 123, ..."""
SECONDS = 10.0
"""For how long it is tried again."""
LEAST_SECONDS, MOST_SECONDS = 0.01, 1.0
"""Between two tries: twice as long each time."""


def code(error: BaseException) -> int:
    """Return Windows' code of an error; 0 if it has none."""
    found = getattr(error, "winerror", None)
    return found if isinstance(found, int) else 0


def is_held(error: BaseException) -> bool:
    """Tell whether it says that somebody has a lock."""
    return code(error) in HELD


def passes(error: BaseException) -> bool:
    """Tell whether the same may go well in a moment."""
    return code(error) in PASSING


def final(error: OSError, who: Sequence[str] = ()) -> OSError:
    """Return the error to raise for what did not pass: it names the file, and who has it open as far as is known.

    What is in use is EBUSY then, as on other systems: not a matter of permissions.
    """
    text = f"{error.strerror or error}"
    if who:
        text += f": {', '.join(who)} {'has' if len(who) == 1 else 'have'} it open"
    number = errno.EBUSY if code(error) in IN_USE else error.errno
    return OSError(number, text, error.filename, None, error.filename2)


def patiently(
    call: Callable[P, T],
    *arguments: P.args,
    **keywords: P.kwargs,
) -> T:
    """Call a function that renames, removes or opens something, again for a while if Windows refuses what may pass.

    :raises OSError: as `final`
    """
    return for_seconds(SECONDS, call, *arguments, **keywords)


def for_seconds(
    seconds: float,
    call: Callable[P, T],
    *arguments: P.args,
    **keywords: P.kwargs,
) -> T:
    """Do the same as `patiently`, for so long. Less than `SECONDS`: who is in the way is not asked for."""
    waited, pause = 0.0, LEAST_SECONDS
    while True:
        try:
            return call(*arguments, **keywords)
        except OSError as error:
            if not passes(error):
                raise
            if waited >= seconds:
                raise final(error, holders(error) if seconds >= SECONDS else ()) from error
        time.sleep(pause)
        waited += pause
        pause = min(MOST_SECONDS, 2 * pause)


if sys.platform == "win32":

    def holders(error: OSError) -> Sequence[str]:
        """Name who has the files open that an error is about, as far as anybody knows."""
        from envsync.system import windows_holders

        return windows_holders.holders([name for name in (error.filename, error.filename2) if isinstance(name, str)])

else:

    def holders(error: OSError) -> Sequence[str]:  # noqa: ARG001  # who has files open is in nobody's way
        """Name nobody."""
        return ()
