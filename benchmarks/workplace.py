"""Where the benchmarks work, and on what: a directory of their own, and the wheels that a set pins.

No path is used twice, and nothing is removed before the very end: ext4 makes mkdir several times slower for a
while after an `rm -rf` nearby.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from measure import MeasuringError

GIGABYTE = 10**9


class Workplace:
    """A directory whose paths are handed out once each."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._count = 0

    def fresh(self, name: str) -> str:
        """Return a path that does not exist and never did."""
        self._count += 1
        return os.path.join(self.directory, f"{self._count:04}-{name}")

    def fresh_directory(self, name: str) -> str:
        path = self.fresh(name)
        os.mkdir(path)
        return path

    def write(self, name: str, text: str) -> str:
        """Write a file into a path of its own and return it."""
        path = os.path.join(self.fresh_directory("input"), name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def require_space(self, size: int) -> None:
        """Refuse what would fill the disk.

        :param size: bytes about to be written
        :raises MeasuringError: less than that and a gigabyte is free
        """
        free = shutil.disk_usage(self.directory).free
        if free < size + GIGABYTE:
            raise MeasuringError(
                f"{size / GIGABYTE:.1f} GB are needed, `{self.directory}` has {free / GIGABYTE:.1f} GB free\n"
                "hint: choose another --workdir, or fewer --rounds"
            )


@contextmanager
def workplace(parent: str) -> Iterator[Workplace]:
    """Make a directory to work in, and remove it at the end, whatever happens."""
    os.makedirs(parent, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="envsync-benchmark-", dir=os.path.abspath(parent))
    try:
        yield Workplace(directory)
    finally:
        print(f"removing {directory}", file=sys.stderr)
        for top, _, _ in os.walk(directory):
            os.chmod(top, 0o700)
        shutil.rmtree(directory)


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: the pin as in "numpy==2.4.6", and the file."""

    pin: str
    path: str

    @property
    def sha256(self) -> str:
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def unpacked_size(self) -> int:
        with zipfile.ZipFile(self.path) as archive:
            return sum(member.file_size for member in archive.infolist())


@dataclass(frozen=True)
class Wheels:
    """A set: the lock file, the directory of wheels, and the wheels pinned, one a distribution."""

    name: str
    lock: str
    wheelhouse: str
    wheels: Sequence[Wheel]

    @property
    def unpacked_size(self) -> int:
        return sum(wheel.unpacked_size for wheel in self.wheels)


def read_set(directory: str, wheelhouse: str) -> Wheels:
    """Read a set's pins and find their wheels.

    :param directory: holds pylock.toml and pins.txt, which pin the same
    :raises MeasuringError: a pin has no wheel, or more than one
    """
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(wheelhouse)):
        if name.endswith(".whl"):
            distribution, version = name.split("-")[:2]
            found.setdefault(f"{normalised(distribution)}=={version}", []).append(os.path.join(wheelhouse, name))
    wheels = []
    with open(os.path.join(directory, "pins.txt"), encoding="utf-8") as file:
        for pin in filter(None, (line.partition("#")[0].strip() for line in file)):
            distribution, _, version = pin.partition("==")
            paths = found.get(f"{normalised(distribution)}=={version}", [])
            if len(paths) != 1:
                raise MeasuringError(f"`{wheelhouse}` has {len(paths)} wheels for `{pin}`, and one is needed")
            wheels.append(Wheel(pin, os.path.abspath(paths[0])))
    lock = os.path.abspath(os.path.join(directory, "pylock.toml"))
    return Wheels(os.path.basename(os.path.normpath(directory)), lock, os.path.abspath(wheelhouse), wheels)


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_files(environment: str) -> int:
    """Count the files that the RECORDs of an environment name and that are not there."""
    missing = 0
    for top, _, names in os.walk(environment):
        if top.endswith(".dist-info") and "RECORD" in names:
            with open(os.path.join(top, "RECORD"), encoding="utf-8") as file:
                paths = [line.rsplit(",", 2)[0].strip('"') for line in file]
            missing += sum(not os.path.lexists(os.path.join(top, os.pardir, path)) for path in paths)
    return missing
