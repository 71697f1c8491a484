"""Find out what the filesystem of an environment, and that of the cache, do. Leaves nothing behind.

Everything is tried in a directory of its own, made where the environment is or is to be: in the environment if it
exists (beside `lib`, so that no stamp is disturbed), else in the nearest directory above that does.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from envsync.doctor import locks, names, times
from envsync.doctor.facts import CacheFacts, Facts, Space
from envsync.doctor.names import attempt, clone, error_name, write
from envsync.errors import EnvsyncError
from envsync.launch import Environment
from envsync.locks import kind
from envsync.store.store import NOWHERE
from envsync.system import atomic, mounts, native, paths, processes

Answer = TypeVar("Answer")
PREFIX = ".envsync-doctor-"
CLEARING_SECONDS = 2.0
"""For how long removal is tried: a file that was open may keep its directory for a moment."""


class Subject(NamedTuple):
    """What is to be examined: the environment's directory and the cache's, which need not exist."""

    env: str
    cache: str


def examine(place: Subject) -> Facts:
    """Examine it all, as far as that can be done: what fails in a way that nobody has expected is a fact, too."""
    directory = nearest(place.env)
    failed: dict[str, str] = {}
    try_it = partial(_try, failed)
    mounted = try_it("mount", mounts.mount_of, directory)
    facts = Facts(
        directory=directory,
        writable="",
        kind=mounted.kind if mounted is not None else "",
        options=mounted.options if mounted is not None else (),
        network=bool(try_it("mount", mounts.is_network, directory)),
        recorded=try_it("record", _recorded, place.env) or "",
        space=try_it("space", _space, directory),
        failed=failed,
    )
    local = mounted.local_flock if mounted is not None else ""
    try:
        with workshop(directory) as work:
            try_it("reading", lambda: _read_back(_room(work, "reading")))
            facts = facts._replace(
                locks=try_it("locks", lambda: locks.examine(_room(work, "locks"), local)),
                names=try_it("names", lambda: names.examine(_room(work, "names"))),
                times=try_it("times", lambda: times.examine(_room(work, "times"))),
                cache=None
                if place.cache == NOWHERE
                else try_it("cache", lambda: _cache(place.cache, _room(work, "cache"))),
            )
    except NotWritableError as error:
        return facts._replace(writable=error.name)
    return facts._replace(left=work if os.path.lexists(work) else "")


def _try(failed: dict[str, str], name: str, probe: Callable[..., Answer], *arguments: str) -> Answer | None:
    """Ask a probe. If it raises, whatever that is, take it down under a name, and return None."""
    try:
        return probe(*arguments)
    except OSError as error:
        failed[name] = error_name(error)
    except Exception as error:  # noqa: BLE001  # the other probes have their say all the same
        failed[name] = f"{type(error).__name__}: {error}"
    return None


class NotWritableError(Exception):
    """No directory can be made there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@contextmanager
def workshop(directory: str) -> Iterator[str]:
    """Make a directory to try things in, and remove it with all that is in it.

    :raises NotWritableError: it cannot be made
    """
    path = f"{directory}/{PREFIX}{os.urandom(8).hex()}"
    error = attempt(os.mkdir, path)
    if error:
        raise NotWritableError(error)
    try:
        yield path
    finally:
        deadline = time.monotonic() + CLEARING_SECONDS
        atomic.discard_tree(path)
        while os.path.lexists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
            atomic.discard_tree(path)


def nearest(path: str) -> str:
    """Return a directory, or the nearest one above it that exists."""
    path = paths.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _read_back(room: str) -> None:
    """Write something, list it and read it.

    :raises OSError: one of these fails, or it is not what was written
    """
    write(f"{room}/file")
    for name in os.listdir(room):
        with open(f"{room}/{name}", "rb", buffering=0) as file:
            if file.read() != b"x":
                raise OSError(errno.EIO, "it is not what was written", file.name)


def _room(work: str, name: str) -> str:
    path = f"{work}/{name}"
    os.mkdir(path)
    return path


def _recorded(env: str) -> str:
    try:
        recorded = kind.read(Environment(env))
    except EnvsyncError:
        return "unknown"
    return recorded.kind if recorded is not None else ""


def _space(directory: str) -> Space:
    return Space(*native.free(directory))


def _cache(path: str, room: str) -> CacheFacts:
    directory = nearest(path)
    same = os.stat(directory).st_dev == os.stat(room).st_dev
    mounted = mounts.mount_of(directory)
    cache = CacheFacts(
        path=path,
        exists=os.path.isdir(path),
        writable=os.access(directory, os.W_OK),
        kind=mounted.kind,
        same_filesystem=same,
        same_owner=os.stat(directory).st_uid == processes.user(),
        link=None,
        clone=None,
        lock=None,
    )
    try:
        with workshop(directory) as work:
            write(f"{work}/file")
            return cache._replace(
                link=attempt(os.link, f"{work}/file", f"{room}/link"),
                clone=attempt(clone, f"{work}/file", f"{room}/clone"),
                lock=f"flock stays within this node: {mounted.local_flock}"
                if mounted.local_flock
                else attempt(locks.take, f"{work}/file", False),
            )
    except NotWritableError:
        return cache
    except OSError as error:
        return cache._replace(link=error_name(error))
