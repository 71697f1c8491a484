"""What is macOS's own, as far as it can be tried elsewhere: a library stands in for its C library (darwin.c)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import os
import posix
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from envsync.staging.bring import fill_as_usual
from tests.darwin import standing_in
from tests.unit.scene import descriptors

F_FULLFSYNC = 51
"""Of macOS (sys/fcntl.h)."""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the library notes its calls in."""
    path = tmp_path / "calls"
    monkeypatch.setenv("DARWIN_CALLS", str(path))
    return path


@pytest.fixture
def darwin(monkeypatch: pytest.MonkeyPatch, calls: Path) -> Iterator[ModuleType]:
    """The module for macOS, with the library for its C library."""
    library = ctypes.CDLL(str(standing_in()), use_errno=True)
    monkeypatch.delitem(sys.modules, "envsync.system.darwin", raising=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        module = importlib.import_module("envsync.system.darwin")
    for name in ("fclonefileat", "fsync_volume_np", "sysctlbyname"):
        monkeypatch.setitem(module._functions, name, getattr(library, name))
    yield module
    sys.modules.pop("envsync.system.darwin", None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of the store: nobody may write to it, and it is of another time."""
    path = tmp_path / "store" / "module.py"
    path.parent.mkdir()
    path.write_bytes(b"content" * 30_000)
    path.chmod(0o444)
    os.utime(path, ns=(1_600_000_000 * 10**9, 1_600_000_000 * 10**9))
    (tmp_path / "stage").mkdir()
    return path


def bring(darwin: ModuleType, source: Path, mode: int = 0o666) -> bool:
    """Clone a file into the stage as a sync does."""
    status = source.stat()
    known = (status.st_size, status.st_mtime_ns, mode, status.st_dev, status.st_uid)
    store, stage = os.open(source.parent, os.O_RDONLY), os.open(source.parent.parent / "stage", os.O_RDONLY)

    def fill(original: int, copy: int, _size: int, name: str, directory: int) -> None:
        darwin.clone(original, copy, name, directory)

    try:
        return fill_as_usual(source.name, *known, store, stage, fill)
    finally:
        os.close(store)
        os.close(stage)


def test_a_clone_is_as_the_file_was_created(darwin: ModuleType, calls: Path, source: Path, tmp_path: Path) -> None:
    """It has the bytes and the time of its source, and the mode of the umask; owner and links are not its source's."""
    before = descriptors()
    assert bring(darwin, source, 0o777)
    made = tmp_path / "stage" / "module.py"
    umask = os.umask(0)
    os.umask(umask)
    assert made.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(made.stat().st_mode) == 0o777 & ~umask
    assert made.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert made.stat().st_ino != source.stat().st_ino
    assert os.listdir(tmp_path / "stage") == ["module.py"]
    assert calls.read_text() == "fclonefileat module.py 3\n"  # CLONE_NOFOLLOW, CLONE_NOOWNERCOPY
    assert descriptors() == before


def test_the_descriptor_is_that_of_the_clone(darwin: ModuleType, source: Path, tmp_path: Path) -> None:
    """Whoever has opened the empty file goes on with what has its name now; a child does not inherit it."""
    target = tmp_path / "stage" / "module.py"
    with source.open("rb") as reading:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            darwin.clone(reading.fileno(), descriptor, str(target), None)
            assert os.fstat(descriptor).st_ino == target.stat().st_ino
            assert stat.S_IMODE(target.stat().st_mode) == 0o640
            assert not os.get_inheritable(descriptor)
            os.utime(descriptor, ns=(5, 5))
        finally:
            os.close(descriptor)
    assert target.stat().st_mtime_ns == 5


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EXDEV, errno.ENOSPC, errno.EPERM])
def test_after_a_refusal_the_file_is_empty(
    darwin: ModuleType, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The reason is the call's, and what it was created as is there, to be filled in another way."""
    monkeypatch.setenv("DARWIN_REFUSES", str(number))
    target = tmp_path / "stage" / "module.py"
    with source.open("rb") as reading:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                darwin.clone(reading.fileno(), descriptor, str(target), None)
            assert caught.value.errno == number
            os.write(descriptor, b"copied")
        finally:
            os.close(descriptor)
    assert target.read_bytes() == b"copied"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.unlink()
    assert not bring(darwin, source)
    assert os.listdir(tmp_path / "stage") == []


def test_an_interrupt_leaves_nothing_and_is_heard(
    darwin: ModuleType, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no file for a moment, it could be taken for another error."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(darwin._functions, "fclonefileat", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring(darwin, source)
    assert os.listdir(tmp_path / "stage") == []


def test_a_c_library_without_clones_refuses(darwin: ModuleType, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one says that has none: then there are links or copies. Linux's is such a one."""
    monkeypatch.delitem(darwin._functions, "fclonefileat")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        darwin._call("fclonefileat", 0, 0, b"name", 3)


def test_durable_waits_for_the_whole_volume(darwin: ModuleType, calls: Path, tmp_path: Path) -> None:
    """SYNC_VOLUME_FULLSYNC and SYNC_VOLUME_WAIT: onto the disk itself, and not before it is done."""
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        darwin.sync_filesystem(directory)
    finally:
        os.close(directory)
    assert calls.read_text() == "fsync_volume_np - 3\n"


@pytest.mark.parametrize(("number", "knows_full"), [(errno.ENOTTY, True), (errno.ENOTSUP, False)])
def test_durable_does_what_else_there_is(
    darwin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, knows_full: bool
) -> None:
    """Filesystems of other systems may not know the one call, nor F_FULLFSYNC."""
    asked = []

    def control(descriptor: int, command: int) -> int:
        asked.append(command)
        if not knows_full:
            raise OSError(errno.ENOTTY, "no")
        return 0

    monkeypatch.setenv("DARWIN_REFUSES", str(number))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    calls = dict.fromkeys(("sync", "fsync"), 0)
    for name in calls:
        real = getattr(posix, name)

        def noted(*arguments: int, name: str = name, real: object = real) -> None:
            calls[name] += 1
            real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(posix, name, noted)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        darwin.sync_filesystem(directory)
    finally:
        os.close(directory)
    assert asked == [F_FULLFSYNC]
    assert calls == {"sync": 1, "fsync": 0 if knows_full else 1}


def test_durable_says_what_the_disk_refuses(
    darwin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot write is no filesystem that does not know the call."""
    monkeypatch.setenv("DARWIN_REFUSES", str(errno.EIO))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            darwin.sync_filesystem(directory)
    finally:
        os.close(directory)


def test_reading_at_an_offset(darwin: ModuleType, source: Path) -> None:
    """What is there arrives in the buffer, whose rest stays; at the end there is nothing."""
    buffer = bytearray(b"." * 10)
    with source.open("rb") as reading:
        size = source.stat().st_size
        assert darwin.pread_into(reading.fileno(), buffer, size - 7) == 7
        assert bytes(buffer) == b"content..."
        assert darwin.pread_into(reading.fileno(), buffer, size) == 0


def test_files_are_not_sent(darwin: ModuleType) -> None:
    """The reason is one for which another way is tried."""
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
        darwin.send(0, 1, 1, 0)


def test_when_a_file_was_made(darwin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in seconds with a fraction."""
    monkeypatch.setattr(posix, "stat", lambda _: SimpleNamespace(st_birthtime=1_700_000_000.5))
    assert darwin.birth_ns("file") == 1_700_000_000_500_000_000


def test_places(darwin: ModuleType) -> None:
    """Apple's conventions; without a home there is no place."""
    assert darwin.jupyter_directory({"HOME": "/Users/me/"}) == "/Users/me/Library/Jupyter"
    assert darwin.libc_version() == "other"


def test_the_cache_is_where_macos_keeps_caches(tmp_path: Path) -> None:
    """As platformdirs says there; in a process of its own, for it asks once which system it is."""
    script = (
        "import sys; sys.platform = 'darwin'; from envsync.system import darwin;"
        "print(darwin.cache_directory({'HOME': '/Users/me'}, 'envsync'), darwin.CAN_FORK)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {"HOME": "/Users/me"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["/Users/me/Library/Caches/envsync", "False"]


def test_a_boot_has_a_name(darwin: ModuleType, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it, who waits knows that a failure was one of now. Where the system does not say it, there is none."""
    assert darwin.boot() == "01234567-89AB-CDEF-0123-456789ABCDEF"
    assert calls.read_text() == "sysctlbyname kern.bootsessionuuid 0\n"
    monkeypatch.setenv("DARWIN_REFUSES", str(errno.ENOENT))
    assert darwin.boot() == ""


@pytest.mark.skipif(sys.platform != "darwin" and not os.path.exists("/proc/self/stat"), reason="ps(1) needs /proc")
def test_a_command_is_what_ps_says(darwin: ModuleType) -> None:
    """Of a process that is gone, nothing."""
    process = subprocess.Popen([sys.executable, "-c", "input()", "two", "words"], stdin=subprocess.PIPE)
    try:
        assert darwin.command_of(process.pid) == [sys.executable, "-c", "input()", "two", "words"]
    finally:
        process.communicate()
    assert darwin.command_of(process.pid) == []
