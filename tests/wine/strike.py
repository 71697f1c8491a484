"""`wpy strike.py WHEN ARGUMENT...`: an envsync command that is struck at its N-th change of the filesystem.

On other systems (tests/mac) a killed command gets SIGKILL.

WHEN is `kill:N`, `kill:N:commit` (counted from the rename of the journal into place to its removal), `pause:N` or
`pause:N:commit`. A command that is to be killed calls TerminateProcess on itself right before the change. One that is
to pause says so on stderr instead, and stays there with all its locks until somebody kills it. If it makes fewer
changes than that, it ends as it would without.

For what is counted see tests/crash/harness.py, the same for other systems. Here a file that is opened is CreateFile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from envsync.__main__ import main

CHANGES = frozenset(
    {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime"}
)
JOURNAL = "/.envsync/journal"
GENERIC_WRITE, APPEND = 0x40000000, 0x4
PATH = str | bytes | os.PathLike
STATUS = 77
"""Of a command that was killed."""


class Strike:
    """The audit hook that counts."""

    def __init__(self, when: str) -> None:
        kind, number, *where = when.split(":")
        self.pauses = kind == "pause"
        self.left = int(number)
        self.within = bool(where)
        """Only what is changed within the commit counts."""
        self.decided = False
        self.guard = threading.Lock()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not is_change(event, args):
            return
        with self.guard:
            paths = [os.fsdecode(path).replace("\\", "/") for path in args[:2] if isinstance(path, PATH)]
            if event == "os.rename" and paths[-1].endswith(JOURNAL):
                self.decided = True
            counts = self.decided or not self.within
            if event == "os.remove" and paths[0].endswith(JOURNAL):
                self.decided = False  # once this is done
            self.left -= counts
            if not counts or self.left:
                return
        if not self.pauses:
            end()
        os.write(2, f"paused before {event} {args[:2]}\n".encode())
        while True:
            time.sleep(60)


def end() -> None:
    """End this process at once, as nothing in it can help."""
    if sys.platform == "win32":
        import _winapi

        _winapi.TerminateProcess(_winapi.GetCurrentProcess(), STATUS)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def is_change(event: str, args: tuple[Any, ...]) -> bool:
    if event == "_winapi.CreateFile":
        return bool(args[1] & (GENERIC_WRITE | APPEND))
    if event == "open":
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return bool(writes) and args[0] != os.devnull
    return event in CHANGES


if __name__ == "__main__":
    sys.addaudithook(Strike(sys.argv[1]))
    sys.dont_write_bytecode = True
    sys.exit(main(sys.argv[2:]))
