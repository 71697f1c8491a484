"""Read a wheel's zip without trusting it.

The central directory is read by `zipfile`; everything else is ours, because the hot path of a cold sync is
here. All checks of names and structure are made before the first byte is inflated:

- names: relative, forward slashes, no `..`, no empty or overlong components, not nested too deeply, UTF-8, no
  control characters, nothing that Windows reads otherwise; no file where another needs a directory; none twice,
  unless with one content
- structure: plain files, directories and symbolic links only, not encrypted, stored or deflated, members that do not
  overlap. A link is a plain file to all that follows, with the path where it leads for content, as to pip and uv
- sizes: not more in all than a wheel of this size may hold (`UNSUSPECTED`, `RATIO`)
- each local header, when its member is read: the same name and method as the central directory

Declared sizes bound what is inflated and are never believed: a member that inflates to more stops one byte
later, and one that inflates to less is refused. Contents are checked by whoever reads them, against RECORD and CRC.

The descriptor is read with pread only, so that one archive can be read by several threads.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from envsync.errors import FilesystemError, WheelError
from envsync.system import native
from envsync.wheel.deflate import RAW, DeflateErrors, crc32, decompressobj

if TYPE_CHECKING:
    import zipfile

PIECE = 256 * 1024
"""Members are inflated, hashed and written in pieces of this size, which stay in the processor's cache."""
READ_LIMIT = 64 * 1024 * 1024
"""No metadata file of a wheel is larger than this."""
UNSUSPECTED = 1024 * 1024 * 1024
"""A wheel may always hold so many bytes, however small it is itself."""
RATIO = 100
"""A wheel that holds more may hold so many times its own size: binaries have 3 to 5, text 10, a bomb 1000."""
_DEPTH = 100
"""Of directories: whoever removes a tree holds a descriptor and a stack frame for each level of it."""
_LENGTH = 2048
"""Half of what Linux takes (PATH_MAX): the other half is for the place where a wheel is unpacked."""

_LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")  # signature, flags, method, length of name, length of extra
_EXTRA = 64  # the local extra fields that are read along with a small member; longer ones cost another read
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # encrypted, strongly encrypted, central directory encrypted
_UTF8 = 0x800
_UNICODE_PATH = 0x7075  # an extra field with another name for the member, which some readers prefer
_METHODS = {0: "stored", 8: "deflated"}
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # all that ends a line somewhere is among them


class Member(NamedTuple):
    """A file in the archive."""

    name: str
    offset: int
    """Of its local header."""
    limit: int
    """Where the next member, or the central directory, begins."""
    compressed: int
    size: int
    """As declared."""
    method: int
    crc: int
    executable: bool


