"""`python darwin.py ARGUMENTS`: the command line of envsync with the module that it has for macOS. No Mac is claimed.

Linux stays Linux, but `envsync.system.native` is asked for what macOS does: `envsync/system/darwin.py`. What that calls
in macOS's C library is in tests/unit/system/darwin.c, to be preloaded (`standing_in`); Linux's `stat` says no time at
which a file was made, so it is that of its last change.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent / "unit" / "system" / "darwin.c"


@cache
def standing_in() -> Path:
    """Build the library, once for each process. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        import pytest

        pytest.skip("there is no C compiler")
    directory = tempfile.TemporaryDirectory(prefix="envsync-darwin-")
    _kept.append(directory)
    library = Path(directory.name) / "darwin.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    return library


_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Removed at the end of the process."""


def become() -> None:
    """Have envsync take this system for macOS, in this process."""
    really, sys.platform = sys.platform, "darwin"
    from envsync.system import core, native  # noqa: F401  # decided now

    sys.platform = really
    assert native.NAME == "macos"


def main() -> None:
    del sys.path[0]
    become()
    sys.argv[0] = "envsync"
    from envsync.__main__ import start

    start()


if __name__ == "__main__":
    main()
