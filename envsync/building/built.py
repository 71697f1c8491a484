"""What was built, kept in the cache: a wheel for each key, whoever asks for it next.

    <cache>/v1/built/<key>/<variant>/    a wheel, `log`, and `record`: of what, where and by whom it was built
    <cache>/v1/built/<key>.failed        how the last attempt failed: whoever waited for it shares that
    <cache>/v1/tmp/<key>.building        who is building it now

A variant (`envsync.building.keys.variant_of`) is made in tmp and renamed into place whole; of two, the first stays.
`record` has the wheel's hash, and whoever uses the wheel compares it. A wheel runs as whoever installs it: so it counts
only if wheel and record belong to oneself, to root, or to a user that the configuration names, and nobody else may
write to them. The record has its key as well: a group that shares a cache may rename what it has not made.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

from envsync.errors import BuildError, UsageError
from envsync.store import trash
from envsync.store.directories import Directories
from envsync.store.publish import publish
from envsync.system import atomic, core, groups, native, processes, records
from envsync.wheel.manifest import is_sha256

RECORD, LOG = "record", "log"


class Built(NamedTuple):
    """A wheel that was built."""

    path: str
    sha256: str

    @property
    def filename(self) -> str:
        return os.path.basename(self.path)


def users(names: Iterable[str]) -> frozenset[int]:
    """Return the ids of users whose wheels count: one's own, root's, and those that are named.

    :raises UsageError: there is no such user
    """
    found = {processes.user(), 0}
    for name in names:
        try:
            found.add(int(name) if name.isdigit() else native.user_id(name))
        except KeyError:
            hint = "`getent passwd` lists the users; then `envsync sync --trusted-builder root`"
            raise UsageError(f"there is no user `{name}` whose built wheels could be taken", hint=hint) from None
    return frozenset(found)


def find(store: Directories, key: str, variants: Iterable[str], trusted: frozenset[int]) -> Built | None:
    """Look for what was built under a key; the first of the variants that may be used."""
    for variant in variants:
        found = _at(f"{store.built}/{key}/{variant}", trusted)
        if found is not None:
            touch(f"{store.built}/{key}")
            return found
    return None


def touch(path: str) -> None:
    """Note that something is used now, so that a prune takes what was not."""
    try:
        os.utime(path)
    except OSError:
        pass  # somebody else's


def _at(place: str, trusted: frozenset[int]) -> Built | None:
    value = _record(f"{place}/{RECORD}", trusted)
    name, digest, kept_as = (records.text(value, each) for each in ("filename", "sha256", "kept_as"))
    path = f"{place}/{name}"
    if not name.endswith(".whl") or "/" in name or not is_sha256(digest):
        return None
    if place.endswith(f"/{kept_as}") and all(_is_of(each, trusted) for each in (place, path)):
        return Built(path, digest)
    return None


def _record(path: str, trusted: frozenset[int]) -> dict[str, object]:
    """Read a record, if the very file that is read was written by one who is trusted, and by nobody else."""
    try:
        with open(core.open_file(path, os.O_RDONLY | core.NOFOLLOW | core.NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            alone = stat.S_ISREG(status.st_mode) and not status.st_mode & native.BY_OTHERS
            return records.understood(file.read()) if alone and status.st_uid in trusted else {}
    except OSError:
        return {}


def _is_of(path: str, trusted: frozenset[int]) -> bool:
    """Tell whether something belongs to those who are trusted, is no link to what does not, and no file for others."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    plain = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and not status.st_mode & native.BY_OTHERS)
    return plain and status.st_uid in trusted


def _is_written_by(path: str, trusted: frozenset[int]) -> bool:
    try:
        return os.lstat(path).st_uid in trusted
    except OSError:
        return False


