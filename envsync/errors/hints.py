"""What the command line says of an error: what failed, and a hint with a command that can be run as it stands.

Hints are written where the error is known, and that may be another process. So they name commands without options, as
in `` `envsync doctor` ``, and whoever shows one completes it by those of its own command line: the lock file, the
environment, the cache. Only used once something has failed.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence

from envsync.errors import (
    CommandError,
    EnvironmentRefusedError,
    EnvsyncError,
    FetchError,
    FilesystemError,
    InterpreterError,
    LockFileError,
    LockingError,
    NoEnvironmentError,
    RefusedError,
    SharedFailureError,
    SyncCancelledError,
    UsageError,
    WaitTimeoutError,
    WheelError,
)
from envsync.errors.redact import redacted
from envsync.launch import options
from envsync.launch.messages import say_error, show_json

OWN_ENVIRONMENTS = "give each lock file an environment of its own: `envsync sync --env '.venvs/{digest}'`"
ELSEWHERE = "have the environment made elsewhere: `envsync sync --env '.venvs/{digest}'`"
UPGRADE = "install the newer envsync: `pip install --upgrade envsync`"
AGAIN = "`envsync sync` tries again"
HELP = "`envsync sync --help` says what can be given"
ANOTHER_PYTHON = "name another: `envsync sync --python 3`"
EXIT_USAGE = 2
EXIT_FAILURE = 125
COMMAND = "name it behind the options: `envsync run -- python --version`"
VARIABLES = "look at the proxy and certificate variables: `env | grep -iE 'proxy|ssl_cert'`"

_TABLES = {
    "run": options.RUN,
    "sync": options.SYNC,
    "check": options.CHECK,
    "status": options.STATUS,
    "doctor": options.DOCTOR,
    "cache dir": options.CACHE,
    "cache size": options.CACHE,
    "cache clean": options.CLEAN,
    "cache prune": options.PRUNE,
    "cache verify": options.CACHE,
}
_HINTED = re.compile(r"`envsync (cache [a-z]+|[a-z]+)(| [^`]*)`")


def longer(timeout: float | None) -> str:
    """Say how to wait longer than that many seconds, and how to see for whom."""
    seconds = max(60, 2 * (timeout or 0))
    return f"`envsync status` says who is waited for; wait longer with `envsync sync --timeout {seconds:g}`"


def usual(error: EnvsyncError) -> str:
    """Return what usually helps where an error of that kind is met, for those that say nothing better."""
    if isinstance(error, FilesystemError):
        return _of_filesystem(error)
    if isinstance(error, WheelError):
        return _of_wheel(error.wheel)
    if isinstance(error, LockFileError):
        return _of_lock_file(error)
    return next(hint for kind, hint in _USUAL.items() if isinstance(error, kind))


def _of_filesystem(error: FilesystemError) -> str:
    directory = _nearest(error.path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"`df -h {directory}` says how much is left; `envsync cache prune` removes what was not used for long"
    if error.is_refusal:
        return f"`ls -la {directory}` says whose it is; `envsync doctor` says what can be done there"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "allow more open files: `ulimit -n` says how many there may be"
    return "`envsync doctor` says what can be done there, and what cannot"


def _of_wheel(wheel: str) -> str:
    """Say what to do about a wheel that cannot be installed, by its file name."""
    name, _, rest = wheel.partition("-")
    version = rest.partition("-")[0]
    if not version:
        return f"tell who publishes it; `python -m zipfile --list {shlex.quote(wheel)}` shows what is in it"
    wanted = shlex.quote(f"{name}=={version}")
    return (
        f"tell who publishes it, and lock another version, or a wheel that you build: "
        f"`pip wheel --no-deps --wheel-dir wheels --no-binary {shlex.quote(name)} {wanted}`"
    )


def _of_lock_file(error: LockFileError) -> str:
    from envsync.errors import remedies

    if not error.path or not os.path.isfile(error.path):
        return f"`ls -a {_nearest(error.path)}` shows what is there"
    return remedies.relock(error.path) if error.path.endswith(".toml") else remedies.pin(error.path)


def _nearest(path: str) -> str:
    """Return the nearest directory at or above a path, for a shell."""
    directory = path
    while directory and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return shlex.quote(directory or ".")


_USUAL: dict[type[EnvsyncError], str] = {
    NoEnvironmentError: "`envsync sync` makes it",
    EnvironmentRefusedError: ELSEWHERE,
    InterpreterError: ANOTHER_PYTHON,
    LockingError: "`envsync doctor` says what locks can do there",
    WaitTimeoutError: "`envsync status` says who is waited for",
    RefusedError: "`envsync status` says who runs in it",
    SyncCancelledError: AGAIN,
    FetchError: AGAIN,
    SharedFailureError: AGAIN,
    UsageError: HELP,
    CommandError: "`envsync check` says whether what was installed is whole",
    EnvsyncError: "`envsync status` says how it is with the environment",
}
"""By class; the first that fits counts."""


def tell(error: EnvsyncError, arguments: Sequence[str]) -> int:
    """Say what failed, and return the exit status. With `--json`, stdout says it, too.

    :param arguments: the command line
    """
    hint = error.hint
    if hint == HELP:
        hint = f"`{command_of(arguments)} --help` says what can be given"
    error.hint = completed(hint, arguments)
    say_error(error)
    status = usage_status(arguments) if isinstance(error, UsageError) else error.exit_code
    if "--json" in arguments and arguments[0] != "run":
        said = {"class": type(error).__name__, "code": status, "message": error.message, "hint": error.hint}
        show_json({"error": said})
    return status


def usage_status(arguments: Sequence[str]) -> int:
    """Return the exit status for a command line that makes no sense.

    `run` follows timeout(1) and `docker run`: whatever is wrong with us is 125, so that it is not the job's.
    """
    return EXIT_FAILURE if arguments and arguments[0] == "run" else EXIT_USAGE


def command_of(arguments: Sequence[str]) -> str:
    """Name the command of a command line, as in `envsync cache prune`."""
    for count in (2, 1):
        name = " ".join(arguments[:count])
        if name in _TABLES or name == "cache":
            return f"envsync {name}"
    return "envsync"


def completed(hint: str, arguments: Sequence[str]) -> str:
    """Give each of our commands in a hint the options of a command line that it knows and does not have.

    :param arguments: the command line
    """
    table = _TABLES.get(command_of(arguments).partition(" ")[2], ())
    if not table:
        return hint
    try:
        parsed = options.parse(arguments[command_of(arguments).count(" ") :], table)
    except UsageError:
        return hint
    return completed_by(hint, {} if parsed is None else parsed[0], table)


def completed_by(hint: str, settings: options.Settings, table: Sequence[options.Option]) -> str:
    """The same, for a report of the command whose options these are.

    :param settings: what was given on its command line
    """
    given = [(option, settings[option.key]) for option in table if option.key in settings]
    return _HINTED.sub(lambda match: _complete(match, given), hint)


def _complete(match: re.Match[str], given: Sequence[tuple[options.Option, options.Value]]) -> str:
    command, rest = match.groups()
    known = {option.key for option in _TABLES.get(command, ())} - options.ONLY_ON_THE_COMMAND_LINE
    if "--help" in rest:
        return match[0]
    words: list[str] = []
    for option, value in given:
        if option.key in known and not re.search(rf" --{option.name}\b", rest):
            words += _words(option, value)
    return f"`envsync {command}{''.join(f' {word}' for word in words)}{rest}`"


def _words(option: options.Option, value: options.Value) -> list[str]:
    """Write an option for a shell, without credentials."""
    flag = f"--{option.name}"
    if isinstance(value, bool):
        return [flag if value else option.negation]
    values = value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else value]
    return [word for text in values for word in (flag, shlex.quote(redacted(text)))]
