"""LockFileEx and UnlockFileEx, by ctypes: a few milliseconds, for those who do more than launch."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

assert sys.platform == "win32"


_FAIL_IMMEDIATELY, _EXCLUSIVE = 1, 2
_NOT_LOCKED = 158


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_lock = _kernel32.LockFileEx
_lock.argtypes = (wintypes.HANDLE, *(wintypes.DWORD,) * 4, ctypes.POINTER(_Overlapped))
_lock.restype = wintypes.BOOL
_unlock = _kernel32.UnlockFileEx
_unlock.argtypes = (wintypes.HANDLE, *(wintypes.DWORD,) * 3, ctypes.POINTER(_Overlapped))
_unlock.restype = wintypes.BOOL


def _at(offset: int) -> _Overlapped:
    return _Overlapped(offset=offset & 0xFFFFFFFF, offset_high=offset >> 32)


def lock(handle: int, offset: int, *, shared: bool) -> None:
    """Lock one byte without waiting. A shared lock is granted to a handle that has an exclusive one, which stays.

    :raises OSError: `winerror` 33 if somebody else has it
    """
    flags = _FAIL_IMMEDIATELY | (0 if shared else _EXCLUSIVE)
    if not _lock(handle, flags, 0, 1, 0, ctypes.byref(_at(offset))):
        raise ctypes.WinError(ctypes.get_last_error())


def unlock(handle: int, offset: int) -> None:
    """Unlock what was locked last; nothing that is not locked.

    :raises OSError: it is no file that can be locked
    """
    if not _unlock(handle, 0, 1, 0, ctypes.byref(_at(offset))) and ctypes.get_last_error() != _NOT_LOCKED:
        raise ctypes.WinError(ctypes.get_last_error())
