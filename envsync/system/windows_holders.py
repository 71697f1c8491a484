"""Who has a file open, by Windows' Restart Manager: for people, once something was refused for good.

It knows processes of this host only. Under wine it knows nothing.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import wintypes

assert sys.platform == "win32"

_MORE_DATA = 234
_KEY_CHARACTERS = 33
_AT_MOST = 10
"""Processes that are named."""


class _Process(ctypes.Structure):
    """RM_PROCESS_INFO."""

    _fields_ = (
        ("pid", wintypes.DWORD),
        ("started", wintypes.FILETIME),
        ("name", wintypes.WCHAR * 256),
        ("service", wintypes.WCHAR * 64),
        ("kind", ctypes.c_int),
        ("status", wintypes.ULONG),
        ("session", wintypes.DWORD),
        ("restartable", wintypes.BOOL),
    )


def holders(paths: Sequence[str]) -> list[str]:
    """Name the processes that have one of these files open, as in "pid 4711 (`python.exe`)"; none if nobody knows."""
    try:
        manager = ctypes.WinDLL("rstrtmgr")
        return _ask(manager, [path.replace("/", "\\") for path in paths])
    except (OSError, AttributeError):
        return []  # there is no Restart Manager


def _ask(manager: ctypes.WinDLL, paths: Sequence[str]) -> list[str]:
    session, key = wintypes.DWORD(), ctypes.create_unicode_buffer(_KEY_CHARACTERS)
    if manager.RmStartSession(ctypes.byref(session), 0, key):
        return []
    try:
        names = (wintypes.LPCWSTR * len(paths))(*paths)
        if manager.RmRegisterResources(session, len(paths), names, 0, None, 0, None):
            return []
        needed, count, reasons = wintypes.UINT(), wintypes.UINT(_AT_MOST), wintypes.DWORD()
        found = (_Process * _AT_MOST)()
        said = manager.RmGetList(session, ctypes.byref(needed), ctypes.byref(count), found, ctypes.byref(reasons))
        if said not in (0, _MORE_DATA):
            return []
        return [f"pid {one.pid} (`{one.name}`)" for one in found[: count.value] if one.pid]
    finally:
        manager.RmEndSession(session)
