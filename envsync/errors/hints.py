"""What helps: hints with a command that can be run as it stands.

Hints are written where the error is known, and that may be another process. So they name commands without options, as
in `` `envsync doctor` ``, and whoever shows one completes it by those of its own command line (`envsync.cli.tell`).
Only used once something has failed.
"""

from __future__ import annotations

import errno
import os
import re
import shlex

from envsync.errors import remedies

OWN_ENVIRONMENTS = "give each lock file an environment of its own: `envsync sync --env '.venvs/{digest}'`"
ELSEWHERE = "have the environment made elsewhere: `envsync sync --env '.venvs/{digest}'`"
ANOTHER_FILESYSTEM = "choose a place on another filesystem: `envsync sync --env '/var/tmp/venvs/{digest}'`"
UPGRADE = "install the newer envsync: `pip install --upgrade envsync`"
AGAIN = "`envsync sync` tries again"
HELP = "`envsync sync --help` says what can be given"
ANOTHER_PYTHON = "name another: `envsync sync --python 3`"
COMMAND = "name it behind the options: `envsync run -- python --version`"
VARIABLES = "look at the proxy and certificate variables: `env | grep -iE 'proxy|ssl_cert'`"
WHAT_LOCKS_DO = "`envsync doctor` says what locks can do there"
MAKE = "`envsync sync` makes it"
WHO_IS_WAITED_FOR = "`envsync status` says who is waited for"
WHO_RUNS = "`envsync status` says who runs in it"
CHECK = "`envsync check` says whether what was installed is whole"
STATUS = "`envsync status` says how it is with the environment"


def longer(timeout: float | None) -> str:
    """Say how to wait longer than that many seconds, and how to see for whom."""
    seconds = max(60, 2 * (timeout or 0))
    return f"`envsync status` says who is waited for; wait longer with `envsync sync --timeout {seconds:g}`"


def of_filesystem(path: str, number: int | None, *, is_refusal: bool) -> str:
    """Say what to do about what the system refused.

    :param number: the system's number for it (errno(3))
    """
    directory = _nearest(path)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"`df -h {_mount(path)}` says how much is left; `envsync cache prune` removes what was not used for long"
    if is_refusal:
        return f"`ls -la {directory}` says whose it is; `envsync doctor` says what can be done there"
    if number in (errno.EMFILE, errno.ENFILE):
        return "allow more open files: `ulimit -n` says how many there may be"
    return "`envsync doctor` says what can be done there, and what cannot"


def of_link(path: str) -> str:
    """Say what to do about a symbolic link that leads nowhere."""
    return f"remove the link, which leads nowhere: `rm {shlex.quote(path)}`"


def of_build(package: str) -> str:
    """Say what to do about a package that could not be built.

    :param package: its name, with the version if it is known
    """
    name = re.split(r"[\s=]", package, maxsplit=1)[0]
    return f"leave it out with `envsync sync --no-install-package {name}`"


def with_log(hint: str, log: str) -> str:
    """Say besides where all is that a build has said, if the hint does not say so.

    :param log: the path; empty if it has said nothing
    """
    if not log or log in hint:
        return hint
    return f"{hint}; `less {shlex.quote(log)}` shows all that the build has said"


def of_wheel(wheel: str) -> str:
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


def of_lock_file(path: str) -> str:
    """Say what to do about a lock file that cannot be used, by its name."""
    if not path or not os.path.isfile(path):
        return f"`ls -a {_nearest(path)}` shows what is there"
    made = path.endswith(".toml") or remedies.tool_of(os.path.basename(path))
    return remedies.relock(path) if made else remedies.pin(path)


def _mount(path: str) -> str:
    """Return where the filesystem is mounted: what is below may be gone by the time that somebody looks."""
    directory = os.path.realpath(path)
    while not os.path.ismount(directory):
        directory = os.path.dirname(directory)
    return shlex.quote(directory)


def _nearest(path: str) -> str:
    """Return the nearest directory at or above a path, for a shell."""
    directory = path
    while directory and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return shlex.quote(directory or ".")
