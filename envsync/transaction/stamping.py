"""Write the stamp: the last thing that a sync does, after everything that the stamp vouches for.

A purge of a scratch filesystem removes the files that were not read or changed for some days, and leaves directories.
So the stamp names one file, the guard, that goes no later than the rest: nobody reads it, it is as old as what was
linked with it (`envsync.staging.stage`), and it is of the distribution that has been there longest. If it is gone,
or another one, all files are counted. Where directories are linked into a store, one in there is named, too: a store
may be purged by itself. And where the store could not be told that it is linked to, since it is somebody else's
(`envsync.store.users`), the directory of its entries is: when one comes or goes there, all is looked at again.

Not covered: a purge that is still going on, or that goes by something else than age (docs/filesystems.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from envsync.errors import FilesystemError
from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.scan import is_store_link
from envsync.launch import Environment, stamp
from envsync.launch.stamp import Site, Stamp
from envsync.python.facts import Layout
from envsync.staging.parts import GUARD
from envsync.system import atomic, core, mounts
from envsync.wheel import seconds

ENTRIES = "/v1/wheels"
"""Where a store has its entries."""
PATIENCE_SECONDS = 1.5
"""How long to wait for the filesystem's clock to pass the last change: some count in whole seconds."""


def observe(vouched: Stamp, environment: Environment, layout: Layout, in_use: int) -> None:
    """Put into a stamp what the environment looks like now.

    Makes `site-packages/__pycache__` first: otherwise the first import of a single-file module does, changes the
    mtime of site-packages with that, and invalidates the stamp.

    A client of a network filesystem may answer with the time that site-packages had before the commit, which this very
    process has made (MooseFS does so where its machine is busy): then the next launch finds another one, and all files
    are looked at again. So its time is set there to what the server says is now, and what that answers is current.
    Whoever else has changed something since the commit is found by what is looked at next (`Reconciler.is_reconciled`).

    :param vouched: the stamp so far; its `environment` is set
    :param in_use: the inode of the in-use lock
    """
    vouched.network = mounts.is_network(environment.path)
    try:
        for site in layout.sites:
            path = f"{vouched.environment}/{site}"
            os.makedirs(f"{path}/__pycache__", exist_ok=True)
            if vouched.network:
                _renew(path)
            status = os.stat(path)
            vouched.sites.append(Site(path, status.st_ino, status.st_mtime_ns))
        names = os.listdir(f"{vouched.environment}/{layout.scripts}")
        vouched.commands = sorted(name for name in names if not any(c.isspace() for c in name))
        status = os.stat(environment.config)
        vouched.config = f"{status.st_size} {status.st_mtime_ns}"
    except OSError as error:
        raise FilesystemError("look at", error.filename or environment.path, error) from error
    vouched.in_use = in_use


def _renew(path: str) -> None:
    try:
        os.utime(path)
    except OSError:
        pass  # somebody else's, perhaps: then it has the time that it has


def guard(
    vouched: Stamp, before: Stamp | None, ledger: Ledger, fresh: Mapping[str, int], stores: Iterable[str] = ()
) -> None:
    """Put guards into a stamp: those of before, if they are still there.

    A file that was made anew may have the inode and the time of the one of before, and be young all the same.

    :param before: the stamp that was there, if it was for this environment
    :param fresh: distributions that were installed just now → the time of their files
    :param stores: the cache directories that were used
    """
    infos = {name: info for name, entry in ledger.entries.items() if (info := _dist_info(entry))}
    made = {f"{vouched.environment}/{info}/{GUARD}" for name, info in infos.items() if name in fresh}
    for former in before.guards if before is not None else ():
        if former.path in made or former.path.endswith(ENTRIES):
            continue
        found = _look(former.path)
        if found is not None and (found.inode, found.mtime_ns) == (former.inode, former.mtime_ns):
            vouched.guards.append(found)
    known = {guard.path for guard in vouched.guards}
    kinds = [{name: f"{vouched.environment}/{info}/{GUARD}" for name, info in infos.items()}]
    if any(entry.linked for entry in ledger.entries.values()):
        kinds.append({name: path for name in infos if (path := _in_store(vouched, ledger.entries[name], infos[name]))})
    for paths in kinds:
        if known.isdisjoint(paths.values()):
            vouched.guards += _oldest(paths, fresh)
    vouched.guards += _of_foreign_stores(vouched, ledger, stores)


