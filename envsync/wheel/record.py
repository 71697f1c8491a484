"""RECORD: the list of a wheel's files with their hashes (PEP 376, PEP 627). Read without trust, written exactly.

Nothing else here knows its lines: how they are quoted, how a digest is written, and what a path in them is relative to.
Those that a manifest keeps have paths relative to one scheme's directory; in an installed RECORD all are relative to
the directory that holds the .dist-info.

What tools have written over the years is read for what it means, as long as each hash is still compared: a byte order
mark, `./` and backslashes in paths, directories, digests in hexadecimal, in standard base64 or padded, and a .dist-info
that is named with the build tag. What it does not say at all, the hash of the whole wheel may say (`vouching` in
docs/wheels.md): that is up to the reader.
"""

from __future__ import annotations

import io
import posixpath
import re
import sys
from collections.abc import Collection, Iterator
from typing import NamedTuple

from envsync.system import core

NAME = "RECORD"
SIGNATURES = ("RECORD.jws", "RECORD.p7s")
"""Signatures of RECORD: not listed in the RECORD that they sign."""

_BYTES = {
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3_256": 32,
    "sha3_384": 48,
    "sha3_512": 64,
    "blake2b": 64,
}
"""How long the digests are of the algorithms that vouch for anything."""


class Expected(NamedTuple):
    """What RECORD says of one file."""

    algorithm: str
    """Empty if there is no hash."""
    digest: str
    """URL-safe base64 without padding."""
    size: int | None

    @property
    def weakness(self) -> str | None:
        """Say why this vouches for nothing, if that is so; to follow "it has"."""
        if not self.algorithm:
            return "no hash"
        return None if self.algorithm in _BYTES else f"a {self.algorithm} hash"


class OwnedFile(NamedTuple):
    """A line of an installed RECORD: path relative to the environment, hash as `sha256=...` or empty, size or None."""

    path: str
    hash: str
    size: int | None


def rows(text: str, *, strict: bool = False) -> Iterator[list[str]]:
    """Read lines as lists of fields: path, hash and size, if nobody has damaged them.

    :param strict: take no quote where it has no meaning
    :raises ValueError: it is not CSV from here on
    """
    import csv  # most syncs from a full cache need none of it

    try:
        yield from csv.reader(io.StringIO(text, newline=""), strict=strict)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def owned(row: list[str], site: str, roots: Collection[str]) -> OwnedFile | None:
    """Read a line of an installed RECORD.

    :param row: its fields
    :param site: what relative paths begin at, relative to the environment
    :param roots: the absolute paths that the environment has
    :returns: None if it leads out of the environment
    :raises ValueError: it cannot be read
    """
    if len(row) != 3 or not row[0] or "\0" in row[0] or not _is_size(row[2]):
        raise ValueError(f"a line of it cannot be read: {ascii(','.join(row))[:80]}")
    path = row[0].replace("\\", "/")
    if core.is_absolute(path):
        root = next((root for root in roots if path.startswith(root + "/")), None)
        if root is None:
            return None
        path = path[len(root) + 1 :]
    else:
        path = f"{site}/{path}"
    path = posixpath.normpath(path)
    if path in (".", "..") or path.startswith(("../", "/")):
        return None
    return OwnedFile(path, row[1], int(row[2]) if row[2] else None)


def parse(text: str, own: str) -> dict[str, Expected]:
    """Read a wheel's RECORD. Directories are left out.

    :param own: the path of RECORD itself, which has neither hash nor size
    :raises ValueError: what is wrong with it, for people to read
    """
    entries: dict[str, Expected] = {}
    stem = own.rpartition("/")[0].removesuffix(".dist-info")
    for number, row in enumerate(rows(text.removeprefix("\ufeff"), strict=True), 1):
        if not row:
            continue
        if len(row) != 3:
            raise ValueError(f"line {number} has {len(row)} fields, not 3")
        path = _untagged(_plain(row[0]), stem)
        if path == own or not path or path.endswith("/"):
            continue
        entry = _entry(path, row[1], row[2])
        if entries.setdefault(path, entry) != entry:
            raise ValueError(f"it lists `{path}` twice")
    return entries


