"""`progress.json`: what the leader is doing, for those who wait for it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from envsync import replace
from envsync.environment import Environment
from envsync.errors import FilesystemError
from envsync.progress import Report

EVERY_SECONDS = 0.25


class ProgressFile:
    """A report that is also written to the environment, at most a few times a second. Never fails a sync."""

    def __init__(self, environment: Environment, key: str, report: Report) -> None:
        self.environment = environment
        self.report = report
        self.lock = threading.Lock()
        self.next = 0.0
        self.phase = ""
        self.value: dict[str, object] = {
            "format": 1,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "command": sys.argv,
            "since": time.time(),
            "key": key,
        }

    def __call__(self, phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        self.report(phase, done, total, bytes_done, bytes_total)
        now = time.monotonic()
        with self.lock:
            if phase == self.phase and now < self.next:
                return
            self.phase, self.next = phase, now + EVERY_SECONDS
            self.value.update(phase=phase, done=done, total=total)
            try:
                replace.write(self.environment.progress, json.dumps(self.value).encode())
            except FilesystemError:
                pass  # a full disk stops the sync where it matters, not here

    def remove(self) -> None:
        """Remove the file: nobody leads any more."""
        replace.discard(self.environment.progress)
