"""Prepare an environment inside an anyio program, and run several programs in it at once.

python anyio_program.py pylock.toml .venv --backend trio
"""

import argparse

import anyio

import envsync


async def run_job(coordinator: envsync.Coordinator, lock: str, env: str, name: str) -> None:
    # All jobs ask for the same environment: they share one sync. A job that is cancelled does not disturb the others.
    async with coordinator.use(lock, env=env) as hold:
        done = await anyio.run_process(["greet", name], env=hold.variables())
        print(done.stdout.decode().strip(), flush=True)


async def main(lock: str, env: str) -> None:
    # Leaving the block waits until no thread of the coordinator is at work any more.
    async with envsync.Coordinator() as coordinator, anyio.create_task_group() as group:
        for name in ("ada", "grace", "barbara"):
            group.start_soon(run_job, coordinator, lock, env, name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("lock", help="the lock file")
    parser.add_argument("env", help="the environment")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    arguments = parser.parse_args()
    anyio.run(main, arguments.lock, arguments.env, backend=arguments.backend)
