"""What Windows refuses: by its code it is tried again, or it is an error at once, and the error names the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError
from envsync.locks import flock
from envsync.system import atomic, native, patience, refusals

PASSING = (5, 32, 33, 145, 1224)
HELD = (32, 33)
IN_USE = (32, 33, 1224)
FINAL = (1, 2, 50, 80, 112, 123, 183, 206, 267, 1314)
FOR_EVER = 10_000


def refused(code: int, *names: str) -> OSError:
    """Make the error that Windows' Python raises: as of a permission, whatever it is, and with the code."""
    error = PermissionError(errno.EACCES, f"Windows says {code}", *(names and (names[0], None, *names[1:])))
    error.winerror = code  # type: ignore[attr-defined]
    return error


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has slept; none of it takes any time."""
    slept: list[float] = []
    monkeypatch.setattr(refusals.time, "sleep", slept.append)
    return slept


def refusing(call: Callable[..., Any], code: int, times: int) -> Callable[..., Any]:
    """Return a function that is refused so often before it is done."""
    left = [code] * times

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        names = [os.fspath(name) for name in arguments[:2] if isinstance(name, str | os.PathLike)]
        if left:
            raise refused(left.pop(), *names)
        return call(*arguments, **keywords)

    return refuse


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_tried_again(slept: list[float], code: int) -> None:
    """With pauses that double."""
    assert refusals.patiently(refusing(lambda path: path, code, 4), "file") == "file"
    assert slept == [0.01, 0.02, 0.04, 0.08]


@pytest.mark.parametrize("code", FINAL)
def test_what_does_not_pass_is_an_error_at_once(slept: list[float], code: int) -> None:
    """The very error, as Windows has said it."""
    with pytest.raises(PermissionError, match=f"Windows says {code}"):
        refusals.patiently(refusing(str, code, 1), "file")
    assert slept == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY])
def test_errors_of_other_systems_are_none_of_these(slept: list[float], number: int) -> None:
    """They have no code of Windows."""

    def fails() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        refusals.patiently(fails)
    assert slept == []


@pytest.mark.parametrize("code", PASSING)
def test_not_for_ever(slept: list[float], code: int) -> None:
    """After ten seconds it is an error that names both files, and of what is in use it says so by its number."""
    with pytest.raises(OSError, match=f"Windows says {code}") as caught:
        refusals.patiently(refusing(str, code, FOR_EVER), "one", "other")
    assert 10 <= sum(slept) <= 11
    assert caught.value.errno == (errno.EBUSY if code in IN_USE else errno.EACCES)
    assert (caught.value.filename, caught.value.filename2) == ("one", "other")


@pytest.mark.parametrize(
    ("who", "text"),
    [
        ([], "Windows says 32"),
        (["pid 7 (`a.exe`)"], "Windows says 32: pid 7 (`a.exe`) has it open"),
        (["pid 7 (`a.exe`)", "pid 8 (`b`)"], "Windows says 32: pid 7 (`a.exe`), pid 8 (`b`) have it open"),
    ],
)
def test_who_has_it_open_is_named(
    slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, who: list[str], text: str
) -> None:
    """As far as it is known; and to the command line it is no matter of permissions."""
    monkeypatch.setattr(refusals, "holders", lambda _: who)
    monkeypatch.setattr(os, "unlink", refusing(os.unlink, 32, FOR_EVER))
    with pytest.raises(FilesystemError) as caught:
        atomic.remove(f"{tmp_path}/file")
    assert str(caught.value).partition("\n")[0] == f"cannot remove `{tmp_path}/file`: {text}"
    assert not caught.value.is_refusal
    assert caught.value.retryable


@pytest.mark.parametrize("code", PASSING)
def test_which_are_locks(code: int) -> None:
    """Two codes are the answer of a lock that somebody has."""
    assert refusals.is_held(refused(code)) == (code in HELD)


@pytest.mark.parametrize("code", PASSING)
class TestCallers:
    """Whoever renames, removes or reads insists."""

    def test_move(self, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
        """A rename."""
        (tmp_path / "one").write_text("data")
        monkeypatch.setattr(native, "replace", refusing(os.replace, code, 3))
        atomic.move(f"{tmp_path}/one", f"{tmp_path}/other")
        assert (len(slept), os.listdir(tmp_path)) == (3, ["other"])

    def test_move_tree(self, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
        """A directory that is moved file by file: each file, and the directory that is then to go."""
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "file").write_text("data")
        monkeypatch.setattr(native, "replace", refusing(os.replace, code, 2))
        monkeypatch.setattr(os, "rmdir", refusing(os.rmdir, code, 3))
        assert atomic.move_tree(f"{tmp_path}/one", f"{tmp_path}/other")
        assert (len(slept), os.listdir(tmp_path), os.listdir(tmp_path / "other")) == (5, ["other"], ["file"])

    def test_write(self, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
        """A state file that somebody reads just now."""
        monkeypatch.setattr(native, "replace", refusing(os.replace, code, 3))
        atomic.write(f"{tmp_path}/state", b"data")
        assert (len(slept), os.listdir(tmp_path)) == (3, ["state"])

    def test_remove(self, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
        """What must not stay."""
        (tmp_path / "state").write_text("data")
        monkeypatch.setattr(os, "unlink", refusing(os.unlink, code, 3))
        atomic.remove(f"{tmp_path}/state")
        assert (len(slept), os.listdir(tmp_path)) == (3, [])

    def test_read(self, slept: list[float], code: int) -> None:
        """What is replaced just now."""
        assert patience.reading(refusing(lambda path: path, code, 3), "file") == "file"
        assert len(slept) == 3

    def test_open_lock(self, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
        """A lock file that somebody looks at."""
        monkeypatch.setattr(flock, "_open", refusing(flock._open, code, 3))
        os.close(flock.open_file(f"{tmp_path}/lock", shared=False))
        assert slept != []


def test_a_directory_is_not_renamed_where_open_files_are_in_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On Windows it is left to be moved file by file; a file is renamed."""
    monkeypatch.setattr(native, "MOVES_DIRECTORIES", False)
    (tmp_path / "one").mkdir()
    (tmp_path / "file").write_text("data")
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)) as caught:
        atomic.move_entry(f"{tmp_path}/one", f"{tmp_path}/other")
    assert atomic.is_refused_directory(f"{tmp_path}/one", caught.value)
    with pytest.raises(FileNotFoundError):
        atomic.move_entry(f"{tmp_path}/one", f"{tmp_path}/missing/other")
    atomic.move_entry(f"{tmp_path}/file", f"{tmp_path}/moved")
    assert sorted(os.listdir(tmp_path)) == ["moved", "one"]
