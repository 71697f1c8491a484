"""`sync_async`: one flight for all event loops of a process, which ends with its last caller and with no loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

import envsync
from envsync.leading.reconcile import Reconciler
from envsync.library import detached
from tests.environments import unverified
from tests.unit.library.program import LOCK, NEXT, SECONDS, Gate, is_free, left_over, sync_in_thread, told, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    yield
    assert detached._all.going == {}
    for thread in threading.enumerate():
        if thread.name.startswith("envsync"):
            thread.join(SECONDS)
            assert not thread.is_alive()


def callers() -> int:
    return sum(len(flight.callers) for flight in detached._all.going.values())


async def call(env: Path, lock: Path = NEXT, results: list[envsync.SyncResult] | None = None) -> None:
    result = await envsync.sync_async(lock, env=env)
    if results is not None:
        results.append(result)


async def test_many_calls_share_one_sync(tmp_path: Path, log: Path) -> None:
    """It is synced once, and all get the same."""
    results: list[envsync.SyncResult] = []
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call, tmp_path / "env", LOCK, results)
    assert len(results) == 50
    assert {result.env for result in results} == {str(tmp_path / "env")}
    assert told(log).count("synced") == 1
    assert unverified(tmp_path / "env") == []


async def test_all_who_share_a_sync_get_its_error(tmp_path: Path) -> None:
    """And it is no group of errors."""
    caught: list[Exception] = []
    lock = tmp_path / "pylock.toml"
    lock.write_text("lock-version = '9.0'\n")

    async def fail() -> None:
        with pytest.raises(envsync.EnvsyncError) as info:
            await envsync.sync_async(lock, env=tmp_path / "env")
        caught.append(info.value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(fail)
    assert len(caught) == 3


async def test_one_who_is_cancelled_leaves_it_to_the_others(tmp_path: Path, seeking: Gate, log: Path) -> None:
    """The first caller, who started it, may be that one."""
    results: list[envsync.SyncResult] = []
    async with anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def cancelled() -> None:
            with first:
                await call(tmp_path / "env")

        group.start_soon(cancelled)
        await until(lambda: callers() == 1)
        group.start_soon(call, tmp_path / "env", NEXT, results)
        await until(lambda: callers() == 2)
        first.cancel()
        await until(lambda: callers() == 1)
        await seeking.reach()
        seeking.open()
    assert [result.outcome for result in results] == ["synced"]
    assert told(log).count("started") == 1


async def test_the_last_one_ends_it_before_the_commit(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there stays, the locks are free, and who asks then starts anew."""
    env = tmp_path / "env"
    await sync_in_thread(LOCK, env)
    monkeypatch.setattr(Reconciler, "_stage", gate.before(Reconciler._stage))
    async with anyio.create_task_group() as group:
        group.start_soon(call, env)
        group.start_soon(call, env)
        await gate.reach()
        await until(lambda: callers() == 2)
        group.cancel_scope.cancel()
    assert detached._all.going == {}
    gate.open()
    await until(lambda: is_free(env / ".lock") and left_over(env) == [])
    assert (await sync_in_thread(LOCK, env)).outcome == "current"
    assert (await envsync.sync_async(NEXT, env=env)).outcome == "synced"


def test_a_loop_that_closes_leaves_it_to_another(tmp_path: Path, seeking: Gate, log: Path) -> None:
    """The loop that began the sync is gone before it ends; one in another thread gets it."""
    env = tmp_path / "env"
    results: list[envsync.SyncResult] = []
    other = threading.Thread(target=lambda: anyio.run(call, env, NEXT, results))

    async def begin() -> None:
        task = asyncio.create_task(call(env))
        await until(lambda: callers() == 1)
        other.start()
        await until(lambda: callers() == 2)
        task.cancel()

    asyncio.run(begin())
    assert callers() == 1
    seeking.open()
    other.join(SECONDS)
    assert [result.outcome for result in results] == ["synced"]
    assert told(log).count("started") == 1


def test_a_loop_that_is_gone_keeps_nobody_waiting(
    tmp_path: Path, seeking: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was closed without a word to its tasks, as a notebook's may be: others are told all the same."""
    env = tmp_path / "env"
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    loop = asyncio.new_event_loop()
    task = loop.create_task(call(env))
    loop.run_until_complete(until(lambda: callers() == 1))
    other = threading.Thread(target=anyio.run, args=(call, env))
    other.start()
    loop.run_until_complete(until(lambda: callers() == 2))
    loop.close()
    seeking.open()
    other.join(SECONDS)
    assert not other.is_alive()
    del task


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_starts_anew(tmp_path: Path) -> None:
    """It has none of the threads of its parent, and waits for none of them."""
    program = (
        "import anyio, os, sys, threading, envsync\n"
        "from envsync.library import detached\n"
        "from envsync.leading.goal import Seeker\n"
        "seek, opened = Seeker.seek, threading.Event()\n"
        "def held(*given):\n"
        "    opened.wait(30)\n"
        "    return seek(*given)\n"
        "Seeker.seek = held\n"
        "async def call(): return await envsync.sync_async(sys.argv[1], env=sys.argv[2])\n"
        "async def main():\n"
        "    async with anyio.create_task_group() as group:\n"
        "        group.start_soon(call)\n"
        "        while not detached._all.going: await anyio.sleep(0.01)\n"
        "        detached._all.mutex.acquire()\n"
        "        pid = os.fork()\n"
        "        if not pid:\n"
        "            print(detached._all.going, detached._all.mutex.locked(), flush=True)\n"
        "            os._exit(0)\n"
        "        os.waitpid(pid, 0)\n"
        "        detached._all.mutex.release()\n"
        "        opened.set()\n"
        "anyio.run(main)\n"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, str(LOCK), str(tmp_path / "env")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout == "{} False\n"


async def test_without_threads_it_fails_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a limit of threads is reached."""

    def refuse(self: threading.Thread) -> None:
        if self.name == "envsync sync":
            raise RuntimeError("can't start new thread")
        start(self)

    start: Callable[[threading.Thread], None] = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        await envsync.sync_async(LOCK, env=tmp_path / "env")
