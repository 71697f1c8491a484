"""Verify one wheel and unpack it into a directory, which becomes a store entry (see `manifest`).

Nothing of a wheel is believed before it is checked: the archive's structure (`archive`), the identity of its
.dist-info, RECORD against the list of members, every file against RECORD and its CRC while it is written, the final
layout (`layout`). Whatever fails raises a `WheelError` that names the file, the reason and a way on, and the caller
throws the directory away.

What RECORD omits, or has no good hash for, is taken only where the lock file has the hash of the whole wheel, which
vouches for every byte of it; the manifest says so. What pip and uv take besides, and what is taken here, is in
docs/wheels.md.

Each file costs four system calls besides the reading: open, write, utimensat, close; under a umask that keeps others
from reading, fchmod, too. Inflating, hashing and writing release the interpreter's lock, so that two wheels are
unpacked at once by two threads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from installer.utils import parse_metadata_file
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from envsync.errors import FilesystemError
from envsync.system import core, native, processes
from envsync.wheel import record, seconds, twins
from envsync.wheel.archive import Archive, Member, printable
from envsync.wheel.deflate import crc32
from envsync.wheel.layout import LaidFile, WheelLayout, lay_out
from envsync.wheel.manifest import NAME, Directory, Manifest, Rows, dump, load

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | core.NOFOLLOW
_SHEBANG = b"#!python"
_BLANK_LINE = re.compile(r"\r?\n\r?\n")
_REQUIRES = re.compile(r"^Requires-Dist:(.+(?:\n[ \t].+)*)", re.MULTILINE | re.IGNORECASE)
_Texts = tuple[dict[str, str], tuple[str, ...]]
_HEAD_LIMIT = 4 * 1024 * 1024
"""The headers of METADATA, WHEEL and entry_points.txt: more would keep their parsers busy for minutes."""
_LINE_LIMIT = 1024
"""What a line of RECORD takes besides the path, generously."""
_TELLING_APART = "name a cache directory on another filesystem: `envsync sync --cache-dir /var/tmp/envsync`"
_SHOWN = 5
"""So many sentences about a wheel are kept; the rest is counted."""


def unpack(
    descriptor: int,
    wheel: str,
    sha256: str,
    directory: str,
    how_to_vouch: str | None = "",
    *,
    second_for: Callable[[str], int],
    checkpoint: Callable[[], object] = lambda: None,
) -> Manifest:
    """Unpack a wheel into an empty directory, manifest.json last.

    :param descriptor: the wheel, open for reading; read with pread only
    :param wheel: its file name
    :param sha256: the hash of all its bytes, already checked
    :param directory: where to; what is in it after an error is of no use
    :param how_to_vouch: the hint for a wheel whose RECORD does not vouch for all its files; None if the lock file does
    :param second_for: given the normalized name of the project, takes the mtime of all files (`envsync.wheel.seconds`)
    :param checkpoint: called between files; whatever it raises ends the work
    :raises WheelError: the wheel is not what it says it is, or says what must not be
    :raises FilesystemError: it cannot be read, or the directory cannot be written
    """
    archive = Archive(descriptor, wheel)
    identity = _identify(archive)
    expected = _expectations(archive, identity.dist_info)
    unrecorded = _unrecorded(archive, expected, identity.dist_info)
    if unrecorded and how_to_vouch is not None:
        archive.refuse(unrecorded[0], how_to_vouch)
    expected = {name: entry for name, entry in expected.items() if entry.weakness is None}
    texts, requires = _metadata(archive, identity, expected)
    layout = lay_out(wheel, archive.members.values(), identity.dist_info, identity.data, texts)
    twins.refuse(wheel, layout.twins, directory, "cache", _TELLING_APART)
    writer = _Writer(archive, expected, directory, second_for(identity.name))
    writer.make_directories(layout.places)
    written = [writer.write(place, checkpoint) for place in layout.places]
    writer.check_unused(layout.places, checkpoint)
    writer.check_repeated(checkpoint)
    said = _Said(_some(unrecorded), _some(_remarks(archive)), layout.twins, requires)
    return _conclude(writer, layout, identity, written, sha256, said)


class _Said(NamedTuple):
    """What the manifest says of the wheel besides its layout; see there."""

    unrecorded: tuple[str, ...]
    remarks: tuple[str, ...]
    twins: tuple[twins.Pair, ...]
    requires: tuple[str, ...]


def _some(sentences: Sequence[str]) -> tuple[str, ...]:
    """Keep a few."""
    kept = tuple(printable(sentence) for sentence in sentences[:_SHOWN])
    more = len(sentences) - len(kept)
    return (*kept, f"{more} more of this kind") if more > 0 else kept


def _remarks(archive: Archive) -> list[str]:
    """Say what is odd about a wheel, and taken as pip and uv take it."""
    links = [
        f"`{name}` is a symbolic link, and came as a plain file with the path where it leads" for name in archive.links
    ]
    return links + [f"it has `{member.name}` twice, with one content" for member in archive.repeated]


class _Identity(NamedTuple):
    """Who the wheel is, by its file name."""

    name: str
    version: str
    dist_info: str
    data: str | None


class _Written(NamedTuple):
    """A file as it was written."""

    place: LaidFile
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
    for name, member in archive.members.items():
        size = expected[name].size if name in expected else None
        if size is not None and size != member.size:
            archive.refuse(f"`{name}` has {member.size} bytes, but its RECORD says {size}")
    return expected


def _unrecorded(archive: Archive, expected: Mapping[str, record.Expected], dist_info: str) -> list[str]:
    """Say where RECORD does not vouch for the archive's files, or names others."""
    problems = []
    excepted = {f"{dist_info}/{name}" for name in (record.NAME, *record.SIGNATURES)}
    for name in archive.members:
        entry = expected.get(name)
        if entry is None:
            if name not in excepted:
                problems.append(f"`{name}` is not in its RECORD")
        elif entry.weakness is not None:
            problems.append(f"its RECORD has {entry.weakness} for `{name}`; sha256 or better is required")
    absent = [name for name in expected if name not in archive.members]
    if absent:
        directories = _directories(archive)
        problems += [f"its RECORD lists `{name}`, which it does not have" for name in absent if name not in directories]
    return problems


