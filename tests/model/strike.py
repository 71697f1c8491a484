"""Kill a command before a change of the file system."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from envsync.__main__ import main

CHANGES = frozenset(
    {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
)


class Struck(NamedTuple):
    """How a command ended that was to be killed."""

    killed: bool
    status: int
    said: str


def strike(arguments: list[str], is_due: Callable[[int], bool], log: Path) -> Struck:
    """Run a command line in a child that is killed before the first change of the file system that is due."""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        said = log.read_text() if log.exists() else ""
        return Struck(os.WIFSIGNALED(status), -1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), said)
    count = 0

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or writes:
            count += 1
            if is_due(count):
                os.kill(os.getpid(), signal.SIGKILL)

    status = 70
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.addaudithook(audit)
        status = main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)
