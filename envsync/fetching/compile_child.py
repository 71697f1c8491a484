"""Compile sources for the Python that runs this: a child of a sync (`envsync.fetching.compiling`).

Run as a script by the target's own interpreter, isolated, Python 3.9 or newer; nothing of envsync can be imported. The
same source gives the same bytes (`envsync.fetching.compiling`).
Lines of JSON, over pipes:

    out   [cache tag, magic number]                                                 once, to begin with
    in    [directory of sources, directory for bytecode, name to show, mtime, [file, ...]]
    out   ["compiled", file, size, sha256, sha256 of the source]                    of each file, in order
          ["failed", file, problem, sha256 of the source]
          ["exhausted", file, problem, sha256 of the source]                            there was no more memory
          ["unreadable", file, problem]
          ["unwritable", file, errno]

It ends when nothing more comes in. What it writes is bytecode as importlib writes it, checked by mtime and size of the
source (PEP 552). The final path is not known yet, so code objects are given a relative one; whenever a module is
imported, CPython puts the path of its source there (`_imp._fix_co_filename`), so that tracebacks name that.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import struct
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from marshal import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Do what is asked until there is nothing more."""
    gc.disable()  # code objects have no cycles
    os.umask(0)  # what is written may be read by everybody: who gets at it is said by directories
    _say([sys.implementation.cache_tag, MAGIC_NUMBER.hex()])
    for line in sys.stdin:
        sources, target, shown, mtime, names = json.loads(line)
        for name in names:
            _say(compile_file(sources, target, shown, mtime, name))


def compile_file(sources: str, target: str, shown: str, mtime: int, name: str) -> list[Any]:
    """Compile one file. Returns the answer."""
    try:
        with open(f"{sources}/{name}", "rb") as file:
            source = file.read()
    except OSError as error:
        return ["unreadable", name, error.strerror]
    of_source = hashlib.sha256(source).hexdigest()
    path = f"{shown}/{name}" if shown else name
    try:
        code = SourceFileLoader("", path).source_to_code(source, path)
        body = dumps(code)
    except MemoryError:
        return ["exhausted", name, "there was not enough memory", of_source]
    except Exception as error:  # noqa: BLE001  # whatever a source can do to the compiler is its own fault
        return ["failed", name, f"{type(error).__name__}: {error}"[:200], of_source]
    content = MAGIC_NUMBER + struct.pack("<3I", 0, mtime & 0xFFFFFFFF, len(source) & 0xFFFFFFFF) + body
    compiled = f"{target}/{name[:-3]}.{sys.implementation.cache_tag}.pyc"
    try:
        _write(compiled, content, mtime)
    except OSError as error:
        return ["unwritable", name, error.errno]
    return ["compiled", name, len(content), hashlib.sha256(content).hexdigest(), of_source]


def _write(path: str, content: bytes, mtime: int) -> None:
    """Write a read-only file. One that is there was begun by a child that died.

    Windows sets no times by a descriptor, and could not remove what is read-only.
    """
    by_descriptor = os.utime in os.supports_fd
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o444 if by_descriptor else 0o666)
    except FileExistsError:
        os.unlink(path)
        descriptor = os.open(path, flags, 0o444 if by_descriptor else 0o666)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if by_descriptor:
            os.utime(descriptor, (time.time(), mtime))  # when it is read is nobody's to set back
    finally:
        os.close(descriptor)
    if not by_descriptor:
        os.utime(path, (time.time(), mtime))


def _say(answer: list[Any]) -> None:
    line = json.dumps(answer).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    main()
