"""What Windows tells of processes: who has started whom (Tool Help), since when they run, and by which command line."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import wintypes

assert sys.platform == "win32"

from envsync.system import windows_core as core

_PROCESSES = 2
_QUERY_LIMITED = 0x1000
_TIME_OF_DAY, _COMMAND_LINE = 3, 60
"""SystemTimeOfDayInformation and ProcessCommandLineInformation."""
_LONGEST = 1 << 16
"""Of a command line, in bytes, and its place; and what comes before it."""
_TO_1970 = 11_644_473_600
_TICKS = 10_000_000
"""A second, in FILETIME, which counts from 1601."""


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


class _TimeOfDay(ctypes.Structure):
    """SYSTEM_TIMEOFDAY_INFORMATION."""

    _fields_ = (
        ("boot", ctypes.c_int64),
        ("now", ctypes.c_int64),
        ("zone_bias", ctypes.c_int64),
        ("zone", wintypes.ULONG),
        ("reserved", wintypes.ULONG),
        ("boot_bias", ctypes.c_int64),
        ("sleep_bias", ctypes.c_uint64),
    )


class _Text(ctypes.Structure):
    """UNICODE_STRING."""

    _fields_ = (("length", wintypes.USHORT), ("maximum", wintypes.USHORT), ("buffer", ctypes.c_void_p))


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
_kernel32.Process32FirstW.argtypes = _kernel32.Process32NextW.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Entry))
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
_kernel32.GetProcessTimes.argtypes = (wintypes.HANDLE, *(ctypes.POINTER(wintypes.FILETIME),) * 4)
_kernel32.LocalFree.argtypes = (ctypes.c_void_p,)
_ntdll = ctypes.WinDLL("ntdll")
_ntdll.NtQueryInformationProcess.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.ULONG,
    ctypes.POINTER(wintypes.ULONG),
)
_shell32 = ctypes.WinDLL("shell32")
_shell32.CommandLineToArgvW.restype = ctypes.POINTER(wintypes.LPWSTR)
_shell32.CommandLineToArgvW.argtypes = (wintypes.LPCWSTR, ctypes.POINTER(ctypes.c_int))


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


def boot() -> str:
    """Name this boot of this host: two hosts, or two boots, never have the same. Empty if that is not known.

    By when it was, which is changed with the clock, and by how much it was changed since. If a system does not say
    that, the same boot has another name once the clock was set: then nobody is known for a while.
    """
    said = _TimeOfDay()
    if _ntdll.NtQuerySystemInformation(_TIME_OF_DAY, ctypes.byref(said), ctypes.sizeof(said), None) or not said.boot:
        return ""
    return f"{core.host()} {_machine()} {said.boot - said.boot_bias}"


def _machine() -> str:
    """Return what the installation of Windows has named itself by."""
    import winreg

    try:
        key = winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE,
            r"SOFTWARE\Microsoft\Cryptography",
            access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY,
        )
        with key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return ""


def started(pid: int) -> float:
    """Return since when a process runs, in seconds since 1970; 0 if there is none, or it is not ours to look into."""
    times = [wintypes.FILETIME() for _ in range(4)]
    with _opened(pid) as handle:
        if not handle or not _kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)):
            return 0.0
    return ((times[0].dwHighDateTime << 32) + times[0].dwLowDateTime) / _TICKS - _TO_1970


def words(pid: int) -> list[str]:
    """Return the words of a process's command line; empty if it has ended, or is not ours to look into."""
    found = ctypes.create_string_buffer(_LONGEST + ctypes.sizeof(_Text))
    needed = wintypes.ULONG()
    with _opened(pid) as handle:
        if not handle or _ntdll.NtQueryInformationProcess(
            handle, _COMMAND_LINE, found, len(found), ctypes.byref(needed)
        ):
            return []
    text = _Text.from_buffer(found)
    line = ctypes.wstring_at(text.buffer, text.length // 2) if text.buffer else ""
    return _split(line) if line.strip() else []


def _split(line: str) -> list[str]:
    count = ctypes.c_int()
    found = _shell32.CommandLineToArgvW(line, ctypes.byref(count))
    if not found:
        return [line]
    try:
        first, *others = (str(found[number]) for number in range(count.value))
    finally:
        _kernel32.LocalFree(found)
    return [core.slashed(first), *others]


@contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    """Open a process to be asked about itself; None: there is none, or it is not ours."""
    handle = _kernel32.OpenProcess(_QUERY_LIMITED, False, pid & 0xFFFFFFFF)
    try:
        yield handle
    finally:
        if handle:
            _kernel32.CloseHandle(handle)
