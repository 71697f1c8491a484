"""Where each file is taken from that the lock file names, wheel or archive: those of pylock.toml and of uv.lock.

A find-links directory that has a file of that name is preferred to the entry's path, and that to its URL;
the hashes in the lock file make sure that it is the same file. What has no place that may be used may still be
in the store; if it is not there either, pages and indexes are asked for its file name, where that is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from envsync.errors import LockFileError, remedies
from envsync.lockfile import hashes, wheels
from envsync.lockfile.blockers import BlockedError, Blocker
from envsync.lockfile.sources import (
    Sources,
    direct_url_of,
    direct_url_text,
    host_of,
    is_file_url,
    path_of_url,
    well_formed,
    with_credentials,
    without_credentials,
)
from envsync.lockfile.target import ARCHIVE, Artifact, Source
from envsync.lockfile.trees import is_archive
from envsync.lockfile.wheelhouse import Wheelhouse
from envsync.lockfile.wheels import Offer
from envsync.system import paths

NOWHERE = "nowhere:"
"""The URL of a file that has neither URL nor path, which packaging does not let pass."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An artifact, and where it is looked for if it has no place, or one that may be out of reach."""

    artifact: Artifact
    sources: Sources
    is_near: bool = True


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file that was selected, as the lock file describes it."""

    package: str
    """Whose it is; normalized."""
    version: Version | None
    """Of the package, if the lock file says."""
    filename: str
    url: str | None = field(default=None, repr=False)
    """May hold credentials."""
    path: str | None = None
    """Relative to the lock file, or absolute."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Empty if the lock file gives none, where its format allows that."""
    size: int | None = None
    direct: bool = False
    """It was asked for by URL or path, not by name and version."""
    index: str | None = None
    """That the lock file names for it."""
    source: Source | None = None
    """What has to be built of it, or, where there is no file, of a directory or a repository; None: it is a wheel."""


class Places:
    """Decides where the wheels of one lock file are taken from.

    :param path: the lock file
    :param project: where the project says that its packages come from
    :param narrowed: the same for packages that come from a part of it only
    """

    def __init__(
        self,
        path: str,
        sources: Sources,
        fit: wheels.Fit,
        *,
        project: Sources = Sources(),  # noqa: B008
        narrowed: Mapping[NormalizedName, Sources] = MappingProxyType({}),
    ) -> None:
        self._relock = remedies.relock(path)
        self._directory = os.path.dirname(paths.abspath(path))
        self._given = sources
        self._project = project
        self._narrowed = narrowed
        self._sources = sources.over(project)
        self._fit = fit
        self._wheelhouse = Wheelhouse(self._sources.directories)

    def of(self, file: LockedFile) -> Placed:
        """Make the artifact of a selected file, or of a tree. It says what is missing if it has no place.

        :raises BlockedError: it is no wheel, or one that does not fit; its name or hashes make no sense
        """
        if file.source is not None and file.source.kind != ARCHIVE:
            return self._tree(file, file.source)
        url = file.url
        if url is not None and not well_formed(url):
            raise self._senseless(f"package `{file.package}`: its URL is malformed")
        version = self._version(file)
        path = self._local(file)
        checked = self._checked(file)
        artifact = Artifact(
            file.package,
            version,
            file.filename,
            checked,
            size=file.size,
            locked=tuple(hashes.strong(checked).items()),
            source=file.source,
        )
        if url is not None and not checked and not is_file_url(url):
            artifact = artifact._replace(place=without_credentials(url))
        if file.direct:
            below = file.source.subdirectory if file.source is not None else ""
            artifact = artifact._replace(direct_url=direct_url_text(path or url or "", checked, below))
        given = self._given_for(file)
        asked = self._asked(file, given)
        path = self._wheelhouse.path_of(file.filename) or path
        if url is not None:
            url = asked.mirrored(url)
            path = path or (path_of_url(url) if is_file_url(url) else None)
        if path is not None:
            return Placed(artifact._replace(path=path), asked)
        if url is not None and not self._sources.offline and (file.direct or not self._sources.no_index):
            url = with_credentials(url, self._given.index_urls + asked.index_urls + asked.extra_index_urls)
            return Placed(artifact._replace(url=url), asked, not checked or given.is_near(url))
        return Placed(artifact._replace(missing=_missing(artifact, url, self._sources)), asked)

    def _tree(self, file: LockedFile, source: Source) -> Placed:
        """Make the artifact of a directory or a repository."""
        version = "" if file.version is None else str(file.version)
        artifact = Artifact(file.package, version, "", direct_url=direct_url_of(source), source=source)
        return Placed(artifact, self._sources)

    def _given_for(self, file: LockedFile) -> Sources:
        """Return the options as they count for a file: indexes that redirect nothing, only for one without a URL."""
        if file.url is None or self._given.redirecting:
            return self._given
        return replace(self._given, index_urls=())

    def _asked(self, file: LockedFile, given: Sources) -> Sources:
        """Return where a file may be looked for: on the index that is named for it only, unless options name others."""
        if given.index_urls or file.index is None:
            return given.over(self._narrowed.get(canonicalize_name(file.package), self._project))
        return replace(self._sources, index_urls=(file.index,), extra_index_urls=())

    def _version(self, file: LockedFile) -> str:
        """Return the version, which a wheel's name says; check that name."""
        about = f"package `{file.package}`: "
        filename = file.filename
        if file.source is not None:
            if not is_archive(filename):
                raise self._senseless(f"{about}{filename[:80]!r} is no name of an archive that can be built")
            return "" if file.version is None else str(file.version)
        try:
            name = wheels.WheelName(filename)
        except ValueError as error:
            problem = f"{about}`{filename}` is not a wheel's file name"
            raise self._senseless(problem) from error
        if name.name != file.package or file.version not in (None, name.version):
            problem = f"{about}`{filename}` is a wheel of something else"
            raise self._senseless(problem)
        if file.direct and not self._fit.fits(name.tags):
            instead = wheels.instead(file.package, file.version, [filename], self._fit)
            raise BlockedError(Blocker(about + wheels.no_fit([filename], self._fit), *instead))
        return str(name.version)

    def _senseless(self, problem: str) -> BlockedError:
        return BlockedError(Blocker(problem, self._relock, kind=LockFileError))

    def _local(self, file: LockedFile) -> str | None:
        """Give the absolute path of an entry; none if there is no such file but a URL as well."""
        if "\0" in (file.path or "") or "%00" in (file.url or "") or "\0" in (file.url or ""):
            raise self._senseless(f"package `{file.package}`: its path is no name of a file")
        if file.path is not None:
            absolute = paths.abspath(paths.join(self._directory, file.path))
            return absolute if file.url is None or os.path.exists(absolute) else None
        if file.url is None or not is_file_url(file.url):
            return None
        try:
            return paths.abspath(paths.join(self._directory, path_of_url(file.url)))
        except ValueError as error:
            raise self._senseless(f"package `{file.package}`: {error}") from error

    def _checked(self, file: LockedFile) -> dict[str, str]:
        try:
            return dict(hashes.check(file.hashes.items()))
        except hashes.HashError as error:
            raise self._senseless(f"package `{file.package}`: {error}") from error


