"""The two files of a group of waiters on one node: the place of who polls for all, and its word.

Their locks say who is there, and the kernel frees those of whoever ends: the place's is held by the poller, the word's
is shared by all who read it. All of it is on the node's own disk, and takes microseconds.
"""

from __future__ import annotations

import errno

from envsync.launch import command
from envsync.locks.flock import Flock
from envsync.system import core, processes

os = core.os

WORD_BYTES = 1 << 12


class Desk:
    """The files, open.

    :param path: what their names begin with
    :raises OSError: they can be neither opened nor made
    :ivar follows: we are known to read the word
    """

    __slots__ = ("_data", "_path", "follows", "place", "word")

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = b""
        self.follows = False
        self.place = _open(f"{path}.place")
        try:
            self.word = _open(f"{path}.word")
        except BaseException:
            self.place.release()
            raise

    def anew(self) -> Desk:
        """Open the files that are there now, or make them: they may be others than these.

        :raises OSError: they can be neither opened nor made
        """
        return Desk(self._path)

    def clock(self) -> float:
        """Return the time by which words are dated, in seconds."""
        return processes.clock()

    def take(self) -> bool:
        """Take the place if nobody has it."""
        if not _lock(self.place, shared=False):
            return False
        if self.follows:
            _unlock(self.word)
            self.follows = False
        return True

    def is_in_place(self) -> bool:
        """Tell whether whoever comes next finds these files, too."""
        return self.place.is_in_place() and self.word.is_in_place()

    def attend(self) -> None:
        """Be known to read the word."""
        if not self.follows:
            self.follows = _lock(self.word, shared=True)

    def read(self) -> bytes:
        """Read the word."""
        os.lseek(self.word.fd, 0, 0)
        self._data = os.read(self.word.fd, WORD_BYTES)
        return self._data

    def read_anew(self) -> bytes:
        """Read the word; nothing if it is the one that was read last."""
        before = self._data
        return data if (data := self.read()) != before else b""

    def write(self, data: bytes) -> None:
        """Replace the word. The caller has the place."""
        os.lseek(self.word.fd, 0, 0)
        os.write(self.word.fd, data)
        os.ftruncate(self.word.fd, len(data))

    def is_read(self) -> bool:
        """Tell whether anybody else reads the word. The caller has the place."""
        if not _lock(self.word, shared=False):
            return True
        _unlock(self.word)
        return False

    def remove(self) -> None:
        """Remove the files, so that whoever comes next begins a new group. Those who have them open go on with them."""
        if self.is_in_place():
            for file in (self.place, self.word):
                try:
                    os.unlink(file.path)
                except OSError:
                    pass  # others were faster

    def close(self) -> None:
        """Close them: the place is free, if we had it."""
        self.word.release()
        self.place.release()


def _open(path: str) -> Flock:
    return Flock(path, command.open_lock(path, os.O_RDWR | os.O_CREAT, 0o600), shared=False)


def _lock(file: Flock, *, shared: bool) -> bool:
    _check(file)
    try:
        core.lock(file.fd, file.path, shared=shared)
    except BlockingIOError:
        return False
    return True


def _unlock(file: Flock) -> None:
    _check(file)
    core.unlock(file.fd)


def _check(file: Flock) -> None:
    if file.fd < 0:
        raise OSError(errno.EBADF, "closed in a child that somebody has forked")