def _directories(archive: Archive) -> set[str]:
    """Name all directories of an archive, with or without a member of their own."""
    directories: set[str] = set()
    for name in (*archive.members, *archive.directories):
        parent = name.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    return directories


def _metadata(archive: Archive, identity: _Identity, expected: Mapping[str, record.Expected]) -> _Texts:
    """Check WHEEL and METADATA; return the texts that decide the layout, and what METADATA requires."""
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
        entry = expected.get(path)
        if entry is not None and record.encode(hashlib.new(entry.algorithm, data).digest()) != entry.digest:
            _refuse_hash(archive, path)
        try:
            texts[name] = data.decode("utf-8", "replace" if name == "METADATA" else "strict")
        except UnicodeDecodeError:
            archive.refuse(f"its {name} is not UTF-8")
    if _check_wheel_version(archive, texts["WHEEL"]) < 1:
        texts["WHEEL"] = "Wheel-Version: 1.0\n" + texts["WHEEL"]  # what `installer` knows; the first such line counts
    metadata = texts.pop("METADATA")
    _check_metadata(archive, identity, metadata)
    requires = _REQUIRES.findall(_BLANK_LINE.split(metadata, 1)[0])
    return texts, tuple(" ".join(line.split()) for line in requires)


def _check_wheel_version(archive: Archive, text: str) -> int:
    """Return the major version of the wheel's format, which is 0 or 1: older wheels differ in nothing that counts."""
    (version,) = _fields(archive, "WHEEL", text, "Wheel-Version")
    major = (version or "").partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        archive.refuse("its WHEEL does not say which version of the wheel format it has")
    if major.lstrip("0") not in ("", "1"):
        archive.refuse(f"it has version {version} of the wheel format; version 1 is the newest that is known")
    return int(major)


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
        self.mtime = mtime
        self._is_masked = bool(processes.read_umask() & 0o555)

    def make_directories(self, places: Iterable[LaidFile]) -> None:
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

    def write(self, place: LaidFile, checkpoint: Callable[[], object]) -> _Written:
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
            mode = 0o555 if place.executable else 0o444
            descriptor = core.open_file(path, _CREATE, mode)
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
                self._finish(descriptor, mode)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FilesystemError("write", path, error) from error
        digest = record.encode(hasher.digest())
        if not isinstance(source, bytes):
            self._compare(source, digest if verifier is None else record.encode(verifier.digest()), crc)
        return _Written(place, digest, size, rewrite)

    def check_unused(self, places: Iterable[LaidFile], checkpoint: Callable[[], object]) -> None:
        """Compare with RECORD what is not installed, too: a wheel is sound as a whole or not at all."""
        used = {place.source.name for place in places if isinstance(place.source, Member)}
        for name, member in self._archive.members.items():
            if name not in used and name in self._expected:
                checkpoint()
                digest, crc = self._read(member, self._expected[name].algorithm)
                self._compare(member, digest, crc)

    def check_repeated(self, checkpoint: Callable[[], object]) -> None:
        """Compare the contents of members of one name: tools differ on which of them counts."""
        for member in self._archive.repeated:
            checkpoint()
            digest, crc = self._read(member, "sha256")
            self._archive.check_crc(member, crc)
            if digest != self._read(self._archive.members[member.name], "sha256")[0]:
                self._archive.refuse(f"it has `{member.name}` twice, with different contents")

    def _read(self, member: Member, algorithm: str) -> tuple[str, int]:
        """Return the digest and the CRC of a member."""
        hasher = hashlib.new(algorithm)
        crc = 0
        for piece in self._archive.pieces(member):
            hasher.update(piece)
            crc = crc32(piece, crc)
        return record.encode(hasher.digest()), crc

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of our own."""
        path = f"{self._directory}/{path}"
        try:
            descriptor = core.open_file(path, _CREATE, 0o444)
            try:
                _write_all(descriptor, data)
                self._finish(descriptor, 0o444)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FilesystemError("write", path, error) from error

    def _finish(self, descriptor: int, mode: int) -> None:
        """Give a file its mode and its time. Where times cannot be set, the entry goes without."""
        if self._is_masked:
            with suppress(OSError):  # CIFS: the mount says the modes of all files
                native.chmod(descriptor, mode)
        if self.mtime and not seconds.stamp(descriptor, self.mtime):
            self.mtime = seconds.TIMELESS

    def check_times(self, path: str) -> None:
        """Look whether times were kept: some filesystems take them and keep their own.

        :param path: a file that was written
        """
        path = f"{self._directory}/{path}"
        try:
            if self.mtime and os.stat(path).st_mtime_ns != self.mtime * 1_000_000_000:
                self.mtime = seconds.TIMELESS
        except OSError as error:
            raise FilesystemError("look at", path, error) from error

    def _verifier(self, member: Member) -> hashlib._Hash | None:
        """Return a hash to compare with RECORD's, if that is not the one that is computed anyway."""
        entry = self._expected.get(member.name)
        return None if entry is None or entry.algorithm == "sha256" else hashlib.new(entry.algorithm)

    def _compare(self, member: Member, digest: str, crc: int) -> None:
        entry = self._expected.get(member.name)
        if entry is not None and digest != entry.digest:
            _refuse_hash(self._archive, member.name)
        self._archive.check_crc(member, crc)


