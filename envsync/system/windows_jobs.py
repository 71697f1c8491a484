"""Run a program to its end in a job of Windows, which ends with all that the program has started, or with this process.

A job is ended by the kernel when its last handle is closed (JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE), and only this process
has one: so what a program leaves running goes, however this process ends (Microsoft: "Job Objects").
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from ctypes import wintypes

assert sys.platform == "win32"

from envsync.system import core

_EXTENDED_LIMITS, _KILL_ON_CLOSE = 9, 0x2000
_SUSPENDED, _NEW_GROUP = 0x4, subprocess.CREATE_NEW_PROCESS_GROUP
_END_STATUS = 1
LOOK_SECONDS = 0.1
"""Between two calls of `checkpoint`."""


class _Basic(ctypes.Structure):
    _fields_ = (
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", wintypes.DWORD),
        ("least_working_set", ctypes.c_size_t),
        ("most_working_set", ctypes.c_size_t),
        ("most_processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority", wintypes.DWORD),
        ("scheduling", wintypes.DWORD),
    )


class _Extended(ctypes.Structure):
    _fields_ = (("basic", _Basic), ("io", ctypes.c_uint64 * 6), ("memory", ctypes.c_size_t * 4))


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
_kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
_kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_resume = ctypes.WinDLL("ntdll").NtResumeProcess
_resume.argtypes = (wintypes.HANDLE,)


class _Job:
    """A job; what is in it ends with it."""

    def __init__(self) -> None:
        self.handle = _kernel32.CreateJobObjectW(None, None)
        limits = _Extended()
        limits.basic.flags = _KILL_ON_CLOSE
        size = ctypes.sizeof(limits)
        done = self.handle and _kernel32.SetInformationJobObject(
            self.handle, _EXTENDED_LIMITS, ctypes.byref(limits), size
        )
        if not done:
            raise ctypes.WinError(ctypes.get_last_error())

    def take(self, process: subprocess.Popen[bytes]) -> None:
        """Put a process that was started suspended into the job, and let it run."""
        handle = int(process._handle)  # type: ignore[attr-defined]  # the only way to have it
        if not _kernel32.AssignProcessToJobObject(self.handle, handle):
            raise ctypes.WinError(ctypes.get_last_error())
        _resume(handle)

    def end(self) -> None:
        """End all that is in the job."""
        _kernel32.TerminateJobObject(self.handle, _END_STATUS)
        _kernel32.CloseHandle(self.handle)


def run(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    log: str,
    checkpoint: Callable[[], object] = lambda: None,
) -> int:
    """Run a program to its end (`envsync.building.supervised.run`).

    :raises OSError: the log cannot be written, or the program or its directory cannot be used
    """
    written = core.open_file(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    job = _Job()
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            creationflags=_SUSPENDED | _NEW_GROUP,  # Ctrl-C is for us to decide about
        )
        try:
            job.take(process)
            while True:
                checkpoint()
                try:
                    return process.wait(LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            process.wait()
            raise
    finally:
        job.end()
        os.close(written)
