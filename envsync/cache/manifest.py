"""The manifest of a store entry: the final layout of one unpacked, verified wheel.

A store entry `<cache>/v1/wheels/<sha256>/` looks like this:

    manifest.json           this file, written last
    purelib/pkg/mod.py      one directory per wheel scheme that the wheel uses, laid out below it just as it will
    purelib/pkg-1.dist-info/METADATA     be in the environment, RECORD, INSTALLER and REQUESTED included
    scripts/tool  data/share/x  headers/x.h

The manifest holds all that a sync needs to know, so that a warm sync reads one file per wheel and links the
rest. What depends on the environment is not in the entry but described: entry points (`scripts`), scripts
whose `#!python` line is to be rewritten (`rewrite`), and the RECORD of a wheel that has either of them or
files outside its root scheme (`complete` is false; then the entry has no RECORD, and `record` has its lines).

All files of an entry are read-only and carry one modification time derived from the wheel's hash. CPython takes
bytecode for valid if the source's mtime and size match (PEP 552), so two versions of a file must never share both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from envsync.replace import seal, unseal

FORMAT = 1
NAME = "manifest.json"


class Script(NamedTuple):
    """An entry point to be made into a script (entry points specification)."""

    name: str
    module: str
    attr: str
    section: str
    """`console` or `gui`."""


class Directory(NamedTuple):
    """The files of one directory of one scheme."""

    scheme: str
    path: str
    """Below the scheme, with forward slashes; the empty string is the scheme itself."""
    files: Sequence[Sequence[Any]]
    """(name, size in bytes, executable) of each, sorted by name, as JSON has them: there are thousands."""


class Manifest(NamedTuple):
    name: str
    """Normalized."""
    version: str
    filename: str
    sha256: str
    root: str
    """The scheme of the archive's root: `purelib` or `platlib`."""
    dist_info: str
    """The name of the .dist-info directory, below the root scheme."""
    mtime: int
    """Of every file of the entry, in seconds since the epoch."""
    directories: tuple[Directory, ...]
    """Every file of the entry but manifest.json. Files listed in `rewrite` are here, too."""
    scripts: tuple[Script, ...]
    rewrite: tuple[str, ...]
    """Files of the `scripts` scheme whose `#!python` line becomes the environment's interpreter."""
    complete: bool
    """The entry's RECORD can be used as it is."""
    record: tuple[tuple[str, str], ...]
    """(scheme, RECORD lines for its files with paths relative to the scheme, each ending in a newline), without
    RECORD's own line and without the files in `rewrite`."""


def mtime_of(sha256: str) -> int:
    """Derive the modification time of a wheel's files from its hash: whole seconds between 2000 and 2020."""
    return 946_684_800 + int(sha256[:16], 16) % 631_152_000


def dump(manifest: Manifest) -> bytes:
    """Serialize a manifest."""
    value = {
        "format": FORMAT,
        "name": manifest.name,
        "version": manifest.version,
        "filename": manifest.filename,
        "sha256": manifest.sha256,
        "root": manifest.root,
        "dist_info": manifest.dist_info,
        "mtime": manifest.mtime,
        "directories": [[d.scheme, d.path, d.files] for d in manifest.directories],
        "scripts": [[s.name, s.module, s.attr, s.section] for s in manifest.scripts],
        "rewrite": manifest.rewrite,
        "complete": manifest.complete,
        "record": manifest.record,
    }
    return seal(json.dumps(value, separators=(",", ":")).encode())


def load(data: bytes) -> Manifest:
    """Read a manifest.

    :raises ValueError: it is damaged or of another format; the entry is then as good as absent
    """
    try:
        value = json.loads(unseal(data))
        if value["format"] != FORMAT:
            raise ValueError(f"manifest format {value['format']!r}, not {FORMAT}")
        return Manifest(
            name=value["name"],
            version=value["version"],
            filename=value["filename"],
            sha256=value["sha256"],
            root=value["root"],
            dist_info=value["dist_info"],
            mtime=value["mtime"],
            directories=tuple(Directory(scheme, path, files) for scheme, path, files in value["directories"]),
            scripts=tuple(Script(*script) for script in value["scripts"]),
            rewrite=tuple(value["rewrite"]),
            complete=value["complete"],
            record=tuple((scheme, lines) for scheme, lines in value["record"]),
        )
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged manifest: {error}") from None
