"""Run a hundred tasks with eight workers. Each task names the lock file that it needs.

    python task_runner.py .venvs pylock.toml pylock.next.toml

Tasks of one lock file share an environment, which is named by the digest of what is in it. So no task waits for
another one's end, and an environment is never changed once it is made.
"""

import argparse
import sys
from typing import NamedTuple

import anyio
from anyio.abc import ObjectReceiveStream

import envsync
from envsync import events

WORKERS = 8
TASKS = 100


class Task(NamedTuple):
    number: int
    lock: str


def tell(event: events.Event) -> None:
    """Show what happens, a line each. Called in the event loop, so it must not block."""
    match event:
        case events.Waiting(env, message):
            line = f"{env}: {message}"
        case events.Started(env):
            line = f"{env}: is being changed"
        case events.Progress(env, phase, done, total):
            line = f"{env}: {phase} {done}/{total}"
        case events.Finished(env, result):
            line = f"{env}: {result.outcome} in {result.seconds:.2f} s"
        case events.Failed(env, error):
            line = f"{env}: failed: {error}"
        case _:
            line = f"{event.env}: {type(event).__name__.lower()}"
    print(line, file=sys.stderr, flush=True)


async def work(coordinator: envsync.Coordinator, tasks: ObjectReceiveStream[Task], envs: str) -> None:
    """Do tasks until there are none left."""
    async for task in tasks:
        try:
            # The first task of a lock file syncs its environment; for the others it is there.
            async with coordinator.use(task.lock, env=f"{envs}/{{digest}}") as hold:
                words = [hold.python, "-c", f"print('task', {task.number})"]
                done = await anyio.run_process(words, env=hold.variables())
                print(done.stdout.decode().strip(), flush=True)
        except envsync.EnvsyncError as error:
            # One bad lock file fails its own tasks, and nobody else's.
            print(f"task {task.number} failed: {error}", flush=True)


async def main(envs: str, locks: list[str]) -> None:
    send, receive = anyio.create_memory_object_stream[Task]()
    # At most two environments are synced at once; as many as there are workers may be used or waited for.
    async with (
        envsync.Coordinator(jobs=2, on_event=tell) as coordinator,
        anyio.create_task_group() as group,
        send,
        receive,
    ):
        for _ in range(WORKERS):
            group.start_soon(work, coordinator, receive.clone(), envs)
        for number in range(TASKS):
            await send.send(Task(number, locks[number % len(locks)]))
        send.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("envs", help="the directory for the environments")
    parser.add_argument("locks", nargs="+", help="the lock files")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    arguments = parser.parse_args()
    anyio.run(main, arguments.envs, arguments.locks, backend=arguments.backend)
