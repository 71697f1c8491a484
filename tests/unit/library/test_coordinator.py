"""Many syncs in one program: shared where they are the same, side by side where they are not, told as they happen."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import envsync
from envsync import errors, events
from envsync.launch import Environment, names
from envsync.launch.request import resolve
from envsync.leading.goal import Seeker
from envsync.library import blocking
from envsync.library import coordinator as module
from envsync.transaction import journal
from envsync.waiting import failures
from envsync.waiting.waiter import Wait
from tests import needs
from tests.environments import unverified
from tests.unit.library.program import (
    LOCK,
    NEXT,
    SECONDS,
    Ear,
    Gate,
    Process,
    is_free,
    left_over,
    locked,
    nothing_left,
    sync_in_task,
    sync_in_thread,
    told,
    until,
    until_shared,
    write_lock,
)
from tests.wheels import build_wheel

pytestmark = pytest.mark.anyio


# Sharing


async def test_fifty_calls_for_one_environment_share_one_sync(tmp_path: Path, log: Path) -> None:
    """Whatever the order in which they come, it is synced once, and all get it."""
    env = tmp_path / "env"
    results: list[envsync.SyncResult] = []
    ear = Ear()

    async def call() -> None:
        results.append(await coordinator.sync(LOCK, env=env))

    with nothing_left():
        async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(call)
    assert len(results) == 50
    assert {(result.env, result.python) for result in results} == {(str(env), f"{env}/bin/python")}
    assert len({result.digest for result in results}) == 1
    assert {result.outcome for result in results} <= {"synced", "current"}
    assert (told(log).count("started"), told(log).count("synced")) == (1, 1)
    assert len(ear.of(events.Started)) == 1
    assert [event.result.outcome for event in ear.of(events.Finished)].count("synced") == 1
    assert (unverified(env), left_over(env)) == ([], [])


async def test_different_environments_run_side_by_side_up_to_jobs(tmp_path: Path, seeking: Gate) -> None:
    """Six environments and two jobs: two lead at once, and never a third."""
    ear = Ear()
    async with envsync.Coordinator(jobs=2, on_event=ear) as coordinator, anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(sync_in_task, coordinator, tmp_path / f"env{number}")
        await seeking.reach(2)
        await ear.until(events.Waiting, 4, message="waiting for other syncs of this process")
        assert seeking.now == 2
        seeking.open()
    assert (seeking.most, seeking.reached) == (2, 6)
    assert len(ear.of(events.Finished)) == 6


async def test_any_number_may_wait_without_using_the_slots(tmp_path: Path) -> None:
    """Eight environments are locked by others: with one job, a ninth is synced meanwhile, and they are afterwards."""
    ear = Ear()
    async with envsync.Coordinator(jobs=1, on_event=ear) as coordinator, anyio.create_task_group() as group:
        with locked(tmp_path / "env0"), locked(tmp_path / "env1"), locked(tmp_path / "env2"), locked(tmp_path / "env3"):
            for number in range(4):
                group.start_soon(sync_in_task, coordinator, tmp_path / f"env{number}")
            await ear.until(events.Waiting, 4, message="waiting for ")
            with anyio.fail_after(SECONDS):
                assert (await coordinator.sync(LOCK, env=tmp_path / "ninth")).outcome == "synced"
            assert len(ear.of(events.Finished)) == 1
    assert sorted(event.env for event in ear.of(events.Finished)) == [
        *(str(tmp_path / f"env{number}") for number in range(4)),
        str(tmp_path / "ninth"),
    ]


async def test_a_leader_that_waits_for_commands_gives_its_slot_back_and_takes_it_again(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one job, others are synced while a command keeps an environment in use; and it goes on one at a time."""
    busy, other, third = tmp_path / "busy", tmp_path / "other", tmp_path / "third"
    ear = Ear()
    async with envsync.Coordinator(jobs=1, on_event=ear) as coordinator, anyio.create_task_group() as group:
        async with coordinator.use(LOCK, env=busy):
            group.start_soon(sync_in_task, coordinator, busy, NEXT)
            await ear.until(events.Progress, env=str(busy), phase="waiting for commands")
            assert (await coordinator.sync(LOCK, env=other)).outcome == "synced"
            monkeypatch.setattr(Seeker, "seek", gate.before(Seeker.seek))
            group.start_soon(sync_in_task, coordinator, third)
            await gate.reach()
        # The command has ended, but the third has the slot now.
        await ear.until(events.Progress, env=str(busy), phase="waiting for other syncs of this process")
        assert len(ear.of(events.Progress, env=str(busy), phase="committing")) == 1, "that of the first sync"
        gate.open()
        await ear.until(events.Finished, env=str(third))
        assert (await ear.until(events.Finished, 2, env=str(busy))).result.outcome == "synced"


