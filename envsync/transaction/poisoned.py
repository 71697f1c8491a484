"""A store entry that is not what was put there."""

from __future__ import annotations

from envsync.cache.bytecode import Compiled
from envsync.cache.manifest import Manifest
from envsync.errors import EnvsyncError


class PoisonedError(EnvsyncError):
    """A store entry is not what was put there. Not the user's to see: the entry is set aside and fetched again.

    :ivar bytecode: the tag, if it is bytecode of an entry; that is compiled again
    """

    def __init__(self, manifest: Manifest | Compiled, path: str, reason: str | None) -> None:
        super().__init__(
            f"the cached files of `{manifest.filename}` have been changed: `{path}`: {reason or 'it cannot be read'}"
        )
        self.sha256 = manifest.sha256
        self.bytecode = manifest.tag if isinstance(manifest, Compiled) else ""
