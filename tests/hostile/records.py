"""Who a wheel says it is, and what its RECORD says of it."""

from __future__ import annotations

import hashlib
import stat
from typing import Any

from envsync.errors import LockFileError
from tests.hostile.cases import (
    FILENAME,
    INFO,
    METADATA,
    NAME,
    SITE,
    VERSION,
    WHEEL,
    Case,
    Content,
    Rows,
    coming_twice,
    row,
    wheel,
)
from tests.hostile.zips import Entry

FILE = f"{NAME}/file"
TEXT = b"hello\n"
INSTALLED = (f"{SITE}/{FILE}",)


def cases() -> list[Case]:
    """Return the cases."""
    return [*_identity(), *_file_names(), *_formats(), *_record()]


def _identity() -> list[Case]:
    no_fit = "`{}` does not fit the file name"
    infos = {
        "other-name": "neighbour-2.0.dist-info",
        "other-version": f"{NAME}-1.0.dist-info",
        "no-version": f"{NAME}.dist-info",
        "no-such-version": f"{NAME}-x.dist-info",
        "shouted": f"{NAME}-2.0.DIST-INFO",
    }
    metadata: dict[str, tuple[Content | None, str]] = {
        "other-name": (METADATA.replace(NAME, "neighbour"), "its METADATA says that its name is 'neighbour'"),
        "other-version": (METADATA.replace(VERSION, "3.0"), "its METADATA says that its version is '3.0'"),
        "no-name": (f"Version: {VERSION}\n", "its METADATA says that its name is None"),
        "no-version": (f"Name: {NAME}\n\nVersion: {VERSION}\n", "its METADATA says that its version is None"),
        "noise": (b"\xff\xfe\0\1", "its METADATA says that its name is None"),
        "none": (None, "it has no METADATA"),
    }
    several = "it has several .dist-info directories: .*"
    data = {f"other-{VERSION}.data/scripts/x": ""}
    return [
        *(
            Case(f"info-{name}", "The directory has to fit.", wheel(info=info), refused=no_fit.format(info))
            for name, info in infos.items()
        ),
        Case("info-none", "There has to be one.", wheel(info=NAME), refused="it has no .dist-info directory"),
        Case("info-of-another", "And not two.", wheel({"neighbour-1.0.dist-info/METADATA": ""}), refused=several),
        Case("info-twice", "Nor two of its own.", wheel({f"{NAME}-2.0.0.dist-info/METADATA": ""}), refused=several),
        Case("info-of-another-shouted", "Nor in another case.", wheel({"x-1.Dist-Info/METADATA": ""}), refused=several),
        Case("info-file", "Nor as a file.", wheel({"neighbour-1.0.dist-info": ""}), refused=several),
        *(
            Case(f"metadata-{name}", "METADATA has to agree.", wheel(metadata=text), refused=reason)
            for name, (text, reason) in metadata.items()
        ),
        Case(
            "data-of-another",
            "The .data directory has to fit, too.",
            wheel(data),
            refused=no_fit.format(f"other-{VERSION}.data"),
        ),
        Case("data-twice", "There may be one.", wheel(data, data={"data/x": ""}), refused="it has several .data .*"),
        Case("identity-normal", "Case and dashes are normal.", wheel(metadata=METADATA.replace(NAME, "Hostile"))),
    ]


