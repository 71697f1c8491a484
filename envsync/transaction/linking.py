"""Bring files from the store into the stage, by clones, hard links or copies (`envsync.transaction.linkmodes`).

Before a file is brought, its size and mtime are compared with the manifest: a store entry that somebody wrote to is
found out (`PoisonedError`) instead of spread. Every way keeps the mtime, because it is what makes bytecode stale.

Two workers, each with whole top-level entries, for two in one directory would only wait for its lock. The second is
a child process where nothing speaks against a fork, since the GIL costs two threads an eighth of their time; else a
thread, and they are still twice as fast as one: link(2), stat(2) and mkdir(2) release the GIL. Names are resolved
from the descriptors of the two directories, since the kernel's path lookup is a good part of these operations.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from envsync import forking
from envsync.cache.bytecode import Compiled
from envsync.cache.manifest import Manifest
from envsync.errors import FilesystemError
from envsync.progress import Report
from envsync.transaction import linkmodes
from envsync.transaction.bringing import File
from envsync.transaction.linkmodes import CLONE, COPY, HARDLINK, WHOLE, Said, Ways
from envsync.transaction.poisoned import PoisonedError
from envsync.transaction.sealing import WholeJob, link


class Job(NamedTuple):
    """One directory's files to be brought from the store."""

    source: str
    destination: str
    """Is made if it is missing."""
    files: Sequence[Sequence[Any]]
    """(name, size, executable) of each."""
    manifest: Manifest | Compiled

    @property
    def total(self) -> int:
        return len(self.files)


AnyJob = Job | WholeJob


