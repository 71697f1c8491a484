"""Which file is it to be: of all that some place offers, the wheel that fits best, a source distribution, or why none.

Pure: what places offer comes from `wheelhouse`, `index` and the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, create_compatible_tags_selector
from packaging.utils import (
    BuildTag,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from envsync.errors import remedies
from envsync.lockfile.hashes import strong
from envsync.lockfile.target import ARCHIVE, Artifact, Source
from envsync.python.facts import Interpreter

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """A wheel or source distribution that some place offers."""

    name: str
    version: Version
    filename: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    url: str | None = field(default=None, repr=False)
    requires_python: str | None = None

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


@dataclass(frozen=True, slots=True)
class Pin:
    """A package pinned to a version, and perhaps to hashes of which one has to match."""

    name: str
    specifier: SpecifierSet
    hashes: tuple[tuple[str, str], ...] = ()

    def accepts(self, offer: Offer) -> bool:
        """Whether it is the name and version asked for; yanked and pre-releases are, being pinned."""
        return offer.name == self.name and self.specifier.contains(offer.version, prereleases=True)

    def vouches(self, hashes: Mapping[str, str]) -> bool | None:
        """Whether a file with these hashes is allowed; None if that cannot be told from them."""
        if not self.hashes or any(hashes.get(algorithm) == digest for algorithm, digest in self.hashes):
            return True
        return None if any(algorithm not in hashes for algorithm, _ in self.hashes) else False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no wheel could be chosen, and what can be done about it."""

    problem: str
    hint: str = ""
    build: str = ""
    """What pip would build a wheel of, if that helps."""


class Forms(NamedTuple):
    """In which forms a package may be taken: who forbids what, as a message has it, or nobody."""

    no_wheel: str = ""
    """Who forbids a wheel that others have built."""
    no_build: str = ""
    """Who forbids to build it of a source distribution."""


class WheelName:
    """A wheel's file name, taken apart."""

    __slots__ = ("build", "filename", "name", "tags", "version")

    def __init__(self, filename: str) -> None:
        """:raises ValueError: it is not a wheel's file name"""
        if "/" in filename or "\\" in filename or "\0" in filename:
            raise InvalidWheelFilename(f"Invalid wheel filename (not a plain file name): {filename!r}")
        self.filename = filename
        self.name, self.version, self.build, self.tags = parse_wheel_filename(filename)


