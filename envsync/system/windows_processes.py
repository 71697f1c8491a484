"""Which process has started which, by Windows' Tool Help (CreateToolhelp32Snapshot)."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

assert sys.platform == "win32"

_PROCESSES = 2


class _Entry(ctypes.Structure):
    """PROCESSENTRY32W."""

    _fields_ = (
        ("size", wintypes.DWORD),
        ("usage", wintypes.DWORD),
        ("pid", wintypes.DWORD),
        ("heap", ctypes.c_void_p),
        ("module", wintypes.DWORD),
        ("threads", wintypes.DWORD),
        ("parent", wintypes.DWORD),
        ("priority", wintypes.LONG),
        ("flags", wintypes.DWORD),
        ("name", wintypes.WCHAR * wintypes.MAX_PATH),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
_kernel32.Process32FirstW.argtypes = _kernel32.Process32NextW.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Entry))
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)


def parents() -> dict[int, int]:
    """Return all processes here and their parents, which may have ended, and their numbers be others' by now."""
    handle = _kernel32.CreateToolhelp32Snapshot(_PROCESSES, 0)
    if handle == wintypes.HANDLE(-1).value:
        return {}
    found: dict[int, int] = {}
    try:
        entry = _Entry(size=ctypes.sizeof(_Entry))
        more = _kernel32.Process32FirstW(handle, ctypes.byref(entry))
        while more:
            found[entry.pid] = entry.parent
            more = _kernel32.Process32NextW(handle, ctypes.byref(entry))
    finally:
        _kernel32.CloseHandle(handle)
    return found
