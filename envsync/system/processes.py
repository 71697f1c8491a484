"""What this host tells of processes: who holds a lock, what they run, whether they are stopped (proc(5)).

A pid means something only on one host and within one pid namespace, so nothing here is ever asked about a process
that said it is elsewhere: `here()` names the place, and only equal names may be compared. Everything is for people to
read, or to find out that waiting is for oneself; whether a lock is held is for the kernel to say, not for /proc.

Where there is no /proc, the system is asked in another way (`envsync.system.native`): Windows knows who is alive, since
when, and by which command line; macOS who is alive. Who holds a lock, neither says.
"""

from __future__ import annotations

import sys

from envsync.errors.redact import redacted
from envsync.system import core, native

os = core.os


def processors() -> int:
    """Return how many processors this process may use; where nobody says so (macOS), how many there are."""
    import os  # not posix: macOS has no affinity, and posix no count

    if sys.platform == "linux" and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


COMMAND_CHARACTERS = 80
"""Of a command line, as it is shown."""


def user() -> int:
    """Return whose this process is: its effective user id (geteuid(2))."""
    return core.user()


def host() -> str:
    """Return this host's name."""
    return core.host()


def boot() -> str:
    """Name this boot of this kernel; empty if that is not known. Containers of one host have the same."""
    return read_proc("/proc/sys/kernel/random/boot_id").strip() or native.boot()


def is_proc_ours() -> bool:
    """Tell whether /proc shows pids as we know them: a container may see that of its host (pid_namespaces(7))."""
    for line in read_proc("/proc/self/status").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) == 2
    return True  # a kernel without namespaces, or no /proc at all


def here() -> str:
    """Name the place within which pids mean the same: boot and pid namespace. Empty if that is not known."""
    return _boot_and_namespace("pid") if is_proc_ours() else ""


def view() -> str:
    """Name those who see the same files in the same places: boot and mount namespace. Empty if that is not known."""
    return _boot_and_namespace("mnt")


def _boot_and_namespace(kind: str) -> str:
    if not native.MAY_HAVE_PROC:
        return boot()  # who has no /proc has no namespaces either
    try:
        return f"{boot()} {os.readlink(f'/proc/self/ns/{kind}')}"
    except OSError:
        return "" if has_proc() else native.boot()


def clock() -> float:
    """Return seconds since the host's boot, sleep included: one clock for all processes of a host."""
    return native.clock()


def started() -> float:
    """Return when this process was started, by `clock()`; now, if that is not known."""
    return started_of("self") or clock()


def started_of(pid: int | str) -> float:
    """Return when a process here was started, by `clock()`; 0 if there is none, or that is not known."""
    if not native.MAY_HAVE_PROC:
        return native.started_of(os.getpid() if pid == "self" else int(pid))
    fields = read_proc(f"/proc/{pid}/stat").rpartition(")")[2].split()
    try:
        return int(fields[19]) / native.clock_ticks()
    except (IndexError, ValueError, OSError):
        return 0.0


def own_command() -> str:
    """Return this process's command line, as it is shown."""
    return shown(getattr(sys, "argv", ["envsync"]))


def own_program() -> str:
    """Return what this process runs: its script, or its Python."""
    script = next(iter(getattr(sys, "argv", [])), "")
    return script if script not in ("", "-", "-c", "-m") else sys.executable or "python"


def command_of(pid: int) -> str:
    """Return the command line of a process here, as it is shown; empty if it is gone."""
    said = read_proc(f"/proc/{pid}/cmdline").rstrip("\0")
    return shown(said.split("\0") if said else native.command_of(pid))


def variables_of(pid: int) -> dict[str, str]:
    """Return the variables that a process here was started with; empty if it is not ours to look into."""
    pairs = (pair.partition("=") for pair in read_proc(f"/proc/{pid}/environ").split("\0"))
    return {name: value for name, _, value in pairs if name}


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process here, other than a zombie where /proc shows these."""
    state = _state(pid)  # a mount option hides what is others' (hidepid, proc(5)), but kill(2) knows them
    return state not in ("Z", "X") if state else native.is_alive(pid)


def is_stopped(pid: int) -> bool:
    """Tell whether a process here was stopped (SIGSTOP, SIGTSTP, a debugger)."""
    return _state(pid) in ("T", "t")


def _state(pid: int) -> str:
    return read_proc(f"/proc/{pid}/stat").rpartition(")")[2][1:2]


def holders(path: str) -> list[int]:
    """Return the processes here that hold a file's flock, in order.

    /proc/locks names who took a lock; if that process has ended and left the descriptor to its children, they are
    looked for among all processes that we may look into.
    """
    try:
        status = os.stat(path)
    except OSError:
        return []
    if not is_proc_ours():
        return []
    device = device_of(status)
    found = set()
    orphaned = False
    for fields in map(str.split, read_proc("/proc/locks").splitlines()):
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        held_on, _, inode = fields[5].rpartition(":")
        pid = int(fields[4])
        if inode != str(status.st_ino) or not (held_on == device or _has_open(pid, status)):
            continue  # btrfs gives its subvolumes devices that /proc/locks does not know
        if is_alive(pid):
            found.add(pid)
        else:
            orphaned = True
    if orphaned:
        found.update(pid for pid in everybody() if _has_open(pid, status))
    return sorted(found)


def device_of(status: os.stat_result) -> str:
    """Return the device that a file is on as /proc/locks has it."""
    return "{:02x}:{:02x}".format(*native.device(status.st_dev))


def users_of(path: str) -> list[int]:
    """Return the processes here, but this one, that have a file open, as far as they are ours to look into.

    Where the kernel asks a server for locks (FUSE), /proc/locks does not have them.
    """
    try:
        status = os.stat(path)
    except OSError:
        return []
    others = everybody() if is_proc_ours() else []
    return sorted(pid for pid in others if pid != os.getpid() and _has_open(pid, status))


def may_look_into(pid: int) -> bool:
    """Tell whether it can be seen which files a process here has open."""
    return os.access(f"/proc/{pid}/fd", os.R_OK)


def is_waited_for(path: str) -> bool:
    """Tell whether a process here is blocked because somebody holds a file's flock."""
    try:
        inode = os.stat(path).st_ino
    except OSError:
        return False
    for fields in map(str.split, read_proc("/proc/locks").splitlines()):
        if fields[1:3] == ["->", "FLOCK"] and fields[6:] and fields[6].rpartition(":")[2] == str(inode):
            return True
    return False