def keep(
    store: Directories,
    name: str,
    wheel: str,
    sha256: str,
    *,
    log: str,
    facts: Mapping[str, object],
    trusted: frozenset[int],
) -> Built:
    """Keep a wheel that was just built.

    :param name: key and variant, with a slash between them
    :param wheel: its path; it is moved away
    :param facts: what is noted of it
    :returns: it, or what another process has kept meanwhile
    :raises FilesystemError: it cannot be kept; nothing is left in place
    """
    staged = store.staging("built")
    os.mkdir(staged)
    filename = os.path.basename(wheel)
    atomic.move(wheel, f"{staged}/{filename}")
    if os.path.exists(log):
        atomic.move(log, f"{staged}/{LOG}")
    record = records.dump({"filename": filename, "sha256": sha256, "kept_as": name, **facts})
    atomic.write(f"{staged}/{RECORD}", record)
    for each in os.listdir(staged):
        native.chmod(f"{staged}/{each}", 0o444)  # nor may a group that shares the cache write to it
    place = f"{store.built}/{name}"
    try:
        newer = partial(records.is_newer, f"{place}/{RECORD}")
        found = publish(store, staged, place, lambda: _at(place, trusted), newer)
    finally:
        trash.remove_tree(staged)
    discard(f"{os.path.dirname(place)}.failed")
    return found or Built(f"{place}/{filename}", sha256)


def discard(path: str) -> None:
    """Remove a file of ours that only tells something, if it is there and can be removed."""
    try:
        atomic.discard(path)
    except OSError:
        pass


def facts_of_host(environ: Mapping[str, str]) -> dict[str, object]:
    """Return what is noted of where something was built: for questions later, nothing is decided by it."""
    named = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME", "LOADEDMODULES", "SOURCE_DATE_EPOCH")
    flags = {name: environ[name] for name in named if environ.get(name)}
    return {"host": processes.host(), "user": processes.user(), "built": time.time(), **flags}


# Who builds it, and how it failed


def announce(store: Directories, key: str, package: str) -> None:
    """Say that this process builds it."""
    value = {"package": package, "pid": os.getpid(), "host": processes.host(), "since": time.time()}
    groups.write(store.root, f"{store.tmp}/{key}.building", value)


def withdraw(store: Directories, key: str) -> None:
    """Say that it does not any more."""
    discard(f"{store.tmp}/{key}.building")


def builder(store: Directories, key: str, package: str) -> str:
    """Say who builds it, and for how long: `building NAME for 95 s, pid 12 on node7`."""
    value = records.load(f"{store.tmp}/{key}.building")
    if not value:
        return f"waiting for another process, which builds {package}"
    seconds = max(0.0, time.time() - records.number(value, "since", time.time()))
    who = f"pid {int(records.number(value, 'pid'))} on {records.text(value, 'host')}"
    return f"waiting for {who}, which has been building {package} for {seconds:.0f} s"


def failure(store: Directories, key: str) -> str:
    """Return the id of the last failure; empty if there is none."""
    return records.text(records.load(f"{store.built}/{key}.failed"), "id")


def fail(store: Directories, key: str, error: BuildError) -> None:
    """Leave word for those who wait."""
    value = {
        "id": os.urandom(8).hex(),
        "package": error.package,
        "problem": error.problem,
        "log": error.log,
        "hint": error.hint,
        "host": processes.host(),
    }
    try:
        atomic.make_directory(store.built)
    except OSError:
        return
    groups.write(store.root, f"{store.built}/{key}.failed", value)


def shared_failure(store: Directories, key: str, before: str, trusted: frozenset[int]) -> BuildError | None:
    """Return the error by which somebody has failed whom one has waited for.

    :param before: the id of the failure that was there when one began to wait
    """
    path = f"{store.built}/{key}.failed"
    value = records.load(path)
    package, problem, log, hint, host, number = (
        records.text(value, name) for name in ("package", "problem", "log", "hint", "host", "id")
    )
    if not number or number == before or not _is_written_by(path, trusted):
        return None
    where = "" if host == processes.host() else f" (on {host})"
    return BuildError(package, f"{problem}{where}", log=log, hint=hint)
