"""The real uv, asked what it would install of a uv.lock: `uv sync --frozen --dry-run` into nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from envsync.errors import LockFileError
from envsync.lockfile import Choice, read
from envsync.lockfile.uv.lock import UvLockFile
from envsync.python.facts import Interpreter

UV = shutil.which("uv") or ""
_INSTALLED = re.compile(r"^ \+ (\S+?)(?:==(\S+)| @ \S+)", re.MULTILINE)


class Answer(NamedTuple):
    """What is selected, by name, or why nothing is."""

    versions: dict[str, str]
    refusal: str = ""

    def __str__(self) -> str:
        return self.refusal or " ".join(f"{name}=={version}" for name, version in sorted(self.versions.items()))


def flags(choice: Choice) -> list[str]:
    """Return a choice as it is typed."""
    words = []
    for option in ("extras", "no_extras", "groups", "no_groups", "only_groups", "packages", "no_install_packages"):
        flag = option.removesuffix("s").replace("_", "-")
        words += [word for value in getattr(choice, option) for word in (f"--{flag}", value)]
    for option in (
        "all_extras",
        "all_groups",
        "no_default_groups",
        "all_packages",
        "no_install_project",
        "no_install_workspace",
    ):
        words += [f"--{option.replace('_', '-')}"] if getattr(choice, option) else []
    return words


def asked(directory: Path, python: str, choice: Choice, *, script: str = "", cache: Path | None = None) -> Answer:
    """Ask uv what it would install.

    :param directory: of the lock file
    :param python: the path of the target
    :param script: the script whose lock it is; empty: the project's
    """
    words = [UV, "sync", "--frozen", "--dry-run", "--offline", "--no-config", "--color", "never", "--python", python]
    words += ["--no-python-downloads", *(["--script", script] if script else []), *flags(choice)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "VIRTUAL_ENV"))}
    if cache is not None:
        environ["UV_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        words,
        cwd=directory / choice.member,
        env={**environ, "UV_PROJECT_ENVIRONMENT": str(directory / "no-such-environment")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return Answer({}, done.stderr.strip() or "uv says nothing")
    return Answer(dict(_INSTALLED.findall(done.stderr)))


def parsed(path: Path) -> UvLockFile:
    """Read a lock file of uv."""
    lock = read(str(path))
    assert isinstance(lock, UvLockFile)
    return lock


def ours(lock: UvLockFile, interpreter: Interpreter, choice: Choice) -> Answer:
    """Tell what is selected here. What has to be built counts as selected."""
    try:
        records = lock.selected(interpreter, choice)
    except LockFileError as error:
        return Answer({}, error.problem)
    return Answer({record.name: record.version or "" for record in records})


def installable(lock: UvLockFile, interpreter: Interpreter, choice: Choice) -> str:
    """Tell why it cannot be installed; empty if it can be."""
    try:
        lock.select(interpreter, choice)
    except LockFileError as error:
        return error.problem
    return ""


def equal(uv: Answer, own: Answer) -> bool:
    """Tell whether both select the same, or both refuse. Of what is built, a version may not be known."""
    if uv.refusal or own.refusal:
        return bool(uv.refusal) and bool(own.refusal)
    return uv.versions.keys() == own.versions.keys() and all(
        "" in (version, uv.versions[name]) or version == uv.versions[name] for name, version in own.versions.items()
    )
