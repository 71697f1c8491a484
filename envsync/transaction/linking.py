"""Bring files from the store into the stage: by hard links where they work, else by copies.

Before a file is linked, its size and mtime are compared with the manifest: a store entry that somebody wrote to is
found out (`PoisonedError`) instead of spread. Copies keep the mtime, because it is what makes bytecode stale.

Two workers, each with whole top-level entries, for two in one directory would only wait for its lock. The second is
a child process where nothing speaks against a fork, since the GIL costs two threads an eighth of their time; else a
thread, and they are still twice as fast as one: link(2), stat(2) and mkdir(2) release the GIL. Names are resolved
from the descriptors of the two directories, since the kernel's path lookup is a good part of these operations.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from envsync import forking
from envsync.cache.bytecode import Compiled
from envsync.cache.manifest import Manifest
from envsync.errors import EnvsyncError, FilesystemError
from envsync.progress import Report

COPY_INSTEAD = frozenset(
    {
        errno.EXDEV,
        errno.EPERM,
        errno.EACCES,
        errno.EMLINK,
        errno.ENOSPC,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
    }
)
"""What link(2) answers where a copy may still do. ENOSPC: gluster says it at 100 links of one file."""
NEVER_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What it answers of the filesystem as a whole, so that the next file need not be tried."""


class PoisonedError(EnvsyncError):
    """A store entry is not what was put there. Not the user's to see: the entry is set aside and fetched again.

    :ivar bytecode: the tag, if it is bytecode of an entry; that is compiled again
    """

    def __init__(self, manifest: Manifest | Compiled, path: str, reason: str | None) -> None:
        super().__init__(
            f"the cached files of `{manifest.filename}` have been changed: `{path}`: {reason or 'it cannot be read'}"
        )
        self.sha256 = manifest.sha256
        self.bytecode = manifest.tag if isinstance(manifest, Compiled) else ""


class Job(NamedTuple):
    """One directory's files to be brought from the store."""

    source: str
    destination: str
    """Is made if it is missing."""
    files: Sequence[Sequence[Any]]
    """(name, size, executable) of each."""
    manifest: Manifest | Compiled


class Linker:
    """Links or copies the files of many directories.

    :param link: False to copy always
    :param strict: rather fail than copy
    :param umask: of this process, for the modes of copies
    """

    def __init__(self, *, link: bool, strict: bool, umask: int) -> None:
        self.link = link
        self.strict = strict
        self.umask = umask
        self.copied: str | None = None
        """Why files had to be copied, if they had."""
        self.lock = threading.Lock()

    def run(self, groups: list[list[Job]], report: Report) -> None:
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

            forking.share(len(groups), work, tell=tell)
        else:
            self._run_in_two_threads(groups, report)

    def _run_in_two_threads(self, groups: list[list[Job]], report: Report) -> None:
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

    def _do_group(self, group: list[Job]) -> None:
        for job in sorted(group, key=_destination):  # parents first
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
        for name, size, executable in job.files:
            try:
                status = look(name, dir_fd=source, follow_symlinks=False)
            except OSError as error:
                raise PoisonedError(job.manifest, f"{job.source}/{name}", error.strerror) from error
            if status.st_size != size or status.st_mtime_ns != mtime_ns:
                raise PoisonedError(job.manifest, f"{job.source}/{name}", "its size or time is not what it was")
            if self.link:
                try:
                    link(name, name, src_dir_fd=source, dst_dir_fd=destination)
                    continue
                except FileExistsError:
                    # A child that failed has done it, or a leader that died.
                    if _is_same(name, source, destination):
                        continue
                    os.unlink(name, dir_fd=destination)
                    link(name, name, src_dir_fd=source, dst_dir_fd=destination)
                    continue
                except OSError as error:
                    self._fall_back(job, name, error)
            self._copy(job, name, size=int(size), executable=bool(executable))

    def _fall_back(self, job: Job, name: str, error: OSError) -> None:
        if error.errno not in COPY_INSTEAD or self.strict:
            raise FilesystemError("link", f"{job.destination}/{name}", error) from error
        self.copied = f"{error.strerror} (`{job.source}/{name}`)"
        if error.errno in NEVER_LINKS:
            self.link = False

    def _copy(self, job: Job, name: str, *, size: int, executable: bool) -> None:
        import shutil

        source, destination = f"{job.source}/{name}", f"{job.destination}/{name}"
        mode = (0o777 if executable else 0o666) & ~self.umask
        try:
            if os.path.lexists(destination):
                if _is_whole(destination, size, mode, job.manifest.mtime):
                    return  # as a leader that died has left it
                os.unlink(destination)  # never write through what may be a link to the store
            shutil.copyfile(source, destination)
            os.chmod(destination, mode)
            os.utime(destination, (job.manifest.mtime, job.manifest.mtime))  # last: it says that the copy is whole
        except OSError as error:
            raise FilesystemError("write", destination, error) from error


def _destination(job: Job) -> str:
    return job.destination


def _size(group: list[Job]) -> int:
    return sum(len(job.files) for job in group)


def _is_same(name: str, source: int, destination: int) -> bool:
    left = os.stat(name, dir_fd=source, follow_symlinks=False)
    right = os.stat(name, dir_fd=destination, follow_symlinks=False)
    return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)


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


def _is_whole(path: str, size: int, mode: int, mtime: int) -> bool:
    """Tell whether a copy was finished: its time is set last."""
    status = os.lstat(path)
    return status.st_nlink == 1 and (status.st_mode, status.st_size, status.st_mtime_ns) == (
        stat.S_IFREG | mode,
        size,
        mtime * 1_000_000_000,
    )


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
