"""Verify one wheel and unpack it into a directory, which becomes a store entry (see `manifest`).

Nothing of a wheel is believed before it is checked: the archive's structure (`archive`), the identity of its
.dist-info, RECORD against the list of members, every file against RECORD and its CRC while it is written, the final
layout (`layout`). Whatever fails raises a `WheelError` that names the file and the reason, and the caller
throws the directory away.

Each file costs four system calls besides the reading: open, write, utimensat, close. Inflating, hashing and
writing release the interpreter's lock, so that two wheels are unpacked at once by two threads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

from installer.utils import parse_metadata_file
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from envsync.cache import record
from envsync.cache.archive import Archive, Member
from envsync.cache.deflate import crc32
from envsync.cache.layout import Layout, Place, lay_out
from envsync.cache.manifest import NAME, Directory, Manifest, Rows, dump, load, mtime_of
from envsync.errors import FilesystemError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_SHEBANG = b"#!python"
_BLANK_LINE = re.compile(r"\r?\n\r?\n")
_HEAD_LIMIT = 4 * 1024 * 1024
"""The headers of METADATA, WHEEL and entry_points.txt: more would keep their parsers busy for minutes."""
_LINE_LIMIT = 1024
"""What a line of RECORD takes besides the path, generously."""


def unpack(
    descriptor: int,
    wheel: str,
    sha256: str,
    directory: str,
    *,
    checkpoint: Callable[[], object] = lambda: None,
) -> Manifest:
    """Unpack a wheel into an empty directory, manifest.json last.

    :param descriptor: the wheel, open for reading; read with pread only
    :param wheel: its file name
    :param sha256: the hash of all its bytes, already checked
    :param directory: where to; what is in it after an error is of no use
    :param checkpoint: called between files; whatever it raises ends the work
    :raises WheelError: the wheel is not what it says it is, or says what must not be
    :raises FilesystemError: it cannot be read, or the directory cannot be written
    """
    archive = Archive(descriptor, wheel)
    identity = _identify(archive)
    expected = _expectations(archive, identity.dist_info)
    texts = _metadata(archive, identity, expected)
    layout = lay_out(wheel, archive.members.values(), identity.dist_info, identity.data, texts)
    writer = _Writer(archive, expected, directory, mtime_of(sha256))
    writer.make_directories(layout.places)
    written = [writer.write(place, checkpoint) for place in layout.places]
    writer.check_unused(layout.places, checkpoint)
    return _conclude(writer, layout, identity, written, sha256)


class _Identity(NamedTuple):
    """Who the wheel is, by its file name."""

    name: str
    version: str
    dist_info: str
    data: str | None


class _Written(NamedTuple):
    """A file as it was written."""

    place: Place
    digest: str
    """sha256 as in RECORD."""
    size: int
    rewrite: bool


def _identify(archive: Archive) -> _Identity:
    try:
        name, version, _, _ = parse_wheel_filename(archive.wheel)
    except InvalidWheelFilename as error:
        archive.refuse(f"its file name does not follow the standard: {error}")
    tops = dict.fromkeys(path.partition("/")[0] for path in archive.members if "/" in path)
    dist_infos = [top for top in tops if top.lower().endswith(".dist-info")]  # case does not count to importlib
    if len(dist_infos) != 1:
        found = " and ".join(f"`{top}`" for top in dist_infos)
        archive.refuse(f"it has several .dist-info directories: {found}" if found else "it has no .dist-info directory")
    datas = [top for top in tops if top.endswith(".data")]
    if len(datas) > 1:
        archive.refuse(f"it has several .data directories: {' and '.join(f'`{top}`' for top in datas)}")
    for top in (*dist_infos, *datas):
        if not (top.endswith((".dist-info", ".data")) and _fits(top.rpartition(".")[0], name, version)):
            archive.refuse(f"`{top}` does not fit the file name")
    return _Identity(name, str(version), dist_infos[0], datas[0] if datas else None)


def _fits(stem: str, name: str, version: Version) -> bool:
    theirs, _, their_version = stem.rpartition("-")
    return canonicalize_name(theirs) == name and _is_version(their_version, version)


def _is_version(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:
        return False


def _expectations(archive: Archive, dist_info: str) -> Mapping[str, record.Expected]:
    """Read RECORD and compare its list of files with the archive's."""
    own = f"{dist_info}/{record.NAME}"
    member = archive.members.get(own)
    if member is None:
        archive.refuse("it has no RECORD")
    longest = sum(_LINE_LIMIT + 2 * len(name.encode()) for name in (*archive.members, *archive.directories))
    if member.size > longest:
        archive.refuse(f"its RECORD has {member.size} bytes, more than its list of files can take")
    try:
        expected = record.parse(archive.read(member).decode("utf-8"), own)
    except ValueError as error:
        archive.refuse(f"its RECORD cannot be used: {error}")
    excepted = {own, *(f"{dist_info}/{name}" for name in record.SIGNATURES)}
    for name, member in archive.members.items():
        entry = expected.get(name)
        if entry is None:
            if name not in excepted:
                archive.refuse(f"`{name}` is not in its RECORD")
        elif entry.size is not None and entry.size != member.size:
            archive.refuse(f"`{name}` has {member.size} bytes, but its RECORD says {entry.size}")
    for name in expected:
        if name not in archive.members and name not in archive.directories:
            archive.refuse(f"its RECORD lists `{name}`, which it does not have")
    return expected