def _file_names() -> list[Case]:
    name = "package `hostile`: name in '{}' is not consistent with package name 'hostile' in `.*`"
    version = "package `hostile`: version in '{}' is not consistent with package version '3.0' in `.*`"
    other, neighbours = "other-2.0-py3-none-any.whl", "neighbour-2.0-py3-none-any.whl"
    return [
        Case(
            "file-name-of-another",
            "The file name is another package's, and the wheel fits it.",
            wheel(info="other-2.0.dist-info", metadata=METADATA.replace(NAME, "other")),
            refused=name.format(other),
            filename=other,
            error=LockFileError,
        ),
        Case(
            "file-name-only",
            "The file name is another package's, and the wheel does not fit it.",
            wheel(),
            refused=name.format(neighbours),
            filename=neighbours,
            error=LockFileError,
        ),
        Case(
            "file-name-version",
            "The file name has another version than the wheel.",
            wheel(),
            refused=f"`{INFO}` does not fit the file name",
            filename=FILENAME.replace("2.0", "3.0"),
            wanted=(NAME, "3.0"),
        ),
        Case(
            "file-name-not-locked",
            "The wheel is sound, and another version than the lock file's.",
            wheel(),
            refused=version.format(FILENAME),
            wanted=(NAME, "3.0"),
            error=LockFileError,
        ),
        Case(
            "file-name-none",
            "The file name is none of a wheel.",
            wheel(),
            refused="package `hostile`: invalid wheel filename 'hostile-2.0.whl' in `.*`",
            filename=f"{NAME}-2.0.whl",
            error=LockFileError,
        ),
    ]


def _formats() -> list[Case]:
    def version(number: str) -> str:
        return WHEEL.replace("1.0", number)

    unknown = "it has version {} of the wheel format; version 1 is the newest that is known"
    unsaid = "its WHEEL does not say which version of the wheel format it has"
    formats: dict[str, tuple[Content | None, str]] = {
        "2": (version("2.0"), unknown.format("2.0")),
        "10": (version("10.1"), unknown.format("10.1")),
        "word": (version("one"), unsaid),
        "digits": (version("\u00b9.0"), unsaid),
        "unsaid": ("Root-Is-Purelib: true\n", unsaid),
        "noise": (b"\xff\n", "its WHEEL is not UTF-8"),
        "none": (None, "it has no WHEEL"),
    }
    return [
        *(
            Case(f"format-{name}", "Version 1 is the newest.", wheel(tags=text), refused=reason)
            for name, (text, reason) in formats.items()
        ),
        Case("format-0", "An older one differs in nothing that counts.", wheel(tags=version("0.1"))),
        Case("format-1-9", "A minor version may be newer.", wheel(tags=version("1.9"))),
        Case("format-platlib", "The root may be platlib.", wheel(tags=WHEEL.replace("true", "false"))),
        Case("format-tags-lie", "Its tags are those of the file name.", wheel(tags=WHEEL.replace("any", "win32"))),
    ]


