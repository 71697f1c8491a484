"""Cancelling: who leaves only leaves; when the last has left, the work stops before its commit, and nothing is left."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

import envsync
from envsync import errors, events
from envsync.leading.goal import Seeker
from envsync.leading.reconcile import Reconciler
from envsync.library import blocking
from envsync.transaction import journal
from tests import needs
from tests.environments import unverified
from tests.unit.fetching.server import File, serving
from tests.unit.library.program import (
    LOCK,
    NEXT,
    SECONDS,
    Ear,
    Gate,
    Process,
    envsync_process,
    is_free,
    left_over,
    locked,
    nothing_left,
    our_threads,
    snapshot,
    sync_in_task,
    sync_in_thread,
    told,
    until,
    until_shared,
    write_lock,
)
from tests.wheels import build_wheel, sha256_of

pytestmark = pytest.mark.anyio


async def cancellable(
    coordinator: envsync.Coordinator,
    lock: Path,
    env: Path,
    *,
    task_status: anyio.abc.TaskStatus[anyio.CancelScope],
    **options: Any,
) -> None:
    """Sync in a scope that the starter can cancel."""
    with anyio.CancelScope() as scope:
        task_status.started(scope)
        await coordinator.sync(lock, env=env, **options)


def is_free_and_clean(env: Path) -> bool:
    return is_free(env / ".lock") and is_free(env / ".envsync" / "in-use") and left_over(env) == []


async def test_cancelling_one_caller_leaves_the_sync_to_the_others(tmp_path: Path, seeking: Gate, log: Path) -> None:
    """Three share a sync, two leave, the third gets it: it was never interrupted."""
    env = tmp_path / "env"
    ear = Ear()
    with nothing_left():
        async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
            scopes = [await group.start(cancellable, coordinator, LOCK, env) for _ in range(3)]
            await until_shared(coordinator, 3)
            scopes[0].cancel()
            scopes[2].cancel()
            await until_shared(coordinator, 1)
            await seeking.reach()
            seeking.open()
    assert [event.result.outcome for event in ear.of(events.Finished)] == ["synced"]
    assert not ear.of(events.Cancelled)
    assert (told(log).count("started"), told(log).count("synced")) == (1, 1)
    assert unverified(env) == []


@pytest.mark.parametrize("place", [(Seeker, "seek"), (Reconciler, "_plan"), (Reconciler, "_stage")])
async def test_cancelling_the_last_caller_stops_the_work_before_the_commit(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    """Wherever it is by then, the environment stays as it was, its locks are free, and nothing is left over."""
    env = tmp_path / "env"
    current = await sync_in_thread(LOCK, env)
    before = snapshot(env)
    monkeypatch.setattr(*place, gate.before(getattr(*place)))
    ear = Ear()
    with nothing_left():
        async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
            scopes = [await group.start(cancellable, coordinator, NEXT, env) for _ in range(2)]
            await gate.reach()
            await until_shared(coordinator, 2)
            for scope in scopes:
                scope.cancel()
            await until(lambda: not coordinator._flights)
            gate.open()
            assert (await ear.until(events.Cancelled)).env == str(env)
            assert snapshot(env) == before
            assert is_free_and_clean(env)
            assert our_threads() == []
    assert not ear.of(events.Finished)
    assert not ear.of(events.Failed)
    again = await sync_in_thread(LOCK, env)
    assert (again.outcome, again.digest) == ("current", current.digest)


@needs.GONE_AT_ONCE
async def test_cancelling_the_making_of_an_environment_leaves_none(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory goes with all that was made of it; the next sync begins anew."""
    monkeypatch.setattr(Reconciler, "_stage", gate.before(Reconciler._stage))
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
        scope = await group.start(cancellable, coordinator, LOCK, env)
        await gate.reach()
        scope.cancel()
        gate.open()
        await ear.until(events.Cancelled)
        assert is_free_and_clean(env)
        assert not env.exists()
        assert (await coordinator.sync(LOCK, env=env)).outcome == "synced"
    assert unverified(env) == []


