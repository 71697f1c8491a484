"""What a hostile wheel is made of: a sound one, `hostile 2.0`, in which one thing is wrong.

    Case("escape", "Two dots lead out.", wheel({"../evil.py": "x"}), refused="a file name leads out of .*")
    Case("odd", "It may be called so.", wheel({"~/x": ""}), files=(f"{SITE}/~/x",))

Nothing is built before it is asked for: `Case.build` is a function.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envsync.errors import EnvsyncError, WheelError
from tests.hostile.zips import Entry, archive

NAME, VERSION = "hostile", "2.0"
FILENAME = f"{NAME}-{VERSION}-py3-none-any.whl"
INFO = f"{NAME}-{VERSION}.dist-info"
DATA = f"{NAME}-{VERSION}.data"
SITE = "<site>"
"""Stands for site-packages in the files of a case; all else is below the environment."""
ENTRY_POINTS = f"{SITE}/{INFO}/entry_points.txt"
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: hostile\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
MEGABYTE = 1024 * 1024
KEEPS = "it wants to put `{}` where the environment keeps its own files"
"""The refusal of what no wheel may replace."""

Rows = list[tuple[str, str, str]]
Content = str | bytes
Build = Callable[[], bytes]


@dataclass(frozen=True)
class Case:
    """One wheel and what is to become of it.

    :ivar claim: what is tried, or why it is let pass, in one sentence
    :ivar refused: its own reason, a regular expression for the whole of the error's `problem`; None if it is accepted
    :ivar unlocked: its own reason where the lock file does not have the wheel's hash, likewise
    :ivar details: a regular expression for what is said of it to those who ask for more
    :ivar files: if accepted, what it puts into the environment besides what every wheel of the corpus does
    :ivar error: what is raised, if it is not the wheel's author who has to act: `LockFileError`
    :ivar filename: of the wheel
    :ivar wanted: the name and version that the lock file gives the package
    :ivar pip: what pip installs besides, of what envsync leaves out; None if pip stumbles over what the standard allows
    :ivar note: a regular expression for a note that the sync makes of it
    :ivar verifies: every RECORD fits the files; not so if it shares a file with its neighbour, as with any installer
    :ivar written: how many bytes it may have unpacked, in one attempt, before it is refused
    :ivar memory: how many bytes it may take
    :ivar slow: takes many seconds
    """

    name: str
    claim: str
    build: Build
    refused: str | None = None
    files: tuple[str, ...] = ()
    error: type[EnvsyncError] = WheelError
    filename: str = FILENAME
    wanted: tuple[str, str] = (NAME, VERSION)
    pip: tuple[str, ...] | None = ()
    note: str | None = None
    unlocked: str | None = None
    details: str | None = None
    verifies: bool = True
    written: int = MEGABYTE
    memory: int = 64 * MEGABYTE
    slow: bool = False

    @property
    def installed(self) -> set[str]:
        """All files that it puts into the environment, if it is accepted."""
        metadata = ("METADATA", "WHEEL", "RECORD", "INSTALLER", "REQUESTED")
        return {f"{SITE}/{NAME}/__init__.py", *(f"{SITE}/{INFO}/{name}" for name in metadata), *self.files}


def coming_twice(name: str, claim: str, path: str, **options: Any) -> Case:
    """Return the case of a wheel with a file that would be installed from two of its members.

    :param path: as the refusal names it, with the scheme in front
    :param options: of the wheel, as for `entries`
    """
    return Case(name, claim, wheel(**options), refused=f"once installed, it has `{path}` twice")


def wheel(
    files: Mapping[str, Content] | None = None, *, written: Callable[..., bytes] = archive, **options: Any
) -> Build:
    """Return a function that builds a wheel of these files and options (see `entries`)."""
    return lambda: written(entries(files, **options))


def entries(
    files: Mapping[str, Content] | None = None,
    *,
    data: Mapping[str, Content] | None = None,
    entry_points: str | None = None,
    metadata: Content | None = METADATA,
    tags: Content | None = WHEEL,
    record: Content | Callable[[Rows], Iterable[tuple[str, ...]]] | None = None,
    info: str = INFO,
    info_files: Mapping[str, Content] | None = None,
    omit: Collection[str] = (),
    more: Iterable[Entry] = (),
    unlisted: Iterable[Entry] = (),
    change: Callable[[Entry], Entry] = lambda entry: entry,
) -> list[Entry]:
    """Return the members of a wheel, RECORD included, right in all that is not given.

    :param files: by path; a package with an `__init__.py` is always there
    :param data: by path below the .data directory
    :param metadata: the text of METADATA, None for none; `tags` likewise of WHEEL
    :param record: RECORD instead of the right one, or a function from the right lines to others
    :param info: another name for the .dist-info directory
    :param omit: names that RECORD lists and the archive lacks
    :param more: further members, which RECORD lists
    :param unlisted: further members, which it does not
    :param change: what to make of each member, RECORD included
    """
    contents: dict[str, Content] = {f"{NAME}/__init__.py": "", **(files or {})}
    contents |= {f"{DATA}/{path}": content for path, content in (data or {}).items()}
    texts = {"METADATA": metadata, "WHEEL": tags, "entry_points.txt": entry_points}
    contents |= {f"{info}/{name}": text for name, text in texts.items() if text is not None}
    contents |= {f"{info}/{name}": content for name, content in (info_files or {}).items()}
    members = [Entry(name, encoded(content)) for name, content in contents.items()] + list(more)
    rows = [row(member.encoded.decode("utf-8", "replace"), member.data) for member in members]
    own = f"{info}/RECORD"
    rows.append((own, "", ""))
    text = record if isinstance(record, str | bytes) else _csv(rows if record is None else record(rows))
    members = [member for member in members if member.name not in omit]
    if own not in omit:
        members.append(Entry(own, encoded(text)))
    return [change(member) for member in (*members, *unlisted)]


def row(path: str, data: bytes, algorithm: str = "sha256") -> tuple[str, str, str]:
    """Return the right line of RECORD for a file."""
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return path, f"{algorithm}={digest}", str(len(data))


def only(name: str, change: Callable[[Entry], Entry]) -> Callable[[Entry], Entry]:
    """Return a function that changes one member and leaves the others."""
    return lambda entry: change(entry) if entry.name == name else entry


def encoded(content: Content) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _csv(rows: Iterable[tuple[str, ...]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()
