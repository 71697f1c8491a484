"""The directories of a store, and what every one of them says to backup programs."""

from __future__ import annotations

import os
import shlex

from envsync.errors import FilesystemError
from envsync.system import core, groups

_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This directory is a cache of envsync. What is in it can be fetched again.
"""


class Directories:
    """Where a store keeps what it has (`wheels`), what is being made or thrown away (`tmp`), and locks.

    :param root: the cache directory
    :param durable: force an entry to the disk before it gets its name
    """

    def __init__(self, root: str, *, durable: bool = False) -> None:
        self.durable = durable
        self.be_at(root)

    def be_at(self, root: str) -> None:
        self.root = root
        self.wheels = f"{root}/v1/wheels"
        self.tmp = f"{root}/v1/tmp"
        self.locks = f"{root}/v1/locks"
        self.built = f"{root}/v1/built"
        """Wheels that were made of sources, by key (`envsync.building.built`)."""
        self.sources = f"{root}/v1/sources"
        """Archives of sources, by hash."""
        self.logs = f"{root}/v1/logs"
        """What builds have said that failed."""

    def prepare(self) -> None:
        """Make the directories.

        :raises FilesystemError: they are not there and cannot be made
        """
        for path in (self.wheels, self.tmp, self.locks):
            try:
                groups.make_directory(self.root, path)
            except OSError as error:
                other = shlex.quote(f"{self.root}-2")
                hint = f"name another cache: `envsync sync --cache-dir {other}`"
                raise FilesystemError("create", path, error, hint=hint) from error
        tag = f"{self.root}/CACHEDIR.TAG"
        try:
            descriptor = core.open_file(tag, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError:
            return  # it is there already, or only backup programs will miss it
        groups.grant(tag, groups.bits(self.root))
        try:
            os.write(descriptor, _TAG)
        except OSError:
            pass  # as above
        finally:
            os.close(descriptor)

    def staging(self, purpose: str) -> str:
        """Return a path in tmp that nobody else on any host uses."""
        return f"{self.tmp}/{purpose}-{os.urandom(12).hex()}"