async def test_other_processes_take_over_when_the_last_caller_has_left(
    tmp_path: Path, seeking: Gate, log: Path
) -> None:
    """A sync that is given up is no failure for those who wait for it elsewhere."""
    env = tmp_path / "env"
    async with envsync.Coordinator() as coordinator, anyio.create_task_group() as group:
        scope = await group.start(cancellable, coordinator, LOCK, env)
        await seeking.reach()
        processes = [Process("run", "--lock", LOCK, "--env", env, "--", "greet") for _ in range(3)]
        for process in processes:
            await process.says("waiting for pid")
        scope.cancel()
        seeking.open()
        ends = [await process.end() for process in processes]
    assert [(status, out) for status, out, _ in ends] == [(0, "HELLO, WORLD!\n")] * 3
    assert (told(log).count("synced"), told(log).count("failed"), told(log).count("took_over")) == (1, 0, 0)


@pytest.mark.parametrize("place", ["finish", "apply"])
async def test_cancelling_does_not_stop_a_commit(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The caller leaves at once; the commit is finished all the same, and leaving the coordinator waits for it."""
    env = tmp_path / "env"
    await sync_in_thread(LOCK, env)
    monkeypatch.setattr(journal, place, gate.before(getattr(journal, place)))
    ear = Ear()
    with nothing_left():
        async with envsync.Coordinator(on_event=ear) as coordinator:
            async with anyio.create_task_group() as group:
                scope = await group.start(cancellable, coordinator, NEXT, env)
                await gate.reach()
                assert (env / ".envsync" / "journal").exists()
                scope.cancel()
            assert not ear.of(events.Finished)
            gate.open()
    assert [event.result.outcome for event in ear.of(events.Finished)] == ["synced"]
    assert not ear.of(events.Cancelled)
    assert (await sync_in_thread(NEXT, env)).outcome == "current"
    assert (unverified(env), is_free_and_clean(env)) == ([], True)


async def test_cancelling_a_wait_for_another_process_ends_at_once(tmp_path: Path) -> None:
    """While somebody else has the environment, whoever is cancelled goes, and takes their name off the list."""
    env = tmp_path / "env"
    await sync_in_thread(LOCK, env)
    ear = Ear()
    with nothing_left(), locked(env):
        async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
            scope = await group.start(cancellable, coordinator, NEXT, env)
            await ear.until(events.Waiting)
            await until((env / ".envsync" / "waiting").exists)
            scope.cancel()
            await ear.until(events.Cancelled)
            assert left_over(env) == []
    assert (await sync_in_thread(LOCK, env)).outcome == "current"


@contextmanager
def silent() -> Iterator[str]:
    """Listen, and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_cancelling_a_download_that_stalls_ends_it_and_it_can_be_continued(tmp_path: Path) -> None:
    """The server stops in the middle of a wheel: who is cancelled does not wait for it. The next sync asks for the
    rest alone."""
    env, cache = tmp_path / "env", tmp_path / "cache"
    wheel = build_wheel(tmp_path, "demo", "1.0", {"demo/noise": _noise(400_000)}, compression=0)
    data = Path(wheel).read_bytes()
    with serving() as server:
        file = server.files[f"/{Path(wheel).name}"] = File(data, etag='"1"', hold=threading.Event())
        lock = write_lock(tmp_path / "pylock.toml", [wheel], url=server.url)
        ear = Ear()
        async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
            scope = await group.start(lambda **status: cancellable(coordinator, lock, env, cache_dir=cache, **status))
            await anyio.to_thread.run_sync(server.began.wait, SECONDS)
            await ear.until(events.Progress, phase="downloading")
            part = cache / "v1" / "tmp" / f"{sha256_of(wheel)}.part"
            await until(lambda: part.exists() and part.stat().st_size > 0)
            scope.cancel()
            await ear.until(events.Cancelled)
            assert file.hold is not None
            assert not file.hold.is_set(), "the server has not let go"
            assert data.startswith(part.read_bytes())
            assert is_free(part)
            assert (is_free(env / ".lock"), our_threads()) == (True, [])
            assert not list(cache.glob("v1/wheels/*"))
            file.hold.set()
            assert (await coordinator.sync(lock, env=env, cache_dir=cache)).installed == ("demo==1.0",)
        assert server.ranges()[0] is None
        assert server.ranges()[-1] not in {None, "bytes=0-"}
    assert not part.exists()
    assert unverified(env) == []


def _noise(size: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4))


