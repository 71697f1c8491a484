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

A wheel whose own RECORD did not vouch for all its files is of use only to those whose lock file has the hash of the
whole (`unrecorded`). One that has names which some filesystems do not tell apart says so (`twins`).

The file has three lines: all of that but the RECORD lines, which few syncs need and which are most of it; a checksum
of the first line, which has one of the third; and those RECORD lines. It is no record (`envsync.system.records`) of
which all has to be read to see that it is whole, and stays what it is for the sake of caches that versions share.

All files of an entry can be read by everybody and written by nobody (0444 and 0555), whatever the umask was, and have
one modification time, in whole seconds, that is recent and that no other entry of the same project has
(`envsync.wheel.seconds`). CPython takes bytecode for valid if the source's mtime and size match (PEP 552), so two
versions of a file must never share both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from envsync.launch.reading import content
from envsync.launch.stamp import checksum
from envsync.system import native
from envsync.system.atomic import SENSELESS

FORMAT = 3
"""Another one gets another directory instead of `v1`: two versions that share a cache have entries side by side."""
NAME = "manifest.json"
SCHEMES = frozenset({"purelib", "platlib", "scripts", "headers", "data"})
_NO_NAMES = frozenset({"", ".", ".."})


class NewerError(ValueError):
    """A newer envsync has written it: it is of no use here, and not ours to replace or to remove as damaged."""


class Script(NamedTuple):
    """An entry point to be made into a script (entry points specification)."""

    name: str
    module: str
    attr: str
    section: str
    """`console` or `gui`."""

    @property
    def filename(self) -> str:
        """What it is called in the directory of commands."""
        return self.name + native.PROGRAM


class Directory(NamedTuple):
    """The files of one directory of one scheme."""

    scheme: str
    path: str
    """Below the scheme, with forward slashes; the empty string is the scheme itself."""
    files: Sequence[Sequence[Any]]
    """(name, size in bytes, executable) of each, sorted by name, as JSON has them: there are thousands."""


class Rows:
    """(scheme, RECORD lines with paths relative to it, each ending in a newline), as JSON until somebody asks.

    :param data: ends in a JSON array of pairs
    :param start: where that begins
    :param expected: its checksum, if it is still to be compared
    """

    __slots__ = ("_data", "_expected", "_start")

    def __init__(self, data: bytes, start: int = 0, expected: object = None) -> None:
        self._data = data
        self._start = start
        self._expected = expected

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Rows:
        """Make them of pairs."""
        return cls(_compact(list(pairs)))

    def text(self) -> bytes:
        """Return the JSON.

        :raises ValueError: it is damaged
        """
        text = self._data[self._start :]
        if self._expected is not None and self._expected != checksum(text):
            raise ValueError("the checksum of the RECORD lines in it does not match")
        self._expected = None
        return text

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Parse them.

        :raises ValueError: they are damaged, which `load` finds out unless it was asked not to
        """
        for scheme, lines in json.loads(self.text()):  # noqa: UP028  # each of them has to be a pair
            yield scheme, lines

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.text())


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
    """Of every file of the entry, in seconds since the epoch; 0 where times could not be set: then each has its own."""
    directories: tuple[Directory, ...]
    """Every file of the entry but manifest.json. Files listed in `rewrite` are here, too."""
    scripts: tuple[Script, ...]
    rewrite: tuple[str, ...]
    """Files of the `scripts` scheme whose `#!python` line becomes the environment's interpreter."""
    complete: bool
    """The entry's RECORD can be used as it is."""
    record: Rows
    """Without RECORD's own line and without the files in `rewrite`."""
    unrecorded: tuple[str, ...] = ()
    """For which of its files, and why, the wheel's RECORD did not vouch: a sentence each, not all of them if many."""
    remarks: tuple[str, ...] = ()
    """What else was odd about the wheel."""
    twins: tuple[tuple[str, str], ...] = ()
    """Files or directories, by final scheme and path, that are one where case or Unicode form does not count."""
    requires: tuple[str, ...] = ()
    """What its METADATA requires, as it says it."""


def dump(manifest: Manifest) -> bytes:
    """Serialize a manifest."""
    return pack(manifest._asdict(), FORMAT)


