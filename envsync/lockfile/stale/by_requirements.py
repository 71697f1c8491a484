"""Does uv.lock have what the pyproject.toml of its project and its members ask for?

uv keeps in each member's record what it was made from: version, requirements, groups, extras. Compared are these, and
Requires-Python, default groups, constraints, overrides and the list of members. Not compared: settings of the
resolution, indexes, and the trees that are no members. What `tool.uv.sources` replaces is compared where it is plain.
What a verdict is worth: `by_hash`. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from packaging.dependency_groups import DependencyGroupResolver
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.errors.redact import redacted
from envsync.lockfile.choice import DEFAULT_GROUP
from envsync.lockfile.stale import equivalence
from envsync.lockfile.stale.by_hash import Table, Verdict
from envsync.lockfile.stale.equivalence import Wish

ROOT = "."
_WORKSPACE = "the workspace"
_TREES = ("editable", "virtual", "directory")
_DIRECT = (*_TREES, "url", "path", "git")
_BUILT = frozenset({"dependencies", "optional-dependencies"})
_REQUIRED = frozenset({"dependencies", "optional-dependencies", "dev-dependencies"})
"""Who has one of these and no metadata was written without; who has none may have nothing to keep."""
_REVISION_OF_EXTRAS = 1
_REVISION_OF_DEFAULTS = 5


def of_uv(lock: Table, projects: Mapping[str, Table]) -> Verdict:
    """Compare a uv.lock with what it was made from.

    :param projects: the pyproject.toml of the root (`.`) and of each member of its workspace, by their directories
        relative to the lock file
    """
    try:
        comparison = _Comparison(lock, projects)
        differences = tuple(dict.fromkeys(redacted(each) for each in comparison.differences()))
    except (InvalidRequirement, InvalidSpecifier, InvalidVersion, ExceptionGroup, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        return Verdict(unchecked=redacted(f"what pyproject.toml says is not understood ({said})"))
    return Verdict(differences, "; ".join(dict.fromkeys(comparison.unchecked)))


def of_script(lock: Table, metadata: Table) -> Verdict:
    """Compare the lock file of a script with what that says of itself.

    :param metadata: the table that is written in the script (PEP 723)
    """
    try:
        comparison = _Comparison(lock, {ROOT: metadata})
        differences = tuple(dict.fromkeys(redacted(each) for each in comparison.of_script(metadata)))
    except (InvalidRequirement, InvalidSpecifier, InvalidVersion, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        return Verdict(unchecked=redacted(f"what the script says is not understood ({said})"))
    return Verdict(differences)


class _Comparison:
    """One comparison, and what it could not look at."""

    def __init__(self, lock: Table, projects: Mapping[str, Table]) -> None:
        self._lock = lock
        self._projects = projects
        self._revision = lock.get("revision", 0)
        self._pythons = SpecifierSet(lock.get("requires-python", ""))
        self._records = {_place(record): record for record in lock.get("package", ()) if _place(record)}
        self.unchecked: list[str] = []

    def differences(self) -> Iterator[str]:
        """Yield all that is found."""
        yield from self._of_members()
        yield from self._of_python()
        yield from self._of_bounds()
        for place, project in self._projects.items():
            if "project" not in project:
                manifest = self._lock.get("manifest", {})
                yield from self._of_groups(_WORKSPACE, project, manifest.get("dependency-groups", {}))
                yield from self._of_defaults(_WORKSPACE, project, manifest)
            elif (record := self._records.get(place)) is not None:
                yield from self._of_project(project, record)

    def of_script(self, metadata: Table) -> Iterator[str]:
        """Yield what is found of a script."""
        stated = metadata.get("requires-python")
        if stated is not None and not equivalence.are_same(SpecifierSet(stated), self._pythons):
            yield f"`requires-python` is `{stated}`, and in the lock file `{self._lock.get('requires-python')}`"
        declared = self._declared(metadata, metadata.get("dependencies", ()), "")
        locked = self._lock.get("manifest", {}).get("requirements", ())
        yield from self._compared("the script", declared, locked, metadata)

    def _of_members(self) -> Iterator[str]:
        names = {_name(project): place for place, project in self._projects.items() if "project" in project}
        kept = self._lock.get("manifest", {}).get("members")
        locked = set(kept) if kept is not None else {record["name"] for record in self._alone()}
        for name in sorted(names.keys() - locked):
            yield f"`{name}` is a member of the workspace"
        for name in sorted(locked - names.keys()):
            yield f"`{name}` is no member of the workspace"

    def _alone(self) -> Iterator[Table]:
        """Yield the record of a project without a workspace."""
        if ROOT in self._records:
            yield self._records[ROOT]

    def _of_python(self) -> Iterator[str]:
        stated = [table["project"]["requires-python"] for table in self._projects.values() if _states_python(table)]
        if not stated or any(_uv(table).get("dependency-groups") for table in self._projects.values()):
            return
        asked = SpecifierSet(",".join(stated))
        locked = str(self._lock.get("requires-python", ""))
        if not equivalence.are_same(asked, self._pythons):
            yield f"`requires-python` is `{asked}`, and in the lock file `{locked}`"

    def _of_bounds(self) -> Iterator[str]:
        """Compare what the root says of requirements of others: constraints and overrides."""
        root, manifest = self._projects.get(ROOT, {}), self._lock.get("manifest", {})
        for word in ("constraint", "override"):
            declared = self._declared(root, _uv(root).get(f"{word}-dependencies", ()), "")
            yield from self._compared(f"as {word}, it", declared, manifest.get(f"{word}s", ()), root)

    def _of_project(self, project: Table, record: Table) -> Iterator[str]:
        name = _name(project)
        dynamic = frozenset(project["project"].get("dynamic", ()))
        yield from self._of_version(name, project, record, dynamic)
        yield from self._of_package(name, project, record)
        if dynamic & _BUILT or self._is_replaced(name):
            self.unchecked.append(f"what `{name}` requires is known only once it is built")
            return
        if "metadata" not in record and not _REQUIRED.isdisjoint(record):
            self.unchecked.append(f"it does not keep what `{name}` requires")
            return
        kept = record.get("metadata", {})
        extras = project["project"].get("optional-dependencies", {})
        if self._revision >= _REVISION_OF_EXTRAS:
            yield from _sets(f"`{name}`", "extra", map(canonicalize_name, extras), kept.get("provides-extras", ()))
        if "version" in dynamic and any(name in map(_named, listed) for listed in extras.values()):
            self.unchecked.append(f"the extras of `{name}` refer to each other, and its version is dynamic")
        else:
            declared = [*self._declared(project, project["project"].get("dependencies", ()), "")]
            for extra, listed in extras.items():
                declared += self._declared(project, listed, canonicalize_name(extra))
            yield from self._compared(f"`{name}`", declared, kept.get("requires-dist", ()), project)
        yield from self._of_groups(f"`{name}`", project, kept.get("requires-dev", {}))
        yield from self._of_defaults(f"`{name}`", project, record)

    def _is_replaced(self, name: str) -> bool:
        """Tell whether uv is told what a package requires, whatever its project says."""
        tables = [_uv(project).get("dependency-metadata", ()) for project in self._projects.values()]
        return any(canonicalize_name(entry.get("name", "")) == name for listed in tables for entry in listed)

    def _of_version(self, name: str, project: Table, record: Table, dynamic: Collection[str]) -> Iterator[str]:
        version, locked = project["project"].get("version"), record.get("version")
        if "version" in dynamic:
            if locked is not None:
                yield f"the version of `{name}` is dynamic, and in the lock file {locked}"
        elif version is None or locked is None:
            yield f"the version of `{name}` is {version}, and in the lock file {locked or 'dynamic'}"
        elif Version(version) != Version(locked):
            yield f"the version of `{name}` is {version}, and in the lock file {locked}"

    def _of_package(self, name: str, project: Table, record: Table) -> Iterator[str]:
        """Is it installed itself, or only what it requires?"""
        told = _uv(project).get("package")
        required = any(name in self._sources(each) for each in self._projects.values())
        if told is None and required:
            return  # whoever requires it says what becomes of it
        if (is_virtual := not (("build-system" in project) if told is None else told)) != (
            "virtual" in record["source"]
        ):
            becomes = "is no package to be installed" if is_virtual else "is a package to be installed"
            yield f"`{name}` {becomes}, and the lock file has it otherwise"

    def _of_groups(self, owner: str, project: Table, locked: Table) -> Iterator[str]:
        groups = dict(DependencyGroupResolver(project.get("dependency-groups", {})).dependency_groups)
        resolver = DependencyGroupResolver(groups)
        declared = {str(name): [*self._wished(project, resolver.resolve(name))] for name in groups}
        if (legacy := _uv(project).get("dev-dependencies")) is not None:
            declared.setdefault(DEFAULT_GROUP, []).extend(self._declared(project, legacy, ""))
        kept = dict(locked)
        if self._revision < _REVISION_OF_EXTRAS or owner == _WORKSPACE:
            declared = {name: wishes for name, wishes in declared.items() if wishes}
            kept = {name: entries for name, entries in kept.items() if entries}
        yield from _sets(owner, "group", declared, kept)
        restricted = set(map(canonicalize_name, _uv(project).get("dependency-groups", {})))
        for name in sorted(declared.keys() & kept.keys() - restricted):
            yield from self._compared(f"group `{name}` of {owner}", declared[name], kept[name], project)

    def _of_defaults(self, owner: str, project: Table, record: Table) -> Iterator[str]:
        if self._revision < _REVISION_OF_DEFAULTS:
            return
        asked, locked = (table.get("default-groups", [DEFAULT_GROUP]) for table in (_uv(project), record))
        if _as_set(asked) != _as_set(locked):
            yield f"the default groups of {owner} are {_shown(asked)}, and in the lock file {_shown(locked)}"

    # Requirements

    def _sources(self, project: Table) -> dict[str, Any]:
        """Say what is taken from elsewhere, by name: what the member says goes before what the root says."""
        found: dict[str, Any] = {}
        for table in (self._projects.get(ROOT, {}), project):
            found |= {canonicalize_name(name): value for name, value in _uv(table).get("sources", {}).items()}
        return found

    def _declared(self, project: Table, listed: Iterable[str], extra: str) -> Iterator[Wish]:
        return self._wished(project, map(Requirement, listed), extra)

    def _wished(self, project: Table, requirements: Iterable[Requirement], extra: str = "") -> Iterator[Wish]:
        sources = self._sources(project)
        for requirement in requirements:
            source = sources.get(canonicalize_name(requirement.name))
            place = bool(requirement.url) or (isinstance(source, dict) and "index" not in source)
            marker = str(requirement.marker or "")
            if extra:
                marker = f'({marker}) and extra == "{extra}"' if marker else f'extra == "{extra}"'
            yield _wish(requirement, marker, is_place=place, text=str(requirement))

    def _compared(self, owner: str, declared: Iterable[Wish], locked: Iterable[Table], project: Table) -> Iterator[str]:
        sources = self._sources(project)
        own = set(map(canonicalize_name, _uv(project).get("sources", {})))
        # Whether what the root says was heeded for a member depends on how uv came to know what that requires.
        loose = {name for name, source in sources.items() if name not in own or not _is_plain(source)}
        if any("no-sources" in _uv(each) or "no-sources-package" in _uv(each) for each in self._projects.values()):
            loose |= sources.keys()
        entries = list(locked)
        asked, kept = _by_name(declared), _by_name(map(_locked, entries))
        for name in dict.fromkeys([*asked, *kept]):
            ours, theirs = asked.get(name, []), kept.get(name, [])
            if name in loose and ours and theirs:
                ours, theirs = ([wish._replace(versions=None, marker="") for wish in each] for each in (ours, theirs))
            if not equivalence.alike(ours, theirs, self._pythons):
                yield f"{owner} {_otherwise(ours, theirs)}"
        yield from _of_git(owner, sources, loose, entries)


def _of_git(owner: str, sources: Mapping[str, Any], loose: Collection[str], entries: Iterable[Table]) -> Iterator[str]:
    """Compare the tag, branch or revision that is asked for."""
    for entry in entries:
        source = sources.get(entry["name"])
        if entry["name"] in loose or not isinstance(source, dict) or "git" not in source or "git" not in entry:
            continue
        asked = parse_qs(urlsplit(entry["git"]).query)
        for word in ("tag", "branch", "rev"):
            if source.get(word) != asked.get(word, [None])[0]:
                there = asked.get(word, ["none"])[0]
                yield f"{owner} requires {word} `{source.get(word, 'none')}` of `{entry['name']}`, and not `{there}`"


def _by_name(wishes: Iterable[Wish]) -> dict[str, list[Wish]]:
    found: dict[str, list[Wish]] = {}
    for wish in wishes:
        found.setdefault(wish.name, []).append(wish)
    return found


def _otherwise(ours: Sequence[Wish], theirs: Sequence[Wish]) -> str:
    """Say what differs of one name."""
    known, asked = ({wish[:-1] for wish in wishes} for wishes in (theirs, ours))
    new = [wish.text for wish in ours if wish[:-1] not in known]
    old = [wish.text for wish in theirs if wish[:-1] not in asked]
    if not new:
        return f"no longer requires `{old[0]}`"
    return f"requires `{new[0]}`" + (f", and in the lock file it is `{old[0]}`" if old else "")


def _locked(entry: Table) -> Wish:
    """Understand a requirement as uv keeps it."""
    extras = ",".join(entry.get("extras", ()))
    text = f"{entry['name']}{f'[{extras}]' if extras else ''}{entry.get('specifier', '')}"
    marker = entry.get("marker", "")
    place = any(word in entry for word in _DIRECT)
    return _wish(Requirement(text), marker, is_place=place, text=f"{text}; {marker}" if marker else text)


def _wish(requirement: Requirement, marker: str, *, is_place: bool, text: str) -> Wish:
    return Wish(
        canonicalize_name(requirement.name),
        frozenset(map(canonicalize_name, requirement.extras)),
        None if is_place else requirement.specifier,
        equivalence.normal(marker),
        text,
    )


def _is_plain(source: object) -> bool:
    """Tell whether it replaces all requirements of a name by one."""
    return isinstance(source, dict) and not {"marker", "extra", "group"} & source.keys()


def _sets(owner: str, kind: str, asked: Iterable[str], locked: Iterable[str]) -> Iterator[str]:
    ours, theirs = set(asked), set(locked)
    for name in sorted(ours - theirs):
        yield f"{owner} has the {kind} `{name}`"
    for name in sorted(theirs - ours):
        yield f"{owner} no longer has the {kind} `{name}`"


def _place(record: Table) -> str:
    """Return where a local tree is, relative to the lock file; empty for anything else."""
    source = record.get("source", {})
    return next((str(source[kind]) for kind in _TREES if kind in source), "")


def _uv(project: Table) -> Table:
    table: Table = project.get("tool", {}).get("uv", {})
    return table


def _name(project: Table) -> str:
    return canonicalize_name(project["project"]["name"])


def _named(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _states_python(project: Table) -> bool:
    return "requires-python" in project.get("project", {})


def _as_set(groups: Any) -> Any:
    return groups if isinstance(groups, str) else set(map(canonicalize_name, groups))


def _shown(groups: Any) -> str:
    return f"`{groups}`" if isinstance(groups, str) else ", ".join(f"`{each}`" for each in groups) or "none"
