"""Take a hold in a thread, for a task of an event loop that may be cancelled meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from anyio import to_thread

from envsync.library import blocking

if TYPE_CHECKING:
    from anyio import CapacityLimiter

    from envsync.launch.request import Request
    from envsync.leading.result import SyncResult
    from envsync.library.blocking import Hold


async def enter(asked: Request, result: SyncResult, limiter: CapacityLimiter | None = None) -> Hold | None:
    """Take a hold on an environment that has just been made current; None if it is not any more.

    asyncio's own `Task.cancel` does not wait for the thread: what it takes after that is given back.
    """
    mutex = threading.Lock()
    taken: list[Hold] = []
    abandoned = False

    def take() -> Hold | None:
        hold = blocking.enter(asked, result)
        with mutex:
            if hold is not None:
                taken.append(hold)
                if abandoned:
                    hold.release()
        return hold

    try:
        return await to_thread.run_sync(take, limiter=limiter)
    except BaseException:
        with mutex:
            abandoned = True
            for hold in taken:
                hold.release()
        raise