def _record() -> list[Case]:
    own = f"{INFO}/RECORD"

    def changed(**options: str) -> dict[str, Any]:
        """Change path, hash or size of the file's line."""

        def change(rows: Rows) -> Rows:
            return [
                (options.get("path", path), options.get("hash", digest), options.get("size", size))
                if path == FILE
                else (path, digest, size)
                for path, digest, size in rows
            ]

        return {"record": change}

    def with_lines(*lines: tuple[str, ...]) -> dict[str, Any]:
        return {"record": lambda rows: [*rows, *lines]}

    cannot = "its RECORD cannot be used: "
    lists = "its RECORD lists `{}`, which it does not have"
    weak = f"its RECORD has {{}} for `{FILE}`; sha256 or better is required"
    omitted = f"`{FILE}` is not in its RECORD"
    line = row(FILE, TEXT)
    digest = hashlib.sha256(TEXT).digest()
    vouched: dict[str, tuple[str, dict[str, Any], str]] = {
        "omits": ("A file is not listed.", {"record": lambda rows: [r for r in rows if r[0] != FILE]}, omitted),
        "empty": ("No file is listed.", {"record": ""}, "`.*` is not in its RECORD"),
        "invents": ("One is listed that is not there.", with_lines(row("hostile/gone", b"")),
                    lists.format("hostile/gone")),
        "of-another": ("It claims a file of its neighbour.", with_lines(row("neighbour/__init__.py", b"")),
                       lists.format("neighbour/__init__.py")),
        "leads-out": ("It claims a file of nobody.", with_lines(row("../../../bin/python", b"")),
                      lists.format("../../../bin/python")),
        "absolute": ("It claims a file of the system.", with_lines(row("/etc/passwd", b"")),
                     lists.format("/etc/passwd")),
        "absolute-path": ("Its own file is elsewhere.", changed(path=f"/{FILE}"),
                          f"({omitted}|{lists.format('/hostile/file')})"),
        "case": ("Names count to the letter.", changed(path=FILE.upper()),
                 f"({omitted}|{lists.format('HOSTILE/FILE')})"),
        "md5": ("MD5 vouches for nothing.", changed(hash=row(FILE, TEXT, "md5")[1]), weak.format("a md5 hash")),
        "sha1": ("Nor does SHA-1.", changed(hash=row(FILE, TEXT, "sha1")[1]), weak.format("a sha1 hash")),
        "unknown-hash": ("Nor does what nobody knows.", changed(hash="crc=1234"), weak.format("a crc hash")),
        "no-hash": ("Nor does nothing.", changed(hash=""), weak.format("no hash")),
        "no-hashes": ("Of all files.", {"record": lambda rows: [(r[0], "", "") for r in rows]},
                      "its RECORD has no hash for `.*`; sha256 or better is required"),
    }  # fmt: skip
    refused: dict[str, tuple[str, dict[str, Any], str]] = {
        "hash": ("The bytes are others.", changed(hash=row(FILE, b"other")[1]),
                 f"`{FILE}` does not have the hash that its RECORD says"),
        "hash-of-metadata": ("Of METADATA, too.", {"metadata": METADATA + "X: y\n", "record": _of_other_metadata},
                             f"`{INFO}/METADATA` does not have the hash that its RECORD says"),
        "size": ("The size is another.", changed(size="7"), f"`{FILE}` has 6 bytes, but its RECORD says 7"),
        "size-negative": ("A size is a number.", changed(size="-6"), cannot + f"it says `{FILE}` has size '-6'"),
        "size-of-digits": ("In plain digits.", changed(size="\u0666"), cannot + f"it says `{FILE}` has size '.*'"),
        "twice": ("Two lines have to agree.", with_lines((*line[:2], "9")), cannot + f"it lists `{FILE}` twice"),
        "fields": ("A line has three fields.", with_lines(("x", "y")), cannot + r"line \d has 2 fields, not 3"),
        "quotes": ("It is CSV.", {"record": '"x'}, cannot + ".*"),
        "noise": ("In UTF-8.", {"record": b"\xff"}, cannot + ".*"),
        "none": ("There has to be one.", {"omit": [own]}, "it has no RECORD"),
    }  # fmt: skip
    accepted: dict[str, tuple[str, dict[str, Any]]] = {
        "hex": ("Hexadecimal is a way to write a digest.", changed(hash=f"sha256={digest.hex()}")),
        "shouted": ("So are capitals.", changed(hash=f"SHA256={digest.hex().upper()}")),
        "padded": ("Or padding.", changed(hash=line[1] + "=")),
        "standard-base64": ("Or the other base64.", {
            "record": lambda rows: [(r[0], r[1].replace("-", "+").replace("_", "/"), r[2]) for r in rows]}),
        "dot-slash": ("A path may begin where one is.", {"record": lambda rows: [(f"./{r[0]}", *r[1:]) for r in rows]}),
        "byte-order-mark": ("So may a file.", {
            "record": lambda rows: [(("\ufeff" + rows[0][0]), *rows[0][1:]), *rows[1:]]}),
        "directory-unsaid": ("A directory needs no member.", with_lines((f"{NAME}/", "", ""))),
        "directory-without-slash": ("Nor a slash.", with_lines((NAME, "", ""))),
        "directory-of-nothing": ("Nor files.", with_lines((f"{NAME}/none/", "", ""))),
        "sha512": ("Better hashes are fine.", changed(hash=row(FILE, TEXT, "sha512")[1])),
        "sizeless": ("A size need not be said.", changed(size="")),
        "twice-the-same": ("Saying it twice is no lie.", with_lines(line)),
        "backslashes": ("Some tools write them.", changed(path=FILE.replace("/", "\\"))),
        "blank-lines": ("Nothing says nothing.", with_lines(())),
        "directories": ("Some tools list directories.", {
            "unlisted": [Entry(f"{NAME}/", kind=stat.S_IFDIR)], **with_lines(row(f"{NAME}/", b""))}),
    }  # fmt: skip
    signatures = [Entry(f"{INFO}/RECORD.{kind}", b"{}") for kind in ("jws", "p7s")]
    return [
        *(
            Case(f"record-{name}", claim, wheel({FILE: TEXT}, **options), refused=reason)
            for name, (claim, options, reason) in refused.items()
        ),
        *(
            Case(
                f"record-{name}",
                claim,
                wheel({FILE: TEXT}, **options),
                files=INSTALLED,
                pip=None if name == "blank-lines" else (),
            )
            for name, (claim, options) in accepted.items()
        ),
        *(
            Case(
                f"record-{name}",
                f"{claim} The hash of the whole wheel vouches for it.",
                wheel({FILE: TEXT}, **options),
                files=INSTALLED,
                unlocked=reason,
                details=rf"{NAME}==2.0: {reason} \(the lock file's hash of the whole wheel vouches for it\)",
            )
            for name, (claim, options, reason) in vouched.items()
        ),
        Case(
            "record-with-a-build-tag",
            "RECORD may name its own directory with the build tag, which the directory does not have.",
            wheel({FILE: TEXT}, record=lambda rows: [(r[0].replace(".dist", "-1.dist"), *r[1:]) for r in rows]),
            files=INSTALLED,
            filename=FILENAME.replace("-py3", "-1-py3"),
        ),
        Case(
            "record-signed",
            "A signature of RECORD is kept for whoever wants to look at it, as by pip.",
            wheel({FILE: TEXT}, unlisted=signatures),
            files=(*INSTALLED, *(f"{SITE}/{INFO}/RECORD.{kind}" for kind in ("jws", "p7s"))),
        ),
        Case(
            "record-omits-what-is-left-out",
            "What is left out of the environment may be left out of RECORD, where the hash of the whole is known.",
            wheel(unlisted=[Entry(f"{NAME}/__pycache__/x.pyc", b"evil")]),
            pip=(f"{SITE}/{NAME}/__pycache__/x.pyc",),
            unlocked=f"`{NAME}/__pycache__/x.pyc` is not in its RECORD",
            details=f"{NAME}==2.0: `{NAME}/__pycache__/x.pyc` is not in its RECORD .*",
        ),
        Case(
            "record-lies-of-what-is-left-out",
            "And its hash has to be right.",
            wheel(
                {f"{NAME}/__pycache__/x.pyc": b"evil"},
                record=lambda rows: [row(r[0], b"good") if "__pycache__" in r[0] else r for r in rows],
            ),
            refused=f"`{NAME}/__pycache__/x.pyc` does not have the hash that its RECORD says",
        ),
        coming_twice(
            "record-by-the-back-door",
            "RECORD cannot come by way of the .data directory.",
            f"library/{own}",
            data={f"purelib/{own}": "evil,,\n"},
        ),
        coming_twice(
            "record-by-another-back-door",
            "Nor by its data scheme.",
            f"library/{own}",
            data={f"data/lib/python3.11/site-packages/{own}": "evil,,\n"},
        ),
        coming_twice(
            "origin-by-the-back-door",
            "Nor can direct_url.json.",
            f"library/{INFO}/direct_url.json",
            data={f"platlib/{INFO}/direct_url.json": "{}"},
        ),
        Case(
            "origin",
            "What a wheel says of where it came from is not believed.",
            wheel(info_files={"direct_url.json": "{}", "INSTALLER": "evil\n", "REQUESTED": "evil"}),
        ),
        Case(
            "origin-a-directory",
            "Nor can it be in the way.",
            wheel(info_files={"direct_url.json/x": ""}),
            refused=f"once installed, `library/{INFO}/direct_url.json` is both a file and a directory",
        ),
        coming_twice(
            "installer-by-the-back-door",
            "The wheel cannot say who installed it.",
            f"library/{INFO}/INSTALLER",
            data={f"purelib/{INFO}/INSTALLER": "pip\n"},
        ),
    ]


def _of_other_metadata(rows: Rows) -> Rows:
    path = f"{INFO}/METADATA"
    return [row(path, METADATA.encode() + b"X: z\n") if r[0] == path else r for r in rows]
