"""What a dead leader leaves behind: stages, trash, temporary files. Named for `status`, swept by the next leader."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from envsync.launch import Environment
from envsync.system import atomic, native

TAKERS = "lease."
"""How the names of the files begin that whoever takes a dead lease puts it aside to, and then removes: filelock's
`lease.break.*` and `lease.restore.*`, and our own (`envsync.locks.lease`)."""
TAKER_SECONDS = 300.0
"""After which such a file is nobody's any more: longer than a lease lasts unrefreshed, and than clocks may differ."""
OUR_FILES = (
    "stamp",
    "clock",
    "installed",
    "journal",
    "progress",
    "failure",
    "turn",
    "making",
    "locking",
    "bare",
    "told",
)
"""How the names of state files begin."""


def find(environment: Environment) -> Iterator[str]:
    """Name the leftovers: whatever only a sync that is going on may have."""
    for directory in (environment.path, environment.state):
        for name in _names(directory):
            if name.endswith(atomic.SUFFIX) and name.startswith((*OUR_FILES, ".gitignore", "CACHEDIR.TAG")):
                yield f"{directory}/{name}"
    yield from _leftover_takers(environment)
    for parent in _workplaces(environment):
        for name in [] if os.path.islink(parent) else _names(parent):
            yield f"{parent}/{name}"


def sweep(environment: Environment, *, spare: Container[str] = ()) -> None:
    """Remove the leftovers. What resists (`.nfs*` files of an open module, say) is left for a later sync.

    :param spare: the names of workspaces that are still of use
    """
    for path in find(environment):
        if os.path.basename(path) not in spare:
            atomic.discard_tree(path)


def _leftover_takers(environment: Environment) -> Iterator[str]:
    """Name what was left by processes that died while they took a lease.

    One that lives is about to exchange its file for the lease, or has a live lease in it for an instant, to be put
    back: that one is refreshed, and may be our own. So only what is much older than the latest file there is left
    over. A taker that was stopped for so long and goes on finds its file missing, and has not taken anything.
    """
    names = _names(environment.state)
    if not any(name.startswith(TAKERS) for name in names):
        return
    times = {}
    for name in names:
        try:
            times[name] = os.lstat(f"{environment.state}/{name}").st_mtime
        except OSError:
            pass  # gone meanwhile
    latest = max(times.values(), default=0.0)
    for name, changed in times.items():
        if name.startswith(TAKERS) and latest - changed > TAKER_SECONDS:
            yield f"{environment.state}/{name}"


def _workplaces(environment: Environment) -> list[str]:
    sites = native.site_packages(environment.path)
    return [f"{environment.state}/work", *(f"{environment.path}/{site}/.envsync" for site in sites)]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # it is not there yet, or not ours to look into