def _of_foreign_stores(vouched: Stamp, ledger: Ledger, stores: Iterable[str]) -> list[Site]:
    """Look at the directories of entries that are linked to, in stores that could not be told so."""
    linked = {entry.origin.sha256: entry for entry in ledger.entries.values() if entry.linked}
    paths = (f"{vouched.environment}/{path}" for entry in linked.values() for path in entry.entries)
    led_to = {os.readlink(path).partition(ENTRIES + "/")[0] for path in paths if is_store_link(path)}
    above = led_to.union(stores) if linked else set()
    foreign = sorted(path for path in above if not os.access(f"{path}/v1", os.W_OK))
    seen = {path: site for path in foreign if (site := _look(path + ENTRIES)) is not None}
    if not seen:
        return []
    # Only now: what goes after the look at the directory of entries is noticed by it.
    there = {path: {sha256 for sha256 in linked if os.path.isdir(f"{path}{ENTRIES}/{sha256}")} for path in above}
    sites = [site for path, site in seen.items() if path in led_to or there[path]]
    if linked.keys() <= set().union(*there.values()):
        return sites
    return [Site(site.path, site.inode, 0) for site in sites]  # one is gone already: a launch has to find that


def _oldest(paths: Mapping[str, str], fresh: Mapping[str, int]) -> list[Site]:
    """Look for the guard of the distribution that has been there longest."""
    former = [path for name, path in paths.items() if name not in fresh]
    found = [(status.st_atime_ns, status.st_mtime_ns, path) for path in former if (status := _status(path)) is not None]
    if found:
        return [site for site in [_look(min(found)[2])] if site is not None]
    for _, path in sorted((fresh[name], path) for name, path in paths.items() if name in fresh):
        site = _look(path)
        if site is not None:
            return [site]
    return []


def _dist_info(entry: LedgerEntry) -> str:
    return next((path for path in entry.entries if path.endswith(".dist-info")), "")


def _in_store(vouched: Stamp, entry: LedgerEntry, dist_info: str) -> str:
    """Return the guard in the store's entry that a distribution links to; empty if it does not."""
    for path in entry.entries if entry.linked else ():
        linked = f"{vouched.environment}/{path}"
        if is_store_link(linked):
            above, _, below = os.readlink(linked).partition(ENTRIES + "/")
            sha256, scheme = below.split("/")[:2]
            return f"{above}{ENTRIES}/{sha256}/{scheme}/{os.path.basename(dist_info)}/{GUARD}"
    return ""


def _look(path: str) -> Site | None:
    status = _status(path)
    return None if status is None else Site(path, status.st_ino, status.st_mtime_ns)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def write(
    vouched: Stamp,
    environment: Environment,
    *,
    durable: bool = False,
    checkpoint: Callable[[], object] = lambda: None,
) -> None:
    """Write the stamp, a clock tick of this filesystem later than the last change that it vouches for.

    If the tick does not come, the stamp is marked racy. A change within the tick would leave the mtime equal.

    :param durable: force it to the disk; what it vouches for is there already
    :param checkpoint: is called when the tick has come; may raise, and then nothing is written
    :raises FilesystemError: it cannot be written; there is then no stamp, or the one of before
    """
    latest = max(site.mtime_ns for site in vouched.sites)
    vouched.racy = not _outlast(f"{environment.state}/clock{atomic.SUFFIX}", latest)
    checkpoint()
    atomic.write(environment.stamp, stamp.dump(vouched), durable=durable)
    atomic.discard(environment.draining)


def _outlast(probe: str, mtime_ns: int) -> bool:
    """Wait until a file changed now gets a later mtime than the one given; the filesystem's clock decides."""
    begun = time.monotonic()
    try:
        fd = core.open_file(probe, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            while os.fstat(fd).st_mtime_ns <= mtime_ns:
                waited = time.monotonic() - begun
                if waited >= PATIENCE_SECONDS:
                    return False
                # A tick is 1 to 10 ms on most, and far less from Linux 6.13 on; where it is a second, it is a server's.
                time.sleep(min(0.0005 + waited / 16, PATIENCE_SECONDS - waited))
                seconds.touch(fd)
            return True
        finally:
            os.close(fd)
    except OSError as error:
        raise FilesystemError("write", probe, error) from error
    finally:
        atomic.discard(probe)
