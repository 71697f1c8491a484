"""Become the command: the last step of `run`, on the fast lane and after a sync alike.

The command keeps our process id, so its signals and its exit status are its own. It inherits one descriptor, that
of the in-use lock, which the kernel releases when the last process that has it ends, however it ends: the lock
lasts as long as the command and its forks do, and no longer.
"""

import _signal  # type: ignore[import-not-found]
import _thread
import errno

from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from envsync.errors import CommandError

SPOILED = frozenset({errno.EACCES, errno.ELOOP})
"""What exec answers of a command, besides ENOENT, if it or its interpreter is not what was installed."""
WHO = "ENVSYNC_IN_BY"
"""The variable that says which process on which host is the command, as in `4711@node07`."""
JOB = "ENVSYNC_IN_JOB"
"""The variable that says in which job of a scheduler the command runs."""
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID")
"""The variables by which schedulers say it; the last is Grid Engine's."""
ARRAY, POD = "SLURM_ARRAY_JOB_ID", "KUBERNETES_SERVICE_HOST"
"""Variables that say of which array a job of Slurm's is, and that this is a pod of Kubernetes."""
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")


ignored: frozenset[str] = frozenset()
"""Which of `IGNORED_BY_PYTHON` were ignored before Python began, as far as somebody has said so."""


def begin(said: str) -> None:
    """Take in what the launcher says: what there was before Python began, and variables that a shell cannot hand on.

    :param said: signals that were ignored, as in "PIPE XFSZ", and "CTYPE" if LC_CTYPE was set; empty: nobody knows
    """
    global ignored  # noqa: PLW0603  # of the process
    ignored = frozenset("SIG" + name for name in said.split())
    core.take_in(said)


class HeldLock:
    """A descriptor of a lock that this process holds.

    :ivar inode: of the file
    :ivar mtime: of the file when it was opened, in seconds since the epoch
    :ivar owner: the object whose `fd` it is, if there is one
    """

    __slots__ = ("inode", "mtime", "owner")

    def __init__(self, status: os.stat_result) -> None:
        self.inode = status.st_ino
        self.mtime = status.st_mtime
        self.owner: Any = None


held: dict[int, HeldLock] = {}
"""What a child that somebody else forks must not have (`envsync.locks.flock`)."""
guard = _thread.RLock()
"""Held while a descriptor is opened and noted, or closed: nobody forks in between."""
forking: set[int] = set()
"""The threads that fork without `guard`, which they could not get."""
last_fork = object()
"""Another one whenever somebody begins or ends to fork without `guard`."""


