"""What a zip can be besides files and names: kinds of members, flags, headers and offsets that lie."""

from __future__ import annotations

import random
import stat
import zlib
from dataclasses import replace

from tests.hostile.cases import INFO, NAME, SITE, Build, Case, entries, only, wheel
from tests.hostile.zips import DEFLATED, DESCRIPTOR, STORED, Entry, archive, deflated, extra

FILE = f"{NAME}/file"
NO_ZIP = r"it is not a zip file, or is truncated \(.*\)"
OVERLAP = "`.*` overlaps what follows it"
TEXT = b"hello " * 100
INSTALLED = (f"{SITE}/{FILE}",)


def cases() -> list[Case]:
    """Return the cases."""
    return [*_kinds(), *_flags(), *_headers(), *_overlaps(), *_frames(), *_large()]


def _kinds() -> list[Case]:
    refused = {
        "pipe": ("Whoever opens a pipe waits for ever.", stat.S_IFIFO, b"", "pipe"),
        "character-device": ("A device is no file.", stat.S_IFCHR, b"", "special file"),
        "block-device": ("A device is no file.", stat.S_IFBLK, b"", "special file"),
        "socket": ("A socket is no file.", stat.S_IFSOCK, b"", "special file"),
        "directory-without-slash": ("What is called a file is one.", stat.S_IFDIR, b"", "directory"),
    }
    links = {
        "": ("A link is a plain file to pip, with its target for content, and leads nowhere.", b"/etc/passwd"),
        "-relative": ("Wherever it points.", b"../../../evil"),
        "-within": ("Even within the wheel.", b"__init__.py"),
    }
    modes = {"setuid": 0o6755, "sticky": 0o1777, "unreadable": 0o000, "world-writable": 0o666}
    link = Entry(f"{NAME}/link", b"/tmp", kind=stat.S_IFLNK)
    return [
        *(
            Case(
                f"kind-{name}",
                claim,
                wheel(more=[Entry(FILE, data, kind=kind)]),
                refused=f"`{FILE}` is a {word}; only plain files are allowed",
            )
            for name, (claim, kind, data, word) in refused.items()
        ),
        Case(
            "kind-link-and-through-it",
            "A file below a link would be written wherever that points.",
            wheel(more=[link, Entry(f"{NAME}/link/envsync-hostile")]),
            refused=f"`{NAME}/link` is both a file and a directory",
        ),
        *(
            Case(
                f"kind-link{name}",
                claim,
                wheel(more=[Entry(FILE, target, kind=stat.S_IFLNK)]),
                files=INSTALLED,
                details=f"{NAME}==2.0: `{FILE}` is a symbolic link, and came as a plain file with .*",
            )
            for name, (claim, target) in links.items()
        ),
        Case(
            "kind-link-with-slash",
            "A slash makes no directory of a link.",
            wheel(unlisted=[Entry(f"{NAME}/link/", b"", STORED, kind=stat.S_IFLNK)]),
            refused=f"`{NAME}/link/` is a symbolic link; only plain files are allowed",
        ),
        Case(
            "kind-directory-with-content",
            "A directory has no bytes.",
            wheel(unlisted=[Entry(f"{NAME}/sub/", b"bytes", STORED, kind=stat.S_IFDIR)]),
            refused=f"the directory `{NAME}/sub/` has content",
        ),
        Case(
            "kind-directory",
            "Directories may be members; they come with their files only.",
            wheel({f"{NAME}/sub/x": ""}, unlisted=[Entry(f"{NAME}/{at}/", kind=stat.S_IFDIR) for at in ("sub", "e")]),
            files=(f"{SITE}/{NAME}/sub/x",),
        ),
        *(
            Case(
                f"mode-{name}",
                "Of a mode, only whether it is executable counts.",
                wheel(more=[Entry(FILE, TEXT, mode=mode)]),
                files=INSTALLED,
            )
            for name, mode in modes.items()
        ),
        Case("kind-unsaid", "No kind at all is a file.", wheel(more=[Entry(FILE, kind=0, mode=0)]), files=INSTALLED),
    ]  # fmt: skip


def _flags() -> list[Case]:
    encrypted = f"`{FILE}` is encrypted"
    methods = {"deflate64": 9, "bzip2": 12, "lzma": 14, "zstandard": 93, "aes": 99}
    return [
        *(
            Case(f"encrypted-{name}", "There is no password.", wheel(more=[Entry(FILE, TEXT, flags=flag)]), encrypted)
            for name, flag in {"plainly": 0x1, "strongly": 0x41, "directory": 0x2000}.items()
        ),
        Case(
            "encrypted-locally", "Nor for one header.", wheel(more=[Entry(FILE, TEXT, local={"flags": 1})]), encrypted
        ),
        *(
            Case(
                f"method-{name}",
                "Wheels are stored or deflated.",
                wheel(more=[Entry(FILE, TEXT, method)]),
                f"`{FILE}` is compressed by method {method}; only deflate is allowed",
            )
            for name, method in methods.items()
        ),
        Case(
            "method-of-two-kinds",
            "Tools that read local headers would get other contents.",
            wheel(more=[Entry(FILE, TEXT, STORED, local={"method": DEFLATED})]),
            f"`{FILE}` has another compression method in its local header",
        ),
    ]


