"""Compare files with what is expected of them: by size and hash, many at once, and never outside the environment.

Two processors hash as fast as they read: reading and hashing release the GIL, so threads do, and processes would not be
faster. Each thread reads into a buffer of its own, and takes the largest file that is left, so that none of them ends
with a long one when the others have nothing to do any more.

Nothing is trusted that says that a file has not changed: neither its time nor that it is a link to a store entry, for a
disk may lose a bit of it and somebody may have written through the link. A file is opened only if every directory above
it is the environment's own (`Ground`), and never through a symbolic link. What is no regular file is not read at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from envsync.installed.scan import is_store_link
from envsync.launch import Environment, progress
from envsync.python.facts import Layout
from envsync.system import core, native, paths, processes, regular
from envsync.wheel import record

CHUNK_BYTES = 1 << 18
"""What is read at once: it stays in a processor's cache until it is hashed."""
MOST_WORKERS = 8
TELL_FILES = 128
TELL_BYTES = 1 << 25
"""After how much a worker says how far it is."""


_GUARD = ".dist-info/REQUESTED"
"""How the path of a file ends that a stamp may name since nobody reads it (`envsync.transaction.stamping`)."""


def _open_unseen(path: str) -> int:
    """Open a file for reading so that its atime does not change, if it is one's own (open(2))."""
    try:
        return core.open_file(path, regular.FLAGS | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return core.open_file(path, regular.FLAGS)


class Expectation(NamedTuple):
    """What a distribution expects of a file."""

    distribution: str
    hash: str
    """As in RECORD, `sha256=...`; empty if nothing is known but that there has to be a file."""
    size: int | None
    source: str
    """Who says so, for messages."""
    executable: bool = False
    ours: bool = False
    """By what envsync installed."""


class Job(NamedTuple):
    """A file to be looked at."""

    path: str
    """Relative to the environment, as messages name it."""
    place: str
    """Where it really is, relative to the environment."""
    expectations: Sequence[Expectation]
    """It is sound if it is as one of them says; the first is that of the distribution it is known by."""


class Answer(NamedTuple):
    """What is wrong with a file."""

    job: Job
    is_missing: bool
    detail: str


class Ground:
    """Leads from names in an environment to real places in it, and never out of it.

    The directories of the layout belong to the environment wherever they are, and so do those of the store that are
    linked whole; nothing else does that a symbolic link leads to.
    """

    def __init__(self, environment: Environment, layout: Layout) -> None:
        self.root = environment.path
        self.real = paths.realpath(environment.path)
        self._places: dict[str, str | None] = {"": ""}
        self._layout: set[str] = set()
        for base in (*layout.sites, layout.scripts, layout.headers):
            parts = base.split("/")
            self._layout.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))

    def place(self, directory: str) -> str | None:
        """Return where a directory really is, relative to the environment; None if it is outside.

        :param directory: relative to the environment, normalized; need not exist
        """
        if directory in self._places:
            return self._places[directory]
        place: str | None = ""
        name = ""
        for part in directory.split("/"):
            name = f"{name}/{part}" if name else part
            if name not in self._places:
                self._places[name] = None if place is None else self._below(place, part)
            place = self._places[name]
        return place

    def place_of_file(self, path: str) -> str | None:
        """Return where a file really is, as `place`. It may be a symbolic link itself."""
        directory, _, name = path.rpartition("/")
        place = self.place(directory)
        return None if place is None else f"{place}/{name}" if place else name

    def _below(self, place: str, part: str) -> str | None:
        path = f"{place}/{part}" if place else part
        if not os.path.islink(f"{self.root}/{path}"):
            return path
        real = paths.realpath(f"{self.root}/{path}")
        if real.startswith(self.real + "/"):
            return real[len(self.real) + 1 :]
        return path if path in self._layout or is_store_link(f"{self.root}/{path}") else None


class Result(NamedTuple):
    """What all files turned out to be."""

    answers: list[Answer]
    bytes: int
    """How many were hashed."""