def _missing(artifact: Artifact, url: str | None, sources: Sources) -> str:
    """Say why an artifact has no place, and what to do about it."""
    if url is not None:
        why = f"and {sources.prohibition} rules out fetching it from `{host_of(url)}`"
    elif sources.prohibition:
        why = f"the lock file gives no URL for it, and {sources.prohibition} rules out asking an index"
    else:
        why = "the lock file gives no URL for it, and no index has it"
    where = "neither in the cache nor in a --find-links directory"
    other = f"run once without {sources.prohibition}" if sources.prohibition else "lock again with URLs"
    return (
        f"package `{artifact.name}`: `{artifact.filename}` is {where}, {why}; "
        f"name a directory that has it with --find-links, or {other}"
    )


def search(placed: list[Placed], known: Callable[[str], str | None]) -> list[Placed]:
    """Look on pages and indexes for the wheels that have no place yet and are not in the store either.

    If indexes or pages are given, those that have a place elsewhere are looked for there first. Blocks on the network
    if there are such wheels.

    :raises FetchError: an index or page does not answer
    """
    far = (each for each in placed if each.artifact.missing or not each.is_near)
    absent = [each for each in far if not _stored(each.artifact, known)]
    found: dict[str, Placed] = {}
    for sources in {each.sources: None for each in absent}:
        if sources.searchable:
            found |= _found([each for each in absent if each.sources == sources], sources)
    return [found.get(each.artifact.filename, each) for each in placed]


def _stored(artifact: Artifact, known: Callable[[str], str | None]) -> bool:
    return artifact.sha256 is not None and known(artifact.sha256) is not None


def _found(absent: list[Placed], sources: Sources) -> dict[str, Placed]:
    """Give those whose file name some page or index has, with their places."""
    from envsync.lockfile.index import Index

    with Index(sources) as index:
        offers = index.offers([each.artifact.name for each in absent])
    return {
        each.artifact.filename: replace(each, artifact=artifact._replace(path=offer.path, url=offer.url, missing=None))
        for each in absent
        if (offer := _offer(artifact := each.artifact, offers[each.artifact.name])) is not None
    }


def _offer(artifact: Artifact, offers: list[Offer]) -> Offer | None:
    """Return the first file of the name that an artifact has, unless the index says that it has another hash."""
    for offer in offers:
        agree = all(offer.hashes.get(algorithm, digest) == digest for algorithm, digest in artifact.hashes.items())
        if artifact.alternatives:
            agree = any(offer.hashes.get(algorithm, digest) == digest for algorithm, digest in artifact.alternatives)
        if offer.filename == artifact.filename and agree:
            return offer
    return None
