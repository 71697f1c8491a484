"""What an environment has to have so that an engine's workers can run in it: the engine itself."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from envsync.errors import EnvsyncError

_ASK = """\
import importlib.metadata, platform, sys
print(platform.python_version())
try:
    print(importlib.metadata.version(sys.argv[1]))
except importlib.metadata.PackageNotFoundError:
    pass
"""


class Found(NamedTuple):
    """What an environment has.

    :ivar python: the version of its Python, as in "3.13.1"
    :ivar engine: the version of the engine; empty: it has none
    """

    python: str
    engine: str


class EngineError(EnvsyncError):
    """An environment is what its lock file says, and workers of an engine cannot run in it. It stays as it is."""


async def look(python: str, engine: str) -> Found:
    """Ask an environment's Python for its version and that of an engine. The engine is not imported.

    :param engine: the name of its distribution
    :raises EngineError: the Python does not run
    """
    child = await asyncio.create_subprocess_exec(
        *(python, "-I", "-c", _ASK, engine),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await child.communicate()
    lines = said.decode(errors="replace").split()
    if child.returncode or not lines:
        last = wrong.decode(errors="replace").strip().rpartition("\n")[2]
        raise EngineError(f"`{python}` does not run: {last or f'exit status {child.returncode}'}")
    return Found(lines[0], lines[1] if len(lines) > 1 else "")


def missing(engine: str, env: str, version: str) -> EngineError:
    """Return the error of an environment that has no such engine.

    :param version: that of the engine here
    """
    return EngineError(
        f"environment `{env}` has no `{engine}`, which its workers need",
        hint=f"lock it with the rest, in the version that starts the workers: `{engine}=={version}`; "
        "`uv add`, `uv pip compile` or what else has made the lock file",
    )
