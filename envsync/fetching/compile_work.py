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
        self.left = 0
        self.results = Results()
        self.before = before
        self.lacked = set() if before is None else {*before.late, *(path for _, path, _ in before.died)}
        self.expected: Mapping[tuple[str, str], str] = {}

    @property
    def entry(self) -> str:
        return self.shelf.store.path(self.manifest.sha256)

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
        self.results.take_over(self.before)

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
            self.results.failures.append((path, printable(details[0])))
            self.left -= 1
            return
        if kind == "exhausted":
            self.give_up(batch, name, details[0])
            return
        size, digest, _ = details
        self.results.add(batch.scheme, _below(batch.path, CACHE), name_of(name, self.shelf.tag), size, _encode(digest))
        self.left -= 1

    def give_up(self, batch: Batch, name: str, problem: str) -> None:
        """Take down that children died of a source, or had not enough memory for it."""
        self.results.died.append((batch.scheme, _below(batch.path, name), problem))
        self.left -= 1

    def finish(self) -> Compiled:
        """Bring it all into the store."""
        try:
            return self.shelf.add(self.workspace, self.results.of(self.manifest, self.shelf.tag, self.lacked))
        finally:
            self.close()

    def close(self) -> None:
        """Remove what was not brought into the store, and release the lock."""
        atomic.discard_tree(self.workspace)
        if self.lock is not None:
            self.lock.release()


class Results:
    """What became of a wheel's sources.

    :ivar failures: those that do not compile, and why
    :ivar died: those that children died of, or had not enough memory for
    """

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[tuple[str, int, bool]]] = {}
        self._lines: dict[str, list[str]] = {}
        self.failures: list[tuple[str, str]] = []
        self.died: list[tuple[str, str, str]] = []

    def take_over(self, before: Compiled) -> None:
        """Begin with what was compiled before."""
        self.failures += before.failures
        self._files = {(scheme, path): [(*file,) for file in files] for scheme, path, files in before.directories}
        self._lines = {scheme: lines.splitlines(keepends=True) for scheme, lines in before.record}

    def add(self, scheme: str, directory: str, name: str, size: int, hash_: str) -> None:
        """Take down a file of bytecode."""
        self._files.setdefault((scheme, directory), []).append((name, size, False))
        self._lines.setdefault(scheme, []).append(record.line(f"{directory}/{name}", hash_, size))

    def of(self, manifest: Manifest, tag: str, lacked: set[str]) -> Compiled:
        """Return it all as the bytecode of a wheel.

        :param lacked: sources that had no bytecode when the others had
        """
        directories = (Directory(scheme, path, sorted(files)) for (scheme, path), files in sorted(self._files.items()))
        return Compiled(
            sha256=manifest.sha256,
            filename=manifest.filename,
            tag=tag,
            mtime=manifest.mtime,
            directories=tuple(directories),
            record=Rows.of((scheme, "".join(sorted(lines))) for scheme, lines in sorted(self._lines.items())),
            failures=tuple(sorted(self.failures)),
            died=tuple(sorted(self.died)),
            late=tuple(sorted(lacked - {path for _, path, _ in self.died})),
        )


def _hashes(manifest: Manifest) -> Mapping[tuple[str, str], str]:
    """Return the hashes of a wheel's sources: (scheme, path) → as RECORD writes them."""
    return {(scheme, path): hash_ for scheme, lines in manifest.record for path, hash_, _ in record.rows(lines)}


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _encode(digest: str) -> str:
    return record.encode(bytes.fromhex(digest))