class Linker:
    """Brings the files of many directories.

    :param mode: one of `linkmodes.MODES`
    :param umask: of this process, for the modes of clones and copies
    """

    def __init__(self, mode: str, *, umask: int) -> None:
        self.mode = mode
        self.umask = umask
        self.said = Said((), ())
        """What is worth knowing of how the files came, once `run` has returned."""
        self.lock = threading.Lock()
        self.told: list[str] = []
        self.ways = Ways(mode, self.told.append)

    def run(self, groups: list[list[AnyJob]], report: Report) -> None:
        """Do all jobs; those of one group in order, by one worker.

        :raises PoisonedError: a store entry has been changed
        :raises FilesystemError: no space, no permission, ...; a part of the files is there
        """
        groups = sorted(groups, key=_size, reverse=True)
        total = sum(map(_size, groups))
        report("staging", 0, total)
        if forking.can_share(len(groups)):
            done = 0

            def work(number: int) -> None:
                self._do_group(groups[number])

            def tell(number: int | None) -> None:
                nonlocal done
                if number is not None:
                    done += 2 * _size(groups[number])  # the child is about as far as we are
                report("staging", min(done, total), total)

            with _Heard(self.told) as heard:
                self.ways.tell = heard.tell
                forking.share(len(groups), work, tell=tell)
        else:
            self._run_in_two_threads(groups, report)
        self.said = linkmodes.conclude(self.mode, self.told)

    def _run_in_two_threads(self, groups: list[list[AnyJob]], report: Report) -> None:
        total = sum(map(_size, groups))
        pending = iter(groups)
        errors: list[BaseException] = []
        done = 0

        def work() -> None:
            nonlocal done
            while not errors:
                with self.lock:
                    group = next(pending, None)
                if group is None:
                    return
                try:
                    self._do_group(group)
                    with self.lock:
                        done += _size(group)
                        report("staging", done, total)
                except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                    errors.append(error)
                    return

        thread = threading.Thread(target=work, name="envsync-link")
        thread.start()
        work()
        thread.join()
        if errors:
            raise errors[0]

    def _do_group(self, group: list[AnyJob]) -> None:
        for job in sorted(group, key=_destination):  # parents first
            if isinstance(job, WholeJob):
                make_directory(job.destination.rpartition("/")[0])
                link(job)
                self.ways.used(WHOLE)
            else:
                self._do(job)

    def _do(self, job: Job) -> None:
        make_directory(job.destination)
        try:
            source = os.open(job.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PoisonedError(job.manifest, job.source, error.strerror) from error
        try:
            destination = os.open(job.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            os.close(source)
            raise FilesystemError("open", job.destination, error) from error
        try:
            self._bring(job, source, destination)
        finally:
            os.close(source)
            os.close(destination)

    def _bring(self, job: Job, source: int, destination: int) -> None:
        look, link = os.stat, os.link
        mtime_ns = job.manifest.mtime * 1_000_000_000
        above = (job.source, job.destination)
        ways: tuple[str, ...] = ()
        owner: int | None = None
        linked = False
        for name, size, executable in job.files:
            try:
                status = look(name, dir_fd=source, follow_symlinks=False)
            except OSError as error:
                raise PoisonedError(job.manifest, f"{job.source}/{name}", error.strerror) from error
            if status.st_size != size or status.st_mtime_ns != mtime_ns:
                raise PoisonedError(job.manifest, f"{job.source}/{name}", "its size or time is not what it was")
            if status.st_uid != owner:  # one directory has files of one device, but may have those of several users
                ways, owner = self.ways.of(status), status.st_uid
            if ways[0] == HARDLINK:
                try:
                    link(name, name, src_dir_fd=source, dst_dir_fd=destination)
                    linked = True
                    continue
                except FileExistsError:
                    # A child that failed has done it, or a leader that died.
                    if File(above, mtime_ns, name, size, executable, source, destination).is_linked():
                        continue
                except OSError:
                    pass  # what it is, shows itself again below
            file = File(above, mtime_ns, name, size, executable, source, destination)
            if not self._bring_in_some_way(file, status, ways):
                owner = None  # there may be fewer ways from now on
        if linked:
            self.ways.used(HARDLINK)

    def _bring_in_some_way(self, file: File, status: os.stat_result, ways: tuple[str, ...]) -> bool:
        """Bring a file in the first way that works. Returns False if that was not the first of all."""
        for way in ways:
            try:
                if way == HARDLINK:
                    file.link()
                else:
                    undecided = HARDLINK in ways and not self.ways.has_used(CLONE)
                    if not file.fill(self.umask, clone=way == CLONE, undecided=undecided):
                        break  # as a leader that died has left it
            except OSError as error:
                if way == COPY or not self.ways.refused(status, way, error, file.origin):
                    raise FilesystemError("link" if way == HARDLINK else way, file.path, error) from error
            else:
                self.ways.used(way)
                break
        return way == ways[0]


class _Heard:
    """A pipe from a child to this process: what each has to tell, for the end.

    What is told is a line at most a kind of event and worker, far less than a pipe holds.
    """

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def __enter__(self) -> _Heard:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        return self

    def tell(self, line: str) -> None:
        try:
            os.write(self.writing, f"{line}\n".encode("utf-8", "surrogateescape")[:_LINE_BYTES])
        except BlockingIOError:
            pass  # enough was told

    def __exit__(self, *_: object) -> None:
        os.close(self.writing)
        with open(self.reading, encoding="utf-8", errors="replace") as file:
            self.told += file.read().splitlines()


_LINE_BYTES = 2048
"""A line of at most as many bytes reaches the pipe whole (pipe(7))."""


def _destination(job: AnyJob) -> str:
    return job.destination


def _size(group: list[AnyJob]) -> int:
    return sum(job.total for job in group)


def read_umask() -> int:
    """Return this process's umask.

    umask(2) can only be asked by setting it, for all threads at once: one that asks at the same moment may set the
    wrong one for good. Linux tells it without (proc(5)).
    """
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass  # not Linux, or no /proc
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def make_directory(path: str) -> None:
    """Make a directory and its parents unless they are there. Two threads may make the same.

    :raises FilesystemError: it cannot be made
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_directory(path.rpartition("/")[0])
        make_directory(path)
    except OSError as error:
        raise FilesystemError("make directory", path, error) from error
