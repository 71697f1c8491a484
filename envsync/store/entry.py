"""Verify a store entry by the hashes that its manifest has from the wheel.

Files of an entry are read-only, and links to them are in environments: root, and the owner after a chmod, can write
through any of them. What such a write changes in size or time is seen whenever the entry is used
(`envsync.staging.link`); this sees the rest, for the price of reading the whole entry.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from envsync.store.bytecode import Compiled
from envsync.wheel import record
from envsync.wheel.manifest import Manifest


def spoiled(entry: str, manifest: Manifest | Compiled) -> Iterator[str]:
    """Name the files of an entry, relative to it, whose bytes are not those of the wheel (its bytecode) any more.

    :param entry: the entry's directory
    """
    for scheme, lines in manifest.record:
        for path, expected, _ in record.rows(lines):
            algorithm, digest = record.algorithm_and_digest(expected)
            if digest and _digest(os.path.join(entry, scheme, path), algorithm) != digest:
                yield f"{scheme}/{path}"


def _digest(path: str, algorithm: str) -> str:
    """Return a file's hash as RECORD writes it; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return record.encode(hashlib.file_digest(file, algorithm).digest())
    except OSError:
        return ""
