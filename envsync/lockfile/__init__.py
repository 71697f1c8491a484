"""Lock files: `read` one, `select` what it asks for on one interpreter, and get a `Target`.

What happens to a lock file, in order: `formats` tells by the name which kind it is; `pylock`, `uv`,
`poetry`, `pdm`, `pipfile` or `requirements` (whose lines `grammar` and `reference` understand) parses it, before any
network and for no interpreter in particular; `select` keeps what applies to the target Python, where the lock file
lists packages as PEP 751 does by `selection`. Then each wheel gets its place: `places` where the lock file names files,
`resolve` for requirements and Pipfile.lock. Both look into a `wheelhouse`, and on an `index` only where they must;
`wheels` decides which wheel fits best, or says why none does. Whether a lock file has what its project asks for now,
`stale` tells.
"""

from envsync.lockfile.choice import Choice, choice_of
from envsync.lockfile.formats import read
from envsync.lockfile.parsed import LockFile
from envsync.lockfile.sources import Sources

__all__ = ["Choice", "LockFile", "Sources", "choice_of", "read"]
