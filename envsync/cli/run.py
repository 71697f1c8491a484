"""`run` when the fast lane did not know: have the environment made current, then become the command.

Still without `site` and libraries: they are loaded by whoever leads, and by nobody else.
"""

from __future__ import annotations

from envsync.launch import fast_lane
from envsync.launch.libraries import load_site
from envsync.launch.messages import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from envsync.launch import Environment
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.leading.lead import Led
    from envsync.library.reach import Show

PYTHONPATH = (
    "PYTHONPATH is set and kept: modules it names come before those of the environment; --isolated leaves it out"
)


def run(
    request: Request,
    environment: Environment | None,
    words: Sequence[str],
    environ: Mapping[str, str],
    *,
    distrust: bool = False,
) -> NoReturn:
    """Make the environment current and become the command.

    :param environment: None if its name takes facts that only a leader's imports can give
    :param distrust: the stamp fits, and yet the command does not run
    :raises EnvsyncError: it could not be made current, or the command could not be executed
    """
    if environ.get("PYTHONPATH") and not request.flag("quiet") and not request.flag("isolated"):
        say(PYTHONPATH)
    from envsync.launch import signals
    from envsync.library.reach import named_by_digest, reach
    from envsync.waiting.failures import Arrival

    if request.flag("no_sync"):
        load_site()
        from envsync.leading.read_only import as_it_is

        found = as_it_is(environment or named_by_digest(request))
        fast_lane.become(found, words, environ, certain=True, isolated=request.flag("isolated"))
    arrival = Arrival(whole_process=True)
    entry = reach(
        request,
        environment,
        launching=True,
        show=shown(request),
        distrust=distrust,
        arrival=arrival,
        check=signals.heed,
    )
    assert isinstance(entry, fast_lane.Entry)
    signals.heed()
    fast_lane.become(entry, words, environ, certain=True, isolated=request.flag("isolated"))
    raise AssertionError("unreachable")


def shown(request: Request) -> Show:
    """Return what shows on stderr how far a sync of ours is."""

    def show(lead: Callable[[Report], Led | None]) -> Led | None:
        from envsync.cli.display import Display

        with Display(request) as display:
            led = lead(display)
            if led is not None:
                display.conclude(led[0])
            return led

    return show
