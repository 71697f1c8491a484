"""Lines that several processes append to one file are all there, whole."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

WRITERS, LINES = 4, 300
APPENDS = """
import os, sys
from envsync.system import core
for _ in range(int(sys.argv[2])):
    fd = core.open_file(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, sys.argv[3].encode() * 300 + b"\\n")
    os.close(fd)
"""


def test_no_line_is_lost(tmp_path: Path) -> None:
    """None is written over another one, and none is torn."""
    path = tmp_path / "events"
    words = [[sys.executable, "-c", APPENDS, str(path), str(LINES), name] for name in "abcd"[:WRITERS]]
    started = [subprocess.Popen(each) for each in words]
    assert [each.wait() for each in started] == [0] * WRITERS
    expected = {name.encode() * 300: LINES for name in "abcd"[:WRITERS]}
    assert Counter(path.read_bytes().splitlines()) == expected