def _metadata(archive: Archive, identity: _Identity, expected: Mapping[str, record.Expected]) -> dict[str, str]:
    """Check WHEEL and METADATA; return the texts that decide the layout."""
    texts = {}
    for name in ("WHEEL", "METADATA", "entry_points.txt"):
        path = f"{identity.dist_info}/{name}"
        member = archive.members.get(path)
        if member is None:
            if name != "entry_points.txt":
                archive.refuse(f"it has no {name}")
            continue
        if name != "METADATA" and member.size > _HEAD_LIMIT:
            archive.refuse(f"its {name} has {member.size} bytes, more than makes sense")
        data = archive.read(member)
        hasher = hashlib.new(expected[path].algorithm, data)
        if record.encode(hasher.digest()) != expected[path].digest:
            _refuse_hash(archive, path)
        try:
            texts[name] = data.decode("utf-8", "replace" if name == "METADATA" else "strict")
        except UnicodeDecodeError:
            archive.refuse(f"its {name} is not UTF-8")
    _check_wheel_version(archive, texts["WHEEL"])
    _check_metadata(archive, identity, texts.pop("METADATA"))
    return texts


def _check_wheel_version(archive: Archive, text: str) -> None:
    (version,) = _fields(archive, "WHEEL", text, "Wheel-Version")
    major = (version or "").partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        archive.refuse("its WHEEL does not say which version of the wheel format it has")
    if major != "1":
        archive.refuse(f"it has version {version} of the wheel format; only version 1 is known")


def _check_metadata(archive: Archive, identity: _Identity, text: str) -> None:
    name, version = _fields(archive, "METADATA", text, "Name", "Version")
    if canonicalize_name(name or "") != identity.name:
        archive.refuse(f"its METADATA says that its name is {name!r}")
    if not _is_version(version or "", Version(identity.version)):
        archive.refuse(f"its METADATA says that its version is {version!r}")


def _fields(archive: Archive, file: str, text: str, *names: str) -> list[str | None]:
    """Return headers of METADATA or WHEEL."""
    head = _BLANK_LINE.split(text, 1)[0]  # the parser would take its time for the description, too
    if len(head) > _HEAD_LIMIT:
        archive.refuse(f"its {file} has {len(head)} bytes of headers, more than makes sense")
    headers = parse_metadata_file(head)
    return [None if headers[name] is None else str(headers[name]).strip() for name in names]


def _refuse_hash(archive: Archive, name: str) -> NoReturn:
    archive.refuse(f"`{name}` does not have the hash that its RECORD says")


