"""Is a lock file what its project asks for now? Reads what it was made from, and has them compared.

Of a format that keeps nothing of that, nobody can tell: a pylock.toml (but for the one that PDM keeps), requirements, a
Pipfile.lock. With `--locked`, a uv on PATH has the last word on what cannot be told without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from glob import glob
from typing import Any, NamedTuple

from envsync.errors import LockFileError, remedies
from envsync.launch.reading import content_of_named
from envsync.lockfile.parsed import LockFile
from envsync.lockfile.stale import by_hash, by_requirements
from envsync.lockfile.stale.by_hash import Verdict
from envsync.lockfile.uv.lock import UvLockFile
from envsync.system import paths

PROJECT = "pyproject.toml"
SCRIPT = ".py.lock"
_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""As PEP 723 gives it."""
AS_IT_IS = "`envsync sync --no-locked` takes it as it is"


class Compared(NamedTuple):
    """What came of it."""

    note: str = ""
    """A sentence, if the lock file is stale."""
    fitting: tuple[tuple[str, bytes], ...] = ()
    """The files that it was compared with, and their content, if it has all that they ask for and all was compared."""


def compare(lock: LockFile, *, strictly: bool) -> Compared:
    """Compare a lock file with what it was made from. Reads files beside and below it, and nothing else.

    :param strictly: nothing but a lock file that is known to be right will do
    :raises LockFileError: then, that it is not, or that nobody can tell
    """
    files = _Files(lock)
    try:
        verdict = _verdict(lock, files)
    except OSError as error:
        verdict = Verdict(unchecked=f"`{error.filename}` cannot be read ({error.strerror})")
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
        verdict = Verdict(unchecked=f"what it was made from is not understood ({' '.join(str(error).split())[:120]})")
    again = remedies.lock(lock.path, _maker(lock))
    source = "its script" if lock.path.endswith(SCRIPT) else PROJECT
    if verdict.differences:
        problem = f"it is not what {source} asks for: {verdict.summary}"
        if strictly:
            raise LockFileError(lock.path, problem, hint=f"{again} locks that; {AS_IT_IS}")
        return Compared(f"`{lock.path}`: {problem}; {again} locks that")
    if verdict.unchecked and not (strictly and _uv_accepts(lock.path)):
        if strictly:
            problem = f"whether it is what {source} asks for cannot be told: {verdict.unchecked}"
            raise LockFileError(lock.path, problem, hint=f"{again} locks again; {AS_IT_IS}" if again else AS_IT_IS)
        return Compared()
    return Compared(fitting=tuple(files.read.items()))


class _Files:
    """Reads the files that a lock file was made from. What was read to parse it is not read again."""

    def __init__(self, lock: LockFile) -> None:
        self._known = dict(zip(lock.inputs, lock.contents, strict=True))
        self.read: dict[str, bytes] = {}

    def script(self, path: str) -> Mapping[str, Any]:
        """Read what a script says of itself (PEP 723); nothing if it says nothing.

        :raises OSError: it cannot be read
        :raises ValueError: it says what is not TOML
        """
        self.read[path] = content_of_named(path)
        block = _BLOCK.search(self.read[path].decode().replace("\r\n", "\n"))
        lines = block["content"].splitlines() if block is not None else ()
        return tomllib.loads("\n".join(line[2:] for line in lines))

    def table(self, path: str) -> Mapping[str, Any]:
        """Read a file in TOML.

        :raises OSError: it cannot be read
        :raises ValueError: it is not TOML
        """
        self.read[path] = self._known.get(path) or content_of_named(path)
        return tomllib.loads(self.read[path].decode())


def _verdict(lock: LockFile, files: _Files) -> Verdict:
    directory = os.path.dirname(lock.path)
    compare: Callable[[LockFile, str, _Files], Verdict] | None = _KINDS.get(_maker(lock))
    if compare is None:
        return Verdict(unchecked="it keeps nothing of what it was made from")
    if lock.path.endswith(SCRIPT):
        script = files.script(lock.path.removesuffix(".lock"))
        return by_requirements.of_script(_table_of(lock), script)
    if not os.path.isfile(paths.join(directory, PROJECT)):
        return Verdict(unchecked=f"there is no {PROJECT} beside it")
    return compare(lock, directory, files)


def _table_of(lock: LockFile) -> Mapping[str, Any]:
    """Return what a lock file in TOML says; it is not parsed again if that takes long."""
    return lock.table if isinstance(lock, UvLockFile) else tomllib.loads(lock.contents[0].decode())


def _maker(lock: LockFile) -> str:
    """Name the tool that keeps the lock file for a project; empty if none does."""
    name = os.path.basename(lock.path)
    if name.endswith(".toml") and b"tool.pdm" in lock.contents[0]:
        return "pdm" if "strategy" in _table_of(lock).get("tool", {}).get("pdm", {}) else ""
    return remedies.tool_of(name)


def _of_uv(lock: LockFile, directory: str, files: _Files) -> Verdict:
    root = files.table(paths.join(directory, PROJECT))
    projects = {by_requirements.ROOT: root}
    for place in _members(directory, root.get("tool", {}).get("uv", {}).get("workspace", {})):
        project = files.table(paths.join(directory, place, PROJECT))
        if project.get("tool", {}).get("uv", {}).get("managed") is not False:
            projects[place] = project
    return by_requirements.of_uv(_table_of(lock), projects)


def _members(directory: str, workspace: Mapping[str, Any]) -> Iterator[str]:
    """Yield the directories of a workspace's members besides the root, relative to it."""
    left_out = set(_matching(directory, workspace.get("exclude", ())))
    for place in sorted(set(_matching(directory, workspace.get("members", ()))) - left_out - {by_requirements.ROOT}):
        if os.path.isfile(paths.join(directory, place, PROJECT)):
            yield place


def _matching(directory: str, patterns: list[str]) -> Iterator[str]:
    for pattern in patterns:
        for found in glob(paths.normpath(pattern), root_dir=directory or None, recursive=True, include_hidden=True):
            yield paths.normpath(found).replace(os.sep, "/")


def _of_poetry(lock: LockFile, directory: str, files: _Files) -> Verdict:
    head = lock.contents[0].partition(b"\n")[0].decode("utf-8", "replace")
    return by_hash.of_poetry(_table_of(lock), head, files.table(paths.join(directory, PROJECT)))


def _of_pdm(lock: LockFile, directory: str, files: _Files) -> Verdict:
    table = _table_of(lock)
    if "packages" in table:  # it is kept as a pylock.toml
        own = table["tool"]["pdm"]
        table = {"metadata": {**own, "content_hash": f"sha256:{own['hashes']['sha256']}"}}
    return by_hash.of_pdm(table, files.table(paths.join(directory, PROJECT)))


_KINDS = {"uv": _of_uv, "poetry": _of_poetry, "pdm": _of_pdm}


def _uv_accepts(path: str) -> bool:
    """Ask uv whether a uv.lock is what is asked for. With dynamic metadata, it has that built."""
    directory, name = os.path.split(path)
    program = shutil.which("uv") if remedies.tool_of(name) == "uv" else None
    if program is None:
        return False
    words = [program, "lock", "--check", "--offline", "--quiet", "--directory", directory or "."]
    words += ["--script", name.removesuffix(".lock")] if name.endswith(SCRIPT) else []
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
