"""envsync in a process whose system calls misbehave below one directory: what a filesystem would answer, answered here.

    python -m tests.odd.faults JSON ARGUMENT...

Everything else is real: processes, files, and what the calls do that are let through. JSON is an object:

- `below`: the directory; calls on other paths are let through
- `flock`, `flock_sh`: the name of an error for all locks, or for shared ones; "lie": granted without locking;
  "ex": shared ones are made exclusive
- `mount`: what the mount table says of the filesystem of the directory: its kind and one option
- `link`, `rename_dir`: the name of an error for hard links, for renames of directories
- `rename`: [error, times, after]: so many renames fail, after so many that do not
- `open`: [error, times, after]: so many tries to open a file or a directory fail, after so many that do not; those that
  may create one apart
- `lease_seconds`: instead of `envsync.locks.lease.SECONDS`
- `stop_after`: the process stops itself (SIGSTOP) after the first rename to a path that ends so, and says each later
  one below the directory in `log`
- `loses`: before it stops itself it loses its locks, as a client does that the server has given up
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import posix
import signal
import sys
from collections.abc import Callable
from typing import Any


class Faults:
    """The faults of one process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.below = os.path.realpath(spec["below"]) + "/"
        self.renames = 0
        self.opened = 0
        self.stopped = False

    def install(self) -> None:
        """Put faulty calls in the place of the sound ones, for all modules that come after."""
        self._fail_to_open()
        for name, call in (("link", self.link), ("rename", self.rename), ("replace", self.rename)):
            faulty = self._made(call, getattr(os, name))
            setattr(os, name, faulty)
            setattr(posix, name, faulty)
        fcntl.flock = self._made(self.flock, fcntl.flock)
        if "mount" in self.spec:
            from envsync.system import mounts

            mounts.read_proc = self._made(self.read, mounts.read_proc)
        if "lease_seconds" in self.spec:
            from envsync.locks import lease

            lease.SECONDS = self.spec["lease_seconds"]

    def _fail_to_open(self) -> None:
        if "open" not in self.spec:
            return
        for module, name in ((os, "open"), (posix, "open"), (io, "open"), (builtins, "open")):
            setattr(module, name, self._made(self.open, getattr(module, name)))

    def open(self, original: Callable[..., object], path: object, *arguments: Any, **keywords: Any) -> object:
        cause, times, after = self.spec["open"]
        creates = any(isinstance(flags, int) and flags & os.O_CREAT for flags in arguments[:1])
        concerned = isinstance(path, str | bytes) and self._concerns(path, keywords.get("dir_fd"))
        if concerned and not creates:
            self.opened += 1
            if after < self.opened <= after + times:
                fail(cause)
        return original(path, *arguments, **keywords)

    def _made(self, call: Callable[..., object], original: Callable[..., object]) -> Any:
        def faulty(*arguments: object, **keywords: object) -> object:
            return call(original, *arguments, **keywords)

        return faulty

    def _concerns(self, path: object, directory: int | None = None) -> bool:
        text = os.fsdecode(path)  # type: ignore[arg-type]
        if directory is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), text)
        return os.path.abspath(text).startswith(self.below) or os.path.realpath(text).startswith(self.below)

    def flock(self, original: Callable[..., object], file: Any, how: int) -> object:
        fd = file if isinstance(file, int) else file.fileno()
        if how & fcntl.LOCK_UN or not self._concerns(os.readlink(f"/proc/self/fd/{fd}")):
            return original(file, how)
        answer = self.spec.get("flock")
        if how & fcntl.LOCK_SH:
            answer = self.spec.get("flock_sh", answer)
            if answer == "ex":
                return original(file, (how & ~fcntl.LOCK_SH) | fcntl.LOCK_EX)
        if answer == "lie":
            return None
        return fail(answer) if answer else original(file, how)

    def read(self, original: Callable[..., str], path: str) -> str:
        if path != "/proc/self/mountinfo":
            return original(path)
        device = os.stat(self.below).st_dev
        kind, option = self.spec["mount"]
        return f"30 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} server:/ rw,{option}\n{original(path)}"

    def _lose(self) -> None:
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                path = os.readlink(f"/proc/self/fd/{fd}")
            except FileNotFoundError:
                continue  # the one by which we list
            if path.startswith(self.below):
                fcntl.flock(fd, fcntl.LOCK_UN)

    def link(self, original: Callable[..., object], source: object, target: object, **keywords: Any) -> object:
        if self.spec.get("link") and self._concerns(target, keywords.get("dst_dir_fd")):
            return fail(self.spec["link"])
        return original(source, target, **keywords)

    def rename(self, original: Callable[..., object], source: str, target: str, **keywords: Any) -> object:
        if not self._concerns(source):
            return original(source, target, **keywords)
        if self.stopped:
            with open(self.spec["log"], "a", encoding="utf-8") as log:
                log.write(f"{target}\n")
        if self.spec.get("rename_dir") and os.path.isdir(source):
            return fail(self.spec["rename_dir"])
        if self.spec.get("rename"):
            name, times, after = self.spec["rename"]
            self.renames += 1
            if after < self.renames <= after + times:
                return fail(name)
        done = original(source, target, **keywords)
        if not self.stopped and self.spec.get("stop_after") and target.endswith(self.spec["stop_after"]):
            self.stopped = True
            if self.spec.get("loses"):
                self._lose()
            os.kill(os.getpid(), signal.SIGSTOP)
        return done


def fail(name: str) -> None:
    """Fail as a filesystem does.

    :raises OSError: always
    """
    number = getattr(errno, name)
    raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    Faults(json.loads(sys.argv[1])).install()
    from envsync.__main__ import main

    sys.exit(main(sys.argv[2:]))
