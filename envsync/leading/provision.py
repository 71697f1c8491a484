"""Bring into a cache what a lock file needs, and make no environment: `cache add`.

A site fills a cache for its users, or a job on a login node does for those on nodes without a network. Selected is what
a sync would select: by the same options, for the Python that is asked for, or the one that runs envsync. What has no
wheel is built. But what is linked to its tree (editable) belongs to one environment, and is left to that.

After an error, what was added stays: a cache has no halves (`envsync.store.store`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from envsync.installed.ledger import load_ledger
from envsync.launch import Environment
from envsync.leading.goal import Seeker
from envsync.leading.sync_cache import cache_needed
from envsync.locks import cache_lock
from envsync.store.store import Store
from envsync.wheel import seconds

if TYPE_CHECKING:
    from envsync.launch.progress import Report
    from envsync.launch.request import Request


class Provision(NamedTuple):
    """What was brought into a cache."""

    cache: str
    python: str
    """The interpreter it is for."""
    wheels: tuple[str, ...]
    """All that the lock file asks for, as `name==version`."""
    left: tuple[str, ...]
    """The names of what is linked to its tree, and so is in no cache."""
    seconds: float


def provide(request: Request, report: Report) -> Provision:
    """Bring all wheels of a lock file, and their bytecode if it is asked for, into the cache. Blocks.

    :raises EnvsyncError: as a sync; nothing but the cache was touched
    :raises FilesystemError: the cache cannot be written
    :raises WaitTimeoutError: it is being cleaned for longer than `--timeout` allows
    """
    began = time.monotonic()
    root = cache_needed(request)
    store = Store(root, durable=request.flag("durable"))
    store.prepare()
    deadline = None if request.timeout is None else began + request.timeout
    lock = cache_lock.share(root, lambda what: report(what, 0, 0), deadline=deadline)
    try:
        environment = Environment(store.staging("none"))  # one that is not there: nothing has to be asked of it
        seeker = Seeker(request, environment, store, report)
        left = seeker.provide(load_ledger(environment))
        assert seeker.python is not None
        facts = seeker.python.interpreter
        if request.flag("compile_bytecode") and facts.bytecode:
            _compile(seeker, store, report)
    finally:
        if lock is not None:
            lock.release()
    wheels = tuple(f"{wheel.name}=={wheel.version}" for wheel in seeker.wheels)
    return Provision(root, facts.executable, wheels, left, round(time.monotonic() - began, 3))


def _compile(seeker: Seeker, store: Store, report: Report) -> None:
    """Bring the bytecode of all wheels into the cache, but of those whose files have no times that it could go by.

    An entry that turns out to be damaged is got again, once.
    """
    from envsync.fetching.compile_work import ChangedSourceError
    from envsync.fetching.compiling import compile_wheels

    assert seeker.python is not None
    replaced: set[str] = set()
    while True:
        wanted = [manifest for manifest in seeker.manifests.values() if manifest.mtime != seconds.TIMELESS]
        try:
            compile_wheels(wanted, seeker.python.interpreter, store, report=report)
            return
        except ChangedSourceError as error:
            damaged = error.manifest.sha256
            if damaged in replaced:
                raise
            replaced.add(damaged)
            with store.replacing([damaged]):
                seeker.fetch()
