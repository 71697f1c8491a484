"""Bring one file of the store into the stage. What a dead leader or a child that failed has left is used or replaced.

A link that is there is recognized by its inode; a file of its own by its mode, size and time: its time is set last.
"""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from envsync.errors import FilesystemError
from envsync.staging.link_modes import Fill
from envsync.system import core, native


def fill_as_usual(  # noqa: PLR0917
    name: str,
    size: int,
    mtime_ns: int,
    mode: int,
    device: int,
    owner: int,
    source: int,
    destination: int,
    fill: Fill,
    *,
    own_mtime_ns: int = 0,
    last: bool = False,
) -> bool:
    """Clone or copy a file that is as it should be to where nothing is: `File.fill` in half of the calls and lookups.

    The file of the store is opened, and then looked at by its descriptor: on a network filesystem, a look by name and
    an open are two requests to the server.

    :param source: a descriptor of its directory in the store
    :param destination: a descriptor of that in the stage
    :param fill: clones or copies
    :param own_mtime_ns: the mtime that the file gets, if that is not the store's
    :param last: set it after close(2), with which some filesystems set it where something was written
    :returns: False if anything is unusual; then all of it is still to be done, and what is unusual shows itself
    """
    times = own_mtime_ns or mtime_ns
    try:
        original = core.open_file(name, _READ, dir_fd=source)
    except OSError:
        return False
    try:
        status = os.fstat(original)
        known = (status.st_size, status.st_mtime_ns, status.st_dev, status.st_uid) == (size, mtime_ns, device, owner)
        if not known or not stat.S_ISREG(status.st_mode):
            return False
        copy = core.open_file(name, _CREATE, mode, dir_fd=destination)
        try:
            try:
                fill(original, copy, size, name, destination)
                if not last:
                    native.utime(copy, ns=(time.time_ns(), times))
            finally:
                os.close(copy)
            if last:
                native.utime(name, ns=(time.time_ns(), times), dir_fd=destination, follow_symlinks=False)
        except BaseException:
            native.unlink(name, dir_fd=destination)
            raise
    except OSError:
        return False
    finally:
        os.close(original)
    return True


class File(NamedTuple):
    """One file of the store, and the place for it in the stage, by the descriptors of the two directories."""

    above: tuple[str, str]
    """The paths of the two directories, for messages."""
    mtime_ns: int
    name: str
    size: int
    executable: bool
    source: int
    destination: int

    @property
    def origin(self) -> str:
        """Its path in the store."""
        return f"{self.above[0]}/{self.name}"

    @property
    def path(self) -> str:
        """Its path in the stage."""
        return f"{self.above[1]}/{self.name}"

    def link(self) -> None:
        """Make it a hard link.

        :raises OSError: what link(2) says
        """
        try:
            native.link(self.name, self.name, src_dir_fd=self.source, dst_dir_fd=self.destination)
        except FileExistsError:
            if not self.is_linked():
                self._make_way()
                native.link(self.name, self.name, src_dir_fd=self.source, dst_dir_fd=self.destination)

    def fill(self, umask: int, fill: Fill, *, clone: bool, undecided: bool) -> bool:
        """Make it a file of its own, but for its time. Returns False if it was there already.

        :param fill: clones or copies
        :param undecided: files may yet turn out to be linked here: of what is there already, only a link will do
        :raises OSError: what cloning was refused with; nothing is there
        :raises FilesystemError: it cannot be read or written; a part may be there
        """
        mode = 0o777 if self.executable else 0o666
        try:
            source = core.open_file(self.name, _READ, dir_fd=self.source)
        except OSError as error:
            raise FilesystemError("read", self.origin, error) from error
        try:
            destination = self._create(mode, umask, undecided=undecided)
            if destination is None:
                return False
            try:
                self._fill(fill, source, destination, clone=clone)
            finally:
                os.close(destination)
        finally:
            os.close(source)
        return True

    def set_time(self) -> None:
        """Give a file of its own its mtime.

        Last, for that says that the file is whole; and after close(2), with which some filesystems still set it. Its
        atime stays the present: that is never set back.

        :raises OSError: what utimensat(2) says
        """
        times = (time.time_ns(), self.mtime_ns)
        native.utime(self.name, ns=times, dir_fd=self.destination, follow_symlinks=False)

    def _create(self, mode: int, umask: int, *, undecided: bool) -> int | None:
        """Create the empty file; None if it is there and whole."""
        try:
            try:
                return core.open_file(self.name, _CREATE, mode, dir_fd=self.destination)
            except FileExistsError:
                if self.is_linked() if undecided else self._is_whole(mode & ~umask):
                    return None
                self._make_way()
                return core.open_file(self.name, _CREATE, mode, dir_fd=self.destination)
        except OSError as error:
            raise FilesystemError("write", self.path, error) from error

    def _fill(self, fill: Fill, source: int, destination: int, *, clone: bool) -> None:
        try:
            fill(source, destination, self.size, self.name, self.destination)
        except OSError as error:
            if not clone:
                raise FilesystemError("write", self.path, error) from error
            self._make_way()
            raise

    def _make_way(self) -> None:
        """Remove what is there. Never write through it: it may be a link to the store."""
        try:
            native.unlink(self.name, dir_fd=self.destination)
        except OSError as error:
            raise FilesystemError("remove", self.path, error) from error

    def is_linked(self) -> bool:
        """Tell whether what is there is a hard link to it."""
        left = native.stat(self.name, dir_fd=self.source, follow_symlinks=False)
        right = native.stat(self.name, dir_fd=self.destination, follow_symlinks=False)
        return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)

    def _is_whole(self, mode: int) -> bool:
        """Tell whether it was finished: its time is set last."""
        if not self.mtime_ns:
            return False  # that of the cache's file is unknown
        status = native.stat(self.name, dir_fd=self.destination, follow_symlinks=False)
        return status.st_nlink == 1 and (status.st_mode, status.st_size, status.st_mtime_ns) == (
            stat.S_IFREG | mode,
            self.size,
            self.mtime_ns,
        )


_READ = os.O_RDONLY | core.NOFOLLOW | core.NONBLOCK  # for a FIFO, not to wait for a writer
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | core.NOFOLLOW
