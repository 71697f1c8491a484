"""Directories that are one symbolic link into the store, for `--link-mode symlink`: which they are, and how they come.

Which ones is a pure decision (`choose`). A directory of site-packages is linked whole if all in it comes from one
scheme of one wheel, and

- no other distribution of the environment has anything in it, and nothing in it is left to another one that has the
  same file (`envsync.staging.shared_files`);
- it is not a .dist-info, which has to be real: pip and importlib.metadata read it, and RECORD is made here;
- there are no shared objects in it: they may find others by `$ORIGIN/../..`, in directories of other wheels, and the
  kernel takes `..` for the parent of where a link leads to;
- no source in it has to get another time than the rest (`Item.later`);
- it comes without bytecode, which would have to lie in it (`--compile-bytecode`);
- nothing is in its place, or all that is goes.

The highest such directories are chosen. All else is made of real directories with files in them, as in other modes.

They are linked so that nothing reaches the store through the link (`link`). What is in a linked directory is in every
environment that links it. So before it is linked, it is sealed: compared with the manifest, name by name, and made
read-only, with the mtime that all files of the entry have. Whoever adds or removes something later (root may) changes
that mtime, and is found out by the next who links it, for the price of one look: then all names are compared again. So
they are where somebody has made a whole cache read-only by hand. Each file's size and mtime are compared at every
linking, as in all other modes.

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
import posixpath
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from envsync.errors import FilesystemError
from envsync.staging.parts import place_of
from envsync.store.damage import DamagedError, cannot_open, compare
from envsync.system import core, native, processes
from envsync.wheel.manifest import Manifest

if TYPE_CHECKING:
    from envsync.python.facts import Layout
    from envsync.staging.parts import Item, Part
    from envsync.wheel.manifest import Directory


BLOCKER = "__pycache__"
_WRITABLE = 0o222


class Whole(NamedTuple):
    """A directory to be linked whole."""

    path: str
    """Relative to the environment."""
    scheme: str
    below: str
    """Its path below the scheme."""


Fits = Callable[["Manifest", Whole], bool]
"""Tells whether a directory can be linked as far as the place and the store are concerned."""


def choose(items: Sequence[Item], layout: Layout, kept: Iterable[str], fits: Fits) -> dict[str, tuple[Whole, ...]]:
    """Choose for the distributions that are to be installed.

    :param kept: files of distributions that stay, as far as they could share a directory with one of the items
    :returns: distribution → its directories; none lies in another
    """
    holders: dict[str, list[tuple[Item, Part]]] = {}
    for item in items:
        for part in item.parts:
            holders.setdefault(part.place, []).append((item, part))
    stay: dict[str, list[str]] = {}
    for path in kept:
        stay.setdefault(place_of(layout, path), []).append(path)
    chosen: dict[str, tuple[Whole, ...]] = {}
    for place, found in holders.items():
        for name, whole in _choose(place, found, stay.get(place, ()), layout, fits):
            chosen[name] = (*chosen.get(name, ()), whole)
    return chosen


def _choose(
    place: str, found: Sequence[tuple[Item, Part]], kept: Collection[str], layout: Layout, fits: Fits
) -> Iterable[tuple[str, Whole]]:
    """Choose the directories in one place: (distribution, directory)."""
    item, part = found[0]
    if len(found) == 1 and not kept and _is_linkable(item, part, layout) and not any(_real(item, part)):
        whole = Whole(place, part.scheme, posixpath.relpath(f"/{place}", f"/{part.base}"))
        if fits(item.manifest, whole):
            yield item.wanted.name, whole
            return
    known = _Holders()
    for path in kept:
        known.hold(posixpath.dirname(path), "")
    for item, part in found:
        for directory in part.directories:
            known.hold(f"{part.base}/{directory.path}".strip("/"), _holder(item, part))
        for path in _real(item, part):
            known.hold(path, "")
    for item, part in found:
        if _is_linkable(item, part, layout):
            for whole in _highest(item, part, known, fits):
                yield item.wanted.name, whole


class _Holders:
    """Who has something in a directory: the empty string if several, or if it must be real for another reason."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def hold(self, path: str, who: str) -> None:
        while path:
            present = self.known.get(path)
            if present in (who, ""):
                return  # and so have all above it
            self.known[path] = who if present is None else ""
            path = path.rpartition("/")[0]


def _is_linkable(item: Item, part: Part, layout: Layout) -> bool:
    """Tell whether directories of a part may be linked at all."""
    is_site = part.scheme in ("purelib", "platlib") and part.base in layout.sites
    return is_site and not part.is_loose and item.compiled is None and not part.place.endswith(item.manifest.dist_info)


