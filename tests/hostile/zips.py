"""Write zip archives byte by byte, where `zipfile` would refuse, or would make them right (APPNOTE.TXT, 4.3).

    data = archive([Entry("demo/__init__.py", b""), Entry("demo/link", b"/etc/passwd", kind=stat.S_IFLNK)])

The same entries give the same bytes.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")

UTF8 = 0x800
DESCRIPTOR = 0x8
STORED, DEFLATED = 0, 8
_TIME, _DATE = 0, (2020 - 1980) << 9 | 1 << 5 | 1


@dataclass(frozen=True)
class Entry:
    """A member, right in all that is not given.

    :param raw: its compressed bytes, instead of those that `data` gives
    :param flags: instead of the UTF-8 bit where the name needs it
    :param lies: fields of both headers that are to be wrong: flags, method, crc, compressed, size
    :param local: likewise of the local header alone, and its `name`
    :param central: likewise of the central directory alone, and `offset`
    :param extra: extra fields of the central directory
    :param local_extra: extra fields of the local header
    :param after: bytes between the data and the next header
    :param shared: it has no local header and data of its own, but those of the entry before
    """

    name: str | bytes
    data: bytes = b""
    method: int = DEFLATED
    kind: int = stat.S_IFREG
    mode: int = 0o644
    raw: bytes | None = None
    flags: int | None = None
    lies: Mapping[str, int] = field(default_factory=dict)
    local: Mapping[str, int | bytes] = field(default_factory=dict)
    central: Mapping[str, int] = field(default_factory=dict)
    extra: bytes = b""
    local_extra: bytes = b""
    after: bytes = b""
    shared: bool = False

    @property
    def encoded(self) -> bytes:
        return self.name.encode() if isinstance(self.name, str) else self.name

    def fields(self) -> dict[str, int]:
        """Return what both headers say."""
        flags = self.flags if self.flags is not None else 0 if self.encoded.isascii() else UTF8
        crc = zlib.crc32(self.data)
        return {
            "flags": flags,
            "method": self.method,
            "crc": crc,
            "compressed": len(self.content),
            "size": len(self.data),
        } | dict(self.lies)

    @property
    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return deflated(self.data) if self.method == DEFLATED else self.data


def deflated(data: bytes) -> bytes:
    """Return a deflate stream, as in a zip."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def archive(
    entries: Iterable[Entry],
    *,
    before: bytes = b"",
    comment: bytes = b"",
    behind: bytes = b"",
    end: Mapping[str, int] | None = None,
    zip64: Mapping[str, int] | None = None,
) -> bytes:
    """Write an archive.

    :param before: bytes before the archive, which its offsets do not count
    :param behind: bytes after its end
    :param end: fields of the end record that are to be wrong: count, size, offset
    :param zip64: write the end record of large archives as well, with these fields wrong
    """
    body = bytearray()
    directory = bytearray()
    count = offset = 0
    for entry in entries:
        if not entry.shared:
            offset = len(body)
            body += _local(entry) + entry.content + entry.after
        directory += _central(entry, offset)
        count += 1
    ends = {"count": count, "size": len(directory), "offset": len(body)}
    tail = b""
    if zip64 is not None:
        right = ends | dict(zip64)
        place = right.pop("place", len(body) + len(directory))
        counts = (right["count"], right["count"], right["size"], right["offset"])
        tail = END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, *counts) + LOCATOR_64.pack(b"PK\6\7", 0, place, 1)
    ends |= dict(end or {})
    short = min(ends["count"], 0xFFFF)
    last = END.pack(b"PK\5\6", 0, 0, short, short, ends["size"], ends["offset"], len(comment))
    return bytes(before + body + directory + tail + last + comment + behind)


def _local(entry: Entry) -> bytes:
    said = {"name": entry.encoded, **entry.fields(), **entry.local}
    name = said["name"]
    assert isinstance(name, bytes)
    numbers = (said["crc"], said["compressed"], said["size"], len(name), len(entry.local_extra))
    header = LOCAL.pack(b"PK\3\4", 20, said["flags"], said["method"], _TIME, _DATE, *numbers)
    return header + name + entry.local_extra


def _central(entry: Entry, offset: int) -> bytes:
    said = {"offset": offset, **entry.fields(), **entry.central}
    attributes = (entry.kind | entry.mode) << 16
    header = CENTRAL.pack(
        b"PK\1\2",
        3 << 8 | 20,  # made on Unix: the attributes are a mode
        20,
        said["flags"],
        said["method"],
        _TIME,
        _DATE,
        said["crc"],
        said["compressed"],
        said["size"],
        len(entry.encoded),
        len(entry.extra),
        0,
        0,
        0,
        attributes,
        said["offset"],
    )
    return header + entry.encoded + entry.extra


def extra(tag: int, content: bytes) -> bytes:
    """Return an extra field."""
    return struct.pack("<HH", tag, len(content)) + content
