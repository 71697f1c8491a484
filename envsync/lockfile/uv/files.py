"""Which file of a record of uv.lock is taken, or which tree has to be built, or what keeps it from being installed."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies
from envsync.lockfile import trees, wheels
from envsync.lockfile.blockers import BlockedError, Blocker, unbuilt
from envsync.lockfile.choice import Choice
from envsync.lockfile.places import LockedFile
from envsync.lockfile.sources import filename_of, is_url
from envsync.lockfile.target import Source
from envsync.lockfile.uv.project import Forbidden, Project
from envsync.lockfile.uv.records import FileRecord, Lock, PackageRecord
from envsync.system import paths

REFERENCES = ("tag", "branch", "rev")
"""By what a commit was found; at most one is there."""
COMMIT_DIGITS = (40, 64)


class Files:
    """Tells of one uv.lock which file of a record is taken.

    :param path: the lock file
    :param project: what pyproject.toml in its directory forbids
    :param choice: what options forbid, which counts besides
    """

    def __init__(self, path: str, lock: Lock, project: Project, choice: Choice, fit: wheels.Fit) -> None:
        self._path = path
        self._beside = os.path.dirname(paths.abspath(path))
        self._lock = lock
        self._project = project
        self._choice = choice
        self._fit = fit

    def of(self, record: PackageRecord) -> LockedFile:
        """Return what to install.

        :raises BlockedError: there is nothing of it, or nothing that is allowed
        """
        try:
            if record.directory is not None or record.source.kind == "git":
                return self._tree(record)
            no_binary = self._no_binary(record.name)
            found = [file for file in (self._locked(record, each) for each in record.wheels) if file is not None]
            best = None if no_binary else self._best(found)
            if best is not None:
                return best
            source = self._archive(record)
        except trees.TreeError as error:
            problem = f"package `{record.name}`: {error}"
            raise BlockedError(Blocker(problem, _hint(self._path, error), kind=LockFileError)) from None
        no_build = self._no_build(record)
        if source is None or no_build:
            raise BlockedError(self._none(record, [file.filename for file in found], source, no_binary, no_build))
        return source

    def _best(self, files: list[LockedFile]) -> LockedFile | None:
        by_name = {file.filename: file for file in reversed(files)}
        offers = [offer for name in by_name if (offer := wheels.offer_of(name)) is not None]
        return next((by_name[offer.filename] for offer in self._fit.best_first(offers)), None)

    def _locked(self, record: PackageRecord, file: FileRecord, source: Source | None = None) -> LockedFile | None:
        """Describe a file; None if nothing says where it is."""
        kind, place, _ = record.source
        url, path = file.url, file.path
        if path is not None and kind == "registry":
            path = posixpath.join(place, path)
        elif url is None and path is None and kind == "path":
            path = place
        elif url is None and path is None and kind == "url":
            url = place
        filename = file.filename or filename_of(url or path or "")
        if not filename or (url is None and path is None):
            return None
        return LockedFile(
            record.name,
            _version(record.version),
            filename,
            url,
            path,
            dict([file.hash] if file.hash is not None else []),
            file.size,
            direct=kind in ("url", "path"),
            index=place if kind == "registry" and is_url(place) else None,
            source=source,
        )

    def _archive(self, record: PackageRecord) -> LockedFile | None:
        """Describe the archive that it can be built of; None if there is none.

        :raises TreeError: its subdirectory makes no sense
        """
        is_direct = record.source.kind in ("url", "path") and not record.wheels
        file = record.sdist or (FileRecord(None, None, None, None, None) if is_direct else None)
        return None if file is None else self._locked(record, file, trees.archive(record.source.subdirectory))

    def _tree(self, record: PackageRecord) -> LockedFile:
        """Describe a directory or a repository.

        :raises TreeError: it makes no sense, or is not there
        :raises BlockedError: it may not be built
        """
        no_build = self._no_build(record)
        if record.source.kind == "git":
            git, what = _Git.of(record.source.place), "it comes from a git repository"
            if git.path:
                what = f"it is the file `{git.path[:80]}` in a git repository, which envsync does not look into"
                raise BlockedError(Blocker(f"package `{record.name}`: {what}", remedies.relock(self._path)))
            source = git.source(self._beside)
        else:
            what = "it comes from a directory"
            editable = record.source.kind == "editable" and self._choice.editable
            # That it is there is looked at last: who forbids to build hears of that.
            source = Source("") if no_build else trees.directory(self._beside, record.source.place, editable=editable)
        if no_build:
            project = ""
            if self._is_project(record):
                project = "workspace" if self._lock.members else "project"
            raise BlockedError(unbuilt(record.name, what, no_build, member_of=project))
        return LockedFile(record.name, _version(record.version), "", source=source)

    def _is_project(self, record: PackageRecord) -> bool:
        return record.name in self._lock.projects

    def _no_binary(self, name: str) -> str:
        """Tell what forbids to take a wheel; empty if nothing does."""
        return self._choice.forbids_wheel(name) or _said("no-binary", self._project.no_binary, name)

    def _no_build(self, record: PackageRecord) -> str:
        """Tell what forbids to build; empty if nothing does. In pyproject.toml, it does not count for members."""
        option = self._choice.forbids_build(record.name)
        return option or ("" if self._is_project(record) else _said("no-build", self._project.no_build, record.name))

    def _none(
        self, record: PackageRecord, filenames: list[str], source: LockedFile | None, no_binary: str, no_build: str
    ) -> Blocker:
        """Say why a record of files has none that can be taken."""
        about = f"package `{record.name}`: "
        look = _LOOK if "pyproject.toml" in no_binary + no_build else remedies.relock(self._path)
        if no_binary and no_build and source is not None and filenames:
            return Blocker(f"{about}{no_binary} and {no_build} leave nothing of it", look)
        if no_binary and filenames and source is None:
            return Blocker(f"{about}there are only wheels, which {no_binary} forbids", look)
        problem = wheels.no_fit(filenames, self._fit) if filenames else ""
        if source is None:
            other = self._fit.other_python(filenames)
            hint = remedies.other_python(other) if other else remedies.relock(self._path)
            return Blocker(about + (problem or "no file of it is named"), hint)
        what = f"there is only a source distribution (`{source.filename}`)"
        return unbuilt(record.name, f"{problem}, {what}" if problem else what, no_build)


class _Git(NamedTuple):
    """What the URL of a git repository says in uv.lock."""

    url: str
    commit: str
    reference: str = ""
    subdirectory: str = ""
    path: str = ""
    """Of a file in the repository that is what is meant."""
    lfs: bool = False

    @classmethod
    def of(cls, place: str) -> _Git:
        """Take the URL apart.

        :raises TreeError: it says one thing twice
        """
        try:
            parts = urlsplit(place)
            said = dict(parse_qsl(parts.query))
        except ValueError:
            raise trees.TreeError("the URL of its repository is malformed") from None
        references = [said[key] for key in REFERENCES if key in said]
        if len(references) > 1:
            raise trees.TreeError(f"its repository is asked for {' and '.join(references)}")
        reference, commit = "".join(references), parts.fragment
        if len(said.get("rev", "")) in COMMIT_DIGITS and not _is_hex_of(said["rev"], commit):
            raise trees.TreeError(f"its commit {commit[:80]} is not the one that was asked for, {reference[:80]}")
        return cls(
            urlunsplit(parts._replace(query="", fragment="")),
            commit,
            reference,
            said.get("subdirectory", ""),
            said.get("path", ""),
            said.get("lfs") == "true",
        )

    def source(self, beside: str) -> Source:
        """:raises TreeError: it makes no sense"""
        return trees.repository(
            self.url,
            self.commit,
            beside=beside,
            reference=self.reference,
            subdirectory=self.subdirectory,
            lfs=self.lfs,
        )


_LOOK = "`grep -nE 'no-(binary|build)' pyproject.toml` shows where"


def _said(key: str, forbidden: Forbidden, name: str) -> str:
    return f"`{key}` in pyproject.toml" if forbidden.forbids(name) else ""


def _is_hex_of(revision: str, commit: str) -> bool:
    return revision.lower() == commit.lower() or bool(revision.lower().strip("0123456789abcdef"))


def _hint(path: str, error: trees.TreeError) -> str:
    return error.hint or remedies.relock(path)


def _version(text: str | None) -> Version | None:
    try:
        return None if text is None else Version(text)
    except InvalidVersion:
        return None