class Archive:
    """An open wheel whose names and structure are sound.

    :param descriptor: the wheel, open for reading; stays the caller's
    :param wheel: its file name, for messages
    :raises WheelError: it is not a zip, or one of the things that the module's text lists
    """

    def __init__(self, descriptor: int, wheel: str) -> None:
        self.descriptor = descriptor
        self.wheel = wheel
        infos, end = self._central_directory()
        for info in infos:
            self._check(info)
        self._check_total(sum(info.file_size for info in infos))
        names = [info.orig_filename for info in infos]
        self.directories = frozenset(name for name in names if name.endswith("/"))
        """Directories that have a member of their own; each ends in a slash."""
        self.links = tuple(info.orig_filename for info in infos if stat.S_ISLNK(info.external_attr >> 16))
        """Files that are symbolic links, as far as the archive is concerned."""
        members = [_member(info, limit) for info, limit in self._limits(infos, end)]
        self.members = {member.name: member for member in members}
        """Files by name, in the order of the archive."""
        self.repeated = self._repeated(members)
        """Further members of the same names, of the same size and CRC: whoever reads a file compares their contents."""
        problem = find_collision(self.members, self.directories)
        if problem is not None:
            self.refuse(problem)

    def refuse(self, problem: str, hint: str | None = None) -> NoReturn:
        """Refuse the wheel.

        :raises WheelError: always
        """
        raise WheelError(self.wheel, printable(problem), hint=hint)

    def _repeated(self, members: Sequence[Member]) -> tuple[Member, ...]:
        """Return all but the last member of each name, which is the one that pip and uv install."""
        repeated = tuple(member for member in members if self.members[member.name] is not member)
        for member in repeated:
            last = self.members[member.name]
            if (member.size, member.crc) != (last.size, last.crc):
                self.refuse(f"it has `{member.name}` twice, with different contents")
        return repeated

    def read(self, member: Member) -> bytes:
        """Read one member whole and check its CRC; for the few that are not in RECORD or are needed before."""
        if member.size > READ_LIMIT:
            self.refuse(f"`{member.name}` claims {member.size} bytes, more than makes sense")
        data = b"".join(self.pieces(member))
        self.check_crc(member, crc32(data))
        return data

    def check_crc(self, member: Member, crc: int) -> None:
        """Refuse a member whose contents have another CRC than declared."""
        if crc != member.crc:
            self.refuse(f"`{member.name}` is damaged (its CRC does not match)")

    def pieces(self, member: Member) -> Iterator[bytes]:
        """Yield the contents of a member, at most `PIECE` bytes at a time and `member.size` bytes in all.

        :raises WheelError: it holds fewer or more bytes than declared, or its local header tells another story
        """
        wanted = _LOCAL_HEADER.size + len(member.name.encode()) + _EXTRA + min(member.compressed, PIECE)
        head = self._pread(min(wanted, member.limit - member.offset), member.offset)
        start = self._data_start(head, member)
        first = head[start : start + min(member.compressed, PIECE)]
        position, end = member.offset + start + len(first), member.offset + start + member.compressed
        source = self._source(first, position, end)
        return source if member.method == 0 else self._inflate(source, member)

    def _source(self, first: bytes, position: int, end: int) -> Iterator[bytes]:
        if first:
            yield first
        while position < end:
            data = self._pread(min(PIECE, end - position), position)
            position += len(data)
            yield data

    def _inflate(self, source: Iterator[bytes], member: Member) -> Iterator[bytes]:
        inflater = decompressobj(RAW)
        done = 0
        while not inflater.eof:
            data = inflater.unconsumed_tail or next(source, b"")
            try:
                piece = inflater.decompress(data, min(PIECE, member.size - done + 1))
            except DeflateErrors as error:
                self.refuse(f"`{member.name}` is damaged ({error})")
            done += len(piece)
            if done > member.size:
                self.refuse(f"`{member.name}` holds more than the {member.size} bytes it declares")
            if piece:
                yield piece
            elif not data:
                break
        if done != member.size or not inflater.eof:
            self.refuse(f"`{member.name}` is cut short: {done} of {member.size} bytes")

    def _data_start(self, head: bytes, member: Member) -> int:
        """Check a local header and return where its data begins, counted from the header."""
        name = member.name.encode()
        if len(head) < _LOCAL_HEADER.size + len(name):
            self.refuse(f"`{member.name}` has a damaged local header")
        signature, flags, method, length, extra = _LOCAL_HEADER.unpack_from(head)
        if signature != b"PK\3\4":
            self.refuse(f"`{member.name}` has a damaged local header")
        if head[_LOCAL_HEADER.size : _LOCAL_HEADER.size + length] != name:
            self.refuse(f"`{member.name}` has another name in its local header")
        if not (flags & _UTF8 or member.name.isascii()):
            self.refuse(f"`{member.name}` is not marked as UTF-8 in its local header")
        if flags & _ENCRYPTED:
            self.refuse(f"`{member.name}` is encrypted")
        if method != member.method:
            self.refuse(f"`{member.name}` has another compression method in its local header")
        start = _LOCAL_HEADER.size + length + extra
        if member.offset + start + member.compressed > member.limit:
            self.refuse(f"`{member.name}` overlaps what follows it")
        return int(start)

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            data = native.pread(self.descriptor, length, offset)
        except OSError as error:
            raise FilesystemError("read", self.wheel, error) from error
        if not data and length:
            self.refuse("it is truncated")
        return data

    def _central_directory(self) -> tuple[list[zipfile.ZipInfo], int]:
        import zipfile

        try:
            with (
                os.fdopen(self.descriptor, "rb", closefd=False) as stream,
                zipfile.ZipFile(stream) as archive,
            ):
                return archive.infolist(), archive.start_dir
        except UnicodeDecodeError:
            self.refuse("it has a file name that is not UTF-8")
        except OSError as error:
            raise FilesystemError("read", self.wheel, error) from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            self.refuse(f"it is not a zip file, or is truncated ({error})")

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.orig_filename
        is_directory = name.endswith("/")
        problem = check_path(name[:-1] if is_directory else name)
        if problem is not None:
            self.refuse(f"{problem}: `{name}`")
        if not name.isascii() and not info.flag_bits & _UTF8:
            self.refuse(f"the file name `{name}` is neither ASCII nor marked as UTF-8")
        if info.extra and not _agrees(info.extra, name):
            self.refuse(f"`{name}` has another name in an extra field")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in ((0, stat.S_IFREG, stat.S_IFDIR) if is_directory else (0, stat.S_IFREG, stat.S_IFLNK)):
            self.refuse(f"`{name}` is a {_kind(kind)}; only plain files are allowed")
        if info.flag_bits & _ENCRYPTED:
            self.refuse(f"`{name}` is encrypted")
        if info.compress_type not in _METHODS:
            self.refuse(f"`{name}` is compressed by method {info.compress_type}; only deflate is allowed")
        if info.compress_type == 0 and info.compress_size != info.file_size:
            self.refuse(f"`{name}` is stored in {info.compress_size} bytes but declares {info.file_size}")
        if is_directory and info.file_size:
            self.refuse(f"the directory `{name}` has content")

    def _check_total(self, declared: int) -> None:
        """Refuse a bomb by what it declares; more than it declares is never inflated."""
        if declared <= UNSUSPECTED:
            return
        own = self._size()
        if declared > RATIO * own:
            self.refuse(f"its {own} bytes declare {declared} bytes of content, more than {RATIO} times as many")

    def _size(self) -> int:
        try:
            return os.fstat(self.descriptor).st_size
        except OSError as error:
            raise FilesystemError("read", self.wheel, error) from error

    def _limits(self, infos: Iterable[zipfile.ZipInfo], end: int) -> Iterator[tuple[zipfile.ZipInfo, int]]:
        """Pair each file with the offset that it must end before; directories are checked and left out."""
        ordered = sorted(infos, key=lambda info: info.header_offset)
        limits = [info.header_offset for info in ordered[1:]] + [end]
        for info, limit in zip(ordered, limits, strict=False):
            least = _LOCAL_HEADER.size + len(info.orig_filename.encode()) + info.compress_size
            if info.header_offset < 0:
                self.refuse(f"`{info.orig_filename}` lies outside of the archive")
            if info.header_offset + least > limit:
                self.refuse(f"`{info.orig_filename}` overlaps what follows it")
            if not info.orig_filename.endswith("/"):
                yield info, limit


