"""One wheel that is being compiled: what there is to do, and what became of each of its sources.

What is compiled is compared with the hash that the wheel's manifest has for it: bytecode of a file that somebody has
changed would go on to run after the file is mended.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from envsync.errors import EnvsyncError, FilesystemError
from envsync.locks.flock import Flock
from envsync.store.bytecode import CACHE, Compiled, Shelf, name_of, sources
from envsync.store.damage import damaged_files
from envsync.system import atomic
from envsync.wheel import record
from envsync.wheel.archive import printable
from envsync.wheel.manifest import NAME, Directory, Manifest, Rows

BATCH_FILES = 16


class ChangedSourceError(EnvsyncError):
    """A source in a store entry is not what was put there. Not the user's to see."""

    def __init__(self, manifest: Manifest, path: str, reason: str) -> None:
        super().__init__(f"the cached files of `{manifest.filename}` have been changed: `{path}`: {reason}")
        self.manifest = manifest
        self.path = path
        self.reason = reason


class Batch(NamedTuple):
    """Some sources of one directory of one wheel."""

    work: Work
    scheme: str
    path: str
    names: list[str]
    again: bool = False
    """The first of them was being compiled when a child died."""


class Work:
    """One wheel that is being compiled, into a directory of its own in the store's tmp.

    :param before: its bytecode that is there already, but for sources of which children died: only these are compiled
    """

    def __init__(self, manifest: Manifest, shelf: Shelf, lock: Flock | None, before: Compiled | None = None) -> None:
        self.manifest = manifest
        self.shelf = shelf
        self.lock = lock
        self.workspace = shelf.store.staging("compile")
        self.entry = shelf.store.path(manifest.sha256)
        self.left = 0
        self.files: dict[tuple[str, str], list[tuple[str, int, bool]]] = {}
        self.lines: dict[str, list[str]] = {}
        self.failures: list[tuple[str, str]] = []
        self.died: list[tuple[str, str, str]] = []
        self.before = before
        self.lacked = set() if before is None else {*before.late, *(path for _, path, _ in before.died)}
        self.expected: Mapping[tuple[str, str], str] = {}

    def begin(self) -> list[Batch]:
        """Make the directories, and say what is to be done.

        :raises ChangedSourceError: the manifest is damaged
        :raises FilesystemError: a directory cannot be made
        """
        try:
            self.expected = _hashes(self.manifest)
        except ValueError as error:
            raise ChangedSourceError(self.manifest, f"{self.entry}/{NAME}", str(error)) from error
        batches = []
        self._take_over()
        again = None if self.before is None else {(scheme, path) for scheme, path, _ in self.before.died}
        for scheme, path, every in sources(self.manifest):
            names = [name for name in every if again is None or (scheme, _below(path, name)) in again]
            if not names:
                continue
            target = self.target(scheme, path)
            try:
                os.makedirs(target, exist_ok=True)
            except OSError as error:
                raise FilesystemError("create", target, error) from error
            self.left += len(names)
            starts = range(0, len(names), BATCH_FILES)
            batches += [Batch(self, scheme, path, names[start : start + BATCH_FILES]) for start in starts]
        return batches

    def _take_over(self) -> None:
        """Copy what there is, if it is what was compiled; else everything is compiled anew."""
        if self.before is None:
            return
        place = self.shelf.path(self.manifest.sha256, self.manifest.mtime)
        try:
            for scheme, path, files in self.before.directories:
                os.makedirs(f"{self.workspace}/{scheme}/{path}")
                for name, *_ in files:
                    copy = f"{self.workspace}/{scheme}/{path}/{name}"
                    shutil.copy(f"{place}/{scheme}/{path}/{name}", copy)
                    os.utime(copy, ns=(time.time_ns(), self.before.mtime * 1_000_000_000))
        except OSError:
            pass  # it is being removed, say; if the disk is full, that shows itself next
        if next(damaged_files(self.workspace, self.before), None) is not None:
            atomic.discard_tree(self.workspace)
            self.before = None
            return
        self.failures += self.before.failures
        self.files = {(scheme, path): [(*file,) for file in files] for scheme, path, files in self.before.directories}
        self.lines = {scheme: lines.splitlines(keepends=True) for scheme, lines in self.before.record}

    def target(self, scheme: str, path: str) -> str:
        return "/".join(part for part in (self.workspace, scheme, path, CACHE) if part)

    def request(self, batch: Batch) -> bytes:
        """Return the line that asks a child for a batch."""
        source = f"{self.entry}/{batch.scheme}/{batch.path}".rstrip("/")
        asked = [source, self.target(batch.scheme, batch.path), batch.path, self.manifest.mtime, batch.names]
        return json.dumps(asked).encode() + b"\n"

    def take(self, batch: Batch, answer: Sequence[Any]) -> None:
        """Take down what became of one source.

        :raises ChangedSourceError: it is not the wheel's
        :raises FilesystemError: its bytecode could not be written
        """
        kind, name, *details = answer
        path = _below(batch.path, name)
        if kind == "unreadable":
            raise ChangedSourceError(self.manifest, f"{self.entry}/{batch.scheme}/{path}", details[0])
        if kind == "unwritable":
            cause = OSError(details[0], os.strerror(details[0]))
            raise FilesystemError("write", f"{self.target(batch.scheme, batch.path)}/{name}c", cause)
        if self.expected.get((batch.scheme, path)) != record.hash_of(_encode(details[-1])):
            raise ChangedSourceError(self.manifest, f"{self.entry}/{batch.scheme}/{path}", "its hash is not RECORD's")
        if kind == "failed":
            self.failures.append((path, printable(details[0])))
            self.left -= 1
            return
        if kind == "exhausted":
            self.give_up(batch, name, details[0])
            return
        size, digest, _ = details
        directory = _below(batch.path, CACHE)
        compiled = name_of(name, self.shelf.tag)
        self.files.setdefault((batch.scheme, directory), []).append((compiled, size, False))
        line = record.line(f"{directory}/{compiled}", _encode(digest), size)
        self.lines.setdefault(batch.scheme, []).append(line)
        self.left -= 1

    def give_up(self, batch: Batch, name: str, problem: str) -> None:
        """Take down that children died of a source, or had not enough memory for it."""
        self.died.append((batch.scheme, _below(batch.path, name), problem))
        self.left -= 1

    def finish(self) -> Compiled:
        """Bring it all into the store."""
        directories = (Directory(scheme, path, sorted(files)) for (scheme, path), files in sorted(self.files.items()))
        compiled = Compiled(
            sha256=self.manifest.sha256,
            filename=self.manifest.filename,
            tag=self.shelf.tag,
            mtime=self.manifest.mtime,
            directories=tuple(directories),
            record=Rows.of((scheme, "".join(sorted(lines))) for scheme, lines in sorted(self.lines.items())),
            failures=tuple(sorted(self.failures)),
            died=tuple(sorted(self.died)),
            late=tuple(sorted(self.lacked - {path for _, path, _ in self.died})),
        )
        try:
            return self.shelf.add(self.workspace, compiled)
        finally:
            self.close()

    def close(self) -> None:
        """Remove what was not brought into the store, and release the lock."""
        atomic.discard_tree(self.workspace)
        if self.lock is not None:
            self.lock.release()


def _hashes(manifest: Manifest) -> Mapping[tuple[str, str], str]:
    """Return the hashes of a wheel's sources: (scheme, path) → as RECORD writes them."""
    return {(scheme, path): hash_ for scheme, lines in manifest.record for path, hash_, _ in record.rows(lines)}


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _encode(digest: str) -> str:
    return record.encode(bytes.fromhex(digest))
