"""What a URL or path in a requirement leads to: a wheel, an archive, a directory or a commit. Pure.

pip defines these forms by what it does: `git+https://HOST/PATH@COMMIT#egg=NAME&subdirectory=DIRECTORY` and the like.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion

from envsync.errors.redact import redacted
from envsync.lockfile import hashes, trees
from envsync.lockfile.grammar import GrammarError, UnpinnedError
from envsync.lockfile.sources import MALFORMED_HINT, filename_of, is_file_url, is_url, path_of_url, well_formed
from envsync.lockfile.target import DIRECTORY, GIT, Source
from envsync.system import paths

_SYSTEM = re.compile(r"(git|hg|svn|bzr)(?:\+([a-z]+))?:", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_SHORT = re.compile(r"[0-9a-f]{7,39}", re.IGNORECASE)
_EGG = re.compile(r"([\w.-]+)\s*(?:\[([\w\s,.-]*)\])?")


class Address(NamedTuple):
    """Where a URL or path leads."""

    path: str | None = None
    """Of a file: absolute."""
    url: str | None = None
    """Of a file, without its fragment; may hold credentials."""
    source: Source | None = None
    """What has to be built; None: it is a wheel."""
    egg: str = ""
    """The name that the fragment says, normalized."""
    extras: frozenset[str] = frozenset()
    hashes: tuple[tuple[str, str], ...] = ()

    @property
    def filename(self) -> str:
        """The file's name; empty if there is none."""
        return filename_of(self.path or self.url or "")

    @property
    def tree(self) -> str:
        """The directory of a project that is on this machine; empty if it is in none."""
        if self.source is None or self.source.kind != DIRECTORY:
            return ""
        return paths.join(self.source.place, self.source.subdirectory).rstrip("/")


def parse(place: str, directory: str, *, editable: bool) -> Address:
    """Tell where a URL or path leads.

    :param directory: what relative paths are relative to
    :raises GrammarError: it is malformed, or leads to what cannot be installed
    """
    system = _SYSTEM.match(place)
    if not system and not well_formed(place):
        raise GrammarError("its URL is malformed", MALFORMED_HINT)
    try:
        if system:
            return _commit(place, directory, system[1].lower())
        return _file_or_directory(place, directory, editable=editable)
    except trees.TreeError as error:
        raise GrammarError(str(error), error.hint or None) from None


def _file_or_directory(place: str, directory: str, *, editable: bool) -> Address:
    bare, _, written = place.partition("#") if is_url(place) else (place, "", "")
    fragment = _parts(written)
    is_local = is_file_url(bare) or not is_url(bare)
    path = _path(bare, directory) if is_local else None
    filename = filename_of(path or bare)
    egg, extras = _egg(fragment)
    address = Address(path, None if is_local else bare, None, egg, extras, _hashes(fragment))
    below = fragment.get("subdirectory", "")
    if path is not None and (editable or not _is_file(filename)):
        if filename.endswith(".egg"):
            raise GrammarError(f"`{filename}` is an egg, which nothing installs any more", "lock a wheel of it")
        source = Source(DIRECTORY, path, subdirectory=trees.within(below), editable=editable)
        return address._replace(path=None, source=source)
    if editable:
        raise GrammarError("what is editable is a directory here, or a commit of a repository", "remove the `-e`")
    if filename.endswith(".whl"):
        return address
    if not trees.is_archive(filename):
        problem = f"`{filename}` ends neither in .whl nor as an archive does, as in .tar.gz"
        raise GrammarError(problem, build=path or redacted(bare))
    return address._replace(source=trees.archive(below))


def _is_file(filename: str) -> bool:
    return filename.endswith(".whl") or trees.is_archive(filename)


def _path(place: str, directory: str) -> str:
    try:
        local = path_of_url(place) if is_url(place) else place
    except ValueError as error:
        raise GrammarError(str(error)) from None
    return paths.abspath(paths.join(directory, local))


def _commit(place: str, directory: str, system: str) -> Address:
    """Take the URL of a commit apart, as pip has it: what follows the last `@` of its path names the commit."""
    if system != "git":
        raise GrammarError(f"it is a URL of `{system}`, and of version control envsync uses git", build=redacted(place))
    url = place[4:] if place[:4].lower() == "git+" else place
    url, _, written = url.partition("#")
    fragment = _parts(written)
    if not well_formed(url):
        raise GrammarError("its URL is malformed", MALFORMED_HINT)
    if not is_url(url):
        raise GrammarError("the URL of its repository has no `://`", "write git+ssh://git@HOST/PATH@COMMIT")
    parts = urlsplit(url)
    path, at, reference = parts.path.rpartition("@")
    path, reference = (path, unquote(reference)) if at else (parts.path, "")
    url = urlunsplit(parts._replace(path=path))
    if not _COMMIT.fullmatch(reference):
        raise _unpinned(url, reference)
    below = fragment.get("subdirectory", "")
    source = trees.repository(url, reference, beside=directory, reference=reference, subdirectory=below)
    egg, extras = _egg(fragment)
    return Address(source=source, egg=egg, extras=extras)


def _unpinned(url: str, reference: str) -> GrammarError:
    """Say how to find the commit that a branch, a tag or the beginning of a hash means."""
    shown = shlex.quote(redacted(url))
    if _SHORT.fullmatch(reference):
        clone = f"git clone --quiet --bare --filter=tree:0 {shown} repository.git"
        command = f"{clone} && git -C repository.git rev-parse {reference}"
        return UnpinnedError(
            f"`{reference}` is not a whole commit, so it is not pinned",
            f"`{command}` gives it, to be written behind the `@`",
        )
    named = shlex.quote(reference or "HEAD")
    peeled = f" {shlex.quote(reference + '^{}')}" if reference else ""
    what = f"`{redacted(reference)[:80]}` may be moved" if reference else "it names no commit"
    hint = f"`git ls-remote {shown} {named}{peeled}` gives the commit (the last line), to be written behind an `@`"
    return UnpinnedError(f"{what}, so it is not pinned to one commit", hint)


def _parts(fragment: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in fragment.split("&"))
    return {name: unquote(value) for name, equals, value in pairs if equals}


def _egg(fragment: dict[str, str]) -> tuple[str, frozenset[str]]:
    match = _EGG.fullmatch(fragment.get("egg", ""))
    if match is None:
        return "", frozenset()
    return canonicalize_name(match[1]), frozenset(map(canonicalize_name, re.findall(r"[\w.-]+", match[2] or "")))


def _hashes(fragment: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(hashes.strong(fragment).items())


def named_by(filename: str) -> tuple[str, str]:
    """Return the name and version that an archive's file name says; empty if it says none (PEP 625)."""
    try:
        name, version = parse_sdist_filename(filename)
    except (InvalidSdistFilename, InvalidVersion):
        return "", ""
    return name, str(version)


def shown(source: Source) -> str:
    """Return what a tree is, for messages."""
    if source.kind == GIT:
        return f"commit {source.commit[:12]} of `{redacted(source.place)}`"
    return f"{'editable ' if source.editable else ''}directory `{source.place}`"
