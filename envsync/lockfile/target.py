"""What a lock file asks for on one interpreter: plain data that the rest of the pipeline works on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Artifact(NamedTuple):
    """One wheel to install, and where it can be had.

    At most one of `path` and `url` is set. Neither is set if no place is known but the store may have it:
    then `missing` says why, for the error that follows if the store has not.
    """

    name: str
    """Normalized (PEP 503)."""
    version: str
    filename: str
    """The wheel's file name."""
    hashes: Mapping[str, str] = MappingProxyType({})
    """Algorithm to hex digest. Every one of them has to match. Empty if the lock file gives none."""
    alternatives: tuple[tuple[str, str], ...] = ()
    """(algorithm, hex digest) pairs of which one has to match (`--hash` of requirements); empty: no such demand."""
    size: int | None = None
    """In bytes, if the lock file says."""
    path: str | None = None
    """A local file, absolute."""
    url: str | None = None
    """May hold credentials; never to be printed as it is."""
    locked: tuple[tuple[str, str], ...] = ()
    """(algorithm, hex digest) pairs of the lock file itself; what an index says, or is broken, does not count."""
    missing: str | None = None
    place: str | None = None
    """Its URL in the lock file, without credentials, if there is no hash: what came from there first is taken again."""
    direct_url: str | None = None
    """The text of direct_url.json (PEP 610), for what was asked for by URL or path."""

    def __repr__(self) -> str:
        return f"Artifact({self.filename!r})"  # without the URL, which may hold credentials

    @property
    def sha256(self) -> str | None:
        """The wheel's key in the store, if known without its bytes."""
        return self.hashes.get("sha256")


class Target(NamedTuple):
    """The distributions selected from a lock file for one interpreter, sorted by name."""

    artifacts: tuple[Artifact, ...]
    local_files: tuple[str, ...] = ()
    """Local wheels that were chosen without a hash: their size and mtime vouch for them from now on."""
    extras: Mapping[str, frozenset[str]] = MappingProxyType({})
    """The extras that the lock file asks for, by package, where it may lack what packages require."""
    complete: bool = True
    """A tool has made sure that what packages require is there, too; in requirements, nobody has."""

    @property
    def unverified(self) -> tuple[str, ...]:
        """The names of those for which the lock file has no hash: the one that is kept is of what came first."""
        return tuple(artifact.name for artifact in self.artifacts if not artifact.locked)
