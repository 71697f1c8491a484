"""What a lock file asks for on one interpreter: plain data that the rest of the pipeline works on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

ARCHIVE, DIRECTORY, GIT = "archive", "directory", "git"


class Source(NamedTuple):
    """What a wheel has to be built of."""

    kind: str
    """ARCHIVE: the artifact's own file, a source distribution or another archive of a tree; DIRECTORY; GIT."""
    place: str = ""
    """Of a directory, its absolute path; of a git repository, its URL, which may hold credentials."""
    commit: str = ""
    """Of a git repository: the whole hash."""
    reference: str = ""
    """The branch, tag or the like that the commit was found by, if one was named (PEP 610, `requested_revision`)."""
    subdirectory: str = ""
    """Where in the tree the project is, relative, with forward slashes; empty: at its top."""
    editable: bool = False
    """Of a directory: installed as a link to it (PEP 660)."""
    lfs: bool = False
    """Of a git repository: with the files that git-lfs keeps elsewhere."""

    def __repr__(self) -> str:
        return f"Source({self.kind!r})"  # without the URL, which may hold credentials


class BuildRules(NamedTuple):
    """What a project says about how packages of its lock file are built. All of it decides what comes out.

    Names are normalized.
    """

    constraints: tuple[str, ...] = ()
    """On what build backends require: requirements such as `setuptools<81`."""
    config: tuple[tuple[str, str], ...] = ()
    """Settings for every backend, key and value; several of one key are a list (PEP 517, `config_settings`)."""
    config_of: tuple[tuple[str, str, str], ...] = ()
    """Settings for one package: its name, key, value."""
    requires: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Package → what has to be there besides what it says itself when it is built."""
    variables: tuple[tuple[str, str, str], ...] = ()
    """Environment variables for one package: its name, variable, value."""
    unisolated: tuple[str, ...] = ()
    """Packages that are built with what is installed beside them, not in an environment of their own."""
    isolated: bool = True
    """False: that counts for all packages."""

    def together_with(self, others: BuildRules) -> BuildRules:
        """Return both; what is said in `others` comes last, and so wins."""
        return BuildRules(
            self.constraints + others.constraints,
            self.config + others.config,
            self.config_of + others.config_of,
            self.requires + others.requires,
            self.variables + others.variables,
            self.unisolated + others.unisolated,
            self.isolated and others.isolated,
        )


class Artifact(NamedTuple):
    """One wheel to install, and where it can be had; or what it has to be built of.

    At most one of `path` and `url` is set. Neither is set if no place is known but the store may have it:
    then `missing` says why, for the error that follows if the store has not.
    """

    name: str
    """Normalized (PEP 503)."""
    version: str
    """Empty if the lock file does not say, of what has to be built."""
    filename: str
    """The file's name; empty if there is no file, but a directory or a repository."""
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
    source: Source | None = None
    """What has to be built; None: it is a wheel."""

    def __repr__(self) -> str:
        return f"Artifact({self.filename!r})"  # without the URL, which may hold credentials

    @property
    def label(self) -> str:
        """What it is called in messages: its name, with the version if that is known."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def sha256(self) -> str | None:
        """The file's hash, if known without its bytes: a wheel's key in the store."""
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
    rules: BuildRules = BuildRules()

    @property
    def sources(self) -> tuple[Artifact, ...]:
        """What has to be built."""
        return tuple(artifact for artifact in self.artifacts if artifact.source is not None)

    @property
    def trees(self) -> tuple[Source, ...]:
        """The directories that are installed, or built of."""
        return tuple(
            each.source for each in self.artifacts if each.source is not None and each.source.kind == DIRECTORY
        )

    @property
    def unverified(self) -> tuple[str, ...]:
        """The names of wheels for which the lock file has no hash: the one that is kept is of what came first."""
        return tuple(artifact.name for artifact in self.artifacts if not artifact.locked and artifact.source is None)
