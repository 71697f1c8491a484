"""The physical limits: what the work itself costs from Python, with nothing around it. Run as a script.

    limits.py unpack WHEELS DESTINATION    hash every archive, inflate, hash and write every file; two threads
    limits.py list STORE LISTING           list the directories of an unpacked store, for `link`
    limits.py link LISTING DESTINATION     mkdir and link, two threads, one top-level entry at a time

WHEELS is a file with one path a line, LISTING a file as `list` writes it. Imports are inside the functions,
for they would be a good part of what `link` takes.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from typing import TypeVar
    from zipfile import ZipInfo

    Item = TypeVar("Item")

THREADS = 2


def unpack(wheels: str, destination: str) -> None:
    with open(wheels, encoding="utf-8") as file:
        paths = sorted(file.read().splitlines(), key=os.path.getsize, reverse=True)
    os.mkdir(destination)
    on_all_threads(lambda path: unpack_one(path, os.path.join(destination, os.path.basename(path))), paths)


def unpack_one(path: str, destination: str) -> None:
    import hashlib
    import mmap
    import zipfile

    made: set[str] = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as archive:
        hashlib.sha256(archive).digest()
        for member in zipfile.ZipFile(file).infolist():
            if member.is_dir():
                continue
            target = f"{destination}/{member.filename}"
            parent = os.path.dirname(target)
            if parent not in made:
                os.makedirs(parent, exist_ok=True)
                made.add(parent)
            content = inflated(archive, member)
            hashlib.sha256(content).digest()
            with open(target, "xb", buffering=0) as written:
                written.write(content)


def inflated(archive: mmap, member: ZipInfo) -> bytes:
    """Return a member's content by one call of zlib, where zipfile makes many.

    The lengths of name and extra field are at 26 and 28 of the header before it.
    """
    import struct
    import zlib

    start = member.header_offset + 30 + sum(struct.unpack_from("<HH", archive, member.header_offset + 26))
    content = archive[start : start + member.compress_size]
    if not member.compress_type:
        return content
    return zlib.decompress(content, -zlib.MAX_WBITS, member.file_size)


def list_store(store: str, listing: str) -> None:
    """Write one line a directory: where it is in the store, where it goes, its files; separated by tabs."""
    with open(listing, "w", encoding="utf-8") as file:
        for wheel in sorted(os.listdir(store)):
            top = os.path.join(store, wheel)
            file.writelines(
                "\t".join((directory, os.path.relpath(directory, top), *names)) + "\n"
                for directory, _, names in os.walk(top)
            )


def link(listing: str, destination: str) -> None:
    entries: dict[str, list[list[str]]] = {}
    with open(listing, encoding="utf-8") as file:
        for line in file:
            directory = line.rstrip("\n").split("\t")
            entries.setdefault(directory[1].partition("/")[0], []).append(directory)
    os.mkdir(destination)
    largest_first = sorted(entries.values(), key=lambda directories: -sum(map(len, directories)))
    on_all_threads(lambda directories: link_one(directories, destination), largest_first)


def link_one(directories: Sequence[Sequence[str]], destination: str) -> None:
    for source, place, *names in directories:
        with suppress(FileExistsError):  # another wheel has files in it, too
            os.mkdir(f"{destination}/{place}")
        for name in names:
            os.link(f"{source}/{name}", f"{destination}/{place}/{name}")


def on_all_threads(do: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Do something with every item. Exit with 1 if any of it failed."""
    queue = iter(items)
    ended = []

    def work() -> None:
        for item in queue:
            do(item)
        ended.append(True)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(ended) < THREADS:
        sys.exit(1)


if __name__ == "__main__":
    {"unpack": unpack, "list": list_store, "link": link}[sys.argv[1]](*sys.argv[2:])
