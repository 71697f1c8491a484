"""The cache of one sync: which one it is, shared for as long as it is read, and where what it lacks goes.

It is shared from before the leader looks for wheels until all files are staged, and released before the leader waits
for anybody (`envsync.locks.cache_lock`). A cache that may not be written to is used as it is. What it lacks goes
to `--cache-fallback`, or to a cache in the environment, which is gone in the end. A leader that is killed leaves that
to the next one, which sweeps it (`envsync.installed.leftovers`).

Nobody who asks cleans a cache that is shared so. `rm -rf` does not ask: what was removed beneath a sync is made again,
and if that happens again and again, it goes where that of a cache goes that may not be written to.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError, UsageError
from envsync.locks import cache_lock
from envsync.store.store import NOWHERE, Store
from envsync.system import atomic, native, paths

if TYPE_CHECKING:
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.leading.session import Session
    from envsync.locks.flock import Flock


class SyncCache:
    """What a leader does about its cache.

    :param report: is told whom it waits for, while the cache is cleaned
    :ivar store: what is in the cache, and in its fallback
    """

    def __init__(self, session: Session, report: Report) -> None:
        self.store = Store(cache_directory(session.request), durable=session.durable)
        fallback = session.request.text("cache_fallback")
        environment = session.environment
        self._fallback = paths.abspath(fallback) if fallback else ""
        self._private = f"{environment.state}/work/cache-{os.urandom(8).hex()}"
        self._report = report
        self._deadline = session.limit.deadline
        self._locks: list[Flock] = []
        self._environment = environment
        self._removed = ""
        """The cache that was given up, since somebody keeps removing it."""

    @property
    def note(self) -> str:
        """Say where what was missing went, if the cache could not be written to; empty if nothing was."""
        if self._removed:
            return (
                f"the cache `{self._removed}` was removed again and again while it was used: what was needed went to "
                f"`{self._fallback}`"
                if self._fallback
                else f"the cache `{self._removed}` was removed again and again while it was used: what was needed was "
                "fetched for this environment alone"
            )
        below = self.store.below
        if below is None or not self.store.written:
            return ""
        if below == NOWHERE:
            where = f"went to `{self.store.root}`" if self._fallback else "is for this environment alone"
            return f"there is no cache, since {native.NO_HOME}: what was fetched {where}; --cache-dir DIR names one"
        if self._fallback:
            return f"the cache `{below}` cannot be written to: what it lacked went to `{self.store.root}`"
        return (
            f"the cache `{below}` cannot be written to: what it lacked was fetched for this environment alone; "
            "--cache-fallback DIR names a place to keep it"
        )

    @property
    def is_as_ever(self) -> bool:
        """Whether the note is about the cache as it is, and not about what happened to it."""
        return not self._removed

    def share(self) -> None:
        """Share the cache lock, and the fallback's, so that nobody cleans what is read. Twice is as good as once.

        :raises WaitTimeoutError: it is being cleaned for longer than we may wait
        :raises FilesystemError: the cache is neither there nor can it be made, for another reason than permissions
        """
        if self._locks:
            return
        if self.store.below is None:
            self.store.settle(self._fallback or self._private, passing=not self._fallback)
        for root in (self.store.below, self.store.root):
            if root is not None and root != self._private:
                with suppress(OSError):  # a fallback that cannot be made is an error once something has to go there
                    atomic.make_directory(root)
                lock = cache_lock.share(root, lambda what: self._report(what, 0, 0), deadline=self._deadline)
                if lock is not None:
                    self._locks.append(lock)

    def is_gone(self, error: Exception) -> bool:
        """Tell whether an error may be what came of it that somebody has removed the cache, or is removing it."""
        number = error.errno if isinstance(error, OSError | FilesystemError) else None
        path = error.path if isinstance(error, FilesystemError) else getattr(error, "filename", None)
        ours = (self.store.root, self._environment.path)
        is_missing = number == errno.ENOENT and not (path and not str(path).startswith(ours))
        return is_missing or any(not lock.is_in_place() for lock in self._locks)

    def begin_again(self, *, elsewhere: bool) -> None:
        """Let go what was removed: what is wanted of it is made again.

        :param elsewhere: in the fallback, or for this sync alone, since somebody removes it again and again
        """
        self.release()
        if elsewhere:
            self._removed = self.store.root
            self.store.move(self._fallback or self._private)

    def release(self) -> None:
        """Let others clean: nothing is read any more. It may be shared again."""
        while self._locks:
            self._locks.pop().release()

    def close(self) -> None:
        """Release it for good, and remove what was fetched for this sync alone."""
        self.release()
        if self.store.root == self._private:
            atomic.discard_tree(self._private)


def cache_directory(request: Request) -> str:
    """Return the cache directory, absolute: as asked for, or the user's own; `NOWHERE` if no home is known."""
    asked = request.text("cache_dir")
    if asked:
        return paths.abspath(asked)
    return native.cache_directory(os.environ, "envsync") or NOWHERE


def cache_needed(request: Request) -> str:
    """Return the cache directory, for what cannot do without.

    :raises UsageError: there is none
    """
    root = cache_directory(request)
    if root == NOWHERE:
        hint = "name one: `envsync cache dir --cache-dir /var/tmp/cache`"
        raise UsageError(f"there is no cache, since {native.NO_HOME}", hint=hint)
    return root
