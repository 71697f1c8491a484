"""How files come from the store: clones, hard links or copies. Chosen once for each pair of filesystems, and said once.

    clone      a file of its own that shares its blocks with the store's until one of them is written to (FICLONE,
               ioctl_ficlone(2): btrfs, xfs, bcachefs, ...; clonefile(2): APFS): whoever writes to it cannot harm the
               store
    hardlink   the store's file under another name: the cheapest, and read-only for that reason
    copy       its bytes once more

`auto` takes the first of these that works. What is asked for and cannot be had is replaced by what comes after it, so
that the environment is the same in the end, and the reason is told once.

The stage has one filesystem, and the store may have several, whose files may have several owners. What link(2) and
ioctl(2) answer for the filesystem or the owner as a whole is remembered, so that the next file need not be tried; what
they answer for one file (65,000 links of it on ext4, 100 on gluster, which says ENOSPC) counts for that file alone.

Hard links are for one's own files only. The kernel refuses others (fs.protected_hardlinks, proc(5)), but not to root:
then the owner of the cache could change at any time what root runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from envsync.system import native, processes

CLONE, HARDLINK, COPY = "clone", "hardlink", "copy"
WHOLE = "whole"
"""A symbolic link to a directory of the store (`envsync.staging.linked_directories`)."""
NO_TIMES, NO_CACHED_TIMES = "no times", "no cached times"
SYMLINK = "symlink"
"""The mode in which there are such links."""
MODES = {
    "auto": (CLONE, HARDLINK, COPY),
    "clone": (CLONE, COPY),
    "hardlink": (HARDLINK, CLONE, COPY),
    "copy": (COPY,),
    SYMLINK: (HARDLINK, CLONE, COPY),
}
"""Mode → the ways to try for a file, in order. Who asks for clones wants files of their own, and gets no links."""

_UNKNOWN = frozenset({errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})
NEVER = {CLONE: _UNKNOWN | {errno.ENOTTY, errno.EINVAL}, HARDLINK: _UNKNOWN}
"""What is answered for the filesystem, or for all files of that owner."""
FOR_THIS_FILE = {
    CLONE: frozenset({errno.EACCES, errno.ENOSPC, errno.EBADF, errno.ETXTBSY, errno.EISDIR}),
    HARDLINK: frozenset({errno.EACCES, errno.ENOSPC, errno.EMLINK}),
}
"""What is answered for one file, where something else may still do. ENOSPC: gluster says it at 100 links of one file,
and btrfs where a clone needs more room for its own bookkeeping than is left."""


class Kind(NamedTuple):
    """What the ways depend on: the filesystem that a file of the store is on, and its owner."""

    device: int
    owner: int


class Ways:
    """Which ways are open for which files.

    :param mode: one of `MODES`
    :param tell: told each way that was used, and each that was refused with the reason
    """

    def __init__(self, mode: str, tell: Callable[[str], None]) -> None:
        self.mode = mode
        self.tell = tell
        self.user = processes.user()
        self._orders: dict[Kind, tuple[str, ...]] = {}
        self._told: set[str] = set()
        self._pourers: dict[int, Pourer] = {}
        self.timeless = False
        """Times cannot be set where the files come."""

    def of(self, status: os.stat_result) -> tuple[str, ...]:
        """Return the ways to try for a file of the store, the best first; the last is always to copy."""
        kind = Kind(status.st_dev, status.st_uid)
        order = self._orders.get(kind)
        if order is None:
            order = self._orders[kind] = MODES[self.mode]
            if kind.owner != self.user and HARDLINK in order:
                reason = f"hard links need the same owner, and the cached files are those of uid {kind.owner}"
                order = self._without(kind, HARDLINK, reason)
        return order

    def filling(self, way: str, device: int) -> Fill:
        """Return what fills a file: by a clone, or with a copy of one that is on that device."""
        return clone if way == CLONE else self._pourers.setdefault(device, Pourer()).pour

    def tell_to(self, tell: Callable[[str], None]) -> None:
        """Tell somebody else from now on."""
        self.tell = tell

    def refused(self, status: os.stat_result, way: str, error: OSError, path: str) -> bool:
        """Take note of what a way was refused with. Returns False if that is no reason to try another."""
        if error.errno in NEVER[way]:
            self._without(Kind(status.st_dev, status.st_uid), way, f"{error.strerror} (`{path}`)")
        elif error.errno in FOR_THIS_FILE[way]:
            self._tell_once(f"some {way}", f"{error.strerror} (`{path}`)")
        else:
            return False
        return True

    def without_times(self, reason: str) -> None:
        """Take note that files come without the times of the cache's."""
        self.timeless = True
        self._tell_once(NO_TIMES, reason)

    def cached_without_times(self, path: str) -> None:
        """Take note that files of the cache never got a time that is known."""
        self._tell_once(NO_CACHED_TIMES, f"in the cache (`{path}`)")

    def used(self, way: str) -> None:
        """Take note that a way worked."""
        if way not in self._told:
            self._tell_once(way, "")

    def has_used(self, way: str) -> bool:
        """Tell whether a way has worked in this process."""
        return way in self._told

    def cannot_read(self, path: str) -> None:
        """Take note that a hard link would keep people from reading whom the umask lets."""
        self._tell_once("some hardlink", f"not everybody may read the cached file who may read others (`{path}`)")

    def _without(self, kind: Kind, way: str, reason: str) -> tuple[str, ...]:
        order = self._orders[kind] = tuple(other for other in self._orders[kind] if other != way)
        self._tell_once(f"no {way}", reason)
        return order

    def _tell_once(self, key: str, reason: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.tell(f"{key}\t{reason}")


class Said(NamedTuple):
    """What is worth knowing of how files came from the store."""

    notes: tuple[str, ...]
    """For everybody: they came in another way than was asked for, or in the most expensive one."""
    details: tuple[str, ...]
    """For those who ask."""
    timeless: bool = False
    """Files came without the times that bytecode needs: these cannot be set where they come."""


_DONE = {CLONE: "cloned", HARDLINK: "linked", COPY: "copied"}


def conclude(mode: str, told: list[str]) -> Said:
    """Say in one sentence what `Ways` has told, whichever processes and threads it was in.

    :param told: lines of a key and a reason, from each worker
    """
    facts: dict[str, str] = {}
    for line in told:
        key, _, reason = line.partition("\t")
        facts.setdefault(key, reason)
    said = _conclude_ways(mode, facts)
    why = [facts[key] for key in (NO_TIMES, NO_CACHED_TIMES) if key in facts]
    if not why:
        return said
    note = f"the times of files cannot be set here, so nothing comes with the cache's bytecode: {why[0]}"
    return Said((*said.notes, note), said.details, timeless=NO_TIMES in facts)


def _conclude_ways(mode: str, facts: Mapping[str, str]) -> Said:
    wanted = MODES[mode]
    used = [way for way in wanted if way in facts]
    details = tuple(f"files were {_DONE[way]} from the cache" for way in used)
    if WHOLE in facts:
        details = ("directories were linked whole to the cache, which this environment needs from now on", *details)
    worst = used[-1] if used else wanted[0]
    if worst == wanted[0] or (mode == "auto" and worst != COPY):
        return Said((), details)
    # Of `auto`, nobody has asked for a clone in particular: the reason why there are no links says more.
    better = HARDLINK if HARDLINK in wanted else CLONE
    reason = facts.get(f"no {better}") or facts.get(f"some {better}") or "unknown"
    some = "some files" if len(used) > 1 or WHOLE in facts else "files"
    said = f"{some} were {_DONE[worst]}, since they could not be {_DONE[better]} from the cache: {reason}"
    if WHOLE in facts:
        return Said((), (*details, said))  # what was asked for came as links
    return Said((said,), details)


Fill = Callable[[int, int, int, str, int], None]
"""Fills an empty file from another: given descriptors of that one and of the empty one, the size, and the name of the
empty one and its directory's descriptor."""


def clone(source: int, destination: int, _size: int, name: str, directory: int | None = None) -> None:
    """Let an empty file share all blocks of another.

    :param source: a descriptor, open for reading
    :param destination: a descriptor, open for writing; from then on, it may be one for reading alone
    :raises OSError: this cannot be done; the destination is still empty
    """
    native.clone(source, destination, name, directory)


class Pourer:
    """Copies files' bytes from one filesystem to another, in the kernel where it can.

    What is refused for the two as such, as EXDEV is by copy_file_range(2), is not tried for the next file.
    """

    def __init__(self) -> None:
        self._moves = _MOVES

    def pour(self, source: int, destination: int, size: int, _name: str = "", _directory: int | None = None) -> None:
        """Copy the bytes of one file.

        :param source: a descriptor, at its begin
        :param destination: a descriptor of an empty file
        :param size: of the source
        :raises OSError: reading or writing failed, or the source is shorter; a part may have been written
        """
        done = 0
        for move in self._moves:
            try:
                while done < size:
                    count = move(source, destination, size - done, done)
                    if not count:
                        break
                    done += count
            except OSError as error:
                if error.errno not in _CANNOT_MOVE:
                    raise
                if error.errno in _FOR_BOTH and not done:
                    self._moves = tuple(other for other in self._moves if other is not move)
            if done == size:
                return
        raise OSError(errno.EIO, "it is shorter than it was")


_FOR_BOTH = frozenset({errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTSOCK})
_CANNOT_MOVE = _UNKNOWN | {errno.EINVAL, errno.EBADF, errno.ETXTBSY, errno.EACCES, errno.ENOTSOCK}
_CHUNK = 1 << 18


def _send(source: int, destination: int, count: int, position: int) -> int:
    return native.send(source, destination, count, position)


def _move(source: int, destination: int, count: int, position: int) -> int:
    os.lseek(source, position, os.SEEK_SET)
    view = memoryview(os.read(source, min(count, _CHUNK)))
    done = 0
    while done < len(view):
        done += os.write(destination, view[done:])
    return done


_MOVES: tuple[Callable[[int, int, int, int], int], ...] = (
    *([os.copy_file_range] if hasattr(os, "copy_file_range") else []),
    *([_send] if hasattr(os, "sendfile") else []),
    _move,
)
"""Each goes on where the one before it stopped: copy_file_range(2) may shift blocks, and refuses two filesystems of
different kinds; sendfile(2) does not know some kinds of files."""