async def test_cancelling_a_download_that_never_begins_leaves_nothing(tmp_path: Path) -> None:
    """The server takes the connection and says nothing."""
    env, cache = tmp_path / "env", tmp_path / "cache"
    wheel = build_wheel(tmp_path, "demo", "1.0")
    with silent() as url:
        lock = write_lock(tmp_path / "pylock.toml", [wheel], url=url)
        ear = Ear()
        with nothing_left():
            async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
                scope = await group.start(
                    lambda **status: cancellable(coordinator, lock, env, cache_dir=cache, **status)
                )
                await ear.until(events.Progress, phase="downloading")
                scope.cancel()
                await ear.until(events.Cancelled)
                assert is_free(env / ".lock")
    assert list((cache / "v1" / "tmp").iterdir()) == []


async def test_a_call_right_after_the_last_one_was_cancelled_starts_anew(tmp_path: Path, seeking: Gate) -> None:
    """It does not board what is being given up: it waits for it, and succeeds."""
    env = tmp_path / "env"
    ear = Ear()
    results = []

    async def call() -> None:
        results.append(await coordinator.sync(LOCK, env=env))

    async with envsync.Coordinator(jobs=2, on_event=ear) as coordinator, anyio.create_task_group() as group:
        scope = await group.start(cancellable, coordinator, LOCK, env)
        await seeking.reach()
        scope.cancel()
        await until(lambda: not coordinator._flights)
        group.start_soon(call)
        await ear.until(events.Waiting)
        assert not results
        seeking.open()
    assert [type(event) for event in ear.heard if isinstance(event, events.Cancelled | events.Finished)] == [
        events.Cancelled,
        events.Finished,
    ]
    assert [result.outcome for result in results] == ["synced"]


async def test_giving_up_the_wait_for_commands_opens_the_environment_again(tmp_path: Path) -> None:
    """Who drained an environment and is cancelled leaves it as it was, with its commands in it."""
    env = tmp_path / "env"
    ear = Ear()
    async with (
        envsync.Coordinator(jobs=1, on_event=ear) as coordinator,
        anyio.create_task_group() as group,
        coordinator.use(LOCK, env=env),
    ):
        before = snapshot(env)
        scope = await group.start(cancellable, coordinator, NEXT, env)
        await ear.until(events.Progress, phase="waiting for commands")
        scope.cancel()
        await ear.until(events.Cancelled)
        assert snapshot(env) == before
        assert (is_free(env / ".lock"), left_over(env)) == (True, [])
        with anyio.fail_after(SECONDS):
            assert (await coordinator.sync(LOCK, env=env)).outcome == "current"
            assert (await coordinator.sync(LOCK, env=tmp_path / "other")).outcome == "synced"


