"""One requirement: what it pins a package to, a version, a file at a URL or path, or a tree of sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.lockfile import addresses, hashes, trees
from envsync.lockfile.addresses import Address
from envsync.lockfile.grammar import GrammarError, Line, UnpinnedError
from envsync.lockfile.sources import filename_of, is_url
from envsync.lockfile.target import GIT, Source
from envsync.lockfile.wheels import Pin, WheelName
from envsync.system import core

_NAMED = re.compile(r"[\w.-]+\s*(\[[^\]]*\])?\s*@")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_AT_URL = re.compile(r"(?P<place>\S+?)(?P<extras>\[[\w,.-]*\])?(\s+;\s*(?P<marker>.+))?")
_AT_PATH = re.compile(r"(?P<place>[^;]+?)\s*(?P<extras>\[[\w\s,.-]*\])?\s*(;\s*(?P<marker>.+))?")
_FORMS = (
    "each line is like `name==1.0`, `name @ https://host/name-1.0-py3-none-any.whl`, `./directory` or a wheel's path"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A requirement or constraint.

    At most one of `path` and `url` is set, of a file; then `specifier` is the version in the file name of a wheel.
    """

    name: str
    """Normalized."""
    specifier: SpecifierSet
    where: str
    """File and line, for messages."""
    marker: Marker | None = None
    hashes: tuple[tuple[str, str], ...] = ()
    path: str | None = None
    """Absolute."""
    url: str | None = field(default=None, repr=False)
    extras: frozenset[str] = frozenset()
    """Normalized."""
    source: Source | None = None
    """What has to be built, of a direct reference; None: it is a wheel."""
    own: Line = field(default=Line(), repr=False)
    """The line, for its options; of what a lock file of another kind refers to, an empty one."""

    @property
    def direct(self) -> bool:
        return self.path is not None or self.url is not None or self.source is not None

    @property
    def is_file(self) -> bool:
        """Whether it is a direct reference to a file, be it a wheel or an archive."""
        return self.path is not None or self.url is not None

    @property
    def is_commit(self) -> bool:
        return self.source is not None and self.source.kind == GIT

    @property
    def filename(self) -> str:
        """The file's name, of a direct reference; empty if there is none."""
        return filename_of(self.path or self.url or "")

    @property
    def shown(self) -> str:
        """What it is, for messages, with what is literal in backticks."""
        if not self.direct:
            return f"`{self.name}{self.specifier}`"
        return f"`{self.filename}`" if self.source is None or self.is_file else addresses.shown(self.source)

    @property
    def pinned(self) -> str | None:
        """The version that it is pinned to."""
        return next(
            (s.version for s in self.specifier if s.operator in ("==", "===") and not s.version.endswith(".*")),
            None,
        )

    @property
    def pin(self) -> Pin:
        return Pin(self.name, self.specifier, self.hashes)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two references that ask for the same."""
        if self.direct:
            return self.path, self.url, self.source, frozenset(self.hashes)
        try:
            return Version(self.pinned or ""), frozenset(self.hashes)
        except InvalidVersion:
            return self.pinned, frozenset(self.hashes)


Naming = Callable[[str, bool], str]
"""Gives the normalized name of the project in a directory, be it editable or not, or raises GrammarError."""


def parse(line: Line, directory: str, where: str, naming: Naming) -> Reference:
    """Parse a requirement.

    :param directory: what relative paths are relative to
    :param naming: is asked where the line does not say the name
    :raises GrammarError: it is malformed, or refers to what cannot be installed
    """
    return replace(_parse(line, directory, where, naming), own=line)


def _parse(line: Line, directory: str, where: str, naming: Naming) -> Reference:
    try:
        strong = tuple(pair for pair in hashes.check(line.hashes) if pair[0] not in hashes.WEAK)
    except hashes.HashError as error:
        raise GrammarError(str(error), "lock again with SHA-256 hashes") from error
    text = line.requirement
    if _is_place(text) or (line.editable and not _NAMED.match(text)):
        return _unnamed(line, directory, where, strong, naming)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        # Its further lines quote the requirement, with what variables stand for.
        reason = str(error).splitlines()[0]
        raise GrammarError(f"it is not a requirement: {reason[:1].lower()}{reason[1:]}", _FORMS) from None
    name = canonicalize_name(requirement.name)
    extras = frozenset(map(canonicalize_name, requirement.extras))
    if requirement.url is not None:
        address = addresses.parse(requirement.url, directory, editable=line.editable)
        reference = _at(address, name, where, strong)
        if reference.name != name:
            raise GrammarError(f"`{name}` is at a wheel of `{reference.name}`", "correct the name or the URL")
        return replace(reference, marker=requirement.marker, extras=extras)
    if line.editable:
        raise GrammarError("what is editable has to be a directory or a commit", "remove the `-e`")
    return Reference(name, requirement.specifier, where, requirement.marker, strong, extras=extras)


def _is_place(text: str) -> bool:
    """Tell a URL or a path from a requirement that begins with a name."""
    first = re.split(r"[\s;\[]", text, maxsplit=1)[0]
    if _NAMED.match(text):
        return False
    is_file = first.endswith(".whl") or trees.is_archive(first)
    return bool(_SCHEME.match(text)) or core.has_directory(first) or first.startswith(".") or is_file


def _unnamed(line: Line, directory: str, where: str, strong: tuple[tuple[str, str], ...], naming: Naming) -> Reference:
    match = (_AT_URL if is_url(line.requirement) else _AT_PATH).fullmatch(line.requirement)
    if match is None:
        raise GrammarError("it is neither a requirement nor a URL or path")
    address = addresses.parse(match["place"], directory, editable=line.editable)
    extras = frozenset(canonicalize_name(each) for each in re.findall(r"[\w.-]+", match["extras"] or ""))
    name = "" if address.source is None else _name_of(address, naming)
    reference = replace(_at(address, name, where, strong), extras=extras | address.extras)
    if match["marker"] is None:
        return reference
    try:
        return replace(reference, marker=Marker(match["marker"]))
    except InvalidMarker as error:
        raise GrammarError(f"it has a malformed marker: {str(error).splitlines()[0]}") from None


def _name_of(address: Address, naming: Naming) -> str:
    """Return the name of what has to be built, where the line does not begin with it."""
    assert address.source is not None
    if address.egg:
        return address.egg
    if address.tree:
        return naming(address.tree, address.source.editable)
    name, _ = addresses.named_by(address.filename)
    if not name:
        what = f"`{address.filename}`" if address.filename else addresses.shown(address.source)
        raise GrammarError(f"{what} does not say what the project is called", "begin the line with `NAME @ `")
    return name


def _at(address: Address, name: str, where: str, strong: tuple[tuple[str, str], ...]) -> Reference:
    """Make a reference to what is at a URL or path.

    :param name: of what has to be built; a wheel says its own
    """
    specifier = SpecifierSet()
    if address.source is None:
        try:
            wheel = WheelName(address.filename)
        except ValueError as error:
            problem = f"`{address.filename}` is not a wheel's file name"
            raise GrammarError(problem, "rename it to what its metadata says") from error
        name, specifier = wheel.name, SpecifierSet(f"=={wheel.version}")
    return Reference(
        name=name,
        specifier=specifier,
        where=where,
        hashes=strong or address.hashes,
        path=address.path,
        url=address.url,
        source=address.source,
    )


def constrained(reference: Reference, constraints: Iterable[Reference]) -> Reference:
    """Apply the constraints of the same name; they may pin what is not pinned, say where it is, and give it hashes.

    :raises GrammarError: they contradict the reference, or it is not pinned even so
    """
    for constraint in constraints:
        against = f"the constraint {constraint.shown} ({constraint.where})"
        combined = replace(
            _placed(reference, constraint, against),
            specifier=reference.specifier & constraint.specifier,
            hashes=reference.hashes or constraint.hashes,
        )
        if combined.pinned is not None and not combined.specifier.contains(combined.pinned, prereleases=True):
            raise GrammarError(f"{reference.shown} contradicts {against}", "lock again, so that both agree")
        reference = combined
    if reference.source is not None and reference.pinned is None:
        return _of_stated_version(reference)
    if reference.pinned is None:
        raise UnpinnedError(f"{reference.shown} is not pinned to one version")
    if not reference.specifier.contains(reference.pinned, prereleases=True):
        raise GrammarError(f"{reference.shown} contradicts itself")
    return reference


def _placed(reference: Reference, constraint: Reference, against: str) -> Reference:
    """Take a reference from where a constraint says that it is, if it does."""
    if not constraint.direct:
        return reference
    if reference.direct and (reference.path, reference.url, reference.source) != (
        constraint.path,
        constraint.url,
        constraint.source,
    ):
        raise GrammarError(f"{reference.shown} contradicts {against}", "lock again, so that both agree")
    return replace(reference, path=constraint.path, url=constraint.url, source=constraint.source)


def _of_stated_version(reference: Reference) -> Reference:
    """Check what is asked of the version of what has to be built, as far as that is known before it is.

    :raises GrammarError: it is not known, or another one
    """
    if not reference.specifier:
        return reference
    name, version = addresses.named_by(reference.filename)
    if name != reference.name:
        problem = (
            f"the version of {reference.shown} is known only when it is built, and `{reference.specifier}` is asked"
        )
        raise GrammarError(problem, f"pin it there: `{reference.name}==VERSION`")
    if not reference.specifier.contains(version, prereleases=True):
        raise GrammarError(
            f"`{reference.filename}` contradicts `{reference.specifier}`", "lock again, so that both agree"
        )
    return replace(reference, specifier=reference.specifier & SpecifierSet(f"=={version}"))
