"""One requirement: what it pins a package to, a version or a wheel at a URL or path. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.errors.redact import redacted
from envsync.lockfile import hashes
from envsync.lockfile.grammar import GrammarError, Line, UnpinnedError
from envsync.lockfile.sources import (
    MALFORMED_HINT,
    filename_of,
    is_file_url,
    is_url,
    path_of_url,
    well_formed,
)
from envsync.lockfile.wheels import Pin, WheelName

_NAMED = re.compile(r"[\w.-]+\s*(\[[^\]]*\])?\s*@")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_VCS = re.compile(r"(git|hg|svn|bzr)(\+[a-z]+)?:", re.IGNORECASE)
_AT_URL = re.compile(r"(?P<place>\S+?)(?P<extras>\[[\w,.-]*\])?(\s+;\s*(?P<marker>.+))?")
_AT_PATH = re.compile(r"(?P<place>[^;]+?)\s*(?P<extras>\[[\w\s,.-]*\])?\s*(;\s*(?P<marker>.+))?")
_FORMS = "each line is like `name==1.0`, `name @ https://host/name-1.0-py3-none-any.whl` or the path of a wheel"
_SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar")


@dataclass(frozen=True, slots=True)
class Reference:
    """A requirement or constraint.

    At most one of `path` and `url` is set; then `specifier` is the version in the wheel's file name.
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

    @property
    def direct(self) -> bool:
        return self.path is not None or self.url is not None

    @property
    def filename(self) -> str:
        """The wheel's file name, of a direct reference."""
        return filename_of(self.path or self.url or "")

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
            return self.path, self.url, frozenset(self.hashes)
        try:
            return Version(self.pinned or ""), frozenset(self.hashes)
        except InvalidVersion:
            return self.pinned, frozenset(self.hashes)


def parse(line: Line, directory: str, where: str) -> Reference:
    """Parse a requirement.

    :param directory: what relative paths are relative to
    :raises GrammarError: it is malformed, or refers to what is no wheel
    """
    try:
        strong = tuple(pair for pair in hashes.check(line.hashes) if pair[0] not in hashes.WEAK)
    except hashes.HashError as error:
        raise GrammarError(str(error), "lock again with SHA-256 hashes") from error
    text = line.requirement
    first = re.split(r"[\s;\[]", text, maxsplit=1)[0]
    if not _NAMED.match(text) and (
        _SCHEME.match(text) or "/" in first or first.startswith(".") or first.endswith(".whl")
    ):
        return _unnamed(text, directory, where, strong)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        # Its further lines quote the requirement, with what variables stand for.
        reason = str(error).splitlines()[0]
        raise GrammarError(f"it is not a requirement: {reason[:1].lower()}{reason[1:]}", _FORMS) from None
    name = canonicalize_name(requirement.name)
    extras = frozenset(map(canonicalize_name, requirement.extras))
    if requirement.url is not None:
        reference = _at(requirement.url, directory, where, strong)
        if reference.name != name:
            raise GrammarError(f"`{name}` is at a wheel of `{reference.name}`", "correct the name or the URL")
        return replace(reference, marker=requirement.marker, extras=extras)
    return Reference(name, requirement.specifier, where, requirement.marker, strong, extras=extras)


def _unnamed(text: str, directory: str, where: str, strong: tuple[tuple[str, str], ...]) -> Reference:
    match = (_AT_URL if is_url(text) else _AT_PATH).fullmatch(text)
    if match is None:
        raise GrammarError("it is neither a requirement nor the URL or path of a wheel")
    extras = frozenset(canonicalize_name(each) for each in re.findall(r"[\w.-]+", match["extras"] or ""))
    reference = replace(_at(match["place"], directory, where, strong), extras=extras)
    if match["marker"] is None:
        return reference
    try:
        return replace(reference, marker=Marker(match["marker"]))
    except InvalidMarker as error:
        raise GrammarError(f"it has a malformed marker: {str(error).splitlines()[0]}") from None


def _at(place: str, directory: str, where: str, strong: tuple[tuple[str, str], ...]) -> Reference:
    """Make a reference to the wheel at a URL or path."""
    if _VCS.match(place):
        raise GrammarError("it is a version control URL, and envsync installs wheels", build=redacted(place))
    if not well_formed(place):
        raise GrammarError("its URL is malformed", MALFORMED_HINT)
    place, _, fragment = place.partition("#") if is_url(place) else (place, "", "")
    path = _path(place, directory) if is_file_url(place) or not is_url(place) else None
    filename = filename_of(path or place)
    if not filename.endswith(".whl"):
        raise GrammarError(_not_a_wheel(filename, path), build=path or redacted(place))
    try:
        name = WheelName(filename)
    except ValueError as error:
        raise GrammarError(f"`{filename}` is not a wheel's file name", "rename it to what its metadata says") from error
    return Reference(
        name=name.name,
        specifier=SpecifierSet(f"=={name.version}"),
        where=where,
        hashes=strong or _of_fragment(fragment),
        path=path,
        url=place if path is None else None,
    )


def _path(place: str, directory: str) -> str:
    try:
        local = path_of_url(place) if is_url(place) else place
    except ValueError as error:
        raise GrammarError(str(error)) from None
    return os.path.abspath(os.path.join(directory, local))


def _not_a_wheel(filename: str, path: str | None) -> str:
    if filename.lower().endswith(_SDIST):
        return f"`{filename}` is a source distribution, and envsync installs wheels"
    if path is not None and not path.endswith(".egg"):
        return f"`{filename}` is a directory or no wheel, and envsync installs wheels"
    return f"`{filename}` does not end in .whl, so it is not a wheel"


def _of_fragment(fragment: str) -> tuple[tuple[str, str], ...]:
    pairs = (part.partition("=") for part in fragment.split("&"))
    return tuple(hashes.strong({algorithm: digest for algorithm, _, digest in pairs}).items())


def constrained(reference: Reference, constraints: Iterable[Reference]) -> Reference:
    """Apply the constraints of the same name; they may pin what is not pinned, and give it hashes.

    :raises GrammarError: they contradict the reference, or it is not pinned even so
    """
    for constraint in constraints:
        combined = replace(
            reference,
            specifier=reference.specifier & constraint.specifier,
            hashes=reference.hashes or constraint.hashes,
        )
        if combined.pinned is not None and not combined.specifier.contains(combined.pinned, prereleases=True):
            against = f"the constraint `{_shown(constraint)}` ({constraint.where})"
            raise GrammarError(f"`{_shown(reference)}` contradicts {against}", "lock again, so that both agree")
        reference = combined
    if reference.pinned is None:
        raise UnpinnedError(f"`{_shown(reference)}` is not pinned to one version")
    if not reference.specifier.contains(reference.pinned, prereleases=True):
        raise GrammarError(f"`{_shown(reference)}` contradicts itself")
    return reference


def _shown(reference: Reference) -> str:
    return reference.filename if reference.direct else f"{reference.name}{reference.specifier}"