def _headers() -> list[Case]:
    damaged = rf"`{FILE}` is damaged \(.*\)"
    described = (
        zlib.crc32(TEXT).to_bytes(4, "little") + len(deflated(TEXT)).to_bytes(4, "little") + bytes((88, 2, 0, 0))
    )
    zeros = {"crc": 0, "compressed": 0, "size": 0}
    refused: dict[str, tuple[str, Entry, str]] = {
        "crc": (
            "RECORD may be right; pip looks at the CRC.",
            Entry(FILE, TEXT, lies={"crc": 1}),
            rf"`{FILE}` is damaged \(its CRC does not match\)",
        ),
        "stored-in-other-size": (
            "What is stored has one size.",
            Entry(FILE, TEXT, STORED, lies={"size": 1}),
            f"`{FILE}` is stored in 600 bytes but declares 1",
        ),
        "garbage": ("Not all bytes can be inflated.", Entry(FILE, TEXT, raw=b"\xff" * 50), damaged),
        "cut-short": (
            "A deflate stream has an end.",
            Entry(FILE, TEXT, raw=deflated(TEXT)[:-3]),
            f"`{FILE}` is cut short: .*",
        ),
        "without-stream": (
            "Nothing is no deflate stream.",
            Entry(FILE, TEXT, raw=b""),
            f"`{FILE}` is cut short: 0 of 600 bytes",
        ),
        "negative-extra-field": (
            "Extra fields have a length.",
            Entry(FILE, TEXT, extra=b"\1\0\xff\xff"),
            NO_ZIP,
        ),
    }
    accepted: dict[str, tuple[str, Entry]] = {
        "sizes-locally-wrong": (
            "The central directory counts, as to zipfile.",
            Entry(FILE, TEXT, local={"compressed": 1, "size": 0xFFFFFFF0, "crc": 7}),
        ),
        "descriptor": (
            "Sizes may follow the data.",
            Entry(FILE, TEXT, flags=DESCRIPTOR, local=zeros, after=b"PK\7\10" + described),
        ),
        "descriptor-lies": (
            "What follows the data does not count.",
            Entry(FILE, TEXT, flags=DESCRIPTOR, local=zeros, after=b"PK\7\10" + b"\xff" * 12),
        ),
        "gap": ("Members need not touch.", Entry(FILE, TEXT, after=b"evil" * 1000)),
        "behind-the-stream": (
            "Nobody reads on after a deflate stream.",
            Entry(FILE, TEXT, raw=deflated(TEXT) + b"evil"),
        ),
        "extra-field": ("Extra fields are skipped.", Entry(FILE, TEXT, local_extra=extra(0xCAFE, b"x" * 60_000))),
    }
    return [
        *(Case(f"header-{name}", claim, wheel(more=[it]), why) for name, (claim, it, why) in refused.items()),
        *(Case(f"header-{name}", claim, wheel(more=[it]), files=INSTALLED) for name, (claim, it) in accepted.items()),
        Case(
            "header-crc-of-record",
            "Nothing but its CRC vouches for RECORD.",
            wheel(change=only(f"{INFO}/RECORD", lambda entry: replace(entry, lies={"crc": 1}))),
            rf"`{INFO}/RECORD` is damaged \(its CRC does not match\)",
        ),
        Case(
            "header-missing",
            "A local header has a signature.",
            lambda: archive(entries(more=[Entry(FILE, TEXT)])).replace(b"PK\3\4", b"PK\3\5"),
            f"`{INFO}/RECORD` has a damaged local header",
        ),
    ]


def _overlaps() -> list[Case]:
    one, other = Entry(FILE, TEXT), Entry(f"{NAME}/other", TEXT)
    return [
        Case("overlap-whole", "Two names of the same bytes.", wheel(more=[one, replace(other, shared=True)]), OVERLAP),
        Case(
            "overlap-by-length",
            "Its data reach into the next member.",
            wheel(more=[replace(one, central={"compressed": 500}), other]),
            OVERLAP,
        ),
        Case(
            "overlap-by-extra-field",
            "Its local header covers the next.",
            wheel(more=[replace(one, local_extra=b"", local={"name": FILE.encode() + b"x" * 600}), other]),
            f"`{FILE}` has another name in its local header",
        ),
        Case(
            "overlap-by-local-extra-field",
            "Its local extra field covers the next.",
            lambda: _stretched(archive(entries(more=[one, other])), FILE.encode(), 700),
            OVERLAP,
        ),
        Case(
            "overlap-of-the-directory",
            "Its data reach into the central directory.",
            wheel(unlisted=[replace(one, central={"compressed": 5000})]),
            OVERLAP,
        ),
        Case("overlap-outside", "It lies outside.", wheel(more=[replace(one, central={"offset": 1 << 20})]), OVERLAP),
        Case("overlap-quoted", "Each file quotes all headers that follow: few KB give gigabytes.", _quoted, OVERLAP),
        Case(
            "overlap-before",
            "Offsets count from where the archive seems to begin.",
            wheel(written=lambda members: archive(members, end={"offset": 0x7FFFFFFF})),
            "`.*` lies outside of the archive",
        ),
    ]  # fmt: skip


