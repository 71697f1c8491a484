"""What is known of a Python: plain data."""

from __future__ import annotations

from collections.abc import Mapping
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


class Layout(NamedTuple):
    """Where an environment keeps the files of each wheel scheme, relative to it, with forward slashes."""

    purelib: str
    platlib: str
    scripts: str
    headers: str
    """Still without the distribution's name."""

    def directory(self, scheme: str, name: str) -> str:
        """Return the directory of a scheme for a distribution; the empty string is the environment itself."""
        if scheme == "headers":
            return f"{self.headers}/{name}"
        return {"purelib": self.purelib, "platlib": self.platlib, "scripts": self.scripts, "data": ""}[scheme]

    @property
    def sites(self) -> tuple[str, ...]:
        """The site-packages directories, each once."""
        return (self.purelib,) if self.purelib == self.platlib else (self.purelib, self.platlib)

    def entry(self, path: str) -> str:
        """Return the top-level entry of a path: what two distributions that share a file have in common."""
        for base in (*self.sites, self.scripts, self.headers):
            if path.startswith(base + "/"):
                return base + "/" + path[len(base) + 1 :].partition("/")[0]
        return path.partition("/")[0]
