"""Which hashes can vouch for a wheel.

Every algorithm here is in `hashlib.algorithms_guaranteed` (a test says so); a table saves importing hashlib.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DIGITS = {
    "md5": 32,
    "sha1": 40,
    "sha224": 56,
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
    "sha3_224": 56,
    "sha3_256": 64,
    "sha3_384": 96,
    "sha3_512": 128,
    "blake2b": 128,
    "blake2s": 64,
}
"""How many hexadecimal digits a hash of each algorithm has."""
WEAK = frozenset({"md5", "sha1"})
"""Broken: files with a given hash of these can be made."""


class HashError(ValueError):
    """A hash that cannot be used; the text says which and why."""


def check(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Check (algorithm, hex digest) pairs of one file and return them in lower case.

    :raises HashError: one is malformed or of an unknown algorithm, or there are only weak ones
    """
    checked = tuple((algorithm, digest.lower()) for algorithm, digest in pairs)
    for algorithm, digest in checked:
        if algorithm not in DIGITS:
            raise HashError(f"hash algorithm `{algorithm}` is not one that every Python has")
        if not _well_formed(algorithm, digest):
            raise HashError(f"`{digest[:80]}` is not a {algorithm} hash of {DIGITS[algorithm]} hexadecimal digits")
    if checked and all(algorithm in WEAK for algorithm, _ in checked):
        raise HashError(f"{' and '.join(sorted({a for a, _ in checked}))} is too weak to tell one wheel from another")
    return checked


def strong(hashes: Mapping[str, str]) -> dict[str, str]:
    """Keep the hashes that an index gives and that mean something."""
    return {
        algorithm: digest.lower()
        for algorithm, digest in hashes.items()
        if algorithm in DIGITS and algorithm not in WEAK and _well_formed(algorithm, digest.lower())
    }


def _well_formed(algorithm: str, digest: str) -> bool:
    return len(digest) == DIGITS[algorithm] and not digest.strip("0123456789abcdef")
