"""What is installed of an entry in the form of PEP 751: a wheel, or what has to be built, or why neither may be."""

from __future__ import annotations

import os
import posixpath

from packaging.pylock import Package, PackageArchive, PackageDirectory, PackageSdist, PackageVcs, PackageWheel

from envsync.errors import LockFileError, remedies
from envsync.errors.redact import redacted
from envsync.lockfile import trees, wheels
from envsync.lockfile.blockers import BlockedError, Blocker, unbuilt
from envsync.lockfile.choice import Choice
from envsync.lockfile.places import NOWHERE, LockedFile
from envsync.lockfile.sources import filename_of
from envsync.lockfile.target import Source
from envsync.system import paths

File = PackageWheel | PackageSdist | PackageArchive | PackageDirectory | PackageVcs
GIT = "git"


class Entries:
    """Tells of one lock file what is installed of an entry.

    :param path: the lock file
    :param choice: what it forbids is not installed
    """

    def __init__(self, path: str, choice: Choice, fit: wheels.Fit, *, relock: str) -> None:
        self._beside = os.path.dirname(paths.abspath(path))
        self._choice = choice
        self._fit = fit
        self._relock = relock

    def prefers_sdist(self, name: str) -> bool:
        """Tell whether a package is built though there is a wheel."""
        return not self._choice.may_be_wheel(name)

    def of(self, package: Package, file: File) -> LockedFile:
        """Return what to install.

        :param file: that was selected, or the directory or repository that it comes from
        :raises BlockedError: it may not be, or makes no sense
        """
        no_build = self._choice.forbids_build(package.name)
        try:
            if isinstance(file, (PackageDirectory, PackageVcs)):
                source = self._tree(package, file, no_build)
                return LockedFile(package.name, package.version, "", source=source)
            filename = filename_of(file.path or file.url or "") if isinstance(file, PackageArchive) else file.filename
            if isinstance(file, PackageWheel) or (isinstance(file, PackageArchive) and filename.endswith(".whl")):
                self._check_wheel(package.name)
                return _locked(package, file, filename)
            if no_build:
                raise BlockedError(unbuilt(package.name, self._lacking(package, filename), no_build))
            below = file.subdirectory or "" if isinstance(file, PackageArchive) else ""
            return _locked(package, file, filename, trees.archive(below))
        except trees.TreeError as error:
            problem = f"package `{package.name}`: {error}"
            raise BlockedError(Blocker(problem, error.hint or self._relock, kind=LockFileError)) from None

    def _check_wheel(self, name: str) -> None:
        no_binary = self._choice.forbids_wheel(name)
        if no_binary:
            problem = f"package `{name}`: there are only wheels, which {no_binary} forbids"
            raise BlockedError(Blocker(problem, f"leave it out with `envsync sync --no-install-package {name}`"))

    def _lacking(self, package: Package, filename: str) -> str:
        """Say why it has to be built."""
        if package.archive is not None:
            return f"it is an archive of sources (`{filename}`)"
        only = f"there is only a source distribution (`{filename}`)"
        names = [wheel.filename for wheel in package.wheels or ()]
        if names and not self.prefers_sdist(package.name):
            return f"{wheels.no_fit(names, self._fit)}, {only}"
        return only

    def _tree(self, package: Package, file: PackageDirectory | PackageVcs, no_build: str) -> Source:
        """Describe a directory or a repository.

        :raises TreeError: it makes no sense, or is not there
        :raises BlockedError: it may not be built
        """
        if no_build:
            what = "it comes from a directory" if package.directory else "it comes from a repository"
            raise BlockedError(
                unbuilt(package.name, what, no_build, member_of="project" if is_project(package) else "")
            )
        if isinstance(file, PackageDirectory):
            editable = bool(file.editable) and self._choice.editable
            return trees.directory(self._beside, file.path, editable=editable, subdirectory=file.subdirectory or "")
        if file.type != GIT:
            problem = (
                f"package `{package.name}`: it comes from a repository of `{file.type[:20]}`, and envsync knows git"
            )
            raise BlockedError(Blocker(problem, build=self._place(file)))
        return trees.repository(
            file.url or file.path or "",
            file.commit_id,
            beside=self._beside,
            reference=file.requested_revision or "",
            subdirectory=file.subdirectory or "",
        )

    def _place(self, vcs: PackageVcs) -> str:
        """Say where a repository is, as pip takes it."""
        url = vcs.url or paths.url_of(paths.abspath(paths.join(self._beside, vcs.path or "")))
        below = f"#subdirectory={vcs.subdirectory}" if vcs.subdirectory else ""
        return f"{vcs.type}+{redacted(url)}@{vcs.commit_id}{below}"


def is_project(package: Package) -> bool:
    """Tell whether it is the project itself: the directory that the lock file is in."""
    return package.directory is not None and posixpath.normpath(package.directory.path) == "."


def no_fit(package: Package, fit: wheels.Fit) -> Blocker | None:
    """Say that neither a wheel fits nor anything can be built; None if that is not so."""
    names = [wheel.filename for wheel in package.wheels or ()]
    if package.sdist is not None or not names or any(fit.fits(wheels.WheelName(name).tags) for name in names):
        return None
    problem = f"package `{package.name}`: {wheels.no_fit(names, fit)}"
    python = fit.other_python(names)
    build = f"{package.name}=={package.version}" if package.version else package.name
    return Blocker(problem, remedies.other_python(python) if python else "", build)


def _locked(
    package: Package, file: PackageWheel | PackageSdist | PackageArchive, filename: str, source: Source | None = None
) -> LockedFile:
    return LockedFile(
        package.name,
        package.version,
        filename,
        None if file.url == NOWHERE else file.url,
        file.path,
        file.hashes,
        file.size,
        direct=isinstance(file, PackageArchive),
        index=package.index,
        source=source,
    )
