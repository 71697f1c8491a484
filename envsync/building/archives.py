"""Unpack a source distribution, or another archive of a tree, without trusting it.

Tar, plain or compressed by gzip, bzip2 or xz, and zip: which it is, its first bytes tell. What is unpacked is what pip
unpacks: plain files with their modification times (of tar) and whether they can be executed, directories, and links
that stay within. The standard library's `data` filter (PEP 706) is not in every Python that envsync runs on, and asks
where links lead before all of them are there; here, nothing is ever written through one:

- names are those that a wheel may have (`envsync.wheel.archive.check_path`): relative, no `..`, nothing odd
- a hard link becomes a second name of a file that was unpacked; a symbolic link is made once all files are there, and
  is then asked where it leads
- no devices, pipes or anything else; not more than an archive of this size may hold, in bytes or in members

All that the archive holds lies in one directory, whatever its name, as pip and uv have it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, NoReturn, cast

from envsync.errors import BuildError, FilesystemError, hints
from envsync.system import atomic, core, paths
from envsync.wheel.archive import RATIO, UNSUSPECTED, check_path, printable

PIECE = 256 * 1024
MOST_MEMBERS = 200_000
"""The sources of PyTorch with all its submodules have 60,000."""
LARGEST_HEADER = 4 * 1024 * 1024
"""Of a member's name and other fields, which tarfile holds in memory."""
_OPENERS: tuple[tuple[bytes, Callable[..., object]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)
_DAMAGES: tuple[type[Exception], ...] = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, LookupError, ArithmeticError, RuntimeError),
)
"""What reading an archive raises that is none."""


class _Member(NamedTuple):
    name: str
    """Without a leading `./` or a trailing slash; empty: the directory that all is in."""
    kind: int
    """As in st_mode; 0: a hard link."""
    size: int
    target: str = ""
    """Of a link."""
    executable: bool = False
    mtime: float | None = None
    content: Callable[[], IO[bytes] | None] = lambda: None


def unpack(
    archive: str, into: str, *, name: str, subdirectory: str = "", checkpoint: Callable[[], object] = lambda: None
) -> str:
    """Unpack an archive whose hash was verified.

    :param archive: its path, whatever its name
    :param into: a directory that does not exist; if this raises, it does not exist afterwards either
    :param name: of the package, for messages
    :param subdirectory: where in the archive's one directory the project is, with forward slashes
    :param checkpoint: called every few milliseconds; what it raises ends the work
    :returns: the project's directory, in `into`
    :raises BuildError: it is no archive, or holds what it must not
    :raises FilesystemError: it cannot be read, or the directory cannot be written
    """
    try:
        os.mkdir(into)
    except OSError as error:
        raise FilesystemError("create", into, error) from error
    try:
        with open(archive, "rb") as file:
            _Unpacking(into, name, checkpoint).unpack(file)
        return _project(into, name, subdirectory)
    except OSError as error:
        atomic.discard_tree(into)
        raise FilesystemError("unpack", error.filename or archive, error) from error
    except BaseException:
        atomic.discard_tree(into)
        raise


def _refuse(name: str, problem: str) -> NoReturn:
    raise BuildError(
        name,
        f"its archive is refused: {printable(problem)}",
        hint=f"{hints.of_build(name)}; an archive that is damaged has to be locked anew",
    )


def _project(into: str, name: str, subdirectory: str) -> str:
    """Return the directory of the project in what was unpacked."""
    entries = os.listdir(into)
    top = f"{into}/{entries[0]}" if len(entries) == 1 else ""
    if not top or os.path.islink(top) or not os.path.isdir(top):
        shown = ", ".join(f"`{entry}`" for entry in sorted(entries)[:5])
        _refuse(name, f"it does not hold one directory, but {shown or 'nothing'}")
    return within(top, subdirectory, name)


def within(tree: str, subdirectory: str, name: str) -> str:
    """Return a subdirectory of a tree, which must not leave it, by links either.

    :raises BuildError: there is none, or it leads out
    """
    path = paths.normpath(f"{tree}/{subdirectory}") if subdirectory else tree
    real = paths.realpath(tree)
    if subdirectory.startswith("/") or not paths.is_within(paths.realpath(path), real):
        raise BuildError(name, f"the subdirectory `{subdirectory}` leads out of its source")
    if not os.path.isdir(path):
        raise BuildError(name, f"there is no directory `{subdirectory}` in its source")
    return path