async def test_cancelling_the_wait_for_a_slot_ends_it(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both before leading and after the commands have ended, while the only slot is in use for as long as it likes."""
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(jobs=1, on_event=ear) as coordinator, anyio.create_task_group() as group:
        async with coordinator.use(LOCK, env=env):
            scope = await group.start(cancellable, coordinator, NEXT, env)
            await ear.until(events.Progress, phase="waiting for commands")
            monkeypatch.setattr(Seeker, "seek", gate.before(Seeker.seek))
            await group.start(cancellable, coordinator, LOCK, tmp_path / "other")
            await gate.reach()
        await until(lambda: not is_free(env / ".envsync" / "in-use"))
        scope.cancel()
        await ear.until(events.Cancelled)
        assert is_free_and_clean(env)
        third = await group.start(cancellable, coordinator, LOCK, tmp_path / "third")
        await ear.until(events.Waiting, env=str(tmp_path / "third"))
        third.cancel()
        await ear.until(events.Cancelled, 2)
        assert gate.now == 1
        gate.open()
    assert [event.env for event in ear.of(events.Finished)][1:] == [str(tmp_path / "other")]


# Leaving


@needs.GONE_AT_ONCE
async def test_leaving_waits_until_all_is_at_rest(tmp_path: Path, seeking: Gate) -> None:
    """With one sync that leads and one that waits, both are given up; no thread, descriptor, task or lock is left."""
    led, awaited = tmp_path / "led", tmp_path / "awaited"
    ear = Ear()
    left = anyio.Event()

    async def call(env: Path) -> None:
        with pytest.raises(errors.SyncCancelledError):
            await coordinator.sync(LOCK, env=env)

    with nothing_left(), locked(awaited):
        async with anyio.create_task_group() as outside:

            async def program() -> None:
                async with coordinator:
                    outside.start_soon(call, led)
                    outside.start_soon(call, awaited)
                    await seeking.reach()
                    await ear.until(events.Waiting)
                left.set()

            coordinator = envsync.Coordinator(on_event=ear)
            outside.start_soon(program)
            await ear.until(events.Cancelled, env=str(awaited))
            assert not left.is_set(), "a thread still works"
            with pytest.raises(RuntimeError, match="async with"):
                await coordinator.sync(LOCK, env=led)
            seeking.open()
            await left.wait()
            assert is_free_and_clean(led)
    assert {event.env for event in ear.of(events.Cancelled)} == {str(led), str(awaited)}


async def test_a_call_that_is_just_being_made_when_the_coordinator_is_left_says_so(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was too late: the same error as for calls after that."""
    monkeypatch.setattr(blocking, "resolve", gate.before(blocking.resolve))

    async def call() -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await coordinator.sync(LOCK, env=tmp_path / "env")

    async with anyio.create_task_group() as outside:
        async with envsync.Coordinator() as coordinator:
            outside.start_soon(call)
            await gate.reach()
        gate.open()


@needs.GONE_AT_ONCE
async def test_an_error_in_the_block_gives_up_what_goes_on(tmp_path: Path, seeking: Gate) -> None:
    """The error comes out when all is at rest."""
    env = tmp_path / "env"
    ear = Ear()
    with nothing_left():
        with pytest.RaisesGroup(ZeroDivisionError):
            async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
                group.start_soon(sync_in_task, coordinator, env)
                await seeking.reach()
                seeking.open()
                raise ZeroDivisionError
        assert is_free_and_clean(env)
    assert [type(event) for event in ear.heard][-1] is events.Cancelled


# asyncio's own way of cancelling, which does not wait for threads


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_asyncio_cancelling_a_caller(tmp_path: Path, seeking: Gate) -> None:
    """`asyncio.timeout` and `Task.cancel` are as good as a cancel scope."""
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        tasks = [asyncio.create_task(coordinator.sync(LOCK, env=env)) for _ in range(3)]
        await seeking.reach()
        await until_shared(coordinator, 3)
        tasks[0].cancel()
        await until_shared(coordinator, 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await tasks[1]
        seeking.open()
        assert (await tasks[2]).outcome == "synced"
    assert not ear.of(events.Cancelled)


@needs.GONE_AT_ONCE
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_asyncio_cancelling_the_program_waits_for_rest(tmp_path: Path, seeking: Gate) -> None:
    """However often it is cancelled, as Ctrl-C does, it ends when its threads have."""
    env = tmp_path / "env"
    ear = Ear()

    async def program() -> None:
        async with envsync.Coordinator(on_event=ear) as coordinator:
            await coordinator.sync(LOCK, env=env)

    with nothing_left():
        task = asyncio.create_task(program())
        await seeking.reach()
        for _ in range(3):
            task.cancel()
            await anyio.wait_all_tasks_blocked()
        assert not task.done()
        seeking.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_free_and_clean(env)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_asyncio_cancelling_the_entry_into_an_environment_leaves_no_hold(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread takes the hold after its caller has gone: it gives it back."""
    env = tmp_path / "env"
    await sync_in_thread(LOCK, env)
    monkeypatch.setattr(blocking, "enter", gate.before(blocking.enter))

    async def use() -> None:
        async with coordinator.use(LOCK, env=env):
            raise AssertionError("unreachable")

    async with envsync.Coordinator() as coordinator:
        task = asyncio.create_task(use())
        await gate.reach()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        await until(lambda: gate.now == 0 and our_threads() == [])
        assert is_free(env / ".envsync" / "in-use")
        status, _, err = await envsync_process("sync", "--lock", NEXT, "--env", env, "--busy", "fail")
    assert status == 0, err


# Errors of the block


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("several", [ValueError(), OSError()])])
async def test_an_error_of_the_block_leaves_it_as_it_is(error: Exception) -> None:
    """Nobody has to know that there is a task group within; what is a group stays one."""
    with pytest.raises(type(error)) as caught:
        async with envsync.Coordinator(on_event=Ear()):
            raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.anyio
async def test_a_failed_sync_can_be_caught_around_the_block(tmp_path: Path) -> None:
    """`except EnvsyncError` around the block catches what a sync in it raises."""
    with pytest.raises(errors.LockFileError):
        async with envsync.Coordinator() as coordinator:
            await coordinator.sync(tmp_path / "pylock.toml", env=tmp_path / "env")
