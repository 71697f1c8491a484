"""What a dead leader leaves behind: stages, trash, temporary files. Named for `status`, swept by the next leader."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from envsync import replace
from envsync.environment import Environment

OUR_FILES = ("stamp", "clock", "installed", "journal", "progress", "failure", "turn", "making", "locking", "lease")
"""How the names of state files begin."""


def find(environment: Environment) -> Iterator[str]:
    """Name the leftovers: whatever only a sync that is going on may have."""
    for directory in (environment.path, environment.state):
        for name in _names(directory):
            if name.endswith(replace.SUFFIX) and name.startswith((*OUR_FILES, ".gitignore", "CACHEDIR.TAG")):
                yield f"{directory}/{name}"
    for parent in _workplaces(environment):
        for name in [] if os.path.islink(parent) else _names(parent):
            yield f"{parent}/{name}"


def sweep(environment: Environment, *, spare: Container[str] = ()) -> None:
    """Remove the leftovers. What resists (`.nfs*` files of an open module, say) is left for a later sync.

    :param spare: the names of workspaces that are still of use
    """
    for path in find(environment):
        if os.path.basename(path) not in spare:
            replace.discard_tree(path)


def _workplaces(environment: Environment) -> list[str]:
    lib = f"{environment.path}/lib"
    return [f"{environment.state}/work", *(f"{lib}/{name}/site-packages/.envsync" for name in _names(lib))]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # it is not there yet, or not ours to look into
