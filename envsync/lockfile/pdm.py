"""pdm.lock (lock version 4, with `inherit_metadata`): the groups and the marker of a package stand with it.

Without that strategy only a resolver could say what a group wants: such files are refused. The lock file does not say
which of its groups are extras, nor where packages come from: that stands in pyproject.toml beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby

from packaging.markers import Marker
from packaging.pylock import Package, PackageArchive, PackageDirectory, PackageVcs, Pylock
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies
from envsync.lockfile import translating
from envsync.lockfile.choice import Choice
from envsync.lockfile.parsed import read_input
from envsync.lockfile.python_ranges import alternatives
from envsync.lockfile.records import Record, of_toml
from envsync.lockfile.sources import MALFORMED_HINT, Sources, expanded, filename_of, host_of, well_formed
from envsync.lockfile.translating import Chosen, TranslatedFile
from envsync.system import paths

DEFAULT = "default"
"""The group of what the project itself requires."""
NEWEST = Version("4.5")
_ROOT = "file:///${PROJECT_ROOT}"
_VCS = ("git", "hg", "svn", "bzr")
_SYSTEMS = {"manylinux": "linux", "musllinux": "linux", "linux": "linux", "alpine": "linux"}
_SYSTEMS |= {"windows": "win32", "macos": "darwin"}
_MACHINES = {"x86_64": "x86_64 AMD64", "amd64": "x86_64 AMD64", "aarch64": "aarch64 arm64 ARM64"}
_MACHINES |= {"arm64": "aarch64 arm64 ARM64"}


def read(path: str) -> TranslatedFile:
    """Read a pdm.lock and the pyproject.toml beside it.

    :raises LockFileError: one cannot be read, is malformed, or does not say enough
    """
    content = read_input(path, path)
    lock = of_toml(path, content)
    metadata = lock.table("metadata", "metadata: ")
    _check(path, metadata)
    project_path = paths.join(os.path.dirname(path), "pyproject.toml")
    project_content = read_input(project_path, path, "which groups are extras stands in ")
    project = _Project(of_toml(project_path, project_content), os.path.dirname(project_path))
    packages = [package for package in _packages(lock.tables("package")) if package.name not in project.excluded]
    locked = frozenset(map(canonicalize_name, metadata.texts("groups"))) or project.extras | project.groups
    translated = Pylock(
        lock_version=Version("1.0"),
        environments=_environments(metadata),
        dependency_groups=sorted({DEFAULT, *project.extras, *project.groups}),
        created_by="pdm",
        packages=packages,
    )

    def choosing(choice: Choice) -> Chosen:
        return _chosen(choice, locked, project)

    contents = {path: content, project_path: project_content}
    narrowed = project.narrowed(package.name for package in packages)
    return TranslatedFile(contents, translated, choosing, _sources(project.sources), narrowed)


def _check(path: str, metadata: Record) -> None:
    """Check that the lock file says enough.

    :raises LockFileError: it does not
    """
    text = metadata.text("lock_version")
    try:
        version = Version(text)
    except InvalidVersion:
        raise LockFileError(path, "it does not say which version it is of: `lock_version` is malformed") from None
    if version.major != NEWEST.major or version.release[:2] > NEWEST.release:
        problem = f"its lock version {text} is not supported, envsync reads 4 up to {NEWEST}"
        raise LockFileError(path, problem, hint=f"{remedies.relock(path)}, with PDM 2")
    if "inherit_metadata" not in metadata.texts("strategy"):
        problem = "it was locked without `inherit_metadata` and does not say which packages belong to which group"
        raise LockFileError(path, problem, hint=f"{remedies.relock(path)[:-1]} -S inherit_metadata`")


def _environments(metadata: Record) -> list[Marker] | None:
    """Return a marker for each target that it was locked for; None if there is none, or one of them fits all."""
    markers = []
    for target in metadata.tables("targets"):
        for python in alternatives(target, "requires_python"):
            conditions = [python, *_of_platform(target.text("platform"))]
            implementation = target.text("implementation")
            conditions += [f'implementation_name == "{implementation}"'] if implementation else []
            markers.append(" and ".join(condition for condition in conditions if condition))
    return [metadata.marker(text) for text in markers] if markers and all(markers) else None


def _of_platform(name: str) -> Iterator[str]:
    """Write a platform as markers, as in `manylinux_2_17_x86_64`. That of a libc is left to the wheels' tags."""
    system = _SYSTEMS.get(name.partition("_")[0])
    if system is not None:
        yield f'sys_platform == "{system}"'
    machine = next((machines for end, machines in _MACHINES.items() if name.endswith(end)), None)
    if machine is not None:
        yield f'platform_machine in "{machine}"'


@dataclass(frozen=True, slots=True)
class _Source:
    """An index or a page with links that the project names."""

    url: str = field(repr=False)
    is_index: bool = True
    is_default: bool = False
    """It is asked instead of the library's default index."""
    trusted: bool = False
    includes: tuple[str, ...] = ()
    """Patterns of names of packages that come from this one only; likewise `excludes`."""
    excludes: tuple[str, ...] = ()

    def wants(self, name: str) -> bool | None:
        """Tell whether a package comes from here only, or not from here; None if nothing is said of it."""
        if any(fnmatchcase(name, pattern) for pattern in self.includes):
            return True
        return False if any(fnmatchcase(name, pattern) for pattern in self.excludes) else None


