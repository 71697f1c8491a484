"""Paths as envsync writes and compares them."""

from __future__ import annotations

import sys

import pytest

from envsync.system import paths

IS_WINDOWS = sys.platform == "win32"
DRIVES = pytest.mark.skipif(not IS_WINDOWS, reason="needs drives, as Windows has them")


@pytest.mark.parametrize(
    ("path", "is_within"),
    [
        ("/a/b", True),
        ("/a/b/c", True),
        ("/a/b/c/d", True),
        ("/a", False),
        ("/a/bc", False),
        ("/a/c/b", False),
        ("/A/B/c", IS_WINDOWS),
    ],
)
def test_what_is_within_a_directory(path: str, is_within: bool) -> None:
    """The directory itself, and all below; not what only begins alike. Windows does not tell cases apart."""
    assert paths.is_within(path, "/a/b") is is_within
    assert paths.is_within(path, "/a/b/") is is_within
    assert paths.is_within(path, "/")


@DRIVES
def test_drives() -> None:
    """What is of another drive is not within, whatever it is called, and has no relative path."""
    assert paths.is_within("C:/a/b", "c:/A")
    assert paths.is_within("C:/a", "C:/")
    assert not paths.is_within("D:/a/b", "C:/a")
    assert not paths.is_within("D:/a", "C:/")
    assert paths.relpath("C:/a/c/d", "C:/a/b") == "../c/d"
    assert paths.relpath("D:/a", "C:/a/b") == "D:/a"
    assert paths.join("C:/a/", paths.relpath("D:/a", "C:/a")) == "D:/a"
