"""Run commands inside of a room: with directories that are read-only, or as another user."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.conftest import ROOT, envsync_command

ROOTLESS = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
READ_ONLY = 'set -e; mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@"'


def words(*arguments: object) -> list[str]:
    """Return the words of an envsync command line."""
    return [*envsync_command(), *map(str, arguments)]


def output(
    command: Sequence[str], *, cwd: Path | None = None, timeout: float = 110
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however it ends."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, cwd=cwd)


def read_only(directory: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command while a directory cannot be written to, not even by root."""
    start = ["unshare", *ROOTLESS, "--mount", "sh", "-c", READ_ONLY, "sh", str(directory)]
    return output([*start, *command], cwd=directory.parent)


def as_user(
    user: int, command: Sequence[str], *, cwd: Path, group: int | None = None, umask: str = "022"
) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, who may come to this Python, this tree, and the working directory."""
    become = ["setpriv", "--reuid", str(user), "--regid", str(user if group is None else group), "--clear-groups"]
    script = "\n".join(
        [
            "set -e",
            *opened([Path(sys.prefix), Path(sys.base_prefix), ROOT, cwd]),
            f"cd {shlex.quote(str(cwd))}",
            f"umask {umask}",
            f'HOME=/ exec {shlex.join(become)} "$@"',
        ]
    )
    return output(["unshare", "--mount", "sh", "-c", script, "sh", *command])


def opened(needed: Iterable[Path]) -> list[str]:
    """Return the shell commands that let everybody come to some directories, in a mount namespace.

    Where a directory on the way is private, as root's home is, an empty one with nothing but what is needed is mounted
    in its place. Modes are left alone: the directories are still there for all others.
    """
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, []).append(path)
                break
    lines = ["mount -t tmpfs -o mode=755 tmpfs /mnt"]
    for number, (parent, paths) in enumerate(closed.items()):
        behind = Path(f"/mnt/{number}")
        lines += [f"mkdir {behind}", shlex.join(["mount", "--rbind", str(parent), str(behind)])]
        lines += [shlex.join(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(parent)])]
        for path in dict.fromkeys(paths):
            lines += [shlex.join(["mkdir", "-p", str(path)])]
            lines += [shlex.join(["mount", "--rbind", str(behind / path.relative_to(parent)), str(path)])]
    return lines