def _member(info: zipfile.ZipInfo, limit: int) -> Member:
    mode = info.external_attr >> 16
    return Member(
        info.orig_filename,
        info.header_offset,
        limit,
        info.compress_size,
        info.file_size,
        info.compress_type,
        info.CRC,
        stat.S_ISREG(mode) and bool(mode & 0o111),
    )


def _agrees(extra: bytes, name: str) -> bool:
    """Tell whether the extra fields of a member give it no other name (APPNOTE.TXT, 4.6.9)."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == _UNICODE_PATH and extra[9 : 4 + length] != name.encode():  # after a version and a CRC
            return False
        extra = extra[4 + length :]
    return True


def _kind(kind: int) -> str:
    names = {stat.S_IFLNK: "symbolic link", stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe"}
    return names.get(kind, "special file")


def check_path(path: str) -> str | None:
    """Say what is wrong with the path of a file in a wheel, if anything is.

    Nothing that passes can leave the directory below which it is unpacked.
    """
    if "\0" in path:
        return "a file name has a NUL"
    if _CONTROL.search(path):
        return "a file name has a control character"
    if "\\" in path:
        return "a file name has a backslash"
    if path.startswith("/") or _DRIVE.match(path):
        return "a file name is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "a file name leads out of the wheel"
    if "" in parts or "." in parts:
        return "a file name has an empty component"
    if len(path) > 63:  # no character takes more than 4 bytes
        if len(parts) > _DEPTH:
            return "a file name is nested too deeply"
        if len(path.encode()) > _LENGTH or any(len(part.encode()) > 255 for part in parts):
            return "a file name is too long"
    if native.RESTRICTS_NAMES and not all(map(native.is_possible_name, parts)):
        return "a file name cannot be used on Windows"
    return None


def find_collision(files: Iterable[str], directories: Iterable[str] = ()) -> str | None:
    """Say which two of these paths cannot be unpacked side by side on any filesystem, if any.

    :param directories: those that exist even if empty, each ending in a slash
    """
    seen: set[str] = set()
    for file in files:
        if file in seen:
            return f"it has `{file}` twice"
        seen.add(file)
    parents: set[str] = set()
    for path in (*seen, *directories):
        parent = path.rpartition("/")[0]
        while parent and parent not in parents:
            if parent in seen:
                return f"`{parent}` is both a file and a directory"
            parents.add(parent)
            parent = parent.rpartition("/")[0]
    return None


def fold(path: str) -> str:
    """Return what two paths have in common if a filesystem that ignores case or Unicode form takes them for one.

    Which of them does is another question (`envsync.wheel.twins`).
    """
    if path.isascii():
        return path.lower()
    import unicodedata

    # As Unicode defines it: canonical caseless matching (3.13, D145).
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def printable(text: str) -> str:
    """Escape what a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