def _stretched(data: bytes, name: bytes, length: int) -> bytes:
    """Make a local header say that its extra field is longer."""
    start = data.index(name)
    return data[: start - 2] + length.to_bytes(2, "little") + data[start:]


def _quoted() -> bytes:
    """Make a bomb of overlapping files, after David Fifield's (https://www.bamsoftware.com/hacks/zipbomb/)."""
    kernel = deflated(b"\0" * 1024 * 1024)
    members = [Entry(f"{NAME}/{number:03}", b"\0", raw=kernel[:0]) for number in range(200)]
    return archive(
        entries(
            unlisted=[
                replace(member, lies={"compressed": len(kernel) + 35 * (200 - number), "size": 1024 * 1024})
                for number, member in enumerate(members)
            ]
            + [Entry(f"{NAME}/kernel", b"\0" * 1024 * 1024, raw=kernel)]
        )
    )


def _frames() -> list[Case]:
    def cut(share: float) -> Build:
        def build() -> bytes:
            data = archive(entries(more=[Entry(FILE, TEXT)]))
            return data[: int(len(data) * share) - 1]

        return build

    def framed(**options: object) -> Build:
        return lambda: archive(entries(more=[Entry(FILE, TEXT)]), **options)  # type: ignore[arg-type]

    def behind_another() -> bytes:
        return archive(entries({"evil.py": ""})) + archive(entries(more=[Entry(FILE, TEXT)]))

    nothing = "it has no .dist-info directory"
    return [
        *(
            Case(f"truncated-{percent}", "What is cut short is no zip.", cut(percent / 100), NO_ZIP)
            for percent in (10, 50, 90, 100)
        ),
        Case("no-zip-empty", "No bytes are no zip.", lambda: b"", NO_ZIP),
        Case("no-zip-noise", "Nor are any bytes.", lambda: random.Random(1).randbytes(5000), NO_ZIP),
        Case("no-zip-gzip", "Nor is another archive.", lambda: b"\x1f\x8b\x08" + bytes(1000), NO_ZIP),
        Case("no-zip-end-only", "A zip may be empty, a wheel may not.", lambda: archive([]), nothing),
        Case("frame-before", "A zip may begin anywhere.", framed(before=b"#!/bin/sh\nrm -rf ~\n"), files=INSTALLED),
        Case("frame-behind", "It may end before the end.", framed(behind=b"evil" * 100), files=INSTALLED),
        Case("frame-comment", "It may have a comment.", framed(comment=b"evil" * 10_000), files=INSTALLED),
        Case(
            "frame-comment-an-end",
            "A comment may pose as the end of another.",
            framed(comment=b"PK\5\6" + bytes(30)),
            nothing,
        ),
        Case("frame-two-archives", "Of two archives, the last counts.", behind_another, files=INSTALLED),
        Case("frame-count-lies", "The directory counts, not its number.", framed(end={"count": 1}), files=INSTALLED),
        Case("frame-directory-too-long", "The directory ends at its end.", framed(end={"size": 1 << 20}), NO_ZIP),
        Case("frame-directory-too-short", "It is read as a whole.", framed(end={"size": 77}), NO_ZIP),
    ]


def _large() -> list[Case]:
    file = Entry(FILE, TEXT)
    size, compressed = 600, len(deflated(TEXT))
    honest = extra(1, size.to_bytes(8, "little") + compressed.to_bytes(8, "little"))
    huge = extra(1, (1 << 63).to_bytes(8, "little") + compressed.to_bytes(8, "little"))
    far = extra(1, (1 << 63).to_bytes(8, "little"))
    marked = {"size": 0xFFFFFFFF, "compressed": 0xFFFFFFFF}

    def large(**zip64: int) -> Build:
        return lambda: archive(
            entries(more=[file]), zip64=zip64, end={"count": 0xFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
        )

    def sized(fields: bytes, **central: int) -> Build:
        return wheel(more=[replace(file, extra=fields, central={**marked, **central})])

    return [
        Case("zip64", "Small wheels may be written as large ones.", large(), files=INSTALLED),
        Case("zip64-sizes", "Their sizes are in an extra field.", sized(honest), files=INSTALLED),
        Case(
            "zip64-huge", "Eight exabytes are declared.", sized(huge), r"its \d+ bytes declare \d+ bytes of content, .*"
        ),
        Case(
            "zip64-far",
            "The member lies eight exabytes away.",
            wheel(more=[replace(file, extra=far, central={"offset": 0xFFFFFFFF})]),
            OVERLAP,
        ),
        Case("zip64-without-sizes", "The extra field is cut short.", sized(extra(1, b"1234")), NO_ZIP),
        Case("zip64-directory-far", "The directory lies elsewhere.", large(offset=1 << 62), "`.*` lies outside .*"),
        Case("zip64-directory-huge", "The directory is huge.", large(size=1 << 62), NO_ZIP),
        Case("zip64-end-elsewhere", "Its end record lies elsewhere.", large(place=0), files=INSTALLED),
    ]
