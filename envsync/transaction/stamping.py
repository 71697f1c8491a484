"""Write the stamp: the last thing that a sync does, after everything that the stamp vouches for."""

from __future__ import annotations

import os
import time

from envsync import replace, stamp
from envsync.environment import Environment
from envsync.errors import FilesystemError
from envsync.installed import Layout
from envsync.stamp import Site, Stamp

PATIENCE_SECONDS = 1.5
"""How long to wait for the filesystem's clock to pass the last change: some count in whole seconds."""


def observe(vouched: Stamp, environment: Environment, layout: Layout, in_use: int) -> None:
    """Put into a stamp what the environment looks like now.

    Makes `site-packages/__pycache__` first: otherwise the first import of a single-file module does, changes the
    mtime of site-packages with that, and invalidates the stamp.

    :param vouched: the stamp so far; its `environment` is set
    :param in_use: the inode of the in-use lock
    """
    try:
        for site in layout.sites:
            path = f"{vouched.environment}/{site}"
            os.makedirs(f"{path}/__pycache__", exist_ok=True)
            status = os.stat(path)
            vouched.sites.append(Site(path, status.st_ino, status.st_mtime_ns))
        names = os.listdir(f"{vouched.environment}/{layout.scripts}")
        vouched.commands = sorted(name for name in names if not any(c.isspace() for c in name))
        status = os.stat(environment.config)
        vouched.config = f"{status.st_size} {status.st_mtime_ns}"
    except OSError as error:
        raise FilesystemError("look at", error.filename or environment.path, error) from error
    vouched.in_use = in_use


def write(vouched: Stamp, environment: Environment, *, durable: bool = False) -> None:
    """Write the stamp, a clock tick of this filesystem later than the last change that it vouches for.

    If the tick does not come, the stamp is marked racy. A change within the tick would leave the mtime equal.

    :param durable: force it to the disk; what it vouches for is there already
    :raises FilesystemError: it cannot be written; there is then no stamp, or the one of before
    """
    latest = max(site.mtime_ns for site in vouched.sites)
    vouched.racy = not _outlast(f"{environment.state}/clock{replace.SUFFIX}", latest)
    replace.write(environment.stamp, stamp.dump(vouched), durable=durable)
    replace.discard(environment.draining)


def _outlast(probe: str, mtime_ns: int) -> bool:
    """Wait until a file changed now gets a later mtime than the one given; the filesystem's clock decides."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while os.fstat(fd).st_mtime_ns <= mtime_ns:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.0005)  # a tick is 1 to 10 ms on most, and far less from Linux 6.13 on
                os.utime(fd)
            return True
        finally:
            os.close(fd)
    except OSError as error:
        raise FilesystemError("write", probe, error) from error
    finally:
        replace.discard(probe)
