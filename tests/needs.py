"""What only some systems have: tests that need it say so by these marks, and are skipped elsewhere with the reason."""

from __future__ import annotations

import os
import select
import shutil
import sys

import pytest

IS_ROOT = getattr(os, "geteuid", lambda: 1)() == 0
"""Whether the tests are root's, whom modes of files do not stop: nobody is on Windows."""

PROC = pytest.mark.skipif(
    sys.platform == "win32" or not os.path.exists("/proc/self/stat"),
    reason="needs /proc, which says who holds a lock and how a process is",
)
TOLD = pytest.mark.skipif(
    sys.platform != "win32" and not os.path.exists("/proc/self/stat"),
    reason="needs a system that tells how a process is: Linux by /proc, or Windows",
)
COPY_FILE_RANGE = pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="needs copy_file_range(2)")
MEMFD = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create(2)")
TRIO = pytest.mark.skipif(
    not (hasattr(select, "epoll") or hasattr(select, "kqueue")), reason="trio needs epoll(7) or kqueue(2)"
)
GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
GONE_AT_ONCE = pytest.mark.skipif(
    sys.platform == "win32",
    reason="needs names that go at once, though a file is open or somebody stands in a directory",
)
WOKEN = pytest.mark.skipif(
    sys.platform == "win32", reason="needs a read that another thread can end, which it is not under wine"
)
ANY_NAME = pytest.mark.skipif(sys.platform == "win32", reason="needs names of files that Windows does not allow")