def _plain(path: str) -> str:
    """Return a path as the archive has it: some tools write backslashes, some begin with `./`."""
    path = path.replace("\\", "/")
    return "/".join(part for part in path.split("/") if part != ".") if "./" in path else path


_TAG = r"-\d[^/]*\.dist-info/"


def _untagged(path: str, stem: str) -> str:
    """Return a path as the archive has it: some tools put a build tag into what RECORD calls the .dist-info.

    :param stem: the name of the .dist-info without its suffix
    """
    rest = path[len(stem) :] if path.startswith(stem) else ""
    tag = re.match(_TAG, rest)
    return path if tag is None else f"{stem}.dist-info/{rest[tag.end() :]}"


def _entry(path: str, hashed: str, size: str) -> Expected:
    algorithm, equals, digest = hashed.partition("=")
    if not _is_size(size):
        raise ValueError(f"it says `{path}` has size {size!r}")
    algorithm = algorithm.lower() if equals else ""
    return Expected(algorithm, _digest(digest, _BYTES.get(algorithm, 0)), int(size) if size else None)


def _is_size(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= 20)


def _digest(text: str, length: int) -> str:
    """Return a digest as `encode` writes it. Of so many bytes, hexadecimal is longer than base64."""
    text = text.rstrip("=")
    if len(text) != 2 * length:
        return text.replace("+", "-").replace("/", "_")
    try:
        return encode(bytes.fromhex(text))
    except ValueError:
        return text


def encode(digest: bytes) -> str:
    """Write a digest as RECORD does: URL-safe base64 without padding."""
    import binascii  # most syncs from a full cache write none

    return binascii.b2a_base64(digest, newline=False).rstrip(b"=").translate(_URL_SAFE).decode("ascii")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def digest_of(content: bytes) -> str:
    """Return a file's sha256 as `encode` writes it."""
    # sha256 is what hashlib falls back to without OpenSSL, which takes 5 ms to load: these are a few short files.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
    return encode(sha256(content).digest())


def hash_of(digest: str) -> str:
    """Write the hash of a file.

    :param digest: of sha256, as `encode` writes it
    """
    return f"sha256={digest}"


def algorithm_and_digest(hash_: str) -> tuple[str, str]:
    """Read the hash of a file. Both are empty if there is none."""
    algorithm, _, digest = hash_.partition("=")
    return algorithm, digest.rstrip("=")


def line(path: str, digest: str, size: int) -> str:
    """Write the line of one file.

    :param digest: of sha256, as `encode` writes it
    """
    return f"{_quoted(path)},{hash_of(digest)},{size}\n"


def bare_line(path: str) -> str:
    """Write a line without hash and size, as RECORD has for itself, and for a link to a directory."""
    return f"{_quoted(path)},,\n"


def relative(path: str, site: str) -> str:
    """Return a path as an installed RECORD has it, both relative to the environment."""
    if path.startswith(f"{site}/"):
        return path[len(site) + 1 :]
    return posixpath.relpath(f"/{path}", f"/{site}")  # of relative ones, relpath asks for the working directory


def installed_lines(text: str, directory: str, site: str) -> list[str]:
    """Return the lines of one scheme as an installed RECORD has them.

    :param directory: that of the scheme, relative to the environment
    """
    lines = text.splitlines(keepends=True)
    prefix = relative(directory, site)
    return lines if prefix == "." else [_prefixed(line, prefix) for line in lines]


def _prefixed(line: str, prefix: str) -> str:
    return f'"{prefix}/{line[1:]}' if line.startswith('"') else f"{prefix}/{line}"


_SPECIAL = frozenset(',"\r\n')


def _quoted(path: str) -> str:
    if not _SPECIAL.isdisjoint(path):
        return '"' + path.replace('"', '""') + '"'
    return path
