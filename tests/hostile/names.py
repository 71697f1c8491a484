"""Names of members: every way to lead out of the wheel, and names that are merely odd."""

from __future__ import annotations

from dataclasses import replace

from tests.hostile.cases import NAME, SITE, Case, only, row, wheel
from tests.hostile.zips import UTF8, Entry, extra

OUT = "a file name leads out of the wheel: .*"
ABSOLUTE = "a file name is absolute: .*"
BACKSLASH = "a file name has a backslash: .*"
EMPTY = "a file name has an empty component: .*"
CONTROL = "a file name has a control character: .*"
LONG = "a file name is too long: .*"
BOTH = "`.*` is both a file and a directory"

OUTSIDE = "tmp/envsync-hostile"
"""A place that no test may ever see made, below the root directory."""

COLLIDING = 0x1DB710641.to_bytes(32, "little")
"""Has the CRC of 32 zeros: whatever is changed by the polynomial keeps its own."""

_BAD: dict[str, tuple[str, str, str]] = {
    "dots": ("Two dots lead to the directory above.", "../evil.py", OUT),
    "dots-many": ("Many dots lead to the root.", "../" * 40 + f"{OUTSIDE}/evil.py", OUT),
    "dots-within": ("Dots after a directory lead out as well.", f"{NAME}/../../evil.py", OUT),
    "dots-that-stay": ("Dots that stay within make two names of one file.", f"{NAME}/sub/../evil.py", OUT),
    "dots-last": ("Dots at the end name a directory.", f"{NAME}/..", OUT),
    "dots-alone": ("Dots may be all there is.", "..", OUT),
    "dots-of-a-directory": ("Directories are members, too.", "../evil/", OUT),
    "dots-below-a-directory": ("Directories are members, too.", f"{NAME}/../../evil/", OUT),
    "absolute": ("A slash at the beginning leads to the root.", f"/{OUTSIDE}/evil.py", ABSOLUTE),
    "absolute-two-slashes": ("POSIX lets two slashes mean anything.", f"//{OUTSIDE}/evil.py", ABSOLUTE),
    "absolute-root": ("The root itself is a directory.", "/", EMPTY),
    "absolute-dots": ("Dots below the root are the root.", "/../evil.py", ABSOLUTE),
    "drive": ("Windows has drives.", "C:/evil.py", ABSOLUTE),
    "drive-relative": ("A drive has a working directory of its own.", "c:evil.py", ABSOLUTE),
    "drive-backslash": ("Windows has drives and backslashes.", "C:\\evil.py", BACKSLASH),
    "backslash": ("A backslash separates on Windows.", f"{NAME}\\evil.py", BACKSLASH),
    "backslash-dots": ("It leads out there as well.", "..\\..\\evil.py", BACKSLASH),
    "backslash-mixed": ("Both kinds of slashes in one name.", f"{NAME}/..\\../evil.py", BACKSLASH),
    "backslash-share": ("Windows has network shares.", "\\\\server\\share\\evil.py", BACKSLASH),
    "slash-twice": ("An empty component makes two names of one file.", f"{NAME}//evil.py", EMPTY),
    "dot": ("So does a dot.", f"{NAME}/./evil.py", EMPTY),
    "dot-first": ("A dot at the beginning is no better.", "./evil.py", EMPTY),
    "dot-alone": ("A dot is a directory.", ".", EMPTY),
    "nothing": ("A name may be empty.", "", EMPTY),
    "nul": ("C ends a string at a NUL.", f"{NAME}/evil.py\0.txt", "a file name has a NUL: .*"),
    "newline": ("A newline would end a line of RECORD, and begin one that claims others' files.",
                f"{NAME}/a\nneighbour/__init__.py,,\nb", CONTROL),
    "carriage-return": ("So would a carriage return.", f"{NAME}/a\rb", CONTROL),
    "line-separator": ("Python splits lines at U+2028.", f"{NAME}/a\u2028b", CONTROL),
    "next-line": ("And at U+0085.", f"{NAME}/a\x85b", CONTROL),
    "file-separator": ("And at U+001C.", f"{NAME}/a\x1cb", CONTROL),
    "escape": ("Terminals act on escape sequences.", f"{NAME}/\x1b]0;evil\x07.py", CONTROL),
    "long-component": ("Linux takes 255 bytes.", f"{NAME}/{'x' * 256}", LONG),
    "long-component-in-bytes": ("It counts bytes, not characters.", f"{NAME}/{'ä' * 128}", LONG),
    "long-path": ("It has to leave room for the path of the environment.", f"{'x' * 250}/" * 8 + "x" * 41, LONG),
    "longest": ("Zip takes 65,535 bytes.", "x" * 65_535, LONG),
    "deep": ("Who removes 10,000 directories in each other needs as many descriptors.", "d/" * 10_000 + "x",
             "a file name is nested too deeply: .*"),
    "deep-by-one": ("There is a limit, and it holds.", "d/" * 100 + "x", "a file name is nested too deeply: .*"),
}  # fmt: skip

_TOGETHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "file-and-directory": ("A file cannot be a directory.", (f"{NAME}/x", f"{NAME}/x/y")),
    "directory-and-file": ("In no order.", (f"{NAME}/x/y/z", f"{NAME}/x")),
    "file-and-empty-directory": ("Nor an empty one.", (f"{NAME}/x", f"{NAME}/x/")),
}

_APART: dict[str, tuple[str, tuple[str, ...]]] = {
    "case": ("Where the filesystem tells case apart, they are two.", (f"{NAME}/a.py", f"{NAME}/A.py")),
    "case-of-directory": ("And so are two directories.", (f"{NAME}/x/a.py", f"{NAME}/X/a.py")),
    "case-folding": ("ß and ss are two.", (f"{NAME}/stra\u00dfe", f"{NAME}/STRASSE")),
    "unicode-form": ("Composed and decomposed are two.", (f"{NAME}/\u00e9", f"{NAME}/e\u0301")),
    "file-and-directory-by-case": ("And so are a file and a directory.", (f"{NAME}/x", f"{NAME}/X/y")),
}

_ODD: dict[str, tuple[str, str]] = {
    "home": ("Only a shell knows what a tilde means.", "~/evil.py"),
    "home-of-root": ("Of whomever.", "~root/.ssh/authorized_keys"),
    "percent": ("Only a URL knows what percent means.", "%2e%2e/%2e%2e/evil.py"),
    "percent-slash": ("Even if it is a slash.", "..%2fevil.py"),
    "wide-dots": ("Fullwidth dots are no dots.", "\uff0e\uff0e/evil.py"),
    "two-dot-leader": ("Nor are the dots of a table of contents.", "\u2025/evil.py"),
    "division-slash": ("Nor is every slash a slash.", "..\u2215evil.py"),
    "three-dots": ("Three dots are a name.", ".../evil.py"),
    "dots-in-a-name": ("Two dots within a name are part of it.", f"{NAME}/..evil"),
    "trailing-dot": ("Windows would cut it off; Linux does not.", f"{NAME}/evil."),
    "trailing-space": ("The same of a space.", f"{NAME}/evil "),
    "dots-and-space": ("On Windows this would lead out.", f"{NAME}/.. /evil.py"),
    "device": ("A device name of Windows is a name.", f"{NAME}/nul.txt"),
    "device-top": ("At the root, too.", "CON"),
    "stream": ("A colon names a stream on Windows.", f"{NAME}/a.py:stream"),
    "shell": ("Only a shell would run this.", f"{NAME}/$(touch evil)`id`;rm -rf ~"),
    "option": ("Only a careless command would take it for an option.", "-rf"),
    "csv": ("RECORD quotes what it has to.", f'{NAME}/a,"b".py'),
    "override": ("Text that runs from right to left is text.", f"{NAME}/\u202egnp.py"),
    "invisible": ("So is what one cannot see.", f"{NAME}/a\u200bb.py"),
    "longest-component": ("255 bytes are allowed.", f"{NAME}/{'x' * 255}"),
    "hundred-deep": ("A hundred components are allowed.", "d/" * 99 + "x"),
}  # fmt: skip


def cases() -> list[Case]:
    """Return the cases, those that are refused first."""
    found = [
        Case(f"name-{name}", claim, wheel(more=[Entry(path, b"")]), refused=reason)
        for name, (claim, path, reason) in _BAD.items()
    ]
    found += [
        Case(f"names-{name}", claim, wheel(more=[Entry(path, b"") for path in paths]), refused=BOTH)
        for name, (claim, paths) in _TOGETHER.items()
    ]
    found += [
        Case(
            f"names-{name}",
            claim,
            wheel(dict.fromkeys(paths, "x = 1\n")),
            files=tuple(f"{SITE}/{path}" for path in paths),
        )
        for name, (claim, paths) in _APART.items()
    ]
    found += _encodings()
    found += [
        Case(f"name-{name}", claim, wheel({path: "x = 1\n"}), files=(f"{SITE}/{path}",))
        for name, (claim, path) in _ODD.items()
    ]
    return found


