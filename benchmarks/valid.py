"""Fail unless every module of the environment that this runs in has bytecode that importlib would run as it is.

Says on stdout how many modules there are. Modules that do not compile have none, with anybody.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib import _bootstrap_external as loader  # type: ignore[attr-defined]


def modules(site_packages: str) -> Iterator[str]:
    for directory, names, files in os.walk(site_packages):
        names[:] = [name for name in names if name != ".envsync"]
        yield from (f"{directory}/{name}" for name in files if name.endswith(".py"))


def is_valid(path: str) -> bool:
    """Ask as an import does: magic number, flags, time and size of the source."""
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            data = file.read()
        status = os.stat(path)
        if loader._classify_pyc(data, path, {}):
            return False  # checked by hash, or not at all: another kind
        loader._validate_timestamp_pyc(data, int(status.st_mtime), status.st_size, path, {})
    except (OSError, ImportError, EOFError):
        return False
    return True


def compiles(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            compile(file.read(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def main() -> int:
    """Look. Returns the exit status."""
    found = list(modules(sysconfig.get_path("purelib")))
    wrong = [path for path in found if not is_valid(path) and compiles(path)]
    print(len(found))
    sys.stderr.write("".join(f"{path}\n" for path in wrong[:20]))
    return int(bool(wrong) or not found)


if __name__ == "__main__":
    sys.exit(main())