class _Unpacking:
    """Unpacks one archive.

    :ivar links: symbolic links, by name, that are made at the end
    """

    def __init__(self, into: str, package: str, checkpoint: Callable[[], object]) -> None:
        self.into = into
        self.package = package
        self.checkpoint = checkpoint
        self.links: dict[str, str] = {}
        self.left = 0
        """How many bytes may still come."""

    def unpack(self, file: IO[bytes]) -> None:
        size = os.fstat(file.fileno()).st_size
        self.left = max(UNSUSPECTED, RATIO * size)
        for count, member in enumerate(self._read(_zip_members(file) if _is_zip(file) else _tar_members(file))):
            self.checkpoint()
            self._check(member, count, size)
            if member.name:
                self._take(member)
        self._link()

    def _read(self, members: Iterator[_Member]) -> Iterator[_Member]:
        """Say of what is damaged that it is."""
        while True:
            try:
                member = next(members, None)
            except _DAMAGES as error:
                self._refuse(f"it is damaged, or no archive ({error})")
            except OSError as error:
                self._refuse_unless_real(error)
            if member is None:
                return
            yield member

    def _refuse_unless_real(self, error: OSError) -> NoReturn:
        """Gzip and bzip2 say by an OSError, which then has no errno, that something is damaged."""
        if error.errno is not None:
            raise error
        self._refuse(f"it is damaged, or no archive ({error})")

    def _refuse(self, problem: str) -> NoReturn:
        _refuse(self.package, problem)

    def _check(self, member: _Member, count: int, size: int) -> None:
        problem = check_path(member.name.encode(errors="replace").decode()) if member.name else None
        if problem is not None:
            self._refuse(f"{problem.replace('wheel', 'archive')}: `{member.name}`")
        if member.kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            self._refuse(f"`{member.name}` is a device, a pipe or the like")
        if member.size < 0:
            self._refuse(f"`{member.name}` declares {member.size} bytes")
        self.left -= member.size
        if self.left < 0 or count >= MOST_MEMBERS:
            self._refuse(f"its {size} bytes hold more than makes sense")

    def _take(self, member: _Member) -> None:
        path = f"{self.into}/{member.name}"
        if member.kind == stat.S_IFDIR:
            self._make_directories(member.name)
            return
        self._make_directories(os.path.dirname(member.name))
        self._make_way(member.name)  # the last of several counts, as with tar
        if member.kind == stat.S_IFLNK:
            self.links[member.name] = member.target
        elif member.kind == 0:
            self._link_hard(member)
        else:
            self._write(path, member)

    def _make_directories(self, name: str) -> None:
        try:
            os.makedirs(f"{self.into}/{name}", exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            self._refuse(f"`{name}` is both a file and a directory")

    def _make_way(self, name: str) -> None:
        self.links.pop(name, None)
        try:
            os.unlink(f"{self.into}/{name}")
        except FileNotFoundError:
            pass  # as nearly always
        except (IsADirectoryError, PermissionError):
            self._refuse(f"`{name}` is both a file and a directory")

    def _link_hard(self, member: _Member) -> None:
        problem = check_path(member.target)
        source = f"{self.into}/{member.target}"
        if problem is not None or os.path.islink(source) or not os.path.isfile(source):
            self._refuse(f"`{member.name}` is a link to `{member.target}`, which is no file before it")
        shutil.copy2(source, f"{self.into}/{member.name}")

    def _write(self, path: str, member: _Member) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | core.NOFOLLOW
        with open(core.open_file(path, flags, 0o777 if member.executable else 0o666), "wb") as file:
            left = member.size
            for piece in self._pieces(member):
                left -= len(piece)
                if left < 0:
                    self._refuse(f"`{member.name}` holds more than the {member.size} bytes it declares")
                file.write(piece)
                self.checkpoint()
            if left:
                self._refuse(f"`{member.name}` is cut short")
        if member.mtime is not None:
            try:
                os.utime(path, (member.mtime, member.mtime))
            except (OSError, OverflowError, ValueError):
                pass  # a time that this filesystem does not know

    def _pieces(self, member: _Member) -> Iterator[bytes]:
        try:
            content = member.content()
            while content is not None and (piece := content.read(PIECE)):
                yield piece
        except _DAMAGES as error:
            self._refuse(f"`{member.name}` is damaged ({error})")
        except OSError as error:
            self._refuse_unless_real(error)

    def _link(self) -> None:
        """Make the symbolic links. None leads out, by way of another one either."""
        for name, target in self.links.items():
            if os.path.isdir(path := f"{self.into}/{name}"):
                self._refuse(f"`{name}` is both a link and a directory")
            if not target or "\0" in target:
                self._refuse(f"`{name}` is a link to nothing")
            os.symlink(target, path)
        top = paths.realpath(self.into)
        for name, target in self.links.items():
            real = paths.realpath(f"{self.into}/{name}")
            if target.startswith("/") or not paths.is_within(real, top):
                self._refuse(f"`{name}` is a link that leads out of it, to `{target}`")


def _is_zip(file: IO[bytes]) -> bool:
    head = file.read(4)
    file.seek(0)
    return head in (b"PK\3\4", b"PK\5\6")


def _plain(name: str) -> str:
    """Return a member's name without the `./` that tar writes if it is given one, and without the last slash."""
    while name.startswith("./"):
        name = name[2:]
    return "" if name == "." else name.removesuffix("/")


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            is_directory = info.filename.endswith("/")
            # A link is a plain file with its target for content, as to pip and uv.
            kind = stat.S_IFDIR if is_directory else stat.S_IFREG
            is_odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            yield _Member(
                _plain(info.orig_filename),
                stat.S_IFMT(mode) if is_odd else kind,
                info.file_size,
                executable=stat.S_ISREG(mode) and bool(mode & 0o111),
                content=lambda info=info: archive.open(info),  # type: ignore[misc]
            )


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    head = file.read(8)
    file.seek(0)
    opened = next((opener(file) for magic, opener in _OPENERS if head.startswith(magic)), file)
    with tarfile.TarFile(fileobj=cast("IO[bytes]", _Headers(cast("IO[bytes]", opened)))) as archive:
        while (info := archive.next()) is not None:
            is_file = info.isreg()
            kinds = ((is_file, stat.S_IFREG), (info.isdir(), stat.S_IFDIR), (info.issym(), stat.S_IFLNK))
            kind = next((kind for holds, kind in kinds if holds), 0 if info.islnk() else stat.S_IFIFO)
            yield _Member(
                _plain(info.name),
                kind,
                info.size if is_file else 0,
                _plain(info.linkname) if info.islnk() else info.linkname,
                is_file and bool(info.mode & 0o111),
                info.mtime if is_file else None,
                lambda info=info: archive.extractfile(info),  # type: ignore[misc]
            )
            archive.members.clear()  # type: ignore[attr-defined]  # of 200,000, each has a kilobyte


class _Headers:
    """A stream for tarfile, which reads headers whole, however long they say they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self.stream.read(size)