def _write_all(descriptor: int, data: bytes) -> None:
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, memoryview(data)[done:])


def _conclude(  # noqa: PLR0917
    writer: _Writer, layout: WheelLayout, identity: _Identity, written: list[_Written], sha256: str, said: _Said
) -> Manifest:
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
        text = _joined([*lines[layout.root], (own, record.bare_line(own))]).encode()
        writer.write_bytes(f"{layout.root}/{own}", text)
        files[layout.root, identity.dist_info].append((record.NAME, len(text), False))
    if written:
        writer.check_times(f"{written[0].place.scheme}/{written[0].place.path}")
    manifest = Manifest(
        name=identity.name,
        version=identity.version,
        filename=writer.wheel,
        sha256=sha256,
        root=layout.root,
        dist_info=identity.dist_info,
        mtime=writer.mtime,
        directories=tuple(
            Directory(scheme, path, tuple(sorted(entries))) for (scheme, path), entries in sorted(files.items())
        ),
        scripts=layout.scripts,
        rewrite=rewritten,
        complete=complete,
        requires=said.requires,
        record=Rows.of((scheme, _joined(entries)) for scheme, entries in sorted(lines.items())),
        unrecorded=said.unrecorded,
        remarks=said.remarks,
        twins=said.twins,
    )
    data = dump(manifest)
    writer.write_bytes(NAME, data)
    return load(data)  # just as whoever finds the entry later will read it


def _joined(lines: list[tuple[str, str]]) -> str:
    return "".join(line for _, line in sorted(lines))
