"""Bring files from the store into the stage, by clones, hard links or copies (`envsync.staging.link_modes`).

Before a file is brought, its size and mtime are compared with the manifest: a store entry that somebody wrote to is
found out (`DamagedError`) instead of spread. Every way keeps the mtime, because it is what makes bytecode stale. None
sets an atime back, and a file that is linked and was not read for a day gets one of now: scratch filesystems are purged
by that. A hard link serves if it allows at least what the umask would; clones and copies follow the umask.

Where times cannot be set, files come without, and that is told (`Said.timeless`).

Two workers, each with whole top-level entries, for two in one directory would only wait for its lock. The second is
a child process where nothing speaks against a fork, since the GIL costs two threads an eighth of their time; else a
thread, and they are still twice as fast as one: link(2), stat(2) and mkdir(2) release the GIL. Names are resolved
from descriptors of two directories, since the kernel's path lookup is a good part of these operations.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from envsync.errors import FilesystemError
from envsync.launch.progress import Report
from envsync.staging import link_modes
from envsync.staging.bring import File, fill_as_usual
from envsync.staging.link_modes import CLONE, COPY, HARDLINK, WHOLE, Fill, Said, Ways
from envsync.staging.linked_directories import WholeJob, link
from envsync.store.bytecode import Compiled
from envsync.store.damage import CHANGED, DamagedError, cannot_open
from envsync.system import core, forking, native
from envsync.system.patience import patiently
from envsync.wheel import seconds
from envsync.wheel.manifest import NAME, Directory, Manifest


class PartJob(NamedTuple):
    """One part of a wheel to be brought from the store (`envsync.staging.parts`)."""

    source: str
    """The directory of its scheme in the store entry."""
    destination: str
    """The same in the stage. Is made if it is missing."""
    directories: Sequence[Directory]
    """Their paths are below both."""
    manifest: Manifest | Compiled
    fresh: int = 0
    """The mtime of copies and clones, in seconds since the epoch, if that is not the store's."""

    @property
    def total(self) -> int:
        return sum(len(directory.files) for directory in self.directories)


class Making(NamedTuple):
    """What is made for this environment alone, in the same entry of the stage as the jobs before it."""

    make: Callable[[], None]
    """May be called again, if the process that did it was killed."""
    total: int


AnyJob = PartJob | WholeJob | Making


