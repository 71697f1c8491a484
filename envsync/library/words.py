"""`envsync.command`: the words that run something in an environment, for programs that put words before a command."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Unpack

from envsync.errors import UsageError
from envsync.errors.redact import redacted
from envsync.launch import configuration, finding, request
from envsync.launch import options as settings
from envsync.library import blocking
from envsync.system import core, paths


def command(lock: str | os.PathLike[str], **options: Unpack[blocking.SyncOptions]) -> list[str]:
    """Return the words that stand for "run this in the environment": append the command and its arguments.

    They mean the same in every directory and process of the machines that see the same files: all paths are absolute,
    and what `ENVSYNC_*` say now is in them. What files say (`[tool.envsync]`, the user's and the site's) is read where
    they run, and so are uv's variables. Nothing is synced, and the lock file is not read.

    They hold no password, for everybody can read command lines: an index with credentials that
    `ENVSYNC_INDEX_URL` names is left to that variable, which the process has to inherit.

    :param lock: the lock file
    :param options: as for `envsync.sync`
    :returns: for a program that wants one text: `shlex.join` of it, on Windows `subprocess.list2cmdline`
    :raises UsageError: an option makes no sense, or holds a password
    :raises TypeError: an argument is of the wrong type
    """
    return of(blocking.given(lock, options))


def of(given: settings.Settings) -> list[str]:
    """Return the same for settings of a command line.

    :param given: with the lock file
    :raises UsageError: as `command`
    """
    here = core.getcwd().rstrip("/") + "/"
    said = request.said_here(given, os.environ)
    configuration.anchor(said, here)
    path = str(said["lock"])
    if (
        finding.base_name(path) == finding.MEMBERS and "project" not in said
    ):  # which member of the workspace is meant, and which Python
        above = finding.directory_of(path)
        real = paths.realpath(above)
        said["project"] = here if paths.is_within(paths.realpath(here), real) else above
    if core.has_directory(str(said.get("python", ""))):
        said["python"] = paths.abspath(str(said["python"]))
    words = [*_program(), "run"]
    for option in settings.RUN:
        if option.key in said and option.key not in _NOT_SAID:
            written = _written(option, said[option.key])
            if not any(redacted(word) != word for word in written):
                words += written
            elif option.key in given:
                raise UsageError(
                    f"`{option.argument}` holds a password, which everybody could read in the command line",
                    hint=f"give it by a variable that the process inherits, `export {option.variable}=...`, or write "
                    "it into ~/.netrc, which only you may read: `chmod 600 ~/.netrc`",
                )
    return [*words, "--"]


command.__module__ = "envsync"

_NOT_SAID = frozenset({"directory", "quiet"})
"""What is in the other paths already, and what a program that is run has no need for."""


def _written(option: settings.Option, value: settings.Value) -> list[str]:
    """Write an option and its value as a command line has it."""
    if isinstance(value, bool):
        word = f"--{option.name}" if value else option.negation
        return [word] if word else []
    if isinstance(value, list):
        return [f"--{option.name}={each}" for each in value]
    return [f"--{option.name}={value}"]


def _program() -> list[str]:
    """Return the words that start envsync: its launcher, or else this Python with its module."""
    try:
        files = importlib.metadata.files("envsync") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("envsync", "envsync.exe") and file.parent.name == core.BIN:
            path = paths.abspath(str(file.locate()))
            if os.access(path, os.X_OK):
                return [path]
    return [paths.abspath(sys.executable), "-P", "-m", "envsync"]
