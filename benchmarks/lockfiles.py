"""Lock files made of a set's own: with one wrong hash, or without a few packages."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import replace

from measure import MeasuringError
from workplace import Wheel, Wheels, Workplace, normalised

LEFT_OUT = 3
PACKAGE = re.compile(r"(?=^\[\[packages\]\]$)", re.MULTILINE)
NAME = re.compile(r'^name = "([^"]+)"$', re.MULTILINE)
REQUIRED = re.compile(r"^Requires-Dist: *([A-Za-z0-9._-]+)", re.MULTILINE)


def with_wrong_hash(place: Workplace, wheels: Wheels) -> Wheels:
    """Return the set with a lock file in which the hash of its smallest wheel is wrong."""
    right = smallest(wheels).sha256
    text = text_of(wheels.lock)
    if right not in text:
        raise MeasuringError(f"`{wheels.lock}` does not name the hash of `{smallest(wheels).path}`")
    return replace(wheels, lock=place.write("pylock.toml", text.replace(right, wrong_hash(right))))


def spoil_uv_lock(path: str, wheels: Wheels) -> None:
    """Write into a uv.lock the hashes that it lacks if it was made of a directory of wheels, one of them wrong.

    :param wheels: the set; that of its smallest wheel will be wrong
    """
    hashes = {wheel.path: wheel.sha256 for wheel in wheels.wheels}
    worst = smallest(wheels).path
    hashes[worst] = wrong_hash(hashes[worst])
    text = text_of(path)
    for wheel, digest in hashes.items():
        if f'{{ path = "{wheel}" }}' not in text:
            raise MeasuringError(f"`{path}` does not name `{wheel}` as expected: what writes it has changed")
        text = text.replace(f'{{ path = "{wheel}" }}', f'{{ path = "{wheel}", hash = "sha256:{digest}" }}')
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def without_a_few(place: Workplace, wheels: Wheels) -> Wheels:
    """Return the set without a few small wheels that no other wheel of it requires.

    :raises MeasuringError: there are none
    """
    required = {name for wheel in wheels.wheels for name in requirements_of(wheel)}
    free = [wheel for wheel in wheels.wheels if name_of(wheel) not in required]
    left_out = sorted(free, key=lambda wheel: os.path.getsize(wheel.path))[:LEFT_OUT]
    if not left_out or len(left_out) == len(wheels.wheels):
        raise MeasuringError("no package of the set can be left out\nhint: name another set with --second-set DIR")
    names = {name_of(wheel) for wheel in left_out}
    head, *packages = PACKAGE.split(text_of(wheels.lock))
    kept = [text for text in packages if (name := NAME.search(text)) and normalised(name[1]) not in names]
    return replace(
        wheels,
        name=f"{wheels.name}-without-{len(names)}",
        lock=place.write("pylock.toml", head + "".join(kept)),
        wheels=[wheel for wheel in wheels.wheels if wheel not in left_out],
    )


def requirements_of(wheel: Wheel) -> set[str]:
    with zipfile.ZipFile(wheel.path) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return {normalised(name) for name in REQUIRED.findall(archive.read(metadata).decode(errors="replace"))}


def smallest(wheels: Wheels) -> Wheel:
    return min(wheels.wheels, key=lambda wheel: (os.path.getsize(wheel.path), wheel.path))


def name_of(wheel: Wheel) -> str:
    return normalised(wheel.pin.partition("==")[0])


def wrong_hash(digest: str) -> str:
    """Return another hash, with the first digit changed."""
    return ("1" if digest[0] == "0" else "0") + digest[1:]


def text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
