"""A program cancels the task that waits for a thread in which `envsync.sync` runs: that keeps nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from anyio import to_thread

import envsync
from envsync.locks import flock
from tests.environments import FIXTURES
from tests.unit.fetching.server import File, serving
from tests.unit.library.program import write_lock
from tests.wheels import build_wheel

LOCK = FIXTURES / "pylock.toml"


@contextmanager
def somebody_else(env: Path) -> Iterator[Callable[[], Any]]:
    """Hold the environment's lock; lend a sync that has to wait for it."""
    env.mkdir()
    lock = flock.acquire_nowait(str(env / ".lock"), shared=False)
    assert lock is not None
    yield lambda: envsync.sync(LOCK, env=env)
    lock.release()


@contextmanager
def silent_server(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Serve half of a wheel; lend a sync that has to wait for the rest."""
    wheel = build_wheel(tmp_path, files={"demo/x": b"x" * 200_000})
    with serving() as server:
        server.files[f"/{Path(wheel).name}"] = File(Path(wheel).read_bytes(), hold=threading.Event())
        lock = write_lock(tmp_path / "pylock.toml", [wheel], url=server.url)
        yield lambda: envsync.sync(lock, env=tmp_path / "env", cache_dir=tmp_path / "cache")


@pytest.fixture(params=["waits", "downloads"])
def blocked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """A sync that does not end by itself."""
    kinds = {"waits": lambda: somebody_else(tmp_path / "env"), "downloads": lambda: silent_server(tmp_path)}
    with kinds[request.param]() as sync:
        yield sync


class Running:
    """Calls a function, and tells when it begins and ends."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        try:
            self.function()
        finally:
            self.ended.set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("abandon", [True, False])
def test_anyio(blocked: Callable[[], Any], backend: str, abandon: bool) -> None:
    """With `anyio.to_thread`, whether it waits for the thread or abandons it."""
    running = Running(blocked)

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: to_thread.run_sync(running, abandon_on_cancel=abandon))
            await to_thread.run_sync(running.begun.wait, 60)
            group.cancel_scope.cancel()

    anyio.run(program, backend=backend)
    assert running.ended.wait(60)


def test_trio(blocked: Callable[[], Any]) -> None:
    """With Trio's own threads."""
    running = Running(blocked)

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, running)
            await trio.to_thread.run_sync(running.begun.wait, 60)
            nursery.cancel_scope.cancel()

    trio.run(program)
    assert running.ended.is_set()


@pytest.mark.parametrize("pool", ["own", "default"])
def test_asyncio(blocked: Callable[[], Any], pool: str) -> None:
    """With `asyncio.to_thread`, and with a pool of the program's: the end of the loop does not wait for the sync."""
    running = Running(blocked)

    async def program() -> None:
        with ThreadPoolExecutor(1) as executor:
            chosen = executor if pool == "own" else None
            task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(chosen, running))
            await asyncio.to_thread(running.begun.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(program())
    assert running.ended.is_set()


def test_a_pool_that_is_shut_down_is_waited_for(tmp_path: Path) -> None:
    """Leaving `with ThreadPoolExecutor()` is no cancelling: what was submitted is done."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(envsync.sync, LOCK, env=tmp_path / "env")
    assert future.result().outcome == "synced"


def test_ctrl_c_in_asyncio(tmp_path: Path) -> None:
    """One SIGINT ends a program whose task waits for `asyncio.to_thread`."""
    with somebody_else(tmp_path / "env"):
        code = (
            "import asyncio, sys, envsync\n"
            "def sync():\n"
            "    print('up', flush=True)\n"
            f"    envsync.sync({str(LOCK)!r}, env={str(tmp_path / 'env')!r})\n"
            "asyncio.run(asyncio.to_thread(sync))\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(2)
            assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
