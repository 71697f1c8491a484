"""Store entries that are not what was put there.

Whoever stages compares each file with the manifest just before it is linked, and stops at the first that differs. One
that is found is seldom alone: a cache that was copied without its files' times differs in all of them. So then all
entries that the sync needs are compared, and those that differ are fetched again at once
(`envsync.leading.supply`).

Files of an entry are read-only, and links to them are in environments: root, and the owner after a chmod, can write
through any of them. What such a write changes in size or time is seen whenever the entry is used; the rest is seen by
whoever compares the hashes, for the price of reading the whole entry (`damaged_files`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from envsync.errors import EnvsyncError, FilesystemError
from envsync.store.bytecode import Compiled
from envsync.system import paths
from envsync.wheel import record, seconds
from envsync.wheel.manifest import NAME, Manifest

CHANGED = "its size or time is not what it was"
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
"""What open(2) answers for want of something in this process or host, whatever is in the store; and for a moment."""


class DamagedError(EnvsyncError):
    """A store entry is not what was put there. Not the user's to see: the entry is set aside and fetched again.

    :ivar bytecode: the tag, if it is bytecode of an entry; that is compiled again
    """

    def __init__(self, manifest: Manifest | Compiled, path: str, reason: str | None) -> None:
        super().__init__(
            f"the cached files of `{manifest.filename}` have been changed: `{path}`: {reason or 'it cannot be read'}"
        )
        self.sha256 = manifest.sha256
        self.path = path
        self.bytecode = manifest.tag if isinstance(manifest, Compiled) else ""


def cannot_open(manifest: Manifest | Compiled, path: str, error: OSError) -> EnvsyncError:
    """Build the error of a file or directory of an entry that cannot be opened: damage, unless the fault is our own."""
    if error.errno in _OUR_OWN:
        return FilesystemError("open", path, error)
    return DamagedError(manifest, path, error.strerror)


def rows_of(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the RECORD lines of a manifest, which may have been read lazily.

    :raises DamagedError: they are damaged
    """
    try:
        return [*manifest.record]
    except (ValueError, TypeError) as error:
        raise DamagedError(manifest, NAME, str(error)) from error


def compare(
    manifest: Manifest | Compiled,
    above: str,
    prefix: str,
    files: Sequence[Sequence[Any]],
    *,
    top: int | None = None,
    linking: bool = False,
) -> None:
    """Compare size and mtime of the files of one directory with the manifest.

    :param above: where the prefix is below, with a slash, for messages
    :param prefix: what stands before each name, with a slash, relative to `top`
    :param top: a descriptor of a directory; without it the prefix is absolute
    :param linking: the files are about to be linked: those that were not read for a day get an atime of now
    :raises DamagedError: one is not what was put there
    """
    look = os.stat
    stale = time.time_ns() - seconds.DAY_NS if linking else 0
    mtime_ns = manifest.mtime * 1_000_000_000
    name = ""
    try:
        for base, size, _ in files:
            name = prefix + base
            status = look(name, dir_fd=top, follow_symlinks=False)
            if status.st_size != size or (status.st_mtime_ns != mtime_ns and mtime_ns):
                raise DamagedError(manifest, f"{above}{name}", CHANGED)
            if status.st_atime_ns < stale:
                seconds.freshen(name, status.st_mtime_ns, top)
    except OSError as error:
        raise cannot_open(manifest, f"{above}{name}", error) from error


def find_damaged(entry: str, manifest: Manifest | Compiled) -> DamagedError | None:
    """Compare all files of an entry, or of a wheel's bytecode, with its manifest.

    :param entry: its directory
    :returns: what is wrong with the first that differs, or None
    """
    try:
        for scheme, below, files in manifest.directories:
            compare(manifest, "", paths.join(entry, scheme, below, ""), files)
    except DamagedError as error:
        return error
    return None


def damaged_files(entry: str, manifest: Manifest | Compiled) -> Iterator[str]:
    """Name the files of an entry, relative to it, whose bytes are not those of the wheel (its bytecode) any more.

    :param entry: the entry's directory
    """
    for scheme, lines in manifest.record:
        for path, expected, _ in record.rows(lines):
            algorithm, digest = record.algorithm_and_digest(expected)
            if digest and _digest(paths.join(entry, scheme, path), algorithm) != digest:
                yield f"{scheme}/{path}"


def _digest(path: str, algorithm: str) -> str:
    """Return a file's hash as RECORD writes it; empty if it cannot be read."""
    import hashlib  # with OpenSSL it takes 5 ms to load, and few read whole entries

    try:
        with open(path, "rb") as file:
            return record.encode(hashlib.file_digest(file, algorithm).digest())
    except OSError:
        return ""
