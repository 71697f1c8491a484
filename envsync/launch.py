"""Become the command: the last step of `run`, on the fast lane and after a sync alike.

The command keeps our process id, so its signals and its exit status are its own. It inherits one descriptor, that
of the in-use lock, which the kernel releases when the last process that has it ends, however it ends: the lock
lasts as long as the command and its forks do, and no longer. Imports only built-in modules.
"""

from __future__ import annotations

import errno
import os

from envsync.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

OUT_OF_THE_WAY = 200
"""Shells and daemons use and close low descriptors (`exec 3>&1`); few go above this."""


def keep_across_exec(fd: int) -> int:
    """Duplicate a descriptor to a high, inheritable number. A flock belongs to the open file: it is kept."""
    import fcntl

    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD, OUT_OF_THE_WAY)
    except OSError:  # RLIMIT_NOFILE is lower than that: any number will do
        os.set_inheritable(fd, True)
        return fd
    os.close(fd)
    return high


def environment_variables(environ: Mapping[str, str], env: str, token: str) -> dict[str, str]:
    """Return the variables that the command sees: what activation would set, and the mark of being inside.

    :param env: absolute path of the environment
    :param token: `<in-use inode>:<digest>`, by which a `run` within this one knows where it is
    """
    variables = dict(environ)
    variables["VIRTUAL_ENV"] = env
    path = variables.get("PATH", os.defpath)
    variables["PATH"] = f"{env}/bin:{path}" if path else f"{env}/bin"
    variables.pop("PYTHONHOME", None)
    variables["ENVSYNC_IN"] = token
    return variables


def has_broken(env: str, command: str) -> bool:
    """Tell whether the environment should have the command but cannot run it: its interpreter is gone.

    Looked at only after an exec was answered by ENOENT, which the kernel says of the `#!` interpreter, too.
    """
    if "/" in command:
        return False
    return os.path.lexists(f"{env}/bin/{command}") or command in ("python", "python3")


def execute(env: str, words: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command, looked up in the environment's `bin` first, then on PATH.

    :raises CommandError: it was not found (127) or cannot be executed (126)
    """
    command = words[0]
    if "/" in command:
        _attempt(command, words, variables)
        raise CommandError(f"command `{command}` not found")
    ours = f"{env}/bin/{command}"
    _attempt(ours, words, variables)
    if os.path.lexists(ours):
        raise CommandError(f"cannot execute `{ours}`: the interpreter it names does not exist", exit_code=126)
    denied: CommandError | None = None
    for directory in variables["PATH"].split(":")[1:]:
        try:
            _attempt(f"{directory or '.'}/{command}", words, variables)
        except CommandError as error:  # as a shell: go on looking, remember the first that could not be executed
            denied = denied or error
    if denied is not None:
        raise denied
    raise CommandError(
        f"command `{command}` not found in `{env}/bin` or on PATH",
        hint="does the lock file name the package it is in?",
    )


def _attempt(path: str, words: Sequence[str], variables: Mapping[str, str]) -> None:
    try:
        os.execve(path, list(words), variables)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # a script without `#!`: execvp(3) hands it to the shell
            os.execve("/bin/sh", ["/bin/sh", path, *words[1:]], variables)
        raise CommandError(f"cannot execute `{path}`: {error.strerror}", exit_code=126) from error