def everybody() -> list[int]:
    """Return all processes that are seen here."""
    if not native.MAY_HAVE_PROC:
        return []
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _has_open(pid: int, status: os.stat_result) -> bool:
    """Tell whether a process has a file open, as far as it is ours to look into."""
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    return any(_is_file(f"/proc/{pid}/fd/{fd}", status) for fd in fds)


def _is_file(path: str, status: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def ancestors() -> set[int]:
    """Return this process's parent, its parent, and so on."""
    found: set[int] = set()
    if not is_proc_ours():
        return found
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        pid = _parent(pid)
    return found


def _parent(pid: int) -> int:
    """Return the parent of a process here; 0 if it has none, or is gone."""
    lines = read_proc(f"/proc/{pid}/status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), 0)


def who_forked(pid: int) -> int:
    """Return the process that has forked another one to share its work, or that one itself: both have one command
    line. It is the one that people have started, and can end.
    """
    command = read_proc(f"/proc/{pid}/cmdline")
    while command and read_proc(f"/proc/{_parent(pid)}/cmdline") == command:
        pid = _parent(pid)
    return pid


def has_proc() -> bool:
    """Tell whether there is a /proc, so that what is not in it is not there."""
    return bool(read_proc("/proc/self/stat"))


def is_below(who: str) -> bool:
    """Tell without /proc whether this process descends from another one, as far as a system without one tells.

    Its parent it knows, and so does ps(1), or Windows, the parents of that one. Where nobody says them, the session is
    taken for the family: whoever has left it (a daemon, a terminal multiplexer) is not waited with.

    :param who: pid and host of that other one, as in `4711@node07`
    """
    number, _, place = who.partition("@")
    if place != host() or not number.isdecimal() or len(number) > 9:
        return False
    pid = int(number)
    if pid == os.getppid():
        return True
    above = _parents()
    if above:
        return pid in above
    return native.is_of_our_session(pid)


def _parents() -> set[int]:
    """Return this process's ancestors, as a system without /proc tells them; empty if it does not say."""
    parents = native.parents()
    found: set[int] = set()
    pid = os.getpid()
    while (pid := parents.get(pid, 0)) > 1 and pid not in found:
        found.add(pid)
    return found


def inherited(path: str, *, besides: int = -1) -> bool:
    """Tell whether this process has a file open already, as it does if it inherited the descriptor of a lock.

    :param besides: a descriptor that does not count
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    try:
        fds = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc
        fds = list(range(256))
    for fd in fds:
        try:
            found = os.fstat(fd) if fd != besides else None
        except OSError:
            continue
        if found is not None and (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return True
    return False


def read_umask() -> int:
    """Return this process's umask.

    umask(2) tells it only by setting it, for all threads at once: what others make just then has a wrong mode, and two
    that ask at once may leave the wrong one for good. Linux tells it without (proc(5)).
    """
    for line in read_proc("/proc/self/status").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return native.umask()


def read_proc(path: str) -> str:
    """Read a file of /proc; empty if it is not there."""
    if not native.MAY_HAVE_PROC:
        return ""
    try:
        fd = core.open_file(path, os.O_RDONLY)
    except OSError:
        return ""
    chunks = []
    try:
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
    except OSError:
        return ""  # the process has ended meanwhile
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "replace")


def shown(words: list[str]) -> str:
    """Return a command line as it is shown: others' wait messages, logs and state files have it, so without secrets."""
    line = redacted(" ".join(words))
    name, _, rest = line.partition(" ")
    name = name.removesuffix("/__main__.py").rpartition("/")[2]  # `python -m envsync` has it for a name
    line = f"{name} {rest}".strip()
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= COMMAND_CHARACTERS else line[: COMMAND_CHARACTERS - 3] + "..."
