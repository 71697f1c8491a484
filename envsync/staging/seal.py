"""Link a whole directory of a store entry, so that nothing reaches the store through the link.

What is in a linked directory is in every environment that links it. So before it is linked, it is sealed: compared
with the manifest, name by name, and made read-only, with the mtime that all files of the entry have. Whoever adds or
removes something later (root may) changes that mtime, and is found out by the next who links it, for the price of one
look: then all names are compared again. So they are where somebody has made a whole cache read-only by hand. Each
file's size and mtime are compared at every linking, as in all other modes.

Python writes bytecode into `__pycache__` beside the source, and as root no mode keeps it from that. An empty *file* of
that name does: then it goes without (importlib ignores what it cannot write), or writes where PYTHONPYCACHEPREFIX says.

pip leaves files alone whose directory is really outside of the environment. uv does not: it removes what RECORD lists,
through the link. So RECORD lists the link itself, before what is in it: uv and pip remove that, and find nothing of the
rest (`envsync.staging.stage`).

State after a crash: a directory that is sealed by half can still be written to by its owner, and is sealed again.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from envsync.errors import FilesystemError
from envsync.store.damage import PoisonedError, cannot_open, compare
from envsync.wheel.manifest import Manifest

BLOCKER = "__pycache__"
_WRITABLE = 0o222
_BY_OTHERS = 0o022


class WholeJob(NamedTuple):
    """One directory to be linked, with all that is in it."""

    source: str
    destination: str
    directories: list[tuple[str, Sequence[Sequence[Any]]]]
    """(path below the source, files as in the manifest) of each directory that has files; "" is the source."""
    manifest: Manifest

    @property
    def total(self) -> int:
        return sum(len(files) for _, files in self.directories)


def can_seal(path: str, umask: int) -> bool:
    """Tell whether a directory of the store is sealed or can be, and is one's own or root's.

    It also has to let in whom the umask would let into a directory of the environment's own.
    """
    try:
        status = os.lstat(path)
        if 0o555 & ~umask & ~status.st_mode:
            return False
        if status.st_uid not in (0, os.geteuid()):
            return False  # its owner could change at any time what runs here (`envsync.staging.link_modes`)
        if not status.st_mode & _WRITABLE or _is_read_only(path):
            return True
    except OSError:
        return True  # what is wrong shows itself when it is linked
    if os.geteuid() in (0, status.st_uid):
        return os.access(path, os.W_OK)  # a network filesystem may not take root for root
    return not status.st_mode & _BY_OTHERS


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def link(job: WholeJob) -> None:
    """Compare the directory with the manifest, seal it, and link it.

    :raises PoisonedError: it is not what was put there
    :raises FilesystemError: it cannot be sealed or linked
    """
    children: dict[str, set[str]] = {}
    for path, _ in job.directories:
        while path:
            path, _, name = path.rpartition("/")  # noqa: PLW2901
            children.setdefault(path, set()).add(name)
    files = dict(job.directories)
    top = _open(job, job.source)
    try:
        for path in {**files, **children}:
            if not _is_sealed(job, top, path, files.get(path, ())):
                _make_sealed(job, path, {str(file[0]) for file in files.get(path, ())} | children.get(path, set()))
    finally:
        os.close(top)
    try:
        try:
            os.symlink(job.source, job.destination)
        except FileExistsError:
            os.unlink(job.destination)
            os.symlink(job.source, job.destination)
    except OSError as error:
        raise FilesystemError("link", job.destination, error) from error


def _open(job: WholeJob, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise cannot_open(job.manifest, path, error) from error


def _is_sealed(job: WholeJob, top: int, path: str, files: Sequence[Sequence[Any]]) -> bool:
    """Compare a directory and the files in it with the manifest.

    :param top: a descriptor of the job's source, to which the path is relative
    :returns: False if it is not sealed yet, or something was added or removed
    :raises PoisonedError: it is no directory, or a file is not what was put there
    """
    compare(job.manifest, f"{job.source}/", f"{path}/" if path else "", files, top=top, linking=True)
    try:
        status = os.stat(path, dir_fd=top, follow_symlinks=False) if path else os.fstat(top)
    except OSError as error:
        raise PoisonedError(job.manifest, f"{job.source}/{path}", error.strerror) from error
    if not stat.S_ISDIR(status.st_mode):
        raise PoisonedError(job.manifest, f"{job.source}/{path}", "it is not a directory any more")
    return not status.st_mode & _WRITABLE and status.st_mtime_ns == job.manifest.mtime * 1_000_000_000


def _make_sealed(job: WholeJob, path: str, names: set[str]) -> None:
    """Compare the names in a directory with the manifest, and seal it if it is one's own.

    Whoever owns a cache may have made it read-only by hand: then it has another time, and is compared every time.
    """
    full = f"{job.source}/{path}" if path else job.source
    fd = _open(job, full)
    try:
        _check_names(job, full, fd, names)
        status = os.fstat(fd)
        if os.geteuid() in (0, status.st_uid):
            _seal(job, full, fd, status, names)
    finally:
        os.close(fd)


def _check_names(job: WholeJob, full: str, fd: int, names: set[str]) -> None:
    """Compare what is in a directory with what has to be.

    :raises PoisonedError: there is more
    """
    try:
        strange = set(os.listdir(fd)) - names
        if BLOCKER in strange and stat.S_ISREG(os.stat(BLOCKER, dir_fd=fd, follow_symlinks=False).st_mode):
            strange.remove(BLOCKER)
    except OSError as error:
        raise cannot_open(job.manifest, full, error) from error
    if strange:
        raise PoisonedError(job.manifest, f"{full}/{min(strange)}", "it is not the wheel's")


def _seal(job: WholeJob, full: str, fd: int, status: os.stat_result, names: set[str]) -> None:
    """Make a directory read-only. The order counts: it is sealed for others only when it has its time."""
    try:
        if any(name.endswith(".py") for name in names) and BLOCKER not in os.listdir(fd):
            if not status.st_mode & stat.S_IWUSR:
                os.chmod(fd, stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
            try:
                os.close(os.open(BLOCKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=fd))
            except FileExistsError:
                pass  # somebody else seals it, too
        if job.manifest.mtime:
            with suppress(OSError):  # then all names are compared at every linking
                os.utime(fd, (time.time(), job.manifest.mtime))
        os.chmod(fd, stat.S_IMODE(status.st_mode) & ~_WRITABLE)
    except OSError as error:
        if error.errno == errno.EROFS:
            return  # then nobody here can write to it
        hint = "choose another way: `envsync sync --link-mode copy`"
        raise FilesystemError("seal", full, error, hint=hint) from error
