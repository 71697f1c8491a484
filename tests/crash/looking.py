"""What the judge looks at: the files of an environment, of the cache, and how many changes a command has made."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from envsync.store.damage import damaged_files
from envsync.store.store import Store
from tests.crash.harness import CHANGES, writes

Snapshot = dict[str, tuple[str, ...]]


class Counter:
    """Counts the changes that this very process makes; there is no way to take an audit hook away again."""

    count = 0
    armed = False

    @classmethod
    def arm(cls) -> None:
        if not cls.armed:
            cls.armed = True
            sys.addaudithook(cls._audit)

    @classmethod
    def _audit(cls, event: str, args: tuple[object, ...]) -> None:
        if event in CHANGES or (event == "open" and writes(args)):
            cls.count += 1


def snapshot(env: Path, *, bytecode: bool = False) -> Snapshot:
    """Take down every file of an environment: its content or where it leads, and whether it can be executed.

    Without temporary files, what envsync keeps in `.envsync`, and, unless it is asked for, bytecode.
    """
    left_out = (".envsync",) if bytecode else ("__pycache__", ".envsync")
    found: Snapshot = {}
    for directory, names, entries in os.walk(env):
        for name in [*entries, *names]:
            path = f"{directory}/{name}"
            if os.path.islink(path):
                found[path[len(str(env)) + 1 :]] = ("link", os.readlink(path))
        names[:] = [name for name in names if name not in left_out]
        for name in entries:
            path = f"{directory}/{name}"
            if not os.path.islink(path) and not name.endswith(".new"):
                found[path[len(str(env)) + 1 :]] = (_content(path), str(os.access(path, os.X_OK)))
    return found


def difference(expected: Snapshot, found: Snapshot) -> str:
    """Say how two snapshots differ; empty if they do not."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    parts = {"missing": missing, "in addition": extra, "different": changed}
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names)


def cache_listing(cache: Path) -> dict[str, str]:
    """List what is in the cache: for wheels, every file and its content, as far as that is the same every time.

    Which second an entry has is not, so neither is its manifest; that of each project is taken by one file or more.
    """
    found = {}
    for directory, names, entries in os.walk(cache):
        relative = directory[len(str(cache.parent)) :]
        if "/v1/names/" in relative:
            found[f"{relative}/"] = ""
            continue
        for name in entries:
            is_same = "/wheels/" in relative and name != "manifest.json"
            found[f"{relative}/{name}"] = _content(f"{directory}/{name}") if is_same else ""
        if not names and not entries and any(kind in relative for kind in ("/tmp/", "/wheels/", "/bytecode/")):
            found[f"{relative}/"] = ""
    return found


def damaged_entries(cache: Path) -> Iterator[str]:
    """Name what is wrong with entries of the cache that a sync would take for whole."""
    store = Store(str(cache))
    for sha256 in sorted(os.listdir(store.wheels)) if os.path.isdir(store.wheels) else ():
        manifest = store.get(sha256)
        if manifest is not None:
            yield from (f"{manifest.filename}: {path}" for path in damaged_files(store.path(sha256), manifest))


def _content(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".pyc"):
        return f"{_head(path, data)} {hashlib.sha256(data[16:]).hexdigest()}"
    return hashlib.sha256(data).hexdigest()


def _head(path: str, data: bytes) -> str:
    """Say what the head of bytecode says: of which second the source is differs from run to run, that it fits may not.

    Four bytes each: magic number, flags, mtime and size of the source (PEP 552).
    """
    if len(data) < 16:
        return "torn"
    directory, _, name = path.rpartition("/__pycache__/")
    try:
        source = os.stat(f"{directory}/{name.partition('.')[0]}.py")
    except FileNotFoundError:
        return "no source"
    flags, mtime, size = struct.unpack("<III", data[4:16])
    fits = (flags, mtime, size) == (0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size)
    return f"{data[:4].hex()} {'fits' if fits else 'does not fit'}"
