"""Reading files: whole, whatever their size is said to be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from envsync.launch import reading


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 5])
def test_all_of_it_is_read(tmp_path: Path, size: int) -> None:
    """Up to its last byte, in as many turns as it takes."""
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert reading.content(str(tmp_path / "file")) == data


def test_more_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows while it is read is read to its end; what is in /proc says that it is empty."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 5000)
    grown = iter([b"b" * 9000, b"c" * 10])
    plain = os.read

    def read(fd: int, count: int) -> bytes:
        data = plain(fd, count)
        with open(path, "ab") as file:
            file.write(next(grown, b""))
        return data

    monkeypatch.setattr(reading.os, "read", read)
    assert reading.content(str(path)) == b"a" * 5000 + b"b" * 9000 + b"c" * 10
    monkeypatch.undo()
    if os.path.exists("/proc/self/status"):
        assert f"\nPid:\t{os.getpid()}\n".encode() in reading.content("/proc/self/status")


def test_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is read if it says so, and as soon as it turns out to be."""
    monkeypatch.setattr(reading, "LARGEST", 10_000)
    monkeypatch.setattr("envsync.system.patience.reading", lambda read, path: read(path))
    (tmp_path / "file").write_bytes(b"a" * 10_000)
    assert len(reading.content(str(tmp_path / "file"))) == 10_000
    for size in (10_001, 1 << 20):
        (tmp_path / "file").write_bytes(b"a" * size)
        with pytest.raises(OSError, match="it is larger than") as refused:
            reading.content(str(tmp_path / "file"))
        assert refused.value.errno == errno.EFBIG
