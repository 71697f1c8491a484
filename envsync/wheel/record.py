"""RECORD: the list of a wheel's files with their hashes (PEP 376, PEP 627). Read without trust, written exactly.

What tools have written over the years is read for what it means, as long as each hash is still compared: a byte order
mark, `./` and backslashes in paths, directories, digests in hexadecimal, in standard base64 or padded, and a .dist-info
that is named with the build tag. What it does not say at all, the hash of the whole wheel may say (`vouching` in
docs/wheels.md): that is up to the reader.
"""

from __future__ import annotations

import binascii
import csv
import io
import re
from typing import NamedTuple

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


def parse(text: str, own: str) -> dict[str, Expected]:
    """Read a wheel's RECORD. Directories are left out.

    :param own: the path of RECORD itself, which has neither hash nor size
    :raises ValueError: what is wrong with it, for people to read
    """
    entries: dict[str, Expected] = {}
    stem = own.rpartition("/")[0].removesuffix(".dist-info")
    tagged = re.compile(r"\A" + re.escape(stem) + r"-\d[^/]*\.dist-info/")
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True), 1):
            if not row:
                continue
            if len(row) != 3:
                raise ValueError(f"line {number} has {len(row)} fields, not 3")
            path = tagged.sub(f"{stem}.dist-info/", _plain(row[0]))
            if path == own or not path or path.endswith("/"):
                continue
            entry = _entry(path, row[1], row[2])
            if entries.setdefault(path, entry) != entry:
                raise ValueError(f"it lists `{path}` twice")
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return entries


def _plain(path: str) -> str:
    """Return a path as the archive has it: some tools write backslashes, some begin with `./`."""
    path = path.replace("\\", "/")
    return "/".join(part for part in path.split("/") if part != ".") if "./" in path else path


def _entry(path: str, hashed: str, size: str) -> Expected:
    algorithm, equals, digest = hashed.partition("=")
    if size and not (size.isascii() and size.isdigit()):
        raise ValueError(f"it says `{path}` has size {size!r}")
    algorithm = algorithm.lower() if equals else ""
    return Expected(algorithm, _digest(digest, _BYTES.get(algorithm, 0)), int(size) if size else None)


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
