"""How a process's umask is asked: without setting it, for that would be for all of its threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envsync.system import posix, processes

UMASKS = (0o000, 0o002, 0o022, 0o077, 0o777)


@contextmanager
def under(umask: int) -> Iterator[None]:
    """Set it for a while, in which nobody else may."""
    before = os.umask(umask)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(posix.os, "umask", lambda _: pytest.fail("it is set"))
            yield
    finally:
        os.umask(before)


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let there be no /proc, and files be made below the test's directory."""
    original = posix.os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == "/proc/self/status":
            raise FileNotFoundError(path)
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(posix.os, "open", refuse)
    monkeypatch.setattr(posix, "_TEMPORARY", (os.fsencode(tmp_path),))


@pytest.mark.parametrize("umask", UMASKS)
def test_the_kernel_says_it(umask: int) -> None:
    """By proc(5), where there is one."""
    with under(umask):
        assert processes.read_umask() == umask


@pytest.mark.parametrize("umask", UMASKS)
def test_a_new_file_says_it(unlisted: None, tmp_path: Path, umask: int) -> None:
    """It is gone then."""
    with under(umask):
        assert processes.read_umask() == umask
    assert os.listdir(tmp_path) == []


def test_where_no_file_can_be_made(unlisted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another place is taken: what the user has named."""
    monkeypatch.setattr(posix, "_TEMPORARY", (b"/nowhere",))
    monkeypatch.setitem(posix.os.environ, b"TMPDIR", os.fsencode(tmp_path))
    with under(0o027):
        assert processes.read_umask() == 0o027
    assert os.listdir(tmp_path) == []


def test_a_file_that_somebody_removes_first(unlisted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cleans up there, say: what it has said holds."""
    unlink = posix.os.unlink

    def twice(path: Any) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(posix.os, "unlink", twice)
    with under(0o027):
        assert processes.read_umask() == 0o027


def test_where_none_can_be_made_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set, to one by which nobody gets more than they should, and set back."""
    asked = []
    umask = posix.os.umask

    def note(mask: int) -> int:
        asked.append(mask)
        return umask(mask)

    def refuse(path: Any, *_: Any, **__: Any) -> int:
        raise PermissionError(path)

    before = os.umask(0o027)
    try:
        monkeypatch.setattr(posix.os, "umask", note)
        monkeypatch.setattr(posix.os, "open", refuse)
        assert processes.read_umask() == 0o027
        monkeypatch.undo()
    finally:
        os.umask(before)
    assert asked == [0o077, 0o027]