def _encodings() -> list[Case]:
    path = f"{NAME}/\u00fc.py"
    twice = f"it has `{NAME}/__init__.py` twice, with different contents"
    once = f"{NAME}==2.0: it has `{NAME}/__init__.py` twice, with one content"
    not_utf8 = "it has a file name that is not UTF-8"
    other = Entry(path, b"", extra=extra(0x7075, b"\1\0\0\0\0../evil.py"))
    return [
        Case("names-same", "Twice is no harm.", wheel(unlisted=[Entry(f"{NAME}/__init__.py")]), details=once),
        Case(
            "names-same-but-for-one-bit",
            "A CRC can be made the same.",
            wheel(
                {f"{NAME}/x": COLLIDING},
                unlisted=[Entry(f"{NAME}/x", bytes(32))],
                record=lambda rows: [row(r[0], bytes(32)) if r[0] == f"{NAME}/x" else r for r in rows],
            ),
            refused=f"it has `{NAME}/x` twice, with different contents",
        ),
        Case(
            "names-same-but-contents",
            "Tools differ on which of two counts.",
            wheel(unlisted=[Entry(f"{NAME}/__init__.py", b"import evil\n")]),
            refused=twice,
        ),
        Case(
            "name-bad-utf-8",
            "A name that claims to be UTF-8 has to be.",
            wheel(unlisted=[Entry(f"{NAME}/\xff".encode("latin-1"), flags=UTF8)]),
            refused=not_utf8,
        ),
        Case(
            "name-overlong-utf-8",
            "Dots in too many bytes are dots to careless decoders.",
            wheel(unlisted=[Entry(b"\xc0\xae\xc0\xae/evil.py", flags=UTF8)]),
            refused=not_utf8,
        ),
        Case(
            "name-surrogates",
            "Half a character is none.",
            wheel(unlisted=[Entry(b"\xed\xa0\x80", flags=UTF8)]),
            refused=not_utf8,
        ),
        Case(
            "name-latin-1",
            "A name in no known encoding could mean anything.",
            wheel(unlisted=[Entry(f"{NAME}/\xfc.py".encode("latin-1"), flags=0)]),
            refused="the file name `.*` is neither ASCII nor marked as UTF-8",
        ),
        Case(
            "name-unmarked",
            "UTF-8 that is not marked as such is read as code page 437 by some.",
            wheel(more=[Entry(path, flags=0)]),
            refused="the file name `.*` is neither ASCII nor marked as UTF-8",
        ),
        Case(
            "name-unmarked-locally",
            "The two headers could mean two names by the same bytes.",
            wheel(more=[Entry(path, local={"flags": 0})]),
            refused=f"`{path}` is not marked as UTF-8 in its local header",
        ),
        Case(
            "name-in-an-extra-field",
            "Some tools, zipfile of Python 3.13 among them, prefer the name in this extra field.",
            wheel(more=[other]),
            refused=f"`{path}` has another name in an extra field",
        ),
        Case(
            "name-twice-the-same",
            "The extra field may say the same.",
            wheel(more=[replace(other, extra=extra(0x7075, b"\1\0\0\0\0" + path.encode()))]),
            files=(f"{SITE}/{path}",),
        ),
        Case(
            "name-not-as-in-the-directory",
            "Tools that read local headers would see another file.",
            wheel(
                change=only(f"{NAME}/__init__.py", lambda entry: replace(entry, local={"name": b"../../../../evil.py"}))
            ),
            refused=f"`{NAME}/__init__.py` has another name in its local header",
        ),
        Case(
            "name-marked-though-ascii",
            "Marking ASCII as UTF-8 is right.",
            wheel(more=[Entry(f"{NAME}/a.py", flags=UTF8)]),
            files=(f"{SITE}/{NAME}/a.py",),
        ),
        Case("name-unicode", "Names may be in any script.", wheel({path: ""}), files=(f"{SITE}/{path}",)),
    ]
