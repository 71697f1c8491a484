"""What is made for one environment: scripts that name its interpreter, direct_url.json, RECORD, files of another time.

All else comes from the store as it is (`envsync.staging.link`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from envsync.errors import FilesystemError
from envsync.launch import reading
from envsync.python.facts import Layout
from envsync.staging import scripts
from envsync.staging.link import make_directory
from envsync.staging.linked_directories import Whole
from envsync.staging.parts import Item
from envsync.store.damage import DamagedError, cannot_open, compare, rows_of
from envsync.store.store import Store
from envsync.system import core, native
from envsync.wheel import record, seconds
from envsync.wheel.manifest import Manifest


class Maker:
    """Makes files in the stage of one environment.

    :param env: absolute path of the environment, as scripts name it
    :param root: the directory of the stage
    """

    def __init__(self, env: str, layout: Layout, store: Store, root: str) -> None:
        self.env = env
        self.layout = layout
        self.store = store
        self.root = root

    def generate(self, item: Item, origin: Iterable[tuple[str, bytes]], whole: Iterable[Whole]) -> None:
        """Make a distribution's scripts, the files that say where it came from, and RECORD.

        :param origin: these files, as `origin_of` gives them, by path
        :param whole: its directories that are links into the store
        """
        manifest = item.manifest
        dist_info = dist_info_of(self.layout, manifest)
        written: list[tuple[str, bytes]] = []
        for name, content in self._scripts(manifest):
            path = f"{self.layout.scripts}/{name}"
            written.append((path, content))
            if path not in item.skip:
                self._write(path, content, 0o777)
        for path, content in origin:
            written.append((path, content))
            self._write(path, content, 0o666)
        path = f"{dist_info}/{record.NAME}"
        self._write(path, self._record(manifest, path, written, whole), 0o666)

    def _scripts(self, manifest: Manifest) -> Iterable[tuple[str, bytes]]:
        python = native.spelled(f"{self.env}/{core.PYTHON}")
        for script in manifest.scripts:
            yield script.filename, scripts.entry_point(script, python)
        for name in manifest.rewrite:
            path = f"{self.store.path(manifest.sha256)}/scripts/{name}"
            try:
                content = reading.content(path)
            except OSError as error:
                raise cannot_open(manifest, path, error) from error
            yield name, scripts.rewrite(content, python)

    def _record(
        self, manifest: Manifest, own: str, written: Sequence[tuple[str, bytes]], whole: Iterable[Whole]
    ) -> bytes:
        site = self.layout.directory(manifest.root, manifest.name)
        # A link comes before all that is in it (`envsync.staging.linked_directories`).
        links = sorted(record.bare_line(record.relative(one.path, site)) for one in whole)
        if manifest.complete and not written:
            return "".join(links).encode() + self._as_unpacked(manifest)
        lines: list[str] = []
        for scheme, text in rows_of(manifest):
            lines += record.installed_lines(text, self.layout.directory(scheme, manifest.name), site)
        for path, content in written:
            lines.append(record.line(record.relative(path, site), record.digest_of(content), len(content)))
        lines.append(record.bare_line(record.relative(own, site)))
        # Each once; in the order in which the wheel has them, which is almost the one in which they are sorted.
        return "".join([*links, *sorted(dict.fromkeys(lines))]).encode()

    def _as_unpacked(self, manifest: Manifest) -> bytes:
        """Read the RECORD of an entry of which all is in it, compared as what is linked is."""
        directory = f"{self.store.path(manifest.sha256)}/{manifest.root}/{manifest.dist_info}/"
        compare(manifest, "", directory, [(record.NAME, record_size(manifest), False)])
        try:
            return reading.content(f"{directory}{record.NAME}")
        except OSError as error:
            raise cannot_open(manifest, f"{directory}{record.NAME}", error) from error

    def _write(self, path: str, content: bytes, mode: int) -> None:
        full = f"{self.root}/{path}"
        try:
            with open(self._create(full, mode), "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise FilesystemError("write", full, error) from error

    def _create(self, full: str, mode: int) -> int:
        """Make an empty file, and open it. What is there goes: a link to the store's must not be written through."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return core.open_file(full, flags, mode)
        except FileNotFoundError:
            make_directory(full.rpartition("/")[0])
        except FileExistsError:
            os.unlink(full)
        return core.open_file(full, flags, mode)

    def make_guard(self, second: int, path: str) -> None:
        """Make the file that a stamp may name: as old as the oldest that is linked, or a purge would take it later.

        What is linked has the entry's mtime, and was read or linked anew within a day.

        :param second: of the files beside it; 0 where times cannot be set
        """
        full = f"{self.root}/{path}"
        try:
            fd = self._create(full, 0o666)
            try:
                if second:
                    seconds.age(fd, second)
            finally:
                os.close(fd)
        except OSError as error:
            raise FilesystemError("write", full, error) from error

    def copy(self, manifest: Manifest, source: str, path: str, made: Callable[[bytes], Copy]) -> None:
        """Copy a file of the store that gets another time.

        :param made: makes the copy of what the file has
        """
        try:
            with open(source, "rb") as file:
                copy = made(file.read())
        except OSError as error:
            raise cannot_open(manifest, source, error) from error
        self._write(path, copy.content, copy.mode)
        try:
            os.utime(f"{self.root}/{path}", ns=(time.time_ns(), copy.second * 1_000_000_000))
        except OSError as error:
            if error.errno not in seconds.REFUSALS:
                raise FilesystemError("write", f"{self.root}/{path}", error) from error


def origin_of(direct_url: str | None) -> Iterator[tuple[str, bytes]]:
    """Give the files that say where a distribution came from, if it was asked for by URL or path."""
    if direct_url is not None:
        from envsync.staging import uv_cache  # parses URLs: 3 ms that most syncs have no use for

        yield "direct_url.json", direct_url.encode()
        if (cached := uv_cache.text(direct_url)) is not None:
            yield uv_cache.NAME, cached


def dist_info_of(layout: Layout, manifest: Manifest) -> str:
    """Return where a wheel's .dist-info goes, relative to the environment."""
    return f"{layout.directory(manifest.root, manifest.name)}/{manifest.dist_info}"


def record_size(manifest: Manifest) -> int:
    """Return how many bytes the RECORD of an entry has that has one.

    :raises DamagedError: its manifest lists none
    """
    for directory in manifest.directories:
        if directory.scheme == manifest.root and directory.path == manifest.dist_info:
            for name, size, _ in directory.files:
                if name == record.NAME:
                    return int(size)
    raise DamagedError(manifest, manifest.dist_info, "it has no RECORD")


class Copy(NamedTuple):
    """A file that differs from the store's in its time."""

    content: bytes
    mode: int
    second: int


def as_it_is(second: int, content: bytes, *, executable: bool) -> Copy:
    return Copy(content, 0o777 if executable else 0o666, second)


def made_to_fit(second: int, content: bytes) -> Copy:
    """Make bytecode fit a source of another time, which its header has in bytes 8 to 11 (PEP 552)."""
    return Copy(content[:8] + (second & 0xFFFFFFFF).to_bytes(4, "little") + content[12:], 0o666, second)
