"""A program of the soak: it syncs in a thread by the library, and forks all the while.

    python tests/contention/forker.py LOCK ENV SECONDS

What it forks lives for some seconds more and looks at its own descriptors: a file of a lock that is open there outlives
the sync, and is written to `<SOAK>/violations.jsonl`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import envsync

LOCKS = re.compile(
    r"(/\.lock|/\.gate|/\.envsync/(in-use|leading|wanted|lease\S*|waiting/.*)|/v1/locks/.*|/v1/tmp/[^/]*)$"
)
"""The ends of paths of files that are locked. Others may be open when somebody forks, for the moment of a read."""
GENTLE_SECONDS = 0.02
"""Between two forks."""


def main() -> int:
    """Sync once, and fork until that is over; the exit status tells whether it was synced."""
    lock, env, seconds = sys.argv[1:]
    errors: list[envsync.EnvsyncError] = []
    thread = threading.Thread(target=sync, args=(lock, env, errors))
    thread.start()
    while thread.is_alive():
        if os.fork() == 0:
            look_and_end(float(seconds))
        time.sleep(GENTLE_SECONDS)
    thread.join()
    for error in errors:
        print(error, file=sys.stderr)
    return errors[0].exit_code if errors else 0


def sync(lock: str, env: str, errors: list[envsync.EnvsyncError]) -> None:
    try:
        envsync.sync(lock, env=env)
    except envsync.EnvsyncError as error:
        errors.append(error)


def look_and_end(seconds: float) -> None:
    """Live as long as a worker does, then tell what was inherited. Does not return."""
    try:
        time.sleep(seconds)
        if inherited := held():
            soak = os.environ["SOAK"]
            line = json.dumps({"problem": f"a fork of pid {os.getppid()} kept {', '.join(inherited)}"}) + "\n"
            fd = os.open(f"{soak}/violations.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.write(fd, line.encode())
    finally:
        os._exit(0)


def held() -> list[str]:
    """Name the files of locks that are open here."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{number}")
            if path.startswith(os.environ["SOAK"] + "/") and LOCKS.search(path.removesuffix(" (deleted)")):
                found.append(path)
    return found


if __name__ == "__main__":
    sys.exit(main())
