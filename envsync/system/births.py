"""When a file or directory was made, which Linux tells by statx(2) alone, and Python does not ask before 3.15."""

from __future__ import annotations

import os
import struct

_AT_FDCWD, _BASIC, _BTIME = -100, 0x7FF, 0x800
_MASK = struct.Struct("=I")
_BIRTH = struct.Struct("=qI")
_BIRTH_AT = 80
_SIZE = 256


def birth_ns(path: str) -> int | None:
    """Return the time at which it was made, in ns since the epoch; None where nobody knows."""
    import ctypes  # 3 ms, for those who ask for it

    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):
        return None  # another system, or an old C library
    found = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _BASIC | _BTIME, found) != 0:
        return None
    if not _MASK.unpack_from(found)[0] & _BTIME:
        return None
    seconds, nanos = _BIRTH.unpack_from(found, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanos)
