"""What the command line says of an error: what failed, and a hint completed by the options of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from envsync.cli import bundle_options, cache_options, env_options, shim_options
from envsync.errors import EnvsyncError, UsageError
from envsync.errors.hints import HELP
from envsync.errors.redact import redacted
from envsync.launch import options
from envsync.launch.messages import say_error, show_json
from envsync.system import native

EXIT_USAGE = 2
EXIT_FAILURE = 125

_TABLES = {
    "run": options.RUN,
    "sync": options.SYNC,
    "check": options.CHECK,
    "status": options.STATUS,
    "doctor": options.DOCTOR,
    "cache dir": options.CACHE,
    "cache size": options.CACHE,
    "cache add": cache_options.ADD,
    "cache clean": options.CLEAN,
    "cache prune": options.PRUNE,
    "cache verify": options.CACHE,
    "env list": env_options.LIST,
    "env show": env_options.SHOW,
    "env prune": env_options.PRUNE,
    "env remove": env_options.REMOVE,
    "bundle": bundle_options.MAKE,
    "bundle verify": bundle_options.VERIFY,
    "bundle prune": bundle_options.PRUNE,
    "shim": shim_options.MAKE,
}
_GROUPS = ("cache", "env")
_LIKE_A_SYNC = ("bundle", "cache add")
"""Commands that do as a sync does until there is something to install: what goes wrong till then hints at a sync."""
_HINTED = re.compile(rf"`envsync ((?:{'|'.join(_GROUPS)}) [a-z]+|bundle verify|bundle prune|[a-z]+)(| [^`]*)`")


def tell(error: EnvsyncError, arguments: Sequence[str]) -> int:
    """Say what failed, and return the exit status. With `--json`, stdout says it, too.

    :param arguments: the command line
    """
    hint = error.hint
    if hint == HELP:
        hint = f"`{command_of(arguments)} --help` says what can be given"
    plain = completed(hint, arguments)
    error.hint = native.spoken(plain)
    say_error(error)
    error.hint = plain  # for programs
    status = usage_status(arguments) if isinstance(error, UsageError) else error.exit_code
    if "--json" in arguments and arguments[0] != "run":
        said = {"class": type(error).__name__, "code": status, "message": error.message, "hint": error.hint}
        show_json({"error": {**said, "retryable": error.retryable}})
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
        if name in _TABLES or name in _GROUPS:
            return f"envsync {name}"
    return "envsync"


def completed(hint: str, arguments: Sequence[str]) -> str:
    """Give each of our commands in a hint the options of a command line that it knows and does not have or contradict.

    :param arguments: the command line
    """
    command = command_of(arguments).partition(" ")[2]
    table = _TABLES.get(command, ())
    if not table:
        return hint
    if command in _LIKE_A_SYNC:
        hint = _HINTED.sub(lambda match: _instead_of_a_sync(match, command), hint)
    try:
        parsed = options.parse(arguments[command_of(arguments).count(" ") :], table)
    except UsageError:
        return hint
    return completed_by(hint, {} if parsed is None else parsed[0], table)


def _instead_of_a_sync(match: re.Match[str], command: str) -> str:
    """Name a command instead of a sync, if it takes the options that the hint has."""
    hinted, rest = match.groups()
    known = {word for option in _TABLES[command] for word in (f"--{option.name}", option.negation)} | {"--help"}
    flags = [word for word in rest.split() if word.startswith("--")]
    return match[0].replace(" sync", f" {command}", 1) if hinted == "sync" and known.issuperset(flags) else match[0]


def completed_by(hint: str, settings: options.Settings, table: Sequence[options.Option]) -> str:
    """The same, for a report of the command whose options these are.

    :param settings: what was given on its command line
    """
    given = [(option, settings[option.key]) for option in table if option.key in settings]
    return native.spoken(_HINTED.sub(lambda match: _complete(match, given), hint))


def _complete(match: re.Match[str], given: Sequence[tuple[options.Option, options.Value]]) -> str:
    command, rest = match.groups()
    known = {option.key for option in _TABLES.get(command, ())} - options.ONLY_ON_THE_COMMAND_LINE
    if "--help" in rest:
        return match[0]
    said = set(rest.split())
    contrary = {
        key for option in options.RUN if f"--{option.name}" in said for key in options.CONTRARY.get(option.key, ())
    }
    words: list[str] = []
    for option, value in given:
        if option.key in known - contrary and not re.search(rf" --(no-)?{option.name}\b", rest):
            words += _words(option, value)
    return f"`envsync {command}{''.join(f' {word}' for word in words)}{rest}`"


def _words(option: options.Option, value: options.Value) -> list[str]:
    """Write an option for a shell, without credentials."""
    flag = f"--{option.name}"
    if isinstance(value, bool):
        return [flag if value else option.negation]
    values = value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else value]
    return [word for text in values for word in (flag, shlex.quote(redacted(text)))]
