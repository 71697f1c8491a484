"""Which kind of lock file it is, told by its name."""

from __future__ import annotations

import os
import re

from envsync.errors import LockFileError, remedies
from envsync.lockfile.parsed import LockFile, understanding

_PYLOCK = re.compile(r"pylock(\.[^.]+)?\.toml")


def read(path: str, content: bytes | None = None) -> LockFile:
    """Read and parse a lock file and all that it includes. Blocks on the file system only.

    :param content: of a pylock.toml, what was read of it before: it is not read again, and may be another one by now
    :raises LockFileError: it cannot be read, is malformed, or asks for what envsync does not do
    """
    with understanding(path):
        return _read(path, content)


def _read(path: str, content: bytes | None) -> LockFile:
    name = os.path.basename(path)
    if _PYLOCK.fullmatch(name):
        from envsync.lockfile import foreign, pylock

        try:
            return pylock.read(path, content)
        except LockFileError:
            foreign.refuse_pylock(path)
            raise
    if remedies.tool_of(name) == "uv":
        from envsync.lockfile.uv import lock

        return lock.read(path)
    if name == "poetry.lock":
        from envsync.lockfile import poetry

        return poetry.read(path)
    if name == "pdm.lock":
        from envsync.lockfile import pdm

        return pdm.read(path)
    if name == "Pipfile.lock":
        from envsync.lockfile import pipfile

        return pipfile.read(path)
    from envsync.lockfile import foreign

    foreign.refuse_name(path)
    from envsync.lockfile import requirements

    try:
        return requirements.read(path)
    except LockFileError:
        foreign.refuse_content(path)
        raise