class _Project:
    """What pyproject.toml says that the lock file does not."""

    def __init__(self, root: Record, directory: str) -> None:
        """:raises LockFileError: something in it is of another type than it ought to be"""
        tool = root.table("tool").table("pdm", "tool.pdm: ")
        project = root.table("project")
        self.extras = frozenset(map(canonicalize_name, project.table("optional-dependencies")))
        developing = [*root.table("dependency-groups"), *tool.table("dev-dependencies")]
        self.groups = frozenset(map(canonicalize_name, developing))
        distributed = tool.flag("distribution", absent=True)
        if "package-type" in tool:
            distributed = tool.text("package-type") == "library"
        self.name = project.text("name") if distributed else ""
        self.version = project.text("version")
        self.excluded = frozenset(map(canonicalize_name, tool.table("resolution").texts("excludes")))
        self.sources = [_source(record, directory) for record in tool.tables("source")]

    def narrowed(self, names: Iterator[NormalizedName]) -> Mapping[NormalizedName, Sources]:
        """Find the packages that come from some of the sources only."""
        if not any(source.includes or source.excludes for source in self.sources):
            return {}
        return {name: _sources(self._allowed(name)) for name in names}

    def _allowed(self, name: str) -> list[_Source]:
        default = [] if any(source.is_default for source in self.sources) else [_Source("", is_default=True)]
        wanting = [(source, source.wants(name)) for source in (*default, *self.sources)]
        including = [source for source, wants in wanting if wants]
        return including or [source for source, wants in wanting if wants is None]


def _source(record: Record, directory: str) -> _Source:
    url = expanded(record.text("url").replace(_ROOT, paths.url_of(paths.abspath(directory))))
    if not url or not well_formed(url):
        raise LockFileError(record.path, f"{record.about}its URL is malformed", hint=MALFORMED_HINT)
    return _Source(
        url,
        is_index=record.text("type") != "find_links",
        is_default=record.text("name") == "pypi",
        trusted=not record.flag("verify_ssl", absent=True),
        includes=tuple(map(_pattern, record.texts("include_packages"))),
        excludes=tuple(map(_pattern, record.texts("exclude_packages"))),
    )


def _pattern(text: str) -> str:
    return text.lower().replace("_", "-").replace(".", "-")


def _sources(sources: list[_Source]) -> Sources:
    """Say where packages come from as the options do."""
    indexes = tuple(source.url for source in sources if source.is_index and source.url)
    asks_default = not any(source.is_default and source.url for source in sources)
    return Sources(
        index_urls=() if asks_default else indexes,
        extra_index_urls=indexes if asks_default else (),
        find_links=tuple(source.url for source in sources if not source.is_index),
        trusted_hosts=tuple(host_of(source.url) for source in sources if source.trusted),
    )


def _chosen(choice: Choice, locked: frozenset[str], project: _Project) -> Chosen:
    """Find out what is chosen: as `pdm sync` does, all that was locked if nothing is said.

    If extras are asked for, all groups for development are taken besides; if such groups are, no others are.

    :raises UndefinedError: an extra or a group is asked for that the project does not define or was not locked
    """
    developing = project.groups & locked
    asking = (choice.extras, choice.all_extras, choice.groups, choice.all_groups, choice.only_groups)
    if not any(asking) and not choice.no_default_groups:
        choice = replace(choice, all_extras=True)
    if not developing.isdisjoint(map(canonicalize_name, choice.groups)):
        choice = replace(choice, no_default_groups=True)
    extras = choice.extras_of(project.extras & locked)
    groups = choice.groups_of({DEFAULT, *developing}, developing)
    whole = not choice.only_groups
    if whole and DEFAULT not in choice.no_groups:
        groups |= {DEFAULT}
    name = project.name if whole and DEFAULT in groups else ""
    return Chosen(frozenset(), groups | extras, canonicalize_name(name), project.version)


def _packages(records: list[Record]) -> Iterator[Package]:
    """Translate all packages. One with extras is a record of its own: with the one without, it is one package.

    :raises LockFileError: one makes no sense
    """
    for _, same in groupby(sorted(records, key=_identity), key=_identity):
        each = list(same)
        wanted = [(group, record.text("marker")) for record in each for group in record.texts("groups")]
        if not wanted:
            raise each[0].refusal("it belongs to no group")
        named = [(canonicalize_name(group), marker) for group, marker in wanted]
        yield _package(each[0], translating.condition(each[0], named))


def _identity(record: Record) -> tuple[str, ...]:
    """Return what is the same in all records of one package."""
    place = [record.text(key) for key in ("version", "path", "url", *_VCS, "revision")]
    return (record.name(), *place)


def _package(record: Record, marker: str) -> Package:
    package = Package(name=record.name(), version=record.version(), marker=record.marker(marker))
    files = translating.files_of(record)
    path, url = record.text("path"), record.text("url")
    if url.startswith(_ROOT + "/"):
        path, url = url.removeprefix(_ROOT + "/"), ""
    system = next((system for system in _VCS if system in record), None)
    if system is not None:
        commit = record.text("revision") or record.text("ref") or "HEAD"
        below = record.text("subdirectory") or None
        asked = record.text("ref") or None
        vcs = PackageVcs(
            type=system, url=record.text(system), requested_revision=asked, commit_id=commit, subdirectory=below
        )
        return replace(package, vcs=vcs)
    if path and not filename_of(path).endswith((".whl", *translating.SDIST)):
        return replace(package, directory=PackageDirectory(path=path, editable=record.flag("editable")))
    if path or url:
        hashes = translating.hashes_of_archive(record, files)
        return replace(package, archive=PackageArchive(path=path or None, url=url or None, hashes=hashes))
    return translating.of_index(record, files, index=None, marker=marker)
