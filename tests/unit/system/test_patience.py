"""What passes is tried again for a while, and nothing else is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from envsync.errors import FilesystemError, LockFileError
from envsync.launch import reading, request
from envsync.system import mounts, patience

FOR_EVER = 10_000


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has slept; none of it takes any time."""
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


def failing(number: int, times: int) -> Callable[..., str]:
    """Return a function that fails so often."""
    left = [number] * times

    def call(*_: object, **__: object) -> str:
        if left:
            raise OSError(left.pop(), "for a moment")
        return "done"

    return call


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EEXIST])
def test_reading_again(slept: list[float], number: int) -> None:
    """A file that was replaced, or made by two at once, is read in the end."""
    assert patience.reading(failing(number, 5), "x") == "done"
    assert len(slept) == 5


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EIO])
def test_what_does_not_pass_is_an_error_at_once(slept: list[float], number: int) -> None:
    """Nobody waits for what stays as it is."""
    with pytest.raises(OSError, match="for a moment"):
        patience.reading(failing(number, 1), "x")
    assert slept == []


def test_not_for_ever(slept: list[float]) -> None:
    """After about two seconds it is an error."""
    with pytest.raises(OSError, match="for a moment"):
        patience.patiently(failing(errno.ESTALE, FOR_EVER))
    assert 1.9 < sum(slept) < 2.5


def test_an_error_of_ours_that_was_made_of_it(slept: list[float]) -> None:
    """ESTALE is known by what it has become, too."""
    answers = [FilesystemError("open", "x", OSError(errno.ESTALE, "for a moment"))]

    def call() -> str:
        if answers:
            raise answers.pop()
        return "done"

    assert patience.patiently(call) == "done"
    assert len(slept) == 1


@pytest.mark.parametrize(("network", "tries"), [(True, 3), (False, 1)])
def test_what_is_gone(slept: list[float], monkeypatch: pytest.MonkeyPatch, network: bool, tries: int) -> None:
    """What ought to be there may be missing for a moment where other hosts replace it, and nowhere else."""
    asked: list[str] = []
    monkeypatch.setattr(mounts, "is_network", lambda path: asked.append(path) or network)
    if network:
        assert patience.reading_what_is_there(failing(errno.ENOENT, tries), "a/b") == "done"
    else:
        with pytest.raises(FileNotFoundError):
            patience.reading_what_is_there(failing(errno.ENOENT, tries), "a/b")
    assert asked == ["a"]
    assert len(slept) == tries - 1


def test_a_named_lock_file(monkeypatch: pytest.MonkeyPatch, slept: list[float], tmp_path: os.PathLike[str]) -> None:
    """A lock file that another host replaces just now is read; one that is missing here is not waited for."""
    path = os.path.join(tmp_path, "pylock.toml")
    with pytest.raises(LockFileError, match="No such file"):
        reading.read_input(path)
    assert slept == []
    with open(path, "wb") as file:
        file.write(b"content")
    original = request.os.open
    left = [errno.ESTALE, errno.ESTALE]

    def sometimes(*arguments: object) -> int:
        if left:
            raise OSError(left.pop(), "Stale file handle")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(request.os, "open", sometimes)
    assert reading.read_input(path) == b"content"
