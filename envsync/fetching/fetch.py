"""Get all wheels of a target into the store, at once: what the store has is not looked for anywhere else.

One process at a time is at each wheel (`envsync.locks.wheel_lock`); two that need the same ones share them out.
Downloads block, in threads of children that are forked for it, or of this process where it may not fork, since it has
other threads or its system knows no fork (`envsync.fetching.crews`). Each file is verified and unpacked by the thread
that downloaded it. The first error ends the rest, which stops between two files or at its next byte from the network,
and cleans up after itself; what was already added to the store stays there, and so do downloads that can be continued.

The calling thread only listens and reports. So what the handler of a signal raises comes where one waits for it, and
never in the midst of a download, where it would be turned into another error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from envsync.errors import NoWheelError
from envsync.fetching.progress import size_of
from envsync.launch.progress import Report, quiet
from envsync.lockfile.target import Artifact
from envsync.locks.wheel_lock import Turn
from envsync.store import archives
from envsync.store.archives import Archive
from envsync.store.store import Store
from envsync.system import forking, processes
from envsync.wheel.manifest import Manifest
from envsync.wheel.verify import check_identity, check_vouched, origin, vouches

if TYPE_CHECKING:
    from envsync.fetching.crew import Keeper

Kept = TypeVar("Kept")

MOST_WORKERS = 4
REPORT_SECONDS = 0.1
"""Between two reports of bytes."""


def fetch(
    artifacts: Sequence[Artifact],
    store: Store,
    *,
    offline: bool = False,
    report: Report = quiet,
    workers: int | None = None,
    index_urls: Iterable[str] = (),
    lock_file: str = "",
) -> dict[str, Manifest]:
    """Get all artifacts into the store; blocks until they are there. Not to be called from an event loop's thread.

    :param workers: how many wheels to unpack at once; by default as there are processors, 4 at most
    :param index_urls: where to look for credentials besides the URLs themselves
    :param lock_file: for messages
    :returns: the manifests by the artifacts' names
    :raises NoWheelError: no place is known for one, or it would have to be downloaded while offline
    :raises FetchError: one could not be downloaded
    :raises WheelError: one is not what the lock file says, or not sound
    :raises FilesystemError: one could not be read, or the store cannot be written
    """
    manifests: dict[str, Manifest] = {}
    missing: list[Artifact] = []
    for artifact in artifacts:
        manifest = _find(artifact, store)
        if manifest is None:
            missing.append(artifact)
        else:
            manifests[artifact.name] = manifest
    found = len(manifests)
    if missing:
        for artifact in missing:
            _check_reachable(artifact, offline, lock_file)
        store.prepare()
        store.sweep()
        workers = workers or min(MOST_WORKERS, processes.processors())
        manifests.update(_unpack_local(missing, store, workers, report))
        missing = [artifact for artifact in missing if artifact.name not in manifests]
    if missing:
        from envsync.fetching.crew import Keeper
        from envsync.fetching.gathering import Gathering

        keeper = Keeper(
            _find,
            lambda artifact, path, check: store.add(path, artifact, checkpoint=check),
            lambda manifest: manifest.sha256,
            store.get,
        )
        manifests.update(Gathering(missing, store, report, workers or 1, keeper).run(tuple(index_urls)))
    if len(manifests) > found:
        store.note_written()
    return {artifact.name: manifests[artifact.name] for artifact in artifacts}


def fetch_archives(
    artifacts: Sequence[Artifact],
    store: Store,
    *,
    offline: bool = False,
    report: Report = quiet,
    index_urls: Iterable[str] = (),
    lock_file: str = "",
) -> dict[str, Archive]:
    """Get archives of sources to be at hand; blocks until they are. Parameters and errors are those of `fetch`.

    :returns: where they are, by the artifacts' names
    """
    from envsync.fetching.crew import Keeper

    keeper = Keeper[Archive](
        lambda artifact, store: archives.find(store, artifact),
        lambda artifact, path, check: archives.keep(store, path, artifact, check),
        lambda archive: archive,
        lambda archive: archive,
    )
    return fetch_files(
        artifacts,
        store,
        keeper,
        offline=offline,
        report=report,
        index_urls=index_urls,
        lock_file=lock_file,
    )


def fetch_files(
    artifacts: Sequence[Artifact],
    store: Store,
    keeper: Keeper[Kept],
    *,
    offline: bool = False,
    report: Report = quiet,
    index_urls: Iterable[str] = (),
    lock_file: str = "",
) -> dict[str, Kept]:
    """Get files as they are, and have them kept; blocks until they are. Parameters and errors are those of `fetch`.

    :param store: where to keep what is being downloaded
    :param keeper: what becomes of them, and of local files, too; it may be asked in a child
    :returns: what was kept, by the artifacts' names
    """
    found = {artifact.name: kept for artifact in artifacts if (kept := keeper.find(artifact, store)) is not None}
    missing = [artifact for artifact in artifacts if artifact.name not in found]
    for artifact in missing:
        _check_reachable(artifact, offline, lock_file)
    if missing:
        from envsync.fetching.gathering import Gathering

        store.prepare()
        workers = min(MOST_WORKERS, processes.processors())
        found.update(Gathering(missing, store, report, workers, keeper).run(tuple(index_urls)))
        store.note_written()
    return found


def _unpack_local(artifacts: Sequence[Artifact], store: Store, workers: int, report: Report) -> dict[str, Manifest]:
    """Unpack the local wheels whose hash is known, if this process may share the work with children, or there is one.

    Whatever is missing from what this returns has to be got in another way.
    """
    local = [artifact for artifact in artifacts if artifact.path is not None and artifact.sha256 is not None]
    local.sort(key=size_of, reverse=True)
    alone = len(local) == 1 == len(artifacts)  # as after an edit of what says how a project is built
    if not alone and (workers < 2 or not forking.can_share(len(local))):
        return {}
    done = 0

    parent = os.getpid()

    def work(number: int) -> None:
        artifact = local[number]
        lock = Turn(store, artifact.sha256).take()
        if lock is None:
            return  # somebody else is at it: the others first
        try:
            if store.get(artifact.sha256 or "") is None:
                checkpoint = every(REPORT_SECONDS, partial(tell, None)) if os.getpid() == parent else _nothing
                store.add(artifact.path or "", artifact, checkpoint=checkpoint)
        finally:
            lock.release()

    def tell(number: int | None) -> None:
        nonlocal done
        if number is not None:
            done += workers  # the children are about as far as we are
        report("unpacking", min(done, len(local)), len(local))

    report("unpacking", 0, len(local))
    if alone:
        work(0)
    else:
        forking.share(len(local), work, children=workers - 1, tell=tell)
    found = {artifact.name: _find(artifact, store) for artifact in local}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def every(seconds: float, call: Callable[[], object]) -> Callable[[], None]:
    """Make a function that does the call, but not more often than that."""
    due = time.monotonic() + seconds

    def check() -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + seconds
            call()

    return check


def _nothing() -> None:
    pass


def _find(artifact: Artifact, store: Store) -> Manifest | None:
    """Look for an artifact in the store, if its key is known."""
    if artifact.sha256 is not None:
        return _fitting(store.get(artifact.sha256), artifact)
    if artifact.hashes:
        return None
    for algorithm, digest in artifact.alternatives:
        # The hashes of other files of this version (for another platform, say) are among the alternatives
        if algorithm == "sha256" and (manifest := store.get(digest)) and manifest.filename == artifact.filename:
            return _fitting(manifest, artifact)
    return None


def _fitting(manifest: Manifest | None, artifact: Artifact) -> Manifest | None:
    """Return an entry of the store if it will do; None if that takes a hash that only the whole wheel can be asked for.

    :raises WheelError: it never will
    """
    if manifest is None:
        return None
    check_identity(manifest, artifact)
    hashes = {"sha256": manifest.sha256}
    if any(algorithm != "sha256" for algorithm, _ in artifact.locked) and not vouches(artifact, hashes):
        return None if manifest.unrecorded else manifest
    check_vouched(manifest, artifact, hashes)
    return manifest


def _check_reachable(artifact: Artifact, offline: bool, lock_file: str) -> None:
    if artifact.path is not None or (artifact.url is not None and not offline):
        return
    hint = "run once with the network: `envsync sync --no-offline`" if offline else None
    if artifact.url is None:
        problem = artifact.missing or f"{artifact.name} {artifact.version} is not in the cache, nor known elsewhere"
    else:
        problem = f"`{artifact.filename}` is not in the cache and offline: it would come from {origin(artifact)}"
    raise NoWheelError(lock_file, problem, hint=hint)
