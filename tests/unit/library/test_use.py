"""Using an environment: it is current, nobody changes it before the block ends, and then anybody can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

import envsync
from envsync import errors
from envsync.library import blocking
from tests.environments import unverified
from tests.needs import IS_ROOT
from tests.unit.library.program import LOCK, NEXT, SECONDS, Process, descriptors, envsync_process, is_free, told, until

ROOT = Path(__file__).parent.parent.parent.parent


Use = Callable[..., AbstractAsyncContextManager[envsync.Hold]]


@pytest.fixture(params=["coordinator", "library", "detached"])
async def use(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Use]:
    """`Coordinator.use`, `envsync.use` in a thread, and `envsync.use_async`."""
    if request.param == "detached":
        yield envsync.use_async
        return
    if request.param == "coordinator":
        async with envsync.Coordinator() as coordinator:
            yield coordinator.use
        return

    @asynccontextmanager
    async def in_thread(lock: Path, **options: Any) -> AsyncIterator[envsync.Hold]:
        using = envsync.use(lock, **options)
        hold = await to_thread.run_sync(using.__enter__)
        try:
            yield hold
        finally:
            using.__exit__(None, None, None)

    yield in_thread


def sync_words(env: Path, lock: Path = NEXT) -> list[str]:
    return ["sync", "--quiet", "--lock", str(lock), "--env", str(env), "--busy", "fail"]


@pytest.mark.anyio
async def test_nobody_changes_the_environment_within_the_block(tmp_path: Path, use: Use) -> None:
    """Other processes that would have to are refused; afterwards they are not. Who wants the same comes in."""
    env = tmp_path / "env"
    async with use(LOCK, env=env) as hold:
        assert (hold.result.env, hold.python) == (str(env), f"{env}/bin/python")
        assert not is_free(env / ".envsync" / "in-use")
        assert (await envsync_process(*sync_words(env)))[0] == 124
        assert (await envsync_process(*sync_words(env, LOCK)))[0] == 0
        done = await to_thread.run_sync(_greet, hold)
        assert done == "HELLO, WORLD!\n"
    assert hold.fd == -1
    assert is_free(env / ".envsync" / "in-use")
    assert (await envsync_process(*sync_words(env)))[0] == 0
    assert unverified(env) == []


def _greet(hold: envsync.Hold) -> str:
    done = subprocess.run(["greet"], env=hold.variables(), capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.anyio
async def test_several_use_an_environment_at_once(tmp_path: Path, use: Use) -> None:
    """Each has a hold of its own: it is free when the last has ended."""
    env = tmp_path / "env"
    async with use(LOCK, env=env) as first:
        async with use(LOCK, env=env) as second:
            assert first.fd != second.fd
        assert not is_free(env / ".envsync" / "in-use")
    assert is_free(env / ".envsync" / "in-use")


@pytest.mark.anyio
async def test_an_error_in_the_block_ends_the_hold(tmp_path: Path, use: Use) -> None:
    """It is the block's own error that comes out."""
    env = tmp_path / "env"
    with pytest.raises(ZeroDivisionError):
        async with use(LOCK, env=env):
            raise ZeroDivisionError
    assert is_free(env / ".envsync" / "in-use")


@pytest.mark.anyio
async def test_a_run_within_the_block_enters_while_others_drain(tmp_path: Path, use: Use) -> None:
    """With `hold.variables()` a child is known to belong to it: it need not wait for who waits for us."""
    env = tmp_path / "env"
    command = ["run", "--quiet", "--lock", str(LOCK), "--env", str(env), "--timeout", "0.2", "--", "greet"]
    async with use(LOCK, env=env) as hold:
        waiter = Process("sync", "--lock", NEXT, "--env", env)
        await until((env / ".envsync" / "stamp.draining").exists)
        assert (await envsync_process(*command))[0] == 124, "a stranger has to wait"
        assert (await envsync_process(*command, env=hold.variables()))[:2] == (0, "HELLO, WORLD!\n")
    assert (await waiter.end())[0] == 0