def examine(
    root: str,
    jobs: Iterable[Job],
    workers: int | None = None,
    report: progress.Report = progress.quiet,
    meanwhile: Callable[[], None] = lambda: None,
) -> Result:
    """Look at many files.

    :param root: the environment
    :param workers: how many threads; default: as many as processors, 8 at most
    :param meanwhile: done in this thread while the others have begun
    """
    ordered = sorted(jobs, key=_size, reverse=True)
    pool = _Pool(root, ordered, report)
    count = workers or min(MOST_WORKERS, processes.processors())
    threads = [
        threading.Thread(target=pool.work, name=f"envsync-verify-{number}")
        for number in range(min(count, len(ordered)) - 1)
    ]
    for thread in threads:
        thread.start()
    try:
        meanwhile()
        pool.work()
    finally:
        pool.jobs.clear()  # if we were interrupted, that ends them
        for thread in threads:
            thread.join()
    if pool.errors:
        raise pool.errors[0]
    report("verifying", pool.files, pool.total, pool.bytes, pool.bytes_total)
    return Result(pool.answers, pool.bytes)


def _size(job: Job) -> int:
    return job.expectations[0].size or 0


class _Pool:
    """Files that are still to be looked at, and what became of the others. Shared by the workers."""

    def __init__(self, root: str, jobs: Sequence[Job], report: progress.Report) -> None:
        self.root = root
        self.jobs = deque(jobs)
        self.total = len(jobs)
        self.bytes_total = sum(map(_size, jobs))
        self.report = report
        self.files = 0
        self.bytes = 0
        self.answers: list[Answer] = []
        self.errors: list[BaseException] = []
        self.lock = threading.Lock()

    def work(self) -> None:
        """Take files until none is left."""
        try:
            self._work(_Reader())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self.errors.append(error)
            self.jobs.clear()

    def _work(self, reader: _Reader) -> None:
        files = 0
        while True:
            try:
                job = self.jobs.popleft()  # atomic
            except IndexError:
                break
            answer = reader.examine(f"{self.root}/{job.place}", job)
            if answer is not None:
                self.answers.append(answer)
            files += 1
            if files >= TELL_FILES or reader.bytes >= TELL_BYTES:
                self._tell(files, reader)
                files = 0
        self._tell(files, reader)

    def _tell(self, files: int, reader: _Reader) -> None:
        with self.lock:
            self.files += files
            self.bytes += reader.count()
            self.report("verifying", self.files, self.total, self.bytes, self.bytes_total)


class _Reader:
    """What one thread reads with.

    :ivar bytes: hashed since they were counted
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._buffer = bytearray(CHUNK_BYTES)
        self._view = memoryview(self._buffer)

    def count(self) -> int:
        """Return how many bytes were hashed since the last time."""
        count, self.bytes = self.bytes, 0
        return count

    def examine(self, path: str, job: Job) -> Answer | None:
        try:
            fd = _open_unseen(path) if path.endswith(_GUARD) else core.open_file(path, regular.FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return Answer(job, True, f"{job.expectations[0].source} has it")
        except OSError as error:
            return Answer(job, False, regular.describe(path, error))
        except ValueError as error:  # this locale cannot write that name
            return Answer(job, False, f"it cannot be read: {error}")
        try:
            problem = self._compare(fd, job.expectations)
        except OSError as error:
            problem = f"it cannot be read: {error.strerror or error}"
        finally:
            os.close(fd)
        return None if problem is None else Answer(job, False, problem)

    def _compare(self, fd: int, expectations: Sequence[Expectation]) -> str | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return regular.kind_of(status.st_mode)
        problem = self._differs(fd, status.st_size, expectations[0])
        if problem is not None and all(self._differs(fd, status.st_size, other) for other in expectations[1:]):
            return problem
        if native.MODES and expectations[0].executable and not status.st_mode & 0o111:
            return "it is not executable any more"
        return None

    def _differs(self, fd: int, size: int, expected: Expectation) -> str | None:
        if expected.size is not None and size != expected.size:
            return f"size {size} instead of {expected.size}"
        if not expected.hash:
            return None
        algorithm, value = record.algorithm_and_digest(expected.hash)
        try:
            digest = self._digest(fd, size, algorithm)
        except (ValueError, TypeError):
            return f"{expected.source} has a hash of an unknown kind for it: {algorithm}"
        return None if digest == value else f"{algorithm} is not that of {expected.source}"

    def _digest(self, fd: int, size: int, algorithm: str) -> str:
        """Hash a file.

        :raises ValueError: there is no such hash; TypeError if it is of no use
        """
        hasher = hashlib.sha256() if algorithm == "sha256" else hashlib.new(algorithm, usedforsecurity=False)
        position = 0
        while position < size:
            count = native.pread_into(fd, self._buffer, position)
            if not count:
                break  # it is being truncated, and has another hash
            hasher.update(self._view[:count])
            position += count
        self.bytes += position
        return record.encode(hasher.digest())
