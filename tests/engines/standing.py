"""A sync that stands still in its middle until the test says what becomes of it, whichever engine has started it.

    with standing(lock, env) as sync:
        runner = start()
        pid = sync.kill(runner)      # SIGKILL to who syncs, in the middle of it; then nothing stands in the way

One more wheel is locked, which no cache has. It comes from a server, which keeps half of it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envsync.system import processes
from tests.unit.fetching.server import File, Server, serving
from tests.wheels import build_wheel


class Standing:
    """What is known of the sync."""

    def __init__(self, server: Server, file: File, env: Path) -> None:
        self._server = server
        self._file = file
        self._env = env

    def leader(self, *runners: subprocess.Popen[Any]) -> int:
        """Wait until half of the wheel has come. Returns the process that leads the sync, by the lock that it holds.

        :param runners: one of which it is, or has started it: it is no use to wait when all have ended
        """
        while not self._server.began.wait(0.1):
            assert not runners or any(each.poll() is None for each in runners), "all have ended before there was a sync"
        [leader] = processes.holders(str(self._env / ".envsync/leading"))
        return leader

    def let_go(self) -> None:
        """Send the other half, too: to whoever asks."""
        held, self._file.hold = self._file.hold, None
        assert held is not None
        held.set()

    def kill(self, *runners: subprocess.Popen[Any]) -> int:
        """Kill the process that leads the sync, in the middle of it, and hold up nobody else. Returns which it was."""
        leader = self.leader(*runners)
        os.kill(leader, signal.SIGKILL)
        self.let_go()
        return leader


@contextmanager
def standing(lock: Path, env: Path) -> Iterator[Standing]:
    """Have the next sync of a lock file stand still in its middle.

    :param lock: a pylock.toml, which gets one more wheel
    """
    code = f'"""{lock}: no other test has left it in the cache."""\n'
    wheel = Path(build_wheel(lock.parent, "hourglass", "1.0", {"hourglass.py": code}))
    data = wheel.read_bytes()
    wheel.unlink()
    with serving() as server:
        file = server.files[f"/{wheel.name}"] = File(data, hold=threading.Event())
        source = f'url = "{server.url}/{wheel.name}", hashes = {{ sha256 = "{hashlib.sha256(data).hexdigest()}" }}'
        with lock.open("a") as text:
            text.write(f'\n[[packages]]\nname = "hourglass"\nversion = "1.0"\nwheels = [{{ {source} }}]\n')
        yield Standing(server, file, env)
