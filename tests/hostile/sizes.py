"""Sizes: bombs that declare what they hold, bombs that do not, and what is merely much."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache
from typing import Any

from tests.hostile.cases import INFO, MEGABYTE, METADATA, NAME, SITE, WHEEL, Case, entries, only, row, wheel
from tests.hostile.zips import Entry, archive, deflated

BOMB = f"{NAME}/bomb"
TOTAL = r"its \d+ bytes declare \d+ bytes of content, more than 100 times as many"
MUCH = "more than makes sense"


@cache
def zeros(megabytes: int) -> bytes:
    """Return so many zeros, deflated a thousandfold, in little memory."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(compressor.compress(bytes(MEGABYTE)) for _ in range(megabytes)) + compressor.flush()


def cases() -> list[Case]:
    """Return the cases."""
    return [*_declared(), *_undeclared(), *_texts(), *_many()]


def _declared() -> list[Case]:
    inner = archive([Entry(f"{number}.zip", raw=zeros(16), lies={"size": 16 * MEGABYTE}) for number in range(16)])
    return [
        Case("bomb", "27 files of 40 MB in 1 MB, all of it declared and right.", _bomb, TOTAL, written=0),
        Case(
            "bomb-of-one-file",
            "A file says that it has four gigabytes, and has ten bytes.",
            wheel(unlisted=[Entry(BOMB, b"x" * 10, lies={"size": 0xFFFFFFFE})]),
            TOTAL,
            written=0,
        ),
        Case(
            "bomb-by-a-hair",
            "A file says that it has as much as is never suspected, and has ten bytes.",
            wheel(more=[Entry(BOMB, b"x" * 10, lies={"size": 1000 * MEGABYTE})], record=_sizeless),
            f"`{BOMB}` is cut short: 10 of 1048576000 bytes",
        ),
        Case(
            "bomb-within",
            "An archive within a wheel is a file, however much it would expand to.",
            wheel({f"{NAME}/42.zip": inner}),
            files=(f"{SITE}/{NAME}/42.zip",),
        ),
        Case(
            "bomb-small",
            "What compresses a thousandfold is no bomb as long as it is not much.",
            wheel({BOMB: bytes(24 * MEGABYTE)}),
            files=(f"{SITE}/{BOMB}",),
            written=25 * MEGABYTE,
        ),
    ]


def _bomb() -> bytes:
    """Make a wheel of more than a gigabyte that is right in every byte."""
    content = bytes(40 * MEGABYTE)
    one = Entry(BOMB, b"", raw=zeros(40), lies={"crc": zlib.crc32(content), "size": len(content)})
    names = [f"{BOMB}-{number}" for number in range(27)]
    line = row(BOMB, content)[1:]
    members = entries(
        dict.fromkeys(names, ""),
        record=lambda rows: [(path, *line) if path in names else (path, *rest) for path, *rest in rows],
    )
    return archive([replace(one, name=member.name) if member.name in names else member for member in members])


def _undeclared() -> list[Case]:
    lie = Entry(BOMB, b"x" * 100, raw=zeros(64))
    more = rf"`{BOMB}` holds more than the \d+ bytes it declares"
    return [
        Case("undeclared", "64 MB come of a file that says it has 100 bytes.", wheel(more=[lie]), more),
        Case(
            "undeclared-by-a-half",
            "64 MB come of a file that says it has 32.",
            wheel(more=[replace(lie, lies={"size": 32 * MEGABYTE})], record=_sizeless),
            more,
            written=33 * MEGABYTE,
        ),
        Case(
            "undeclared-nothing",
            "64 MB come of a file that says it is empty.",
            wheel(more=[replace(lie, data=b"")]),
            more,
        ),
        Case(
            "undeclared-in-record",
            "64 MB come of a RECORD that says it has 300 bytes.",
            wheel(change=only(f"{INFO}/RECORD", lambda entry: replace(entry, raw=zeros(64)))),
            rf"`{INFO}/RECORD` holds more than the \d+ bytes it declares",
            written=0,
        ),
        Case(
            "undeclared-in-metadata",
            "64 MB come of a METADATA that says it has 50 bytes.",
            wheel(change=only(f"{INFO}/METADATA", lambda entry: replace(entry, raw=zeros(64)))),
            rf"`{INFO}/METADATA` holds more than the \d+ bytes it declares",
            written=0,
        ),
    ]


