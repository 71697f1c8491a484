"""Whose cancelling counts: that of a task of an event loop, by asyncio's own way of telling it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from envsync.waiting.cancelling import checkpoint


@contextmanager
def checked_in_pool(call_back: Callable[[Any], Any]) -> Iterator[None]:
    """Ask in a thread of a pool whose future calls back so; the block runs when it has answered."""
    begin = threading.Event()

    def check() -> None:
        begin.wait(60)
        checkpoint()()

    with ThreadPoolExecutor() as pool:
        future = pool.submit(check)
        future.add_done_callback(call_back)
        begin.set()
        future.result()
        yield


def test_what_a_program_calls_back_says_nothing() -> None:
    """It may know a future that was cancelled, for whatever reason."""
    loop = asyncio.new_event_loop()
    other: asyncio.Future[None] = loop.create_future()
    other.cancel()
    with checked_in_pool(lambda _: other.cancelled()):
        loop.close()


def test_what_a_program_calls_back_may_be_unfinished() -> None:
    """A closure over what is assigned later has an empty cell until then."""
    assigned = threading.Event()
    with checked_in_pool(lambda _: assigned.wait(60) and later):
        later = True
        assigned.set()
