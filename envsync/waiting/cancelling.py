"""Has the task been cancelled for which this thread syncs? Then the sync ends, and keeps nobody.

A program with an event loop calls `envsync.sync` in a thread, as `anyio.to_thread.run_sync` and `asyncio.to_thread` do.
If the task that waits for the thread is cancelled, the thread goes on: anyio and Trio wait for it, and asyncio does so
when its loop ends. So it has to ask. anyio and Trio answer. asyncio does not: its future is found by way of the pool's,
which calls it back when the work is done; where that is kept otherwise than CPython does, nobody is known to be gone.

Only cancelling counts. That a pool is shut down, or that the main thread has ended, says nothing: programs do so, and
wait for what goes on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from envsync.errors import SyncCancelledError
from envsync.launch.progress import Report

UNSTOPPABLE = frozenset({"committing", "recovering"})
"""Phases in which the environment is being changed."""


def checkpoint() -> Callable[[], None]:
    """Make a function for this thread that raises if whoever waits for the thread was cancelled.

    It raises what the event loop's library cancels with, or SyncCancelledError. In another thread, of those that work
    for this one, it does nothing: they cannot ask.
    """
    thread = threading.get_ident()
    future = _pool_future()
    asked = [ask for name in ("anyio", "trio") if (ask := _questions(name)) is not None]

    def check() -> None:
        if threading.get_ident() != thread:
            return
        for ask in asked:
            ask()
        if future is not None and any(map(_is_cancelled, future._done_callbacks)):
            raise SyncCancelledError("the task that waited for this sync was cancelled")

    return check


def heeding(report: Report, check: Callable[[], None]) -> Report:
    """Make a report that ends the sync as `check` says, but for the moments in which the environment is changed."""

    def heeding(phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        if phase not in UNSTOPPABLE:
            check()
        report(phase, done, total, bytes_done, bytes_total)

    if hasattr(report, "detail"):
        heeding.detail = report.detail  # type: ignore[attr-defined]
    return heeding


def _questions(name: str) -> Callable[[], None] | None:
    """Return how to ask a library, if this thread is one of its threads. Others may just be importing it."""
    if f"{name}.to_thread" not in sys.modules:
        return None
    try:
        ask: Callable[[], None] = import_module(f"{name}.from_thread").check_cancelled
        ask()
    except (RuntimeError, ImportError, KeyError, AttributeError):
        return None  # it is none of its threads, where all has been imported
    return ask


def _pool_future() -> Any:
    """Return the future of the thread pool's work item that this thread is doing; None if it does none."""
    pool: Any = sys.modules.get("concurrent.futures.thread")
    item: Any = getattr(pool, "_WorkItem", None)
    frame = None if item is None else sys._getframe()
    while frame is not None:
        if frame.f_code is item.run.__code__:
            return getattr(frame.f_locals.get("self"), "future", None)
        frame = frame.f_back
    return None


def _is_cancelled(callback: Any) -> bool:
    """Tell whether it is asyncio's own callback of a pool's future, and would tell one that was cancelled.

    What a program calls back itself says nothing: it may know futures of whatever else.
    """
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or getattr(callback, "__module__", "") != "asyncio.futures":
        return False
    told = (cell.cell_contents for cell in getattr(callback, "__closure__", None) or ())
    return any(isinstance(each, asyncio.Future) and each.cancelled() for each in told)
