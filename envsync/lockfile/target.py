"""What a lock file asks for on one interpreter: plain data that the rest of the pipeline works on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Interpreter(NamedTuple):
    """Facts about a target Python, gathered by running it (`envsync.python.interpreter`).

    `layout` maps a wheel scheme (`purelib`, `platlib`, `scripts`, `headers`, `data`) to the directory that a
    virtual environment of this Python uses for it, relative to the environment; `headers` still lacks the
    distribution's name.
    """

    executable: str
    """The interpreter to run; for a virtual environment's facts, its base interpreter."""
    prefix: str
    base_prefix: str
    implementation: str
    """As in `sys.implementation.name`: cpython, pypy."""
    version: str
    """The full version, as in 3.11.7."""
    machine: str
    libc: str
    """The libc family: glibc, musl or the empty string."""
    cache_tag: str
    markers: Mapping[str, str]
    """All eleven PEP 508 markers of the target."""
    tags: tuple[str, ...]
    """All supported tags, best first, each as `cp311-cp311-manylinux_2_17_x86_64`."""
    layout: Mapping[str, str]
    fingerprint: str
    """Stands for the markers and the tags."""
    key: str
    """Stands for the executable as it is: path, size, mtime, machine, C library."""
    release: str = ""
    """X.Y, and what tells builds apart that take other wheels, as in 3.13t (`envsync.launch.request.release_of`)."""
    base_executable: str = ""
    """The interpreter beneath a virtual environment, as that knows it; otherwise itself."""
    identity: tuple[int, int] = (0, 0)
    """Size in bytes and mtime in ns of the file behind it, as they were before it was asked."""
    magic: str = ""
    """The magic number of its bytecode, in hexadecimal (PEP 3147)."""

    @property
    def short_version(self) -> str:
        """The version as in 3.11."""
        return ".".join(self.version.split(".")[:2])

    @property
    def bytecode(self) -> str:
        """The tag of bytecode that it runs, as in `cpython-311-a70d0d0a`; empty if it keeps none."""
        return f"{self.cache_tag}-{self.magic}" if self.cache_tag and self.magic else ""


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