def load(data: bytes, *, lazily: bool = False) -> Manifest:
    """Read a manifest.

    :param lazily: put off looking at the RECORD lines until somebody asks for them
    :raises NewerError: a newer envsync has written it
    :raises ValueError: it is damaged or of an older format; the entry is then as good as absent
    """
    try:
        value, record = unpack(data, FORMAT, lazily=lazily)
        _check(value)
        return Manifest(
            name=value["name"],
            version=value["version"],
            filename=value["filename"],
            sha256=value["sha256"],
            root=value["root"],
            dist_info=value["dist_info"],
            mtime=value["mtime"],
            directories=directories_of(value),
            scripts=tuple(Script(*script) for script in value["scripts"]),
            rewrite=tuple(value["rewrite"]),
            complete=value["complete"],
            requires=tuple(value["requires"]),
            record=record,
            unrecorded=tuple(value["unrecorded"]),
            remarks=tuple(value["remarks"]),
            twins=tuple((one, other) for one, other in value["twins"]),
        )
    except NewerError:
        raise
    except SENSELESS as error:
        raise ValueError(f"damaged manifest: {error}") from None


def _check(value: Mapping[str, Any]) -> None:
    """Look at what is used as a name or a number before anybody does.

    :raises ValueError: it is none
    """
    texts = [value[key] for key in ("name", "version", "filename", "sha256")]
    names = [value["dist_info"], *value["rewrite"], *(name for name, *_ in value["scripts"])]
    texts += names + [text for script in value["scripts"] for text in script]
    whole = isinstance(value["mtime"], int) and isinstance(value["complete"], bool) and value["root"] in SCHEMES
    if not whole or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ValueError("it has what makes no sense")
    if not _NO_NAMES.isdisjoint(names) or any("/" in name for name in names):
        raise ValueError("it has a name that is none")


def pack(value: Mapping[str, Any], version: int) -> bytes:
    """Serialize what a manifest says, its RECORD lines apart from the rest."""
    rows = value["record"].text()
    head = _compact({"format": version, **value, "record": checksum(rows)})
    return b"%s\n%s\n%s" % (head, checksum(head).encode(), rows)


def unpack(data: bytes, version: int, *, lazily: bool = False) -> tuple[dict[str, Any], Rows]:
    """Read what `pack` has written.

    :raises NewerError: a newer envsync has written it
    :raises ValueError: it is damaged or of an older format
    """
    end = data.find(b"\n")
    start = data.find(b"\n", end + 1) + 1
    head = data[:end]
    if end < 0 or data[end + 1 : start - 1] != checksum(head).encode():
        raise ValueError("its checksum does not match")
    value = json.loads(head.decode())  # of bytes it would find out the encoding first
    if value["format"] != version:
        newer = isinstance(value["format"], int) and value["format"] > version
        raise (NewerError if newer else ValueError)(f"its format is {value['format']!r}, not {version}")
    record = Rows(data, start, str(value["record"]))
    if not lazily:
        record.text()
    return value, record


def is_newer(path: str, load: Callable[[bytes], object]) -> bool:
    """Tell whether a newer envsync has made an entry.

    :param load: reads its manifest
    """
    try:
        load(content(f"{path}/{NAME}"))
    except NewerError:
        return True
    except (OSError, ValueError):
        pass  # absent or damaged
    return False


def directories_of(value: Mapping[str, Any]) -> tuple[Directory, ...]:
    """Return the directories that a manifest lists.

    :raises ValueError: one of them would lead elsewhere, or has what is no file
    """
    directories = tuple(map(Directory._make, value["directories"]))
    names: list[str] = []
    sizes: list[int] = []
    for scheme, path, files in directories:
        if scheme not in SCHEMES or (path and not _NO_NAMES.isdisjoint(path.split("/"))):
            raise ValueError(f"a directory in it leads elsewhere: {path!r}")
        for name, size, _ in files:
            names.append(name)
            sizes.append(size)
    joined = "\n".join(names)  # thousands, at every sync: so they are looked at in one go
    if "/" in joined or "\0" in joined or not _NO_NAMES.isdisjoint(names):
        raise ValueError("it has a file with a name that is none")
    sum(sizes)
    return directories


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def is_sha256(text: str) -> bool:
    """Tell whether that may be the key of an entry: lock files can say anything."""
    return len(text) == 64 and not text.strip("0123456789abcdefABCDEF")
