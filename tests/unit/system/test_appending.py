"""Lines that several processes append to one file are all there, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from envsync.system import core

WRITERS, LINES = 4, 300
APPENDS = """
import os, sys
from envsync.system import core
for _ in range(int(sys.argv[2])):
    fd = core.open_file(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, sys.argv[3].encode() * 300 + b"\\n")
    os.close(fd)
"""


def is_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@pytest.mark.skipif(is_wine(), reason="wine looks for the end and writes there, in two steps")
def test_no_line_is_lost(tmp_path: Path) -> None:
    """None is written over another one, and none is torn."""
    path = tmp_path / "events"
    words = [[sys.executable, "-c", APPENDS, str(path), str(LINES), name] for name in "abcd"[:WRITERS]]
    started = [subprocess.Popen(each) for each in words]
    assert [each.wait() for each in started] == [0] * WRITERS
    expected = {name.encode() * 300: LINES for name in "abcd"[:WRITERS]}
    assert Counter(path.read_bytes().splitlines()) == expected


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows writes in another way than O_APPEND says")
def test_it_is_the_system_that_finds_the_end(tmp_path: Path) -> None:
    """Even who writes at an offset writes at the end: the right to write anywhere is not asked for."""
    import _winapi
    import msvcrt

    path = tmp_path / "events"
    path.write_bytes(b"first\n")
    fd = core.open_file(str(path), os.O_WRONLY | os.O_APPEND)
    written, _ = _winapi.WriteFile(msvcrt.get_osfhandle(fd), b"second\n", overlapped=True)
    written.GetOverlappedResult(True)
    os.close(fd)
    assert path.read_bytes() == b"first\nsecond\n"
