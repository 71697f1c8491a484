"""RECORD: the list of a wheel's files with their hashes (PEP 376, PEP 627). Read without trust, written exactly."""

from __future__ import annotations

import binascii
import csv
import io
from typing import NamedTuple

NAME = "RECORD"
SIGNATURES = ("RECORD.jws", "RECORD.p7s")
"""Signatures of RECORD: not listed in it, and of no use once it is written anew."""

_STRONG = frozenset({"sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b"})


class Expected(NamedTuple):
    """What RECORD says of one file."""

    algorithm: str
    digest: str
    """URL-safe base64 without padding."""
    size: int | None


def parse(text: str, own: str) -> dict[str, Expected]:
    """Read a wheel's RECORD.

    :param own: the path of RECORD itself, which has neither hash nor size
    :raises ValueError: what is wrong with it, for people to read
    """
    entries: dict[str, Expected] = {}
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1):
            if not row:
                continue
            if len(row) != 3:
                raise ValueError(f"line {number} has {len(row)} fields, not 3")
            path = row[0].replace("\\", "/")
            if path == own:
                continue
            entry = _entry(path, row[1], row[2])
            if entries.setdefault(path, entry) != entry:
                raise ValueError(f"it lists `{path}` twice")
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return entries


def _entry(path: str, hashed: str, size: str) -> Expected:
    algorithm, equals, digest = hashed.partition("=")
    if not equals:
        raise ValueError(f"it has no hash for `{path}`")
    if algorithm not in _STRONG:
        raise ValueError(f"it has a {algorithm} hash for `{path}`; sha256 or better is required")
    if size and not (size.isascii() and size.isdigit()):
        raise ValueError(f"it says `{path}` has size {size!r}")
    return Expected(algorithm, digest.rstrip("="), int(size) if size else None)


def encode(digest: bytes) -> str:
    """Write a digest as RECORD does: URL-safe base64 without padding."""
    return binascii.b2a_base64(digest, newline=False).rstrip(b"=").translate(_URL_SAFE).decode("ascii")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def line(path: str, digest: str, size: int) -> str:
    """Write the line of one file.

    :param digest: of sha256, as `encode` writes it
    """
    return f"{_quoted(path)},sha256={digest},{size}\n"


def own_line(path: str) -> str:
    """Write RECORD's line for itself."""
    return f"{_quoted(path)},,\n"


def _quoted(path: str) -> str:
    if any(character in path for character in ',"\r\n'):
        return '"' + path.replace('"', '""') + '"'
    return path
