"""A pool of processes that are in an environment. This program has envsync; they have the packages of the lock file.

    python process_pool.py pylock.toml .venv ada grace

multiprocessing imports this file in every process of the pool, too: what it imports on top, they have to have.
"""

import sys
from concurrent.futures import ProcessPoolExecutor


def greeting(name: str) -> str:
    """Runs in a process of the pool."""
    import greet

    return greet.greeting(name)


def main(lock: str, env: str, *names: str) -> None:
    import envsync
    from envsync.integrations.multiprocessing import context

    try:
        # Nobody changes the environment before the pool has ended.
        with (
            envsync.use(lock, env=env) as hold,
            ProcessPoolExecutor(2, mp_context=context(hold)) as pool,
        ):
            for line in pool.map(greeting, names):
                print(line)
    except envsync.EnvsyncError as error:
        sys.exit(f"{error}\nhint: {error.hint}")


if __name__ == "__main__":
    main(*sys.argv[1:])