def open_lock(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file to lock it, and note it. Close it with `close_lock`, or `let_go` of it.

    Whoever forks waits until it is noted, though not for ever. If somebody has not waited, the child may have a
    descriptor that nobody knows of. Then this one is never locked: the file is opened anew.

    :raises OSError: it cannot be opened
    """
    while True:
        with guard:
            before = last_fork
            fd = core.open_file(path, flags, mode)
            held[fd] = HeldLock(os.fstat(fd))
        if before is last_fork and not forking:
            return fd
        close_lock(fd)
        flags &= ~os.O_EXCL  # it was made here
        if forking:
            from time import sleep

            sleep(0.001)


def own(fd: int, owner: object) -> None:
    """Say whose `fd` it is: it becomes -1 in children that do not have the descriptor."""
    if fd in held:
        held[fd].owner = owner


def let_go(fd: int) -> int:
    """Note no more that a descriptor is held: children shall have it, too."""
    held.pop(fd, None)
    return fd


def close_lock(fd: int) -> None:
    """Unlock and close a descriptor that `open_lock` has opened, whoever has inherited it meanwhile."""
    try:
        core.unlock(fd)
    except (ImportError, OSError):
        pass  # the last one who closes it unlocks it
    close_unlocked(fd)


def close_unlocked(fd: int) -> None:
    """Close a descriptor that `open_lock` has opened without unlocking it: it was not locked, or is to stay so."""
    with guard:
        try:
            os.close(fd)
        finally:
            held.pop(fd, None)


def keep_across_exec(fd: int) -> int:
    """Duplicate a lock's descriptor for the command, and close this one. The lock is kept."""
    kept = core.duplicate(fd, inherited=True)
    close_unlocked(fd)
    return kept


def environment_variables(
    environ: "Mapping[str, str]", env: str, token: str, *, isolated: bool = False
) -> dict[str, str]:
    """Return the variables that the command sees: what activation would set, and the mark of being inside.

    :param env: absolute path of the environment
    :param token: `<in-use inode>:<digest>`, by which a `run` within this one knows where it is
    :param isolated: let no other packages in: neither those of PYTHONPATH nor the user's own
    """
    variables = dict(environ)
    variables["VIRTUAL_ENV"] = env
    path = variables.get("PATH", core.DEFAULT_PATH)
    variables["PATH"] = f"{env}/{core.BIN}{core.PATH_SEPARATOR}{path}" if path else f"{env}/{core.BIN}"
    variables.pop("PYTHONHOME", None)
    variables["ENVSYNC_IN"] = token
    if isolated:
        variables.pop("PYTHONPATH", None)
        variables["PYTHONNOUSERSITE"] = "1"
    variables[JOB] = next((environ[name] for name in JOBS if environ.get(name)), "")
    if not variables[JOB]:
        del variables[JOB]
    variables[WHO] = f"{os.getpid()}@{core.host()}"
    return variables


def execute(env: str, commands: "Sequence[str]", words: "Sequence[str]", variables: "Mapping[str, str]") -> str:
    """Replace this process by the command, looked up in the environment's `bin` first, then on PATH.

    The command is executed untried: the kernel's answer costs less than a look. Its ENOENT, though, may mean the
    interpreter in the `#!` line, and then another command of that name on PATH would be the wrong one.

    :param commands: what is known to be in the environment's `bin`
    :returns: the path of the command in the environment, only if it was there and does not run any more: it, or
        the base Python of the environment, is gone or spoiled
    :raises CommandError: it was not found (127) or cannot be executed (126)
    """
    python_ignores = _restore_signals()
    try:
        return _execute(env, commands, words, variables)
    finally:
        for number in python_ignores:
            _signal.signal(number, _signal.SIG_IGN)


def _restore_signals() -> list[int]:
    """Let the command have the signals that Python ignores as they were. Returns which were restored."""
    restored = []
    for name in IGNORED_BY_PYTHON:
        number = getattr(_signal, name, None)
        if number is not None and name not in ignored and _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
            restored.append(number)
    return restored


def _execute(env: str, commands: "Sequence[str]", words: "Sequence[str]", variables: "Mapping[str, str]") -> str:
    command = words[0]
    if "/" in core.slashed(command):
        raise _attempt(command, words, variables) or _not_found(command)
    bin_directory = f"{env}/{core.BIN}"
    denied = _attempt_in(bin_directory, words, variables) if command else None
    known = any(path.rpartition("/")[2] in commands for path in core.candidates("", command))
    if known and (denied is None or denied.errno in SPOILED):
        return f"{bin_directory}/{command}"
    if denied is not None:
        raise denied  # another one of that name on PATH would be the wrong one
    for directory in variables["PATH"].split(core.PATH_SEPARATOR)[1:] if command else ():
        # As a shell does: go on looking, remember the first that could not be executed.
        failed = _attempt_in(directory or ".", words, variables)
        denied = denied or failed
    if denied is None:
        from shlex import quote

        denied = _error(
            f"command `{command}` not found in `{bin_directory}` or on PATH",
            hint=f"does the lock file name the package it is in? `ls {quote(bin_directory)}` shows those there are",
        )
    raise denied


def _attempt_in(directory: str, words: "Sequence[str]", variables: "Mapping[str, str]") -> "CommandError | None":
    """Execute a command in a directory. Returns None if there is none, or why it cannot be executed."""
    for path in core.candidates(directory, words[0]):
        denied = _attempt(path, words, variables)
        if denied is not None:
            return denied
    return None


def _attempt(path: str, words: "Sequence[str]", variables: "Mapping[str, str]") -> "CommandError | None":
    """Execute one file. Returns None if there is none, or why it cannot be executed."""
    try:
        core.execute(path, words, variables)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        from shlex import quote

        hint = f"`ls -l {quote(path)}` says who may execute it"
        denied = _error(f"cannot execute `{path}`: {error.strerror}", exit_code=126, hint=hint)
        denied.errno = error.errno or 0
        return denied


def _not_found(path: str) -> "CommandError":
    from os.path import dirname, isdir
    from shlex import quote

    directory = dirname(path)
    while not isdir(directory or "."):
        directory = dirname(directory)
    return _error(f"command `{path}` not found", hint=f"`ls -a {quote(directory or '.')}` shows what is there")


def _error(message: str, *, exit_code: int = 127, hint: str | None = None) -> "CommandError":
    from envsync.errors import CommandError

    return CommandError(message, exit_code=exit_code, hint=hint)
