"""Read the head of an ELF file: what kind of machine a program is for, and which loader it asks for (elf(5))."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

I386, ARM = 3, 40
ARM_VERSION, ARM_VERSION_5, ARM_HARD_FLOAT = 0xFF000000, 0x05000000, 0x00000400
_LOADER = 3
_HEADERS = {32: ("HHIIIIIHHH", "IIIIIIII", (0, 1, 4)), 64: ("HHIQQQIHHH", "IIQQQQQQ", (0, 2, 5))}
"""Of the file, of a program header, and where in that are the type, the offset and the size."""


class Header(NamedTuple):
    """What is known of a program."""

    bits: int
    little_endian: bool
    machine: int
    flags: int
    loader: str
    """The path of the dynamic loader; empty for what is linked statically."""

    @property
    def is_i686(self) -> bool:
        return self.bits == 32 and self.little_endian and self.machine == I386

    @property
    def is_armhf(self) -> bool:
        """An ARM of 32 bits, EABI 5, that passes floating point numbers in registers."""
        suits = self.bits == 32 and self.little_endian and self.machine == ARM
        hard = self.flags & ARM_HARD_FLOAT and self.flags & ARM_VERSION == ARM_VERSION_5
        return bool(suits and hard)


def read_header(path: str) -> Header | None:
    """Read the header of a program; None if it is none, or cannot be read."""
    try:
        with open(path, "rb") as file:
            return _parse(file)
    except (OSError, ValueError, struct.error, OverflowError):
        return None


def _parse(file: BinaryIO) -> Header | None:
    ident = file.read(16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    bits, order = 32 * ident[4], "<" if ident[5] == 1 else ">"
    head, entry, places = _HEADERS[bits]
    _, machine, _, _, offset, _, flags, _, size, count = _unpack(file, order + head)
    loader = ""
    for index in range(count):
        file.seek(offset + size * index)
        fields = _unpack(file, order + entry)
        kind, start, length = (fields[place] for place in places)
        if kind == _LOADER:
            file.seek(start)
            loader = os.fsdecode(file.read(min(length, 4096)).partition(b"\0")[0])
            break
    return Header(bits, ident[5] == 1, machine, flags, loader)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
