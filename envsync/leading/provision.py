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
    from collections.abc import Callable, Mapping

    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.python.facts import Interpreter
    from envsync.store.bytecode import Compiled
    from envsync.wheel.manifest import Manifest


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
    """Bring the bytecode of all wheels into the cache, but of those whose files have no times that it could go by."""
    from envsync.leading import bundled_bytecode
    from envsync.store.bytecode import Shelf

    assert seeker.python is not None
    python = seeker.python.interpreter
    missing = Shelf(store, python.bytecode).find(_timed(seeker.manifests))[1]
    tell: Callable[[str], object] = getattr(report, "announce", lambda _: None)
    for note in bundled_bytecode.take(seeker.request, missing, Shelf(store, python.bytecode), report):
        tell(f"note: {note}")

    def again(damaged: str) -> list[Manifest]:
        with store.replacing([damaged]):
            seeker.fetch()
        return _timed(seeker.manifests)

    compile_all(_timed(seeker.manifests), python, store, report, again)


def _timed(manifests: Mapping[str, Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests.values() if manifest.mtime != seconds.TIMELESS]


def compile_all(
    manifests: list[Manifest],
    python: Interpreter,
    store: Store,
    report: Report,
    again: Callable[[str], list[Manifest]],
) -> dict[str, Compiled]:
    """Compile wheels of the store, as far as it has no bytecode of them.

    :param again: is given the sha256 of one whose entry is damaged, gets it anew, and returns all of the wheels
    :returns: the bytecode of all that have sources, by the wheel's sha256
    :raises ChangedSourceError: an entry was damaged a second time
    :raises EnvsyncError: as `compile_wheels`
    """
    from envsync.fetching.compile_work import ChangedSourceError
    from envsync.fetching.compiling import compile_wheels

    replaced: set[str] = set()
    while True:
        try:
            return compile_wheels(manifests, python, store, report=report)
        except ChangedSourceError as error:
            damaged = error.manifest.sha256
            if damaged in replaced:
                raise
            replaced.add(damaged)
            manifests = again(damaged)
