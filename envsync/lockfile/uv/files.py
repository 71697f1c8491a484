"""Which file of a record of uv.lock is taken, or what keeps the record from being installed. Pure."""

from __future__ import annotations

import os
import posixpath
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.version import InvalidVersion, Version

from envsync.errors import remedies
from envsync.errors.redact import redacted
from envsync.lockfile import wheels
from envsync.lockfile.blockers import BlockedError, Blocker, of_project
from envsync.lockfile.places import LockedFile
from envsync.lockfile.sources import filename_of, is_url
from envsync.lockfile.uv.project import Project
from envsync.lockfile.uv.records import FileRecord, Lock, PackageRecord

LEAVE_OUT_WORKSPACE = "leave the members of the workspace out with `envsync sync --no-install-workspace`"


class Files:
    """Tells of one uv.lock which file of a record is taken.

    :param path: the lock file
    :param project: what pyproject.toml in its directory forbids
    """

    def __init__(self, path: str, lock: Lock, project: Project, fit: wheels.Fit) -> None:
        self._path = path
        self._lock = lock
        self._project = project
        self._fit = fit

    def of(self, record: PackageRecord) -> LockedFile:
        """Return the file to install.

        :raises BlockedError: there is none
        """
        about = f"package `{record.name}`: "
        if record.directory is not None or record.source.kind == "git":
            raise BlockedError(self._tree(record, about))
        found = [file for file in (self._locked(record, each) for each in record.wheels) if file is not None]
        if not self._project.no_binary.forbids(record.name):
            best = self._best(found)
            if best is not None:
                return best
        raise BlockedError(self._none(record, about, [file.filename for file in found]))

    def _best(self, files: list[LockedFile]) -> LockedFile | None:
        by_name = {file.filename: file for file in reversed(files)}
        offers = [offer for name in by_name if (offer := wheels.offer_of(name)) is not None]
        return next((by_name[offer.filename] for offer in self._fit.best_first(offers)), None)

    def _locked(self, record: PackageRecord, file: FileRecord) -> LockedFile | None:
        """Describe a wheel; None if nothing says where it is."""
        kind, place, _ = record.source
        url, path = file.url, file.path
        if path is not None and kind == "registry":
            path = posixpath.join(place, path)
        elif url is None and path is None and kind == "path":
            path = place
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
        )

    def _tree(self, record: PackageRecord, about: str) -> Blocker:
        """Say that a directory or repository has to be built."""
        if self._project.no_build.forbids(record.name) and not self._is_project(record):
            return Blocker(f"{about}it would have to be built, which `no-build` in pyproject.toml forbids", _LOOK)
        if record.source.kind == "git":
            what = "it comes from a version control repository"
            return Blocker(f"{about}{what}, and envsync installs wheels", build=_repository(record))
        if not self._is_project(record):
            place = os.path.join(os.path.dirname(self._path) or ".", record.source.place)
            return Blocker(f"{about}it comes from a directory, and envsync installs wheels", build=place)
        if self._lock.members:
            return Blocker(f"{about}it is a member of the workspace, and envsync installs wheels", LEAVE_OUT_WORKSPACE)
        return of_project(record.name)

    def _is_project(self, record: PackageRecord) -> bool:
        return record.name in self._lock.projects

    def _none(self, record: PackageRecord, about: str, filenames: list[str]) -> Blocker:
        """Say why a record of files has none that can be taken."""
        no_binary = self._project.no_binary.forbids(record.name)
        no_build = self._project.no_build.forbids(record.name)
        source = self._source(record)
        if no_binary and no_build:
            return Blocker(f"{about}`no-binary` and `no-build` in pyproject.toml leave nothing of it", _LOOK)
        if no_binary and source is None:
            return Blocker(f"{about}there are only wheels, which `no-binary` in pyproject.toml forbids", _LOOK)
        problem = ""
        if no_binary:
            problem = "its wheels are forbidden by `no-binary` in pyproject.toml, "
        elif filenames:
            problem = wheels.no_fit(filenames, self._fit) + ("" if source is None else ", ")
        if source is None:
            other = self._fit.other_python(filenames)
            hint = remedies.other_python(other) if other else remedies.relock(self._path)
            return Blocker(about + (problem or "no file of it is named"), hint)
        if no_build:
            what = f"there is only a source distribution (`{source}`), which `no-build` in pyproject.toml forbids"
            return Blocker(about + problem + what, _LOOK)
        return Blocker(about + problem + wheels.only_source(source), build=self._place(record))

    def _source(self, record: PackageRecord) -> str | None:
        """Return the name of what it could be built from."""
        if record.sdist is not None and (record.sdist.url or record.sdist.path):
            return filename_of(record.sdist.url or record.sdist.path or "")
        if record.source.kind in ("url", "path") and not record.wheels:
            return filename_of(record.source.place)
        return None

    def _place(self, record: PackageRecord) -> str:
        """Say what would be built, as pip takes it."""
        if record.source.kind == "path":
            return os.path.join(os.path.dirname(self._path) or ".", record.source.place)
        if record.source.kind == "url":
            return redacted(record.source.place)
        return f"{record.name}=={record.version}" if record.version else record.name


_LOOK = "`grep -nE 'no-(binary|build)' pyproject.toml` shows where"


def _version(text: str | None) -> Version | None:
    try:
        return None if text is None else Version(text)
    except InvalidVersion:
        return None


def _repository(record: PackageRecord) -> str:
    """Say which commit of a repository it is, as pip takes it."""
    parts = urlsplit(record.source.place)
    queries = dict(each.partition("=")[::2] for each in parts.query.split("&"))
    url = redacted(urlunsplit(parts._replace(query="", fragment="")))
    below = f"#subdirectory={unquote(queries['subdirectory'])}" if queries.get("subdirectory") else ""
    return f"git+{url}@{parts.fragment}{below}"