class Linker:
    """Brings the files of many directories.

    :param mode: one of `link_modes.MODES`
    :param umask: of this process, for the modes of clones and copies
    """

    def __init__(self, mode: str, *, umask: int) -> None:
        self.mode = mode
        self.umask = umask
        self.readable, self.executable = (0o444 & ~umask, 0o555 & ~umask) if native.MODES else (0, 0)
        """What a hard link has to allow, as a copy would."""
        self.stale = time.time_ns() - seconds.DAY_NS
        """What was not read since then looks new from now on."""
        self.said = Said((), ())
        """What is worth knowing of how the files came, once `run` has returned."""
        self.lock = threading.Lock()
        self.told: list[str] = []
        self.ways = Ways(mode, self.told.append)

    def run(self, groups: list[list[AnyJob]], report: Report) -> None:
        """Do all jobs; those of one group in order, by one worker.

        :raises DamagedError: a store entry has been changed
        :raises FilesystemError: no space, no permission, ...; a part of the files is there
        """
        sized = sorted(((_size(group), group) for group in groups), key=lambda pair: pair[0], reverse=True)
        total = sum(size for size, _ in sized)
        report("staging", 0, total)
        if forking.can_share(len(sized)):
            done = 0

            def work(number: int) -> None:
                self._do_group(sized[number][1])

            def tell(number: int | None) -> None:
                nonlocal done
                if number is not None:
                    done += 2 * sized[number][0]  # the child is about as far as we are
                report("staging", min(done, total), total)

            with _Heard(self.told) as heard:
                self.ways.tell_to(heard.tell)
                forking.share(len(sized), work, tell=tell)
        else:
            self._run_in_two_threads(sized, total, report)
        self.said = link_modes.conclude(self.mode, self.told)

    def _run_in_two_threads(self, sized: list[tuple[int, list[AnyJob]]], total: int, report: Report) -> None:
        pending = iter(sized)
        errors: list[BaseException] = []
        done = 0

        def work() -> None:
            nonlocal done
            while not errors:
                with self.lock:
                    size, group = next(pending, (0, None))
                if group is None:
                    return
                try:
                    self._do_group(group)
                    with self.lock:
                        done += size
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
        for job in group:
            patiently(self._do, job)  # what it has done already is seen, as that of a leader that died

    def _do(self, job: AnyJob) -> None:
        if isinstance(job, PartJob):
            self._link_files(job)
        elif isinstance(job, WholeJob):
            make_directory(job.destination.rpartition("/")[0])
            link(job)
            self.ways.used(WHOLE)
        else:
            job.make()

    def _link_files(self, job: PartJob) -> None:
        make_directory(job.destination)
        source = _open_source(job)
        try:
            destination = _open_destination(job)
            try:
                made = {""}
                for directory in job.directories:
                    above = directory.path.rpartition("/")[0]
                    for path in (above, directory.path):
                        if path not in made:
                            make_directory(path, destination, f"{job.destination}/")
                            made.add(path)
                    self._bring(job, directory, source, destination)
            finally:
                os.close(destination)
        finally:
            os.close(source)

    def _bring(  # noqa: PLR0912  # one loop for what most of the time of a sync goes into
        self, job: PartJob, directory: Directory, source: int, destination: int
    ) -> None:
        """Bring the files of one directory, which exists.

        :param source: a descriptor of the job's source. Names relative to it are resolved faster than a descriptor of
            their directory is opened and closed: most have few files
        :param destination: one of the job's destination
        """
        look, link = native.stat, native.link
        mtime_ns = job.manifest.mtime * 1_000_000_000
        own_ns = job.fresh * 1_000_000_000 or mtime_ns
        if not mtime_ns:
            self.ways.cached_without_times(job.source)
        above = (job.source, job.destination)
        prefix = f"{directory.path}/" if directory.path else ""
        ways: tuple[str, ...] = ()
        owner = device = -1
        linking = linked = False
        fill: Fill | None = None
        for base, size, executable in directory.files:
            name = prefix + base
            if fill is not None and mtime_ns and not self.ways.timeless:
                mode = 0o777 if executable else 0o666
                known = (size, mtime_ns, mode, device, owner)
                if fill_as_usual(name, *known, source, destination, fill, own_mtime_ns=own_ns, last=ways[0] == COPY):
                    continue
            try:
                status = look(name, dir_fd=source, follow_symlinks=False)
            except OSError as error:
                raise cannot_open(job.manifest, f"{above[0]}/{name}", error) from error
            if status.st_size != size or (status.st_mtime_ns != mtime_ns and mtime_ns):
                raise DamagedError(job.manifest, f"{above[0]}/{name}", CHANGED)
            if status.st_uid != owner:  # one directory has files of one device, but may have those of several users
                ways, owner, device = self.ways.of(status), status.st_uid, status.st_dev
                linking = ways[0] == HARDLINK
                fill = None if linking else self.ways.filling(ways[0], device)
            lacking = ~status.st_mode & (self.executable if executable else self.readable)
            if linking and not lacking:
                try:
                    link(name, name, src_dir_fd=source, dst_dir_fd=destination)
                    linked = True
                    if status.st_atime_ns < self.stale:
                        _freshen(name, status.st_mtime_ns, source)
                    continue
                except FileExistsError:
                    # A child that failed has done it, or a leader that died.
                    if File(above, mtime_ns, name, size, executable, source, destination).is_linked():
                        continue
                except OSError:
                    pass  # what it is, shows itself again below
            file = File(above, own_ns, name, size, executable, source, destination)
            if lacking and HARDLINK in ways:
                self.ways.cannot_read(file.origin)
                self._bring_in_some_way(file, status, tuple(way for way in ways if way != HARDLINK))
            elif not self._bring_in_some_way(file, status, ways):
                owner = -1  # there may be fewer ways from now on
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
                    fill = self.ways.filling(way, status.st_dev)
                    if not file.fill(self.umask, fill, clone=way == CLONE, undecided=undecided):
                        break  # as a leader that died has left it
                    self._set_time(file)
            except OSError as error:
                if way == COPY or not self.ways.refused(status, way, error, file.origin):
                    raise FilesystemError("link" if way == HARDLINK else way, file.path, error) from error
            else:
                self.ways.used(way)
                break
        return way == ways[0]

    def _set_time(self, file: File) -> None:
        """Give a copy the time of the cache's file, where that can be done."""
        if not file.mtime_ns or self.ways.timeless:
            return
        try:
            file.set_time()
        except OSError as error:
            if error.errno not in seconds.REFUSALS:
                raise FilesystemError("write", file.path, error) from error
            self.ways.without_times(f"{error.strerror} (`{file.path}`)")


def _freshen(name: str, mtime_ns: int, source: int) -> None:
    """Let a file of the cache look new; with METADATA those of the entry, too, that are not linked."""
    seconds.freshen(name, mtime_ns, source)
    directory, _, base = name.rpartition("/")
    if base == "METADATA" and not mtime_ns % 1_000_000_000:  # else the entry's files have no common time
        seconds.freshen(f"{directory}/REQUESTED", mtime_ns, source)
        seconds.freshen(f"../{NAME}", mtime_ns, source)


class _Heard:
    """A pipe from a child to this process: what each has to tell, for the end.

    What is told is a line at most a kind of event and worker, far less than a pipe holds.
    """

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def __enter__(self) -> _Heard:
        self.reading, self.writing = os.pipe()
        native.set_nonblocking(self.writing)
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


def _size(group: list[AnyJob]) -> int:
    return sum(job.total for job in group)


def make_directory(path: str, below: int | None = None, prefix: str = "") -> None:
    """Make a directory and its parents unless they are there. Two processes may make the same.

    :param below: a descriptor of the directory that the path is relative to
    :param prefix: what the path is to be shown with
    :raises FilesystemError: it cannot be made
    """
    try:
        native.mkdir(path, dir_fd=below)
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        parent = path.rpartition("/")[0]
        if not parent:
            raise FilesystemError("make directory", f"{prefix}{path}", error) from error
        make_directory(parent, below, prefix)
        make_directory(path, below, prefix)
    except OSError as error:
        raise FilesystemError("make directory", f"{prefix}{path}", error) from error


def _open_source(job: PartJob) -> int:
    try:
        return core.open_file(job.source, _DIRECTORY)
    except OSError as error:
        raise cannot_open(job.manifest, job.source, error) from error


def _open_destination(job: PartJob) -> int:
    try:
        return core.open_file(job.destination, _DIRECTORY)
    except OSError as error:
        raise FilesystemError("open", job.destination, error) from error


_DIRECTORY = os.O_RDONLY | core.DIRECTORY