def _sizeless(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [(path, digest, "") for path, digest, _ in rows]


def _texts() -> list[Case]:
    big = 5 * MEGABYTE
    scripts = "[console_scripts]\n"
    laughs = scripts + "".join(f"a{n} = {'%(a' + str(n + 1) + ')s' * 10}\n" for n in range(9)) + "a9 = x\n"
    no_function = r"entry point `.* = .*` in console_scripts does not name a function"
    texts: dict[str, tuple[dict[str, Any], str]] = {
        "metadata": ({"metadata": METADATA + "A: b\n" * (big // 5)}, rf"its METADATA has \d+ bytes of headers, {MUCH}"),
        "wheel": ({"tags": WHEEL + "A: b\n" * (big // 5)}, rf"its WHEEL has \d+ bytes, {MUCH}"),
        "wheel-body": ({"tags": WHEEL + "\n" + "\n" * big}, rf"its WHEEL has \d+ bytes, {MUCH}"),
        "entry-points": (
            {"entry_points": scripts + "a = b:c\n" * (big // 8)},
            rf"its entry_points.txt has \d+ bytes, {MUCH}",
        ),
        "record": (
            {"record": "a,sha256=x,\n" * (big // 8)},
            r"its RECORD has \d+ bytes, more than its list of files can take",
        ),
    }
    return [
        *(
            Case(f"text-{name}", "Its parser would be busy for minutes.", wheel(**options), reason, written=0)
            for name, (options, reason) in texts.items()
        ),
        Case(
            "text-metadata-huge",
            "No text is that long.",
            wheel(change=only(f"{INFO}/METADATA", lambda entry: replace(entry, lies={"size": 65 * MEGABYTE})),
                  record=_sizeless),
            rf"`{INFO}/METADATA` claims \d+ bytes, {MUCH}",
            written=0,
        ),
        Case(
            "text-description",
            "A description may be long: nobody parses it.",
            wheel(metadata=METADATA + "\n" + "hello\n" * MEGABYTE),
            written=7 * MEGABYTE,
        ),
        Case(
            "text-spaces",
            "An expression that tries every way to divide a million spaces would take a day.",
            wheel(entry_points=f"{scripts}a = b:c{' ' * MEGABYTE}!\n"),
            no_function,
            written=0,
        ),
        Case(
            "text-laughs",
            "References to references to references: a billion of them.",
            wheel(entry_points=laughs),
            no_function,
            written=0,
        ),
    ]  # fmt: skip


def _many() -> list[Case]:
    @cache
    def many(count: int, last: str) -> bytes:
        return archive(
            entries(more=[Entry(f"{NAME}/{number}", raw=deflated(b"")) for number in range(count)] + [Entry(last)])
        )

    return [
        Case(
            "many-and-one",
            "The last of 100,000 names leads out, and nothing is written before it is seen.",
            lambda: many(100_000, "../evil"),
            "a file name leads out of the wheel: .*",
            written=0,
            memory=256 * MEGABYTE,
        ),
        Case(
            "many",
            "1,000 empty files are files.",
            lambda: many(1000, f"{NAME}/last"),
            files=(*(f"{SITE}/{NAME}/{number}" for number in range(1000)), f"{SITE}/{NAME}/last"),
        ),
        Case(
            "many-more",
            "So are 100,000.",
            lambda: many(100_000, f"{NAME}/last"),
            files=(*(f"{SITE}/{NAME}/{number}" for number in range(100_000)), f"{SITE}/{NAME}/last"),
            written=64 * MEGABYTE,
            memory=512 * MEGABYTE,
            slow=True,
        ),
    ]  # fmt: skip
