"""Lock files: `read` one, `select` what it asks for on one interpreter, and get a `Target`.

What happens to a lock file, in order: `formats` tells by the name which kind it is; `pylock`, `uv`,
`poetry`, `pdm`, `pipfile` or `requirements` (which `included` reads, whose lines `grammar`, `addresses` and `reference`
understand, and `project_names` completes) parses it, before any network and for no interpreter in particular;
`select` keeps what applies to the target Python, where the lock file lists packages as PEP 751 does by `selection`.
Then each file gets its place: `places` where the lock file names files, `resolve` for requirements and Pipfile.lock.
Both look into a `wheelhouse`, and on an `index` only where they must; `wheels` decides which file fits best, or says
why none does. Whether a lock file has what its project asks for now, `stale` tells.

Its names are looked up when they are asked for: a sync of what the store has needs none, and a parser takes 30 ms.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envsync.lockfile.choice import Choice, choice_of
    from envsync.lockfile.formats import read
    from envsync.lockfile.parsed import LockFile
    from envsync.lockfile.sources import Sources

__all__ = ["Choice", "LockFile", "Sources", "choice_of", "read"]
_HOMES = {"Choice": "choice", "choice_of": "choice", "read": "formats", "LockFile": "parsed", "Sources": "sources"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