@pytest.mark.anyio
async def test_another_digest_within_the_block_is_refused(tmp_path: Path, use: Use) -> None:
    """A child that would have to change what its parent uses would wait for itself."""
    env = tmp_path / "env"
    async with use(LOCK, env=env) as hold:
        words = ["sync", "--quiet", "--lock", str(NEXT), "--env", str(env)]
        status, _, err = await envsync_process(*words, env=hold.variables(), pass_fds=[hold.fd])
    assert status == 124
    assert "waiting would be for itself" in err


@pytest.mark.anyio
async def test_a_child_that_inherits_the_descriptor_keeps_the_hold(tmp_path: Path, use: Use) -> None:
    """The environment is in use for as long as the child runs, though the block has ended."""
    env = tmp_path / "env"
    async with use(LOCK, env=env) as hold:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[hold.fd])
    try:
        assert (await envsync_process(*sync_words(env)))[0] == 124
    finally:
        child.communicate()
    assert (await envsync_process(*sync_words(env)))[0] == 0


@pytest.mark.anyio
async def test_a_child_of_a_hold_is_in_the_environment(tmp_path: Path, use: Use) -> None:
    """Its commands are found first, its variables are those of `run`, and it keeps the hold, also beyond the block."""
    env = tmp_path / "env"
    async with use(LOCK, env=env) as hold:
        greeting = hold.popen(["greet"], stdout=subprocess.PIPE, text=True)
        assert greeting.communicate(timeout=SECONDS)[0] == "HELLO, WORLD!\n"
        told_ = hold.popen(
            ["env", "-0"], env={"PATH": "/usr/bin:/bin", "PYTHONHOME": "/x"}, stdout=subprocess.PIPE, text=True
        )
        variables = dict(each.split("=", 1) for each in told_.communicate(timeout=SECONDS)[0].split("\0") if each)
        assert variables == hold.variables({"PATH": "/usr/bin:/bin", "PYTHONHOME": "/x"})
        assert variables["PATH"] == f"{env}/bin:/usr/bin:/bin"
        before = descriptors()
        with pytest.raises(FileNotFoundError):
            hold.popen(["no-such-command"])
        assert descriptors() == before
        child = hold.popen(
            ["sh", "-c", "exec 3>&1; read line; echo $line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    try:
        assert (await envsync_process(*sync_words(env)))[0] == 124
    finally:
        child.communicate(b"x\n")
    assert (await envsync_process(*sync_words(env)))[0] == 0
    with pytest.raises(ValueError, match="is released"):
        hold.popen(["true"])


@pytest.mark.anyio
async def test_activation_is_what_differs(tmp_path: Path, use: Use) -> None:
    """Added to the variables that are there, it makes those of a child; what has to go is empty."""
    before = {"PATH": "/usr/bin", "PYTHONHOME": "/x", "HOME": "/home/me", "PYTHONPATH": "/y"}
    async with use(LOCK, env=tmp_path / "env", isolated=True) as hold:
        added = hold.activation(before)
        assert {name: value for name, value in {**before, **added}.items() if value} == hold.variables(before)
    assert "HOME" not in added
    assert (added["PYTHONHOME"], added["PYTHONPATH"]) == ("", "")


@pytest.mark.anyio
async def test_a_process_of_a_coordinator(tmp_path: Path) -> None:
    """It runs in the environment, which nobody changes meanwhile; if it fails, or is cancelled, that is free again."""
    env = tmp_path / "env"
    async with envsync.Coordinator() as coordinator:
        done = await coordinator.run_process(LOCK, ["greet"], env=env)
        assert (done.returncode, done.stdout) == (0, b"HELLO, WORLD!\n")
        with pytest.raises(subprocess.CalledProcessError):
            await coordinator.run_process(LOCK, ["python", "-c", "raise SystemExit(3)"], env=env)
        done = await coordinator.run_process(LOCK, "exit 3", env=env, check=False)
        assert done.returncode == 3
        before = descriptors()
        pid = tmp_path / "pid"
        async with anyio.create_task_group() as group:

            async def run() -> None:
                words = ["sh", "-c", f"echo $$ > {pid}; exec sleep 1000"]
                await coordinator.run_process(LOCK, words, env=env, variables={"PATH": "/usr/bin:/bin"})

            group.start_soon(run)
            await until(lambda: pid.exists() and pid.read_text() != "")
            assert (await envsync_process(*sync_words(env)))[0] == 124
            group.cancel_scope.cancel()
        assert descriptors() == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert is_free(env / ".envsync" / "in-use")


@pytest.mark.anyio
async def test_a_hold_that_is_refused_leaves_nothing(tmp_path: Path, use: Use) -> None:
    """A time-out while others use the environment: no descriptor is left, and they are not disturbed."""
    env = tmp_path / "env"
    async with use(LOCK, env=env):
        before = descriptors()
        with pytest.raises(errors.WaitTimeoutError):
            async with use(NEXT, env=env, timeout=0.1):
                raise AssertionError("unreachable")
        assert descriptors() == before
        assert (await envsync_process(*sync_words(env, LOCK)))[0] == 0


@pytest.mark.anyio
@pytest.mark.parametrize("lock", [LOCK, NEXT])
async def test_cancelling_within_the_block_ends_the_hold(tmp_path: Path, use: Use, lock: Path) -> None:
    """Whoever cancels the block need not know of the hold."""
    env = tmp_path / "env"
    with anyio.CancelScope() as scope:
        async with use(lock, env=env):
            scope.cancel()
            await anyio.sleep_forever()
    assert is_free(env / ".envsync" / "in-use")


@pytest.mark.anyio
async def test_an_environment_that_goes_before_it_is_entered_is_made_again(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm -rf` comes between the sync and the hold: nobody gets a hold on what is no more."""
    env = tmp_path / "env"
    enter = blocking.enter
    removals = iter([True])

    def enter_late(*arguments: Any) -> envsync.Hold | None:
        if next(removals, False):
            shutil.rmtree(env)
        return enter(*arguments)

    monkeypatch.setattr(blocking, "enter", enter_late)
    async with use(LOCK, env=env) as hold:
        assert hold.fd >= 0
        assert unverified(env) == []


# Environments that cannot be changed

PROGRAM = """\
import anyio, envsync, sys
lock, other, env, backend = sys.argv[1:]

async def program():
    async with envsync.Coordinator() as coordinator:
        async with coordinator.use(lock, env=env) as hold:
            print(hold.result.outcome, hold.fd >= 0)
        with Refusal():
            async with coordinator.use(other, env=env):
                print("unreachable")

class Refusal:
    def __enter__(self): pass
    def __exit__(self, kind, error, trace):
        print(kind.__name__)
        return True

with envsync.use(lock, env=env) as hold:
    print(hold.result.outcome, hold.fd >= 0)
with Refusal():
    with envsync.use(other, env=env):
        print("unreachable")
anyio.run(program, backend=backend)
"""


# Root heeds modes, too, without these capabilities (capabilities(7)).
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if IS_ROOT else []
READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"']


def used(env: Path, backend: str, prefix: list[str]) -> list[str]:
    """Use the environment from a process that is started so; return what it saw."""
    cache = env.parent / "cache"
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", PROGRAM, str(LOCK), str(NEXT), str(env), backend],
        env={**os.environ, "ENVSYNC_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def skip_unless_it_works(*words: str) -> None:
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not allowed here: {error}")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Path]:
    """An environment that is current, and whose modes are given back in the end."""
    env = tmp_path / "env"
    envsync.sync(LOCK, env=env)
    yield env
    for directory, _, files in os.walk(env):
        for path in (directory, *(f"{directory}/{name}" for name in files if name in {".lock", "in-use"})):
            os.chmod(path, 0o755)


def write_protect(env: Path, *, directories: bool) -> None:
    """Take the right to write: to the locks, and to the directories if so asked."""
    for path in (env / ".lock", env / ".envsync" / "in-use"):
        if path.exists():
            path.chmod(0o444)
    for directory, _, _ in os.walk(env) if directories else ():
        os.chmod(directory, 0o555)


def test_a_write_protected_environment_is_used_by_its_stamp(env: Path, anyio_backend: str) -> None:
    """A stamp that fits is all it takes, and the hold is a lock as any. What is not in it is refused."""
    skip_unless_it_works(*UNPRIVILEGED)
    write_protect(env, directories=True)
    assert used(env, anyio_backend, UNPRIVILEGED) == ["current True", "EnvironmentRefusedError"] * 2


@pytest.mark.parametrize("missing", ["stamp", "all"])
def test_without_a_stamp_a_write_protected_environment_is_compared(env: Path, anyio_backend: str, missing: str) -> None:
    """Nobody can renew the stamp, so it is not waited for: the names and versions are compared, and that is that."""
    skip_unless_it_works(*UNPRIVILEGED)
    (env / ".envsync" / "stamp").unlink()
    if missing == "all":
        shutil.rmtree(env / ".envsync")
    write_protect(env, directories=True)
    seen = used(env, anyio_backend, UNPRIVILEGED)
    assert seen == [f"current {missing != 'all'}", "EnvironmentRefusedError"] * 2


def test_an_environment_of_which_only_the_lock_is_write_protected(env: Path, anyio_backend: str) -> None:
    """As where several users share the directories, and one of them owns the files: it is used, and `use` ends."""
    skip_unless_it_works(*UNPRIVILEGED)
    (env / ".envsync" / "stamp").unlink()
    write_protect(env, directories=False)
    assert used(env, anyio_backend, UNPRIVILEGED) == ["current True", "EnvironmentRefusedError"] * 2


def test_an_environment_on_a_read_only_mount_is_used_as_it_is(env: Path, anyio_backend: str) -> None:
    """By whoever, root included."""
    mounted = [*READ_ONLY, str(env)]
    skip_unless_it_works(*mounted)
    (env / ".envsync" / "stamp").unlink()
    assert used(env, anyio_backend, mounted) == ["current True", "EnvironmentRefusedError"] * 2


# Threads


def test_eight_threads_share_one_sync(tmp_path: Path, log: Path) -> None:
    """Threads exclude each other as processes do: one syncs, the others wait or find it done."""
    env = tmp_path / "env"
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def work(number: int) -> None:
        barrier.wait(SECONDS)
        if number % 2:
            outcomes.append(envsync.sync(LOCK, env=env).outcome)
        else:
            with envsync.use(LOCK, env=env) as hold:
                outcomes.append(hold.result.outcome)

    before = descriptors()
    in_threads(work)
    assert len(outcomes) == 8
    assert outcomes.count("synced") == told(log).count("synced") == 1
    assert unverified(env) == []
    assert is_free(env / ".lock")
    assert is_free(env / ".envsync" / "in-use")
    assert descriptors() == before


def test_eight_threads_with_an_environment_each(tmp_path: Path, log: Path) -> None:
    """They do not get in each other's way: nothing that belongs to the process is changed for all of them."""

    def work(number: int) -> None:
        assert envsync.sync((LOCK, NEXT)[number % 2], env=tmp_path / f"env{number}").outcome == "synced"

    in_threads(work)
    assert told(log).count("synced") == 8
    assert [unverified(tmp_path / f"env{number}") for number in range(8)] == [[]] * 8


def in_threads(work: Any) -> None:
    """Call it with the numbers 0 to 7 in a thread each, and raise what it raised."""
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    if raised:
        raise raised[0]


def test_the_umask_of_the_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """umask(2) can only be read by setting it, for all threads: two that do so at once may leave it changed."""
    from envsync.system import posix

    calls = []
    umask = os.umask

    def note(mask: int) -> int:
        calls.append(mask)
        return umask(mask)

    for module in (os, posix.os):
        monkeypatch.setattr(module, "umask", note)
    envsync.sync(LOCK, env=tmp_path / "env")
    assert calls == []


@pytest.mark.anyio
async def test_a_script_in_a_notebook_may_block_its_event_loop(tmp_path: Path) -> None:
    """Notebooks run every cell within a running loop: `envsync.sync` works there as in any script."""
    assert envsync.sync(LOCK, env=tmp_path / "env", cache_dir=tmp_path / "cache").outcome == "synced"
