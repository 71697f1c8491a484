"""RECORD: one module reads and writes its lines, for archives, manifests and environments."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.wheel import record
from envsync.wheel.record import OwnedFile

SITE = "lib/python3.11/site-packages"
TEXT = st.text(st.sampled_from("ab ,\"'.-_é\u2003\\"), min_size=1, max_size=8)


@given(st.lists(TEXT, min_size=1, max_size=3), st.binary(max_size=9))
def test_what_is_written_is_read_as_it_was(parts: list[str], content: bytes) -> None:
    """Any path, quoted or not; the digest is that of hashlib."""
    digest = record.digest_of(content)
    assert digest == record.encode(hashlib.sha256(content).digest())
    path = "/".join(parts)
    text = record.line(path, digest, len(content)) + record.bare_line(path)
    assert list(record.rows(text)) == [[path, record.hash_of(digest), str(len(content))], [path, "", ""]]
    assert record.algorithm_and_digest(record.hash_of(digest)) == ("sha256", digest)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_lines_of_another_scheme_say_where_the_file_is(names: list[str]) -> None:
    """A manifest's lines begin at the directory of a scheme, an installed RECORD's at site-packages."""
    text = "".join(record.line(name, "x", 1) for name in names)
    assert record.installed_lines(text, SITE, SITE) == [record.line(name, "x", 1) for name in names]
    lines = record.installed_lines(text, "bin", SITE)
    assert lines == [record.line(f"../../../bin/{name}", "x", 1) for name in names]
    in_the_root = record.installed_lines(text, "", SITE)
    assert in_the_root == [record.line(f"../../../{name}", "x", 1) for name in names]


@pytest.mark.parametrize(
    ("listed", "read"),
    [
        ("demo-1-2abc.dist-info/WHEEL", "demo-1.dist-info/WHEEL"),
        ("demo-1-2.dist-info/licenses/A", "demo-1.dist-info/licenses/A"),
        ("demo-1.dist-info/WHEEL", "demo-1.dist-info/WHEEL"),
        ("demo-1-abc.dist-info/WHEEL", "demo-1-abc.dist-info/WHEEL"),
        ("demo-1-2/b.dist-info/WHEEL", "demo-1-2/b.dist-info/WHEEL"),
        ("x/demo-1-2.dist-info/WHEEL", "x/demo-1-2.dist-info/WHEEL"),
        ("demo-1-2.dist-info", "demo-1-2.dist-info"),
    ],
)
def test_a_dist_info_that_is_named_with_the_build_tag(listed: str, read: str) -> None:
    """Files in it are read as those of the .dist-info that the archive has; nothing else that looks like it is."""
    assert [*record.parse(record.line(listed, "x", 1), "demo-1.dist-info/RECORD")] == [read]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("demo/a.py", f"{SITE}/demo/a.py"),
        ("demo\\a.py", f"{SITE}/demo/a.py"),
        ("../../../bin/demo", "bin/demo"),
        ("/env/share/x", "share/x"),
        ("/the/same/env/share/x", "share/x"),
        ("/env", None),
        ("/env2/x", None),
        ("/env/../x", None),
        ("../../..", None),
        ("../../../..", None),
        ("../../../../x", None),
    ],
)
def test_where_a_line_leads(path: str, place: str | None) -> None:
    """Into the environment, by whichever of its paths, or nowhere."""
    found = record.owned([path, "sha256=x", "3"], SITE, ["/env", "/the/same/env"])
    assert found == (None if place is None else OwnedFile(place, "sha256=x", 3))


@pytest.mark.parametrize(
    "row", [[], ["a"], ["a", "", "", ""], ["", "", ""], ["a\0b", "", ""], ["a", "", "-1"], ["a", "", "1" * 21]]
)
def test_lines_that_cannot_be_read(row: list[str]) -> None:
    """They are said to be so, whatever is wrong with them."""
    with pytest.raises(ValueError, match="a line of it cannot be read"):
        record.owned(row, SITE, ["/env"])


def test_what_is_no_csv() -> None:
    """What comes before it is read."""
    rows = record.rows('a,b,1\n"a"b,c,2\n', strict=True)
    assert next(rows) == ["a", "b", "1"]
    with pytest.raises(ValueError, match="expected after"):
        next(rows)
