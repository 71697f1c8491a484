"""uv.exe and envsync exclude each other, both ways, by the environment's `.lock`.

uv locks the whole range of the file, envsync one byte far behind its end; each sees the other's.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.wine.test_runs import FIRST, NEXT
from tests.wine.windows import SECONDS, Windows, becomes_true, finished, named, said, wrong_with

GREET = "wheels/greet-1.0-py3-none-any.whl"
LOCKS_ALL = """
import ctypes, msvcrt, sys
from ctypes import wintypes
file = open(sys.argv[1], "r+b")
place = (ctypes.c_byte * 32)()
assert ctypes.WinDLL("kernel32").LockFileEx(
    wintypes.HANDLE(msvcrt.get_osfhandle(file.fileno())), 3, 0, 0xFFFFFFFF, 0xFFFFFFFF, place)
print("in", flush=True)
sys.stdin.read()
"""
"""Lock a file as uv.exe does."""


@contextmanager
def slow_server(wheel: Path) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """Serve a wheel, once one is told to. Gives its URL, what is set once it is asked for, and what to set."""
    asked, go = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            go.wait(SECONDS)
            data = wheel.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815  # which uv sends first

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{wheel.name}", asked, go
        finally:
            go.set()
            server.shutdown()
            thread.join()


def check_that_uv_waits(windows: Windows) -> None:
    """While a leader has the environment, uv changes nothing; when it is killed, uv goes on at once."""
    windows.sync()
    leader = windows.struck("pause:10", "sync", "--lock", "pylock.next.toml")
    said(leader, "paused before", aloud=True)
    uv = windows.uv_install("--offline", "--verbose", GREET)
    said(uv, "Waiting to acquire", aloud=True)
    assert uv.poll() is None
    assert wrong_with(windows, FIRST) == []
    leader.kill()
    done = finished(uv)
    assert done.returncode == 0, done.stderr
    assert windows.sync()["outcome"] == "synced"
    assert wrong_with(windows, FIRST) == []


def test_uv_waits_for_envsync(windows: Windows) -> None:
    """With uv.exe."""
    check_that_uv_waits(windows)


def test_envsync_waits_for_who_locks_as_uv_does(windows: Windows) -> None:
    """A lock of the whole file keeps a sync out until it is gone, and the wait is told."""
    windows.sync("--lock", "pylock.next.toml")
    other = windows.open("wpy", "-c", LOCKS_ALL, named(windows.environment / ".lock"))
    said(other, "in")
    waiting = windows.start("sync")
    said(waiting, "waiting for", aloud=True)
    assert waiting.poll() is None
    finished(other)
    assert finished(waiting).returncode == 0
    assert windows.happened("synced") == 2
    assert wrong_with(windows, FIRST) == []


def check_a_wait_for_uv(windows: Windows) -> None:
    """While uv installs, a sync waits, and changes nothing before uv has ended; what uv has changed, it mends."""
    windows.sync()
    with slow_server(windows.project / GREET) as (url, asked, go):
        uv = windows.uv_install(url)
        becomes_true(asked.is_set, "uv never asked for the wheel")
        waiting = windows.start("sync", "--lock", "pylock.next.toml")
        said(waiting, "waiting for", aloud=True)
        assert waiting.poll() is None
        assert wrong_with(windows, FIRST) == []
        go.set()
        done = finished(uv)
    assert done.returncode == 0, done.stderr
    assert finished(waiting).returncode == 0
    assert wrong_with(windows, NEXT) == []


def test_envsync_waits_for_uv(windows: Windows) -> None:
    """With uv.exe."""
    check_a_wait_for_uv(windows)
