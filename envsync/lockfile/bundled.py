"""What the lock file of a bundle says besides its packages: which files of bytecode it has.

    [[tool.envsync.bundle.bytecode]]
    path = "bytecode/<16 of the wheel's sha256>/<cache tag>.zip"
    size = 4711
    hashes = { sha256 = "..." }

Installers that do not know it ignore it (PEP 751, `[tool]`). Where the file of a wheel has to be follows from the wheel
and the Python: a path that says anything else is nobody's.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from envsync.launch.request import BUNDLE
from envsync.lockfile.target import Artifact
from envsync.system import paths

BYTECODE = "bytecode"
LETTERS = 16
"""So many of a sha256 name a directory: enough to tell wheels apart; the lock file has all of it."""
_PLACE = re.compile(rf"{BYTECODE}/[0-9a-f]{{{LETTERS}}}/[A-Za-z0-9._-]+\.zip")


class BytecodeFile(NamedTuple):
    """A file of bytecode in a bundle."""

    place: str
    """Relative to the bundle."""
    sha256: str
    size: int
    """In bytes."""


def place_of_bytecode(sha256: str, cache_tag: str) -> str:
    """Return where a bundle has the bytecode of a wheel for one kind of Python.

    :param sha256: of the wheel
    :param cache_tag: as in cpython-312
    """
    return f"{BYTECODE}/{sha256[:LETTERS].lower()}/{cache_tag}.zip"


def bytecode_in(table: Mapping[str, Any]) -> Iterator[BytecodeFile]:
    """Yield the files of bytecode that a lock file names.

    :param table: it, parsed
    :raises ValueError: one is none
    """
    try:
        listed = table.get("tool", {}).get("envsync", {}).get("bundle", {}).get(BYTECODE, [])
        found = [BytecodeFile(each["path"], each["hashes"]["sha256"], each["size"]) for each in listed]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"what it says of bytecode makes no sense ({type(error).__name__}: {error})") from None
    for each in found:
        if not (isinstance(each.place, str) and isinstance(each.sha256, str) and isinstance(each.size, int)):
            raise ValueError("what it says of bytecode makes no sense")
        if not _PLACE.fullmatch(each.place) or not re.fullmatch(r"[0-9a-f]{64}", each.sha256):
            raise ValueError(f"bytecode is not where a bundle has it: `{each.place[:200]}`")
    yield from found


def table_of(files: Iterable[BytecodeFile]) -> list[dict[str, Any]]:
    """Return what a lock file says of files of bytecode."""
    return [
        {"path": each.place, "size": each.size, "hashes": {"sha256": each.sha256}}
        for each in sorted(set(files), key=lambda file: file.place)
    ]


def bytecode_of(lock: str, data: bytes | None, wheels: Mapping[str, str], cache_tag: str) -> dict[str, Artifact]:
    """Find the bytecode that a bundle has of wheels, as files whose hash is known.

    :param lock: the lock file
    :param data: what was read of it
    :param wheels: by the sha256, the name of the package
    :param cache_tag: of the Python that it is for
    :returns: by the wheel's sha256; nothing if the lock file is none of a bundle, or what it says makes no sense
    """
    if data is None or BUNDLE not in data:
        return {}
    try:
        named = {file.place: file for file in bytecode_in(tomllib.loads(data.decode()))}
    except (ValueError, RecursionError):
        return {}
    directory = os.path.dirname(paths.abspath(lock))
    found = {}
    for sha256, name in wheels.items():
        file = named.get(place_of_bytecode(sha256, cache_tag))
        if file is not None:
            path = paths.join(directory, file.place)
            found[sha256] = Artifact(name, "", file.place, {"sha256": file.sha256}, size=file.size, path=path)
    return found
