"""Run one program, and end all that it has started when it ends, or when the process that wants it is gone.

Run as a script by the Python that runs envsync, isolated and without `site`: nothing of envsync can be imported here.
`envsync.building.supervised` is the other side.

    stdin    one line of JSON: {"argv": [...], "cwd": ..., "env": {...}}, each text the bytes of it as Latin-1. Whatever
             follows means: end it. So does the end of the pipe, which the kernel sees to if the other side is killed.
    stdout   `exit STATUS`, once nothing of the program is left: its exit status, or minus the number of the signal that
             has ended it; `failed ERRNO`, if it could not be started
    stderr   the log: of the program, both that it says and what it says is wrong

The program begins a session of its own, with no input, no descriptor of anybody's, and no signal ignored. On Linux this
process adopts whatever loses its parent below it (prctl(2), PR_SET_CHILD_SUBREAPER), so a daemon that forks twice and
begins another session becomes a child of ours. Ending all is therefore ending the children until there are none: a
child's pid cannot be anybody else's until it is waited for, so nobody else is ever hit. Where the kernel does not
adopt, or tells nobody's children (no /proc, or that of another pid namespace), the program's process group is ended.

Not covered: what has become another user's (setuid) and may not be killed by us is left to itself. If this process is
killed, the program is killed with it (PR_SET_PDEATHSIG), but not what the program has started.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys

assert sys.platform != "win32"  # sessions, signals and descriptors of POSIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.5
"""Between two looks at who our parent is: a fork of it may keep its end of the pipe open when it dies."""
ROUND_SECONDS = 0.05
"""Until the children are looked for again, if none of them has ended by then."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
"""What a terminal or a job's end sends to all at once: the one that wants the program decides, and we follow."""
LATE = 126
"""What the child exits with that has said why it could not become the program."""


def main() -> None:
    """Run the program that stdin names."""
    parent = os.getppid()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    woken, waking = os.pipe()
    for fd in (woken, waking):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl = find_prctl()
    family = Family(woken, adopts=prctl(PR_SET_CHILD_SUBREAPER, 1) and tells_children())
    asked = read_request()
    if asked is None:
        return
    status = family.start(asked, lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if status:
        say(f"failed {status}")
        return
    while family.status is None and os.getppid() == parent and not has_ended(family.pause(LOOK_SECONDS, 0)):
        family.reap()
    family.end()
    if family.status is not None:
        say(f"exit {family.status}")


def find_prctl() -> Callable[[int, int], bool]:
    """Return prctl(2), which tells whether it has done what was asked; one that never has, where there is none."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda *_: False
    return lambda what, value: bool(prctl(what, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) == 0)


def tells_children() -> bool:
    """Tell whether /proc knows processes by the pids that we know them by (pid_namespaces(7))."""
    try:
        with open("/proc/self/status", "rb") as file:
            pids = [line.split()[1:] for line in file if line.startswith(b"NSpid:")]
        return pids in ([], [[b"%d" % os.getpid()]])
    except OSError:
        return False


def read_request() -> dict[str, list[bytes]] | None:
    """Return the program's words, its variables as `NAME=VALUE`, and its directory; None: nobody wants it any more."""
    line = b""
    while b"\n" not in line:
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return None
        line += chunk
    try:
        asked = json.loads(line) if line.endswith(b"}\n") else {}
    except ValueError:
        return None  # it was given up while it was said
    return {key: [text.encode("latin-1") for text in texts] for key, texts in asked.items()} or None


def has_ended(ready: list[int]) -> bool:
    """Tell whether stdin is among what can be read: whatever it says, it means the end."""
    return 0 in ready


def say(line: str) -> None:
    try:
        os.write(1, line.encode() + b"\n")
    except BrokenPipeError:
        pass  # nobody wants to know


class Family:
    """The program, and whatever it has started.

    :ivar pid: of the program
    :ivar status: of the program, once it has ended
    :ivar alone: no child is left at all
    :ivar spared: children that may not be killed
    """

    def __init__(self, woken: int, *, adopts: bool) -> None:
        self.woken = woken
        self.adopts = adopts
        self.pid = 0
        self.status: int | None = None
        self.alone = False
        self.spared: set[int] = set()

    def start(self, asked: dict[str, list[bytes]], die_with_us: Callable[[], object]) -> int:
        """Start the program. Returns the errno of what went wrong, 0 if it runs."""
        reading, writing = os.pipe()
        us = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            try:
                die_with_us()
                if os.getppid() == us:
                    become(asked)
            except OSError as error:
                os.write(writing, b"%d" % (error.errno or errno.EIO))
            finally:
                os._exit(LATE)
        os.close(writing)
        problem = os.read(reading, 32)
        os.close(reading)
        if problem:
            os.waitpid(self.pid, 0)
        return int(problem or 0)

    def pause(self, seconds: float, *besides: int) -> list[int]:
        """Wait until a child ends or another descriptor can be read. Returns which of all can be."""
        ready = select.select([self.woken, *besides], [], [], seconds)[0]
        if self.woken in ready:
            os.read(self.woken, 1 << 12)
        return ready

    def reap(self) -> None:
        """Take note of the children that have ended."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.status = os.waitstatus_to_exitcode(ended[1])
                self.spared.discard(ended[0])
        except ChildProcessError:
            self.alone = True

    def end(self) -> None:
        """End all, and return once nothing is left that can be ended."""
        self._end_group()
        self.reap()
        while not self._is_over(children := self._children()):
            for pid in children:
                self._kill(pid)
            self.pause(ROUND_SECONDS)
            self.reap()

    def _is_over(self, children: set[int]) -> bool:
        if not self.adopts:
            return self.status is not None
        return self.alone or bool(children and children <= self.spared)

    def _end_group(self) -> None:
        """End the program's process group: all at once, and where nobody is adopted, all there is to do."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # none is left of it, or another user's, or (macOS) only those that have ended

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was a zombie that an earlier look has found
        except PermissionError:
            self.spared.add(pid)

    def _children(self) -> set[int]:
        us = os.getpid()
        if not self.adopts:
            return {self.pid}
        try:
            with open(f"/proc/self/task/{us}/children") as file:
                return set(map(int, file.read().split()))
        except OSError:  # a kernel that does not list them (CONFIG_PROC_CHILDREN)
            return {int(name) for name in os.listdir("/proc") if name.isdigit() and parent_of(name) == us}


def parent_of(pid: str) -> int:
    """Return the parent of a process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def become(asked: dict[str, list[bytes]]) -> None:
    """Become the program. Returns only by an exception.

    :raises OSError: its directory or the program cannot be used
    """
    os.setsid()
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP, and what the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(asked["cwd"][0])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, number in ((nothing, 0), (2, 1)):
        os.dup2(fd, number)
    env = dict(pair.split(b"=", 1) for pair in asked["env"])
    os.execvpe(asked["argv"][0], asked["argv"], env)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
