"""Get what is missing: set crews to work on it, hear what becomes of each artifact, and report how far that is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

from envsync.errors import EnvsyncError, WheelError
from envsync.fetching import CONNECTIONS
from envsync.fetching.crew import BROKEN, DOWNLOADED, FAILED, KEPT, PUT_OFF, RECEIVED, Job, Keeper
from envsync.fetching.crews import InChildren, InThreads, Work
from envsync.fetching.progress import Progress, size_of
from envsync.launch import signals
from envsync.launch.progress import Report
from envsync.lockfile.target import Artifact
from envsync.locks.wheel_lock import Turn
from envsync.store.store import Store
from envsync.system import forking

Kept = TypeVar("Kept")

ALIVE_SECONDS = 0.25
"""Between two reports of anything: they are signs of life, and the moments at which a sync can be cancelled."""


class Gathering(Generic[Kept]):
    """Gets what is missing: by children, if this process may have some, and what they leave by threads."""

    def __init__(
        self, missing: Sequence[Artifact], store: Store, report: Report, workers: int, keeper: Keeper[Kept]
    ) -> None:
        self._job = Job(missing, store, keeper)
        self._report = report
        self._workers = workers
        self._kept: dict[str, Kept] = {}
        self._others: dict[int, Turn] = {}
        """What somebody else is at."""
        self._failures: list[tuple[bool, int, EnvsyncError]] = []
        self._broken: BaseException | None = None
        self._progress = Progress(missing)
        self._told = 0.0

    def run(self, index_urls: Sequence[str]) -> dict[str, Kept]:
        """Get all, and report here. What a report raises, or a signal, ends it.

        :returns: what was kept, by the artifacts' names
        """
        job = self._job
        if all(artifact.path is not None for artifact in job.artifacts):
            self._get(job)
        else:
            from envsync.fetching.download import Downloader

            with closing(Downloader(job.store, index_urls)) as downloader:
                self._get(job._replace(downloader=downloader))
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[:2])[2]
        if self._broken is not None:
            raise self._broken
        return self._kept

    def _get(self, job: Job[Kept]) -> None:
        artifacts = job.artifacts
        numbers = sorted(range(len(artifacts)), key=lambda number: size_of(artifacts[number]), reverse=True)
        at_once = min(CONNECTIONS if job.downloader is not None else self._workers, len(numbers))
        if self._workers > 1 and forking.can_share(len(numbers)):
            self._follow(InChildren(job, numbers, self._workers, -(-at_once // self._workers)))
        left = [number for number in numbers if artifacts[number].name not in self._kept]
        if left and not self._failures:
            self._follow(InThreads(job, left, min(at_once, len(left)), self._workers))

    def _follow(self, work: Work) -> None:
        """Hear what happens until it is over; the first failure ends it."""
        stopped = False
        try:
            while (said := work.hear()) is not None:
                for each in said:
                    self._note(*each)
                if (self._failures or self._broken is not None) and not stopped:
                    stopped = True
                    work.stop()
                signals.heed()
                self._tell(bool(said), work)
        except BaseException:
            work.stop()
            raise

    def _note(self, what: int, number: int, more: Any) -> None:
        if what == RECEIVED:
            self._others.pop(number, None)  # they have ended, or do not get on
            self._progress.receive(number, more)
        elif what == DOWNLOADED:
            self._progress.finish_download(number)
        elif what == PUT_OFF:
            self._others[number] = Turn(self._job.store, self._job.artifacts[number].sha256)
        elif what == FAILED:
            self._failures.append((not isinstance(more, WheelError), number, more))
        elif what == BROKEN:
            self._broken = more
        elif what == KEPT and more is not None:
            self._others.pop(number, None)
            self._kept[self._job.artifacts[number].name] = more
            self._progress.finish(number)

    def _tell(self, news: bool, work: Work) -> None:
        """Report what has happened; if nothing has, now and then how far it is: somebody may want to end it."""
        now = time.monotonic()
        if not news and now < self._told + ALIVE_SECONDS:
            return
        self._told = now
        detail = getattr(self._report, "detail", None)
        if detail is not None:
            detail(self._progress.slowest)
        waiting = self._waited_for() or ("" if news else _about_stopped(work.stopped()))
        if waiting:
            self._report(waiting, *self._progress.unpacked)
        else:
            self._report(*self._progress.now())

    def _waited_for(self) -> str:
        """Say for whom, if nothing but waiting is left to do."""
        if len(self._others) < len(self._job.artifacts) - len(self._kept):
            return ""
        number, turn = next(iter(self._others.items()), (0, None))
        return (
            f"waiting for {turn.holder()}, which fetches {self._job.artifacts[number].name}" if turn is not None else ""
        )


def _about_stopped(pid: int) -> str:
    """Say of a process that it was stopped: what it has begun, nobody else here does."""
    return f"waiting for pid {pid}, which is stopped: continue it with `kill -CONT {pid}`, or end it" if pid else ""