class Fit:
    """Tells which wheels fit one Python, and which of them best."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.tags = [Tag(*text.split("-", 2)) for text in interpreter.tags]
        self.python = Version(interpreter.version.rstrip("+"))
        self._supported = frozenset(self.tags)
        self._select = create_compatible_tags_selector(self.tags)
        best = f"; its best tag is {interpreter.tags[0]}" if interpreter.tags else ""
        self.description = f"{interpreter.implementation} {interpreter.short_version} on {interpreter.machine}{best}"

    def fits(self, tags: frozenset[Tag]) -> bool:
        return not self._supported.isdisjoint(tags)

    def other_python(self, filenames: Iterable[str]) -> str:
        """Return the latest CPython for which there is a wheel on such a machine, as in `3.12`; empty if none is."""
        platforms = {tag.platform for tag in self.tags}
        tags = {tag for name in map(_wheel_name, filenames) if name is not None for tag in name.tags}
        minors = [tag.interpreter[3:] for tag in tags if tag.platform in platforms and tag.interpreter[:3] == "cp3"]
        return f"3.{max(map(int, minors))}" if minors and all(map(str.isdigit, minors)) else ""

    def runs(self, requires_python: str | None) -> bool:
        """Whether this Python is one that a file needs; yes if it says so unintelligibly, as pip does."""
        try:
            return SpecifierSet(requires_python or "").contains(self.python, prereleases=True)
        except InvalidSpecifier:
            return True

    def best_first(self, offers: Iterable[Offer]) -> list[Offer]:
        """Keep the wheels that fit, sorted by version, tags and build tag; among equals as given."""
        named = [(offer, name) for offer in offers if (name := _wheel_name(offer.filename)) is not None]
        named.sort(key=lambda pair: build_order(pair[1].build), reverse=True)
        fitting = list(self._select((offer, name.tags) for offer, name in named))
        return sorted(fitting, key=lambda offer: offer.version, reverse=True)


def build_order(build: BuildTag) -> tuple[int, str]:
    """Return what build tags are compared by."""
    return build or (-1, "")


def _wheel_name(filename: str) -> WheelName | None:
    try:
        return WheelName(filename)
    except ValueError:
        return None


def offer_of(
    filename: str,
    *,
    hashes: Mapping[str, str] | None = None,
    path: str | None = None,
    url: str | None = None,
    requires_python: str | None = None,
) -> Offer | None:
    """Tell from a file name what is offered; None if it is neither a wheel nor a source distribution.

    The tags of a wheel are left alone: an index lists thousands of which few have the version asked for.
    """
    named = _sdist_version(filename)
    if filename.endswith(".whl"):
        parts = filename.split("-", 2)
        version = _version(parts[1]) if len(parts) == 3 else None
        named = (_name(parts[0]), version) if version is not None else None
    if named is None:
        return None
    return Offer(named[0], named[1], filename, hashes or {}, path, url, requires_python)


def _sdist_version(filename: str) -> tuple[str, Version] | None:
    if not filename.endswith((".tar.gz", ".zip")):
        return None
    try:
        return parse_sdist_filename(filename)
    except (InvalidSdistFilename, InvalidVersion):
        return None


@lru_cache
def _name(text: str) -> str:
    return canonicalize_name(text)


@lru_cache(1024)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def choose(offers: Sequence[Offer], pin: Pin, fit: Fit, forms: Forms = Forms()) -> Offer | Refusal:  # noqa: B008
    """Choose the best file for a pin: a wheel that fits, or else a source distribution, as pip does.

    Of each kind, one whose hash is allowed goes before one whose hash is unknown.
    """
    of_version = [offer for offer in offers if pin.accepts(offer)]
    running = [offer for offer in of_version if fit.runs(offer.requires_python)]
    fitting = [] if forms.no_wheel else fit.best_first(offer for offer in running if offer.is_wheel)
    buildable = [] if forms.no_build else sources_first(running)
    for candidates in (fitting, buildable):
        for verdict in (True, None):
            for offer in candidates:
                if pin.vouches(offer.hashes) is verdict:
                    return offer
    if fitting or buildable or not of_version:
        return _refuse(offers, [*fitting, *buildable], pin)
    return _refuse_version(of_version, pin, fit, forms)


def sources_first(offers: Iterable[Offer]) -> list[Offer]:
    """Keep the source distributions, the latest version first; among equals as given."""
    return sorted((each for each in offers if not each.is_wheel), key=lambda offer: offer.version, reverse=True)


def _refuse(offers: Sequence[Offer], allowed: Sequence[Offer], pin: Pin) -> Refusal:
    """Say why none is taken: there is none of that version, or or of those none has a hash that is allowed."""
    if not offers:
        hint = f"say with --find-links where its files are, or check the name with `pip download --no-deps {pin.name}`"
        return Refusal("no file of that name was found", hint)
    if not allowed:
        versions = sorted({offer.version for offer in offers}, reverse=True)
        hint = f"see which there are with `pip index versions {pin.name}`, and lock again"
        return Refusal(f"there is no such version; there are {_shown(versions)}", hint)
    names = _shown(offer.filename for offer in allowed)
    problem = f"none of its files that fit has a hash that the lock file allows: {names}"
    pinned = f"{pin.name}=={allowed[0].version}"
    hint = f"`pip download --no-deps {pinned}` gets what the index has, to compare; lock again if it was meant"
    return Refusal(problem, hint)


def _refuse_version(of_version: list[Offer], pin: Pin, fit: Fit, forms: Forms) -> Refusal:
    """Say why no file of a version may be taken, whatever its hash."""
    wheels = [offer.filename for offer in of_version if offer.is_wheel]
    unbuilt = [offer.filename for offer in of_version if not offer.is_wheel and fit.runs(offer.requires_python)]
    others = instead(pin.name, of_version[0].version, wheels, fit)
    if unbuilt and not wheels:
        hint = f"leave it out with `envsync sync --no-install-package {pin.name}`"
        problem = f"there is only a source distribution (`{unbuilt[0]}`), and {forms.no_build} forbids to build it"
        return Refusal(problem, hint)
    if unbuilt:
        problem = f"{no_fit(wheels, fit)}, and {forms.no_build} forbids to build its source distribution"
        return Refusal(problem, *others)
    barred = [offer for offer in of_version if _suits(offer, fit) and not (offer.is_wheel and forms.no_wheel)]
    if barred:
        needed = sorted({offer.requires_python or "" for offer in barred} - {""})
        problem = f"it needs Python {' or '.join(needed)}, and the target is {fit.python}"
        return Refusal(problem, remedies.other_python(needed[0]))
    if forms.no_wheel:
        problem = f"there is no source distribution of it, and {forms.no_wheel} forbids its wheels"
        return Refusal(problem, f"`pip download --no-deps {pin.name}=={of_version[0].version}` shows what there is")
    return Refusal(no_fit(wheels, fit), *others)


def _suits(offer: Offer, fit: Fit) -> bool:
    return not offer.is_wheel or bool(fit.best_first([offer]))


def artifact_of(offer: Offer, pin: Pin) -> Artifact:
    """Make the artifact of a chosen file: what is known of its hash, or else what the pin allows."""
    hashes = strong(offer.hashes)
    alternatives: tuple[tuple[str, str], ...] = ()
    if pin.vouches(hashes) is not True:
        if len(pin.hashes) == 1:
            hashes.update(pin.hashes)
        else:
            alternatives = pin.hashes
    missing = None
    if offer.path is None and offer.url is None:
        gone = f"`{offer.filename}` was in the cache and no longer is"
        missing = f"package `{offer.name}`: {gone}; run the command again"
    return Artifact(
        offer.name,
        str(offer.version),
        offer.filename,
        hashes,
        alternatives,
        path=offer.path,
        url=offer.url,
        locked=pin.hashes,
        missing=missing,
        source=None if offer.is_wheel else Source(ARCHIVE),
    )


def only_source(filename: str) -> str:
    return f"there is only a source distribution (`{filename}`), and envsync installs wheels"


def no_fit(filenames: Iterable[str], fit: Fit) -> str:
    tags = sorted({"-".join(filename[:-4].split("-")[-3:]) for filename in filenames})
    return f"no wheel fits {fit.description} (tags available: {_shown(tags)})"


def instead(name: str, version: Version | None, filenames: Iterable[str], fit: Fit) -> tuple[str, str]:
    """Say what helps where no wheel fits: another Python, if one of them is for this machine, and what to build."""
    python = fit.other_python(filenames)
    return remedies.other_python(python) if python else "", f"{name}=={version}" if version else name


def _shown(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
