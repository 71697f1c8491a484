"""Get all wheels of a target into the store, at once: what the store has is not looked for anywhere else.

One process at a time is at each wheel (`envsync.locks.wheel_lock`); two that need the same ones share them out.
Downloads run concurrently; each file is verified and unpacked in one of a few threads as soon as it is there.
The first error cancels the rest, which stops between two files or at its next byte from the network and
cleans up after itself; what was already added to the store stays there, and so do downloads that can be
continued.

The event loop runs in a thread of its own. So what the handler of a signal raises comes where one waits for it, and
never within a loop, where it would be shown, turned into another error, or lost together with the callback that it
interrupted, for which somebody then waits for ever. And a program may have a loop of its own in the calling thread.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from envsync.errors import EnvsyncError, NoWheelError, WheelError
from envsync.launch import signals
from envsync.launch.progress import Report, quiet
from envsync.lockfile.target import Artifact
from envsync.locks.wheel_lock import Turn
from envsync.store import archives
from envsync.store.archives import Archive
from envsync.store.store import Store
from envsync.system import forking, processes
from envsync.waiting.shortening import volume
from envsync.wheel.manifest import Manifest
from envsync.wheel.verify import check_identity, check_vouched, origin, vouches

if TYPE_CHECKING:
    import asyncio

    import anyio

    from envsync.fetching.download import Downloader

Kept = TypeVar("Kept")

MOST_WORKERS = 4
REPORT_SECONDS = 0.1
"""Between two reports of bytes."""
ALIVE_SECONDS = 0.25
"""Between two reports of anything: they are signs of life, and the moments at which a sync can be cancelled."""
AT_ONCE = 32
"""Wheels that are in work at once: as many locks are held. Others may have the rest meanwhile."""
TURN_SECONDS = 0.05
"""Until the second look whether another process has done with a wheel; then it grows."""
LONGEST_TURN_SECONDS = 1.0
LEAVE_SECONDS = 1.0
"""For how long the event loop may take to end once it is given up: it may hang in a look-up of a name."""


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
        keeper = _Keeper(_find, lambda artifact, path, check: store.add(path, artifact, checkpoint=check))
        run: _Run[Manifest] = _Run(missing, store, report, workers or 1, keeper)
        manifests.update(run.run(tuple(index_urls)))
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
    found = {artifact.name: kept for artifact in artifacts if (kept := archives.find(store, artifact)) is not None}
    missing = [artifact for artifact in artifacts if artifact.name not in found]
    for artifact in missing:
        _check_reachable(artifact, offline, lock_file)
    if missing:
        store.prepare()
        keeper = _Keeper(
            lambda artifact, store: archives.find(store, artifact),
            lambda artifact, path, check: archives.keep(store, path, artifact, check),
        )
        run: _Run[Archive] = _Run(missing, store, report, MOST_WORKERS, keeper)
        found.update(run.run(tuple(index_urls)))
        store.note_written()
    return found


class _Keeper(NamedTuple, Generic[Kept]):
    """What becomes of a file."""

    find: Callable[[Artifact, Store], Kept | None]
    """Looks for what was kept before."""
    add: Callable[[Artifact, str, Callable[[], object]], Kept]
    """Verifies a file and keeps it, calling a checkpoint now and then."""


def _unpack_local(artifacts: Sequence[Artifact], store: Store, workers: int, report: Report) -> dict[str, Manifest]:
    """Unpack the local wheels whose hash is known, if this process may share the work with children, or there is one.

    Whatever is missing from what this returns has to be got in another way.
    """
    local = [artifact for artifact in artifacts if artifact.path is not None and artifact.sha256 is not None]
    local.sort(key=_size, reverse=True)
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


class _Run(Generic[Kept]):
    """One run of the event loop that gets what is missing."""

    def __init__(
        self, missing: Sequence[Artifact], store: Store, report: Report, workers: int, keeper: _Keeper[Kept]
    ) -> None:
        self._kept: dict[str, Kept] = {}
        self._keeper = keeper
        self._missing = missing
        self._store = store
        self._workers = workers
        self._report = report
        self._waiting: dict[str, Turn] = {}
        """The wheels that somebody else is at, by name."""
        self._failures: list[tuple[bool, int, EnvsyncError]] = []
        sizes = [artifact.size for artifact in missing if artifact.path is None]
        size = sum(size or 0 for size in sizes) if None not in sizes else 0
        self._progress = _Progress(len(sizes), size, len(missing))

    def run(self, index_urls: Sequence[str]) -> dict[str, Kept]:
        """Run the loop in a thread, and report here. What a report raises, or a signal, ends it.

        :returns: what was kept, by the artifacts' names
        """
        loop = _Loop(partial(self._fetch, index_urls))
        told = time.monotonic()
        try:
            while not loop.over.wait(REPORT_SECONDS):
                signals.heed()
                if time.monotonic() - told >= ALIVE_SECONDS or self._progress.news:
                    told = time.monotonic()
                    self._hand_on()
            self._hand_on()
        except BaseException:
            loop.give_up()
            raise
        loop.conclude()
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[:2])[2]
        return self._kept

    def _hand_on(self) -> None:
        """Report what has happened; if nothing has, how far it is: somebody may want to end it."""
        if not self._progress.news:
            self._progress.tell(self._waited_for())
        detail = getattr(self._report, "detail", None)
        if detail is not None:
            detail(self._progress.slowest)
        while self._progress.news:
            self._report(*self._progress.news.popleft())

    async def _fetch(self, index_urls: Sequence[str], loop: _Loop) -> None:
        import anyio

        self._at_once = anyio.CapacityLimiter(AT_ONCE)
        limiter = anyio.CapacityLimiter(self._workers)
        async with AsyncExitStack() as stack:
            downloader = None
            if any(artifact.path is None for artifact in self._missing):
                from envsync.fetching.download import Downloader

                downloader = await stack.enter_async_context(Downloader(self._store, index_urls))
            group = await stack.enter_async_context(anyio.create_task_group())
            if not loop.may_cancel(group.cancel_scope):
                return
            for number, artifact in sorted(enumerate(self._missing), key=_by_size, reverse=True):
                group.start_soon(self._get, number, artifact, downloader, limiter, group.cancel_scope)

    def _waited_for(self) -> str:
        """Say for whom, if nothing but waiting is left to do."""
        waiting = dict(self._waiting)
        if len(waiting) < len(self._missing) - len(self._kept):
            return ""
        name, turn = next(iter(waiting.items()), ("", None))
        return f"waiting for {turn.holder()}, which fetches {name}" if turn is not None else ""

    async def _get(
        self,
        number: int,
        artifact: Artifact,
        downloader: Downloader | None,
        limiter: anyio.CapacityLimiter,
        scope: anyio.CancelScope,
    ) -> None:
        """Get one artifact; note an error, for which all others are cancelled."""
        try:
            async with self._in_turn(artifact) as kept:
                if kept is not None:  # somebody else got it meanwhile
                    self._kept[artifact.name] = kept
                    if artifact.path is None:
                        self._progress.finish_download(artifact)
                    self._progress.finish_unpacking()
                elif downloader is None or artifact.path is not None:
                    await self._add(artifact.path or "", artifact, limiter)
                else:
                    async with downloader.download(artifact, partial(self._progress.receive, artifact)) as path:
                        self._progress.finish_download(artifact)
                        await self._add(path, artifact, limiter)
        except EnvsyncError as error:
            self._failures.append((not isinstance(error, WheelError), number, error))
            scope.cancel()

    @asynccontextmanager
    async def _in_turn(self, artifact: Artifact) -> AsyncIterator[Kept | None]:
        """Wait until nobody else is at this wheel, and keep others from it meanwhile; lend it if it is there now."""
        import anyio

        turn = Turn(self._store, artifact.sha256)
        pause = TURN_SECONDS
        while True:
            async with self._at_once:
                lock = turn.take()
                if lock is not None:
                    self._waiting.pop(artifact.name, None)
                    try:
                        yield self._keeper.find(artifact, self._store)
                    finally:
                        lock.release()
                    return
            self._waiting[artifact.name] = turn
            await anyio.sleep(pause * random.uniform(0.5, 1))
            pause = min(1.5 * pause, LONGEST_TURN_SECONDS)

    async def _add(self, path: str, artifact: Artifact, limiter: anyio.CapacityLimiter) -> None:
        from anyio import from_thread, to_thread

        def add() -> Kept:
            return self._keeper.add(artifact, path, from_thread.check_cancelled)

        self._kept[artifact.name] = await to_thread.run_sync(add, limiter=limiter)
        self._progress.finish_unpacking()


class _Loop:
    """An event loop in a thread of its own.

    :param work: is given this loop, and says with `may_cancel` what is cancelled if nobody waits for it any more
    :ivar over: set when it has ended
    """

    def __init__(self, work: Callable[[_Loop], Awaitable[None]]) -> None:
        self.over = threading.Event()
        self._work = work
        self._error: BaseException | None = None
        self._given_up = False
        self._scope: tuple[asyncio.AbstractEventLoop, anyio.CancelScope] | None = None
        self._thread = threading.Thread(target=self._run, name="envsync fetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            import anyio

            anyio.run(self._work, self)
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error
        finally:
            self.over.set()

    def may_cancel(self, scope: anyio.CancelScope) -> bool:
        """Let this be cancelled. False: it is given up already."""
        import asyncio

        self._scope = (asyncio.get_running_loop(), scope)
        return not self._given_up

    def give_up(self) -> None:
        """End it, and wait for that, though not for long."""
        self._given_up = True
        if self._scope is not None:
            loop, scope = self._scope
            try:
                loop.call_soon_threadsafe(scope.cancel)
            except RuntimeError:
                pass  # it has come to its end
        self._thread.join(LEAVE_SECONDS)

    def conclude(self) -> None:
        """Wait for its end, and raise what it was ended by."""
        self._thread.join()
        if self._error is not None:
            raise _single(self._error)


def _by_size(numbered: tuple[int, Artifact]) -> int:
    """Order by size. The largest goes first: a large one begun last is waited for by all."""
    return _size(numbered[1])


def _size(artifact: Artifact) -> int:
    if artifact.size is None and artifact.path is not None:
        try:
            return os.stat(artifact.path).st_size
        except OSError:
            return 0  # whoever opens it will say what is wrong
    return artifact.size or 0


def _single(error: BaseException) -> BaseException:
    """Return what alone is in an exception group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class _Progress:
    """Counts and reports: downloads as long as there are any, then unpacking, so that nobody sees the two alternate.

    :param size: of all downloads, 0 if unknown
    :ivar news: what there is to report, as the arguments of a report
    :ivar slowest: the download that most is missing of, in a few words; empty if nothing comes
    """

    def __init__(self, downloads: int, size: int, wheels: int) -> None:
        self.news: deque[tuple[str, int, int] | tuple[str, int, int, int, int]] = deque()
        self.slowest = ""
        self._downloads = downloads
        self._size = size
        self._wheels = wheels
        self._received = 0
        self._downloaded = 0
        self._unpacked = 0
        self._next = 0.0
        self._running: dict[str, tuple[int, int]] = {}
        """By name, how many bytes have come of what comes now, and of how many, 0 if unknown."""

    def receive(self, artifact: Artifact, count: int) -> None:
        """Count bytes; negative if some were thrown away."""
        self._received += count
        self._running[artifact.name] = (self._running.get(artifact.name, (0, 0))[0] + count, artifact.size or 0)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            self.tell()

    def finish_download(self, artifact: Artifact) -> None:
        self._downloaded += 1
        self._running.pop(artifact.name, None)
        self.tell()

    def finish_unpacking(self) -> None:
        self._unpacked += 1
        self.tell()

    def tell(self, waiting: str = "") -> None:
        if waiting:
            self.news.append((waiting, self._unpacked, self._wheels))
        elif self._downloaded < self._downloads:
            self.slowest = self._slowest()
            self.news.append(("downloading", self._downloaded, self._downloads, self._received, self._size))
        else:
            self.news.append(("unpacking", self._unpacked, self._wheels))

    def _slowest(self) -> str:
        """Where sizes are not known, the one that has begun first."""
        if not self._running:
            return ""
        name, (done, size) = max(self._running.items(), key=lambda item: max(0, item[1][1] - item[1][0]))
        return f"{name} {volume(done, size)}"