async def test_who_gives_up_waiting_for_commands_needs_no_slot_for_it(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out of one call is not prolonged by what another one does with the only slot."""
    busy = tmp_path / "busy"
    ear = Ear()
    async with envsync.Coordinator(jobs=1, on_event=ear) as coordinator, anyio.create_task_group() as group:
        async with coordinator.use(LOCK, env=busy):
            seek = Seeker.seek

            def only_other(self: Seeker, ledger: Any) -> Any:
                return (seek if self.environment.path == str(busy) else gate.before(seek))(self, ledger)

            monkeypatch.setattr(Seeker, "seek", only_other)

            async def give_up() -> None:
                with pytest.raises(errors.WaitTimeoutError):
                    await coordinator.sync(NEXT, env=busy, timeout=1)

            async with anyio.create_task_group() as inner:
                inner.start_soon(give_up)
                await ear.until(events.Progress, env=str(busy), phase="waiting for commands")
                group.start_soon(sync_in_task, coordinator, tmp_path / "other")
                await gate.reach()
            assert gate.now == 1
            assert (busy / ".envsync" / "stamp").exists()
        gate.open()


async def test_waiting_for_a_slot_after_the_commands_have_ended_counts_for_the_timeout(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody keeps an environment closed for longer than its callers want to wait."""
    busy = tmp_path / "busy"
    ear = Ear()
    async with envsync.Coordinator(jobs=1, on_event=ear) as coordinator, anyio.create_task_group() as group:

        async def give_up() -> None:
            with pytest.raises(errors.WaitTimeoutError, match="other syncs of this process"):
                await coordinator.sync(NEXT, env=busy, timeout=2)

        async with anyio.create_task_group() as inner, coordinator.use(LOCK, env=busy):
            inner.start_soon(give_up)
            await ear.until(events.Progress, env=str(busy), phase="waiting for commands")
            monkeypatch.setattr(Seeker, "seek", gate.before(Seeker.seek))
            group.start_soon(sync_in_task, coordinator, tmp_path / "other")
            await gate.reach()
        assert (await coordinator.sync(LOCK, env=busy)).outcome == "current"
        gate.open()


async def test_different_lock_files_for_one_environment_are_served_one_after_the_other(
    tmp_path: Path, log: Path
) -> None:
    """Both calls get what they asked for, and the environment is whole afterwards."""
    env = tmp_path / "env"
    results: dict[Path, envsync.SyncResult] = {}

    async def call(lock: Path) -> None:
        results[lock] = await coordinator.sync(lock, env=env)

    async with envsync.Coordinator(jobs=4) as coordinator, anyio.create_task_group() as group:
        group.start_soon(call, LOCK)
        group.start_soon(call, NEXT)
    assert {result.outcome for result in results.values()} == {"synced"}
    assert results[LOCK].digest != results[NEXT].digest
    assert told(log).count("synced") == 2
    assert (unverified(env), left_over(env)) == ([], [])


async def test_options_are_those_of_sync(tmp_path: Path) -> None:
    """`exact=False` leaves what the lock file does not name; without, it goes."""
    env = tmp_path / "env"
    extra = write_lock(tmp_path / "pylock.extra.toml", [build_wheel(tmp_path, "extra", "1.0")])
    async with envsync.Coordinator() as coordinator:
        assert (await coordinator.sync(LOCK, env=env)).removed == ()
        kept = await coordinator.sync(extra, env=env, exact=False)
        assert (kept.installed, kept.removed) == (("extra==1.0",), ())
        gone = await coordinator.sync(extra, env=env)
    assert len(gone.removed) == 5


# Others


@needs.TRIO
def test_two_coordinators_in_two_threads_share_one_sync(tmp_path: Path, log: Path) -> None:
    """One under asyncio, one under Trio, on one environment: it is synced once."""
    env = tmp_path / "env"
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    async def program() -> None:
        async with envsync.Coordinator() as coordinator:
            barrier.wait(SECONDS)
            outcomes.append((await coordinator.sync(LOCK, env=env)).outcome)

    threads = [
        threading.Thread(target=anyio.run, args=(program,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(outcomes) == 2
    assert "synced" in outcomes
    assert told(log).count("synced") == 1
    assert unverified(env) == []


async def test_a_coordinator_and_processes_share_one_sync(tmp_path: Path, log: Path) -> None:
    """Whoever of them comes first leads; the rest wait for it."""
    env = tmp_path / "env"
    processes = [Process("run", "--lock", LOCK, "--env", env, "--", "greet") for _ in range(5)]
    async with envsync.Coordinator() as coordinator:
        result = await coordinator.sync(LOCK, env=env)
    ends = [await process.end() for process in processes]
    assert [(status, out) for status, out, _ in ends] == [(0, "HELLO, WORLD!\n")] * 5
    assert result.outcome in {"synced", "waited", "current"}
    assert told(log).count("synced") == 1


# Errors


async def test_all_callers_that_share_a_sync_get_its_error(tmp_path: Path, log: Path) -> None:
    """It fails once, for all of them, with one and the same error; the next call tries anew."""
    env = tmp_path / "env"
    wheel = build_wheel(tmp_path, "demo", "1.0")
    lock = write_lock(tmp_path / "pylock.toml", [wheel], sha256="0" * 64)
    raised: list[BaseException] = []
    ear = Ear()

    async def call() -> None:
        with pytest.raises(errors.HashMismatchError) as caught:
            await coordinator.sync(lock, env=env)
        raised.append(caught.value)

    async with envsync.Coordinator(on_event=ear) as coordinator:
        async with anyio.create_task_group() as group:
            with locked(env):
                for _ in range(5):
                    group.start_soon(call)
                await until_shared(coordinator, 5)
        assert len({id(error) for error in raised}) == 1
        assert [event.error for event in ear.of(events.Failed, env=str(env))] == raised[:1]
        assert told(log).count("failed") == 1
        with pytest.raises(errors.HashMismatchError):
            await coordinator.sync(lock, env=env)
    assert told(log).count("failed") == 2


@pytest.mark.parametrize(
    ("kind", "lock", "options"),
    [
        (errors.LockFileError, "pylock.missing.toml", {}),
        (errors.LockFileError, "pylock.broken.toml", {}),
        (errors.NoWheelError, "pylock.remote.toml", {"offline": True}),
        (errors.HashMismatchError, "pylock.mismatch.toml", {}),
        (errors.UsageError, "pylock.good.toml", {"busy": "perhaps"}),
        (errors.UsageError, "pylock.good.toml", {"link_mode": "telepathy"}),
        (errors.InterpreterError, "pylock.good.toml", {"python": "3.99"}),
        (errors.EnvironmentRefusedError, "pylock.good.toml", {"env": "full"}),
        (errors.WaitTimeoutError, "pylock.good.toml", {"env": "held", "timeout": 0.1}),
        (errors.RefusedError, "pylock.other.toml", {"env": "busy", "busy": "fail"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_errors_are_told_apart_by_their_class(
    tmp_path: Path, kind: type[Exception], lock: str, options: dict[str, Any]
) -> None:
    """Bad input, a wait that took too long, a refusal and a bad wheel are classes of their own, also for threads."""
    wheel, other = build_wheel(tmp_path, "demo", "1.0"), build_wheel(tmp_path, "demo", "2.0")
    write_lock(tmp_path / "pylock.good.toml", [wheel])
    write_lock(tmp_path / "pylock.other.toml", [other])
    write_lock(tmp_path / "pylock.mismatch.toml", [wheel], sha256="0" * 64)
    write_lock(tmp_path / "pylock.remote.toml", [wheel], url="http://127.0.0.1:1", sha256="1" * 64)
    (tmp_path / "pylock.broken.toml").write_text("lock-version =")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    given = {**options, "env": tmp_path / options.get("env", "env")}
    with locked(tmp_path / "held"):
        async with (
            envsync.Coordinator() as coordinator,
            coordinator.use(tmp_path / "pylock.good.toml", env=tmp_path / "busy"),
        ):
            with pytest.raises(kind) as asynchronous:
                await coordinator.sync(tmp_path / lock, **given)
            with pytest.raises(kind) as used:
                async with coordinator.use(tmp_path / lock, **given):
                    pass
            with pytest.raises(kind) as synchronous:
                await anyio.to_thread.run_sync(lambda: envsync.sync(tmp_path / lock, **given))
    for caught in (asynchronous, used, synchronous):
        assert type(caught.value) is kind
        assert isinstance(caught.value, envsync.EnvsyncError)


async def test_a_failure_of_another_process_is_shared(tmp_path: Path) -> None:
    """What failed there while this one waited for it is not tried again here."""
    env = tmp_path / "env"
    ear = Ear()

    async def call() -> None:
        with pytest.raises(errors.SharedFailureError, match="no such luck"):
            await coordinator.sync(LOCK, env=env)

    async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
        with locked(env):
            group.start_soon(call)
            await ear.until(events.Waiting)
            asked = blocking.resolve(LOCK, {"env": env})
            failures.tell(Environment(str(env)), asked.key, errors.WheelError("demo.whl", "no such luck"))
            await ear.until(events.Failed)


async def test_a_timeout_is_the_calls_own(tmp_path: Path) -> None:
    """Of two calls for the same, one gives up and the other one gets it."""
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
        with locked(env):
            group.start_soon(sync_in_task, coordinator, env)
            with pytest.raises(errors.WaitTimeoutError):
                await coordinator.sync(LOCK, env=env, timeout=0.1)
            assert not ear.of(events.Finished)
    assert ear.of(events.Finished)[0].result.outcome == "synced"


async def test_variables_count_for_what_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's ENVSYNC_BUSY is heeded, and a caller's own word wins."""
    env = tmp_path / "env"
    async with envsync.Coordinator() as coordinator, coordinator.use(LOCK, env=env):
        monkeypatch.setenv("ENVSYNC_BUSY", "fail")
        with pytest.raises(errors.RefusedError):
            await coordinator.sync(NEXT, env=env)
        with pytest.raises(errors.RefusedError):
            await sync_in_thread(NEXT, env)
        with pytest.raises(errors.WaitTimeoutError):
            await coordinator.sync(NEXT, env=env, busy="wait", timeout=0.1)
        monkeypatch.setenv("ENVSYNC_LINK_MODE", "telepathy")
        with pytest.raises(errors.UsageError, match="telepathy"):
            await coordinator.sync(LOCK, env=env)


async def test_misuse_is_said_at_once(tmp_path: Path) -> None:
    """Wrong arguments and a coordinator that is not entered are the programmer's errors, not EnvsyncError."""
    options: Any = {"colour": "green"}
    for jobs in (0, -1):
        with pytest.raises(ValueError, match="jobs"):
            envsync.Coordinator(jobs=jobs)
    coordinator = envsync.Coordinator()
    with pytest.raises(RuntimeError, match="async with"):
        await coordinator.sync(LOCK, env=tmp_path / "env")
    async with coordinator:
        with pytest.raises(TypeError, match="colour"):
            await coordinator.sync(LOCK, **options)
        with pytest.raises(TypeError, match="colour"):
            async with coordinator.use(LOCK, **options):
                pass
    with pytest.raises(TypeError, match="colour"), envsync.use(LOCK, **options):
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await coordinator.sync(LOCK, env=tmp_path / "env")
    with pytest.raises(RuntimeError, match="async with"):
        async with coordinator.use(LOCK, env=tmp_path / "env"):
            pass
    assert not (tmp_path / "env").exists()


async def test_locks_and_slots_are_free_if_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on threads ends the coordinator; what its leader was to release does not stay held."""
    env = tmp_path / "env"
    run_sync = anyio.to_thread.run_sync

    async def run(function: Callable[[], Any], *arguments: Any, **options: Any) -> Any:
        if function.__name__ == "work":
            raise RuntimeError("can't start new thread")
        return await run_sync(function, *arguments, **options)

    coordinator = envsync.Coordinator(jobs=1)
    monkeypatch.setattr(module, "to_thread", SimpleNamespace(run_sync=run))
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="new thread"), errors.SyncCancelledError):
        async with coordinator:
            await coordinator.sync(LOCK, env=env)
    assert is_free(env / ".lock")
    monkeypatch.undo()
    async with coordinator:
        assert (await coordinator.sync(LOCK, env=env)).outcome == "synced"


# Events


async def test_events_come_in_order_in_the_event_loop(tmp_path: Path) -> None:
    """Progress while it is fetched, started before anything changes, finished last; all frozen, with absolute paths."""
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        result = await coordinator.sync(LOCK, env=env)
        kinds = [type(event) for event in ear.heard]
        assert kinds[-1] is events.Finished, "it is told before the caller goes on"
        await coordinator.sync(LOCK, env=env)
    started, last = kinds.index(events.Started), len(kinds) - 1
    assert kinds.count(events.Started) == kinds.count(events.Finished) == 1
    assert started < last
    phases = [event.phase for event in ear.of(events.Progress)]
    assert phases[0] == "looking"
    assert phases.index("staging") < phases.index("committing")
    assert started < ear.heard.index(ear.of(events.Progress, phase="staging")[0])
    assert [event.result.outcome for event in ear.of(events.Finished)] == ["synced", "current"]
    assert ear.of(events.Finished)[0].result == result
    assert ear.of(events.Started)[0].digest == result.digest
    assert {event.env for event in ear.heard} == {str(env)}
    assert ear.threads == {threading.get_ident()}
    for event in ear.heard:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.env = "elsewhere"  # type: ignore[misc]


async def test_an_environment_named_by_digest_is_named_in_full(tmp_path: Path) -> None:
    """Events of an environment per digest name the one that it became, those of a failure, too."""
    wheel = build_wheel(tmp_path, "demo", "1.0")
    good = write_lock(tmp_path / "pylock.toml", [wheel])
    bad = write_lock(tmp_path / "pylock.bad.toml", [wheel], sha256="0" * 64)
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        result = await coordinator.sync(good, env=tmp_path / "{digest}")
        assert result.env == str(tmp_path / result.digest)
        assert {event.env for event in ear.heard} == {result.env}
        with pytest.raises(errors.HashMismatchError):
            await coordinator.sync(bad, env=tmp_path / "{digest}")
    failed = ear.of(events.Failed)[0].env
    assert "{" not in failed
    assert {event.env for event in ear.heard} == {result.env, failed}


@pytest.mark.parametrize("by", ["coordinator", "thread"])
async def test_what_digest_stands_for_is_left_for_the_next(tmp_path: Path, by: str) -> None:
    """By whoever has found it out, once the environment is there; what fails leaves nothing."""
    wheel = build_wheel(tmp_path, "demo", "1.0")
    good = write_lock(tmp_path / "pylock.toml", [wheel])
    bad = write_lock(tmp_path / "pylock.bad.toml", [wheel], sha256="0" * 64)
    options = {"env": tmp_path / "envs/{digest}", "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    async with envsync.Coordinator() as coordinator:

        async def sync(lock: Path, **options: Any) -> envsync.SyncResult:
            if by == "coordinator":
                return await coordinator.sync(lock, **options)
            return await anyio.to_thread.run_sync(lambda: envsync.sync(lock, **options))

        with pytest.raises(errors.HashMismatchError):
            await sync(bad, **options)
        assert not (tmp_path / "envs/.envsync-names").exists()
        result = await sync(good, **options)
    asked = resolve({"lock": str(good), "env": str(options["env"]), "python": str(options["python"])}, {})
    name = names.recall(asked)
    assert name is not None
    assert f"{tmp_path}/envs/{name.digest}" == result.env


async def test_waiting_is_not_told_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of them there are WAITING_SECONDS, here a day."""
    assert module.WAITING_SECONDS == 1
    monkeypatch.setattr(module, "WAITING_SECONDS", 86400)
    looks = Gate()
    looks.open()
    monkeypatch.setattr(Wait, "look", looks.before(Wait.look))
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator, anyio.create_task_group() as group:
        with locked(env):
            group.start_soon(sync_in_task, coordinator, env)
            await looks.reach(5)
    waits = ear.of(events.Waiting)
    assert [(event.env, str(env / ".lock") in event.message) for event in waits] == [(str(env), True)]


async def test_progress_is_told_a_few_times_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a phase reports; a new phase is told at once."""
    seek = Seeker.seek
    seconds: list[float] = []

    def chatter(self: Seeker, ledger: Any) -> Any:
        began = time.monotonic()
        for number in range(1000):
            self.report("chattering", number, 1000)
        self.report("nearly done", 0, 0)
        seconds.append(time.monotonic() - began)
        return seek(self, ledger)

    monkeypatch.setattr(Seeker, "seek", chatter)
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        await coordinator.sync(LOCK, env=tmp_path / "env")
    assert 1 <= len(ear.of(events.Progress, phase="chattering")) <= 1 + seconds[0] / module.PROGRESS_SECONDS
    assert len(ear.of(events.Progress, phase="nearly done")) == 1


async def test_recovery_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finishes a commit that a dead leader had decided says so."""
    env = tmp_path / "env"
    await sync_in_thread(LOCK, env)

    def fail(*_: object) -> None:
        raise errors.FilesystemError("move", "somewhere", OSError(5, "Input/output error"))

    with monkeypatch.context() as broken:
        broken.setattr(journal, "apply", fail)
        with pytest.raises(errors.FilesystemError):
            await sync_in_thread(NEXT, env)
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        assert (await coordinator.sync(NEXT, env=env)).outcome in {"synced", "current"}
    assert [event.steps > 0 for event in ear.of(events.Recovered)] == [True]
    assert (unverified(env), left_over(env)) == ([], [])


async def test_taking_over_is_told(tmp_path: Path) -> None:
    """Who goes on for a leader that was killed names it."""
    env = tmp_path / "env"
    ear = Ear()
    async with envsync.Coordinator(on_event=ear) as coordinator:
        async with coordinator.use(LOCK, env=env):
            leader = Process("sync", "--lock", NEXT, "--env", env)
            await until((env / ".envsync" / "stamp.draining").exists)
            leader.popen.kill()
            await leader.end()
        await coordinator.sync(NEXT, env=env)
    assert [event.pid for event in ear.of(events.TookOver)] == [leader.popen.pid]


async def test_what_on_event_raises_ends_the_coordinator(tmp_path: Path, seeking: Gate) -> None:
    """As an error of any task would; it is raised once, and nobody is left waiting, outside of the block neither."""
    env = tmp_path / "env"

    def refuse(event: events.Event) -> None:
        seeking.open()
        raise ZeroDivisionError(event)

    async def call() -> None:
        with pytest.raises(errors.SyncCancelledError):
            await coordinator.sync(LOCK, env=env)

    with nothing_left(), anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as outside:
            coordinator = envsync.Coordinator(on_event=refuse)
            with pytest.RaisesGroup(ZeroDivisionError):
                async with coordinator:
                    outside.start_soon(call)
                    await anyio.sleep_forever()
    assert is_free(env / ".lock")


async def test_what_on_event_raises_at_the_end_of_a_sync_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Callers in tasks outside of the block get their result all the same."""
    results = []

    def refuse(event: events.Event) -> None:
        if isinstance(event, events.Finished):
            raise ZeroDivisionError

    async def call() -> None:
        results.append(await coordinator.sync(LOCK, env=tmp_path / "env"))

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as outside:
            coordinator = envsync.Coordinator(on_event=refuse)
            with pytest.RaisesGroup(ZeroDivisionError):
                async with coordinator:
                    outside.start_soon(call)
                    await anyio.sleep_forever()
    assert [result.outcome for result in results] == ["synced"]