class _Writer:
    """Writes the files of one wheel below one directory.

    :param expected: what RECORD says, by name in the archive
    :param mtime: of every file, in seconds since the epoch
    """

    def __init__(self, archive: Archive, expected: Mapping[str, record.Expected], directory: str, mtime: int) -> None:
        self.wheel = archive.wheel
        self._archive = archive
        self._expected = expected
        self._directory = directory
        self._mtime = mtime

    def make_directories(self, places: Iterable[Place]) -> None:
        needed: set[str] = set()
        for place in places:
            parent = f"{place.scheme}/{place.path}".rpartition("/")[0]
            while parent and parent not in needed:
                needed.add(parent)
                parent = parent.rpartition("/")[0]
        for path in sorted(needed):
            try:
                os.mkdir(f"{self._directory}/{path}")
            except OSError as error:
                raise FilesystemError("create", f"{self._directory}/{path}", error) from error

    def write(self, place: Place, checkpoint: Callable[[], object]) -> _Written:
        """Write one file, comparing it with RECORD on the way."""
        checkpoint()
        source = place.source
        pieces = (source,) if isinstance(source, bytes) else self._archive.pieces(source)
        verifier = None if isinstance(source, bytes) else self._verifier(source)
        hasher = hashlib.sha256()
        size = crc = 0
        rewrite = False
        path = f"{self._directory}/{place.scheme}/{place.path}"
        try:
            descriptor = os.open(path, _CREATE, 0o555 if place.executable else 0o444)
            try:
                for piece in pieces:
                    hasher.update(piece)
                    if verifier is not None:
                        verifier.update(piece)
                    if size == 0 and place.scheme == "scripts":
                        rewrite = piece.startswith(_SHEBANG)
                    size += len(piece)
                    crc = crc32(piece, crc)
                    _write_all(descriptor, piece)
                os.utime(descriptor, (self._mtime, self._mtime))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FilesystemError("write", path, error) from error
        digest = record.encode(hasher.digest())
        if not isinstance(source, bytes):
            self._compare(source, digest if verifier is None else record.encode(verifier.digest()), crc)
        return _Written(place, digest, size, rewrite)

    def check_unused(self, places: Iterable[Place], checkpoint: Callable[[], object]) -> None:
        """Compare with RECORD what is not installed, too: a wheel is sound as a whole or not at all."""
        used = {place.source.name for place in places if isinstance(place.source, Member)}
        for name, member in self._archive.members.items():
            if name not in used and name in self._expected:
                checkpoint()
                hasher = hashlib.new(self._expected[name].algorithm)
                crc = 0
                for piece in self._archive.pieces(member):
                    hasher.update(piece)
                    crc = crc32(piece, crc)
                self._compare(member, record.encode(hasher.digest()), crc)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of our own."""
        path = f"{self._directory}/{path}"
        try:
            descriptor = os.open(path, _CREATE, 0o444)
            try:
                _write_all(descriptor, data)
                os.utime(descriptor, (self._mtime, self._mtime))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FilesystemError("write", path, error) from error

    def _verifier(self, member: Member) -> hashlib._Hash | None:
        """Return a hash to compare with RECORD's, if that is not the one that is computed anyway."""
        algorithm = self._expected[member.name].algorithm
        return None if algorithm == "sha256" else hashlib.new(algorithm)

    def _compare(self, member: Member, digest: str, crc: int) -> None:
        if digest != self._expected[member.name].digest:
            _refuse_hash(self._archive, member.name)
        self._archive.check_crc(member, crc)


def _write_all(descriptor: int, data: bytes) -> None:
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, memoryview(data)[done:])


def _conclude(writer: _Writer, layout: Layout, identity: _Identity, written: list[_Written], sha256: str) -> Manifest:
    """Write RECORD, where it can be known now, and the manifest."""
    files: dict[tuple[str, str], list[tuple[str, int, bool]]] = {}
    lines: dict[str, list[tuple[str, str]]] = {}
    for place, digest, size, rewrite in written:
        parent, _, name = place.path.rpartition("/")
        files.setdefault((place.scheme, parent), []).append((name, size, place.executable))
        if not rewrite:
            lines.setdefault(place.scheme, []).append((place.path, record.line(place.path, digest, size)))
    rewritten = tuple(sorted(entry.place.path for entry in written if entry.rewrite))
    complete = not layout.scripts and not rewritten and set(lines) == {layout.root}
    if complete:
        own = f"{identity.dist_info}/{record.NAME}"
        text = _joined([*lines[layout.root], (own, record.own_line(own))]).encode()
        writer.write_bytes(f"{layout.root}/{own}", text)
        files[layout.root, identity.dist_info].append((record.NAME, len(text), False))
    manifest = Manifest(
        name=identity.name,
        version=identity.version,
        filename=writer.wheel,
        sha256=sha256,
        root=layout.root,
        dist_info=identity.dist_info,
        mtime=mtime_of(sha256),
        directories=tuple(
            Directory(scheme, path, tuple(sorted(entries))) for (scheme, path), entries in sorted(files.items())
        ),
        scripts=layout.scripts,
        rewrite=rewritten,
        complete=complete,
        record=Rows.of((scheme, _joined(entries)) for scheme, entries in sorted(lines.items())),
    )
    data = dump(manifest)
    writer.write_bytes(NAME, data)
    return load(data)  # just as whoever finds the entry later will read it


def _joined(lines: list[tuple[str, str]]) -> str:
    return "".join(line for _, line in sorted(lines))