def _real(item: Item, part: Part) -> Iterator[str]:
    """Name the directories of a part that have to be real whoever else has something in them."""
    for directory in part.directories:
        if _is_real(item, part, directory):
            yield posixpath.join(part.base, directory.path)


def _is_real(item: Item, part: Part, directory: Directory) -> bool:
    for name, _, _ in directory.files:
        if ".so" in name and _is_shared_object(name):
            return True
    apart = item.skip | item.later
    if not apart:
        return False
    path = posixpath.join(part.base, directory.path)
    return any(f"{path}/{name}" in apart for name, _, _ in directory.files)


def _highest(item: Item, part: Part, known: _Holders, fits: Fits) -> Iterator[Whole]:
    who = _holder(item, part)
    decided: dict[str, bool] = {}
    """Directory → whether it is linked, by itself or above."""
    for directory in part.directories:
        below = ""
        for name in directory.path.split("/"):
            below = f"{below}/{name}" if below else name
            full = f"{part.base}/{below}"
            if full in decided:
                if decided[full]:
                    break
                continue
            whole = Whole(full, part.scheme, below)
            decided[full] = known.known.get(full) == who and fits(item.manifest, whole)
            if decided[full]:
                yield whole
                break


def _holder(item: Item, part: Part) -> str:
    return f"{item.wanted.name} {part.scheme}"


def _is_shared_object(name: str) -> bool:
    return name.endswith(".so") or ".so." in name


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
        if status.st_uid not in (0, processes.user()):
            return False  # its owner could change at any time what runs here (`envsync.staging.link_modes`)
        if not status.st_mode & _WRITABLE or native.is_read_only(path):
            return True
    except OSError:
        return True  # what is wrong shows itself when it is linked
    if processes.user() in (0, status.st_uid):
        return os.access(path, os.W_OK)  # a network filesystem may not take root for root
    return not status.st_mode & native.BY_OTHERS


def link(job: WholeJob) -> None:
    """Compare the directory with the manifest, seal it, and link it.

    :raises DamagedError: it is not what was put there
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
        return core.open_file(path, os.O_RDONLY | core.DIRECTORY | core.NOFOLLOW)
    except OSError as error:
        raise cannot_open(job.manifest, path, error) from error


def _is_sealed(job: WholeJob, top: int, path: str, files: Sequence[Sequence[Any]]) -> bool:
    """Compare a directory and the files in it with the manifest.

    :param top: a descriptor of the job's source, to which the path is relative
    :returns: False if it is not sealed yet, or something was added or removed
    :raises DamagedError: it is no directory, or a file is not what was put there
    """
    compare(job.manifest, f"{job.source}/", f"{path}/" if path else "", files, top=top, linking=True)
    try:
        status = native.stat(path, dir_fd=top, follow_symlinks=False) if path else os.fstat(top)
    except OSError as error:
        raise DamagedError(job.manifest, f"{job.source}/{path}", error.strerror) from error
    if not stat.S_ISDIR(status.st_mode):
        raise DamagedError(job.manifest, f"{job.source}/{path}", "it is not a directory any more")
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
        if processes.user() in (0, status.st_uid):
            _seal(job, full, fd, status, names)
    finally:
        os.close(fd)


def _check_names(job: WholeJob, full: str, fd: int, names: set[str]) -> None:
    """Compare what is in a directory with what has to be.

    :raises DamagedError: there is more
    """
    try:
        strange = set(native.listdir(fd)) - names
        if BLOCKER in strange and stat.S_ISREG(native.stat(BLOCKER, dir_fd=fd, follow_symlinks=False).st_mode):
            strange.remove(BLOCKER)
    except OSError as error:
        raise cannot_open(job.manifest, full, error) from error
    if strange:
        raise DamagedError(job.manifest, f"{full}/{min(strange)}", "it is not the wheel's")


def _seal(job: WholeJob, full: str, fd: int, status: os.stat_result, names: set[str]) -> None:
    """Make a directory read-only. The order counts: it is sealed for others only when it has its time."""
    try:
        if any(name.endswith(".py") for name in names) and BLOCKER not in native.listdir(fd):
            if not status.st_mode & stat.S_IWUSR:
                native.chmod(fd, stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
            try:
                os.close(core.open_file(BLOCKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=fd))
            except FileExistsError:
                pass  # somebody else seals it, too
        if job.manifest.mtime:
            with suppress(OSError):  # then all names are compared at every linking
                native.utime(fd, (time.time(), job.manifest.mtime))
        native.chmod(fd, stat.S_IMODE(status.st_mode) & ~_WRITABLE)
    except OSError as error:
        if error.errno == errno.EROFS:
            return  # then nobody here can write to it
        hint = "choose another way: `envsync sync --link-mode copy`"
        raise FilesystemError("seal", full, error, hint=hint) from error
