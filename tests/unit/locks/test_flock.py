"""flock(2), exclusive and shared: between real processes, over exec and SIGKILL, and where it does not work."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envsync.errors import FilesystemError, LockingError
from envsync.locks import flock
from envsync.locks.flock import NO_FLOCK, acquire_nowait
from envsync.system import core
from tests import needs
from tests.unit.scene import descriptors

ROOT = Path(__file__).parent.parent.parent.parent
HOLDER = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.locks.flock import acquire_nowait
lock = acquire_nowait(sys.argv[1], shared=sys.argv[2] == "shared")
print("refused" if lock is None else "held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes the lock, if it can, and keeps it until its standard input ends."""
    words = [sys.executable, "-I", "-S", "-c", HOLDER, str(path), kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


class TestProcesses:
    """Real processes."""

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("exclusive", "exclusive", "refused"),
            ("exclusive", "shared", "refused"),
            ("shared", "exclusive", "refused"),
            ("shared", "shared", "held"),
        ],
    )
    def test_who_excludes_whom(self, path: Path, first: str, second: str, expected: str) -> None:
        """Any number share, one excludes all."""
        with holder(path, first) as one:
            assert answer(one) == "held"
            with holder(path, second) as other:
                assert answer(other) == expected

    def test_released_by_ending(self, path: Path) -> None:
        """The lock is free when its holder has ended."""
        with holder(path, "exclusive") as process:
            assert answer(process) == "held"
            assert acquire_nowait(str(path), shared=True) is None
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        lock.release()

    def test_released_by_sigkill(self, path: Path) -> None:
        """So it is if the holder is killed: the kernel cleans up."""
        with holder(path, "exclusive") as process:
            assert answer(process) == "held"
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            lock = acquire_nowait(str(path), shared=False)
            assert lock is not None
            lock.release()

    @needs.PROC
    def test_kept_by_a_child(self, path: Path) -> None:
        """A child that inherits the descriptor keeps the lock when its parent is killed: it may still write."""
        code = HOLDER.replace(
            "sys.stdin.read()",
            "import subprocess\nsubprocess.run(['/bin/cat'], pass_fds=(lock.fd,))",
        )
        read, write = os.pipe()
        words = [sys.executable, "-I", "-S", "-c", code, str(path), "exclusive"]
        with subprocess.Popen(words, stdin=read, stdout=subprocess.PIPE, text=True) as process:
            os.close(read)
            assert answer(process) == "held"
            child = wait_for_child(process.pid)
            process.kill()
            process.wait(60)
            assert acquire_nowait(str(path), shared=True) is None
            os.close(write)
            wait_for_end(child)
            lock = acquire_nowait(str(path), shared=False)
            assert lock is not None
            lock.release()

    def test_kept_over_exec(self, path: Path) -> None:
        """An inherited descriptor holds the lock in whatever the process becomes."""
        code = HOLDER.replace(
            "sys.stdin.read()", "import os\nos.set_inheritable(lock.fd, True)\nos.execv('/bin/cat', ['cat'])"
        )
        words = [sys.executable, "-I", "-S", "-c", code, str(path), "shared"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert answer(process) == "held"
            assert process.stdin is not None
            process.stdin.write("hello\n")
            process.stdin.flush()
            assert answer(process) == "hello"
            assert acquire_nowait(str(path), shared=False) is None
            process.stdin.close()
            process.wait(60)
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        lock.release()

    def test_not_inherited_by_chance(self, path: Path) -> None:
        """A child that is not given the descriptor does not keep the lock."""
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; print(input(), flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        ) as process:
            assert process.stdin is not None
            process.stdin.write("hello\n")
            process.stdin.flush()
            assert answer(process) == "hello"  # its exec is over, which closes what is not inherited
            lock.release()
            again = acquire_nowait(str(path), shared=False)
            assert again is not None
            again.release()
            process.stdin.close()


def wait_for_child(pid: int) -> int:
    """Return the child of a process, as soon as it is there."""
    listing = f"/proc/{pid}/task/{pid}/children"
    while True:
        children = Path(listing).read_text().split()
        # Between fork and exec the child is a copy of its parent.
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "cat":
            return int(children[0])
        os.sched_yield()


def wait_for_end(pid: int) -> None:
    """Return when a process that is not ours has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(60_000)
    os.close(fd)


class TestLock:
    """One lock."""

    def test_the_file_is_made(self, path: Path) -> None:
        """The lock file is made, empty, readable and writable as the umask says, and stays."""
        before = os.umask(0o027)
        try:
            lock = acquire_nowait(str(path), shared=True)
        finally:
            os.umask(before)
        assert lock is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert (lock.inode, lock.shared, lock.path) == (path.stat().st_ino, True, str(path))
        lock.release()
        assert path.read_bytes() == b""

    def test_the_file_is_not_made(self, path: Path) -> None:
        """Without `create`, a missing file is an error."""
        with pytest.raises(FilesystemError, match=f"cannot open lock file `{path}`"):
            acquire_nowait(str(path), shared=True, create=False)
        assert not path.exists()

    @pytest.mark.parametrize("shared", [False, True])
    def test_modes(self, path: Path, shared: bool) -> None:
        """An exclusive lock needs a file open for writing on NFS; a shared one does with a read-only file."""
        import fcntl

        lock = acquire_nowait(str(path), shared=shared)
        assert lock is not None
        mode = fcntl.fcntl(lock.fd, fcntl.F_GETFL) & os.O_ACCMODE
        assert mode == (os.O_RDONLY if shared else os.O_RDWR)
        assert not os.get_inheritable(lock.fd)
        lock.release()

    def test_releasing_twice(self, path: Path) -> None:
        """Releasing twice closes nobody else's descriptor."""
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        fd = lock.fd
        lock.release()
        other = os.open(path, os.O_RDONLY)
        assert other == fd
        lock.release()
        os.fstat(other)
        os.close(other)

    def test_refusal_leaves_no_descriptor(self, path: Path) -> None:
        """A try that fails leaves nothing open."""
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        before = descriptors()
        for _ in range(10):
            assert acquire_nowait(str(path), shared=True) is None
        assert descriptors() == before
        lock.release()

    def test_downgrade(self, path: Path) -> None:
        """An exclusive lock becomes a shared one: others may share then, nobody exclude."""
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        lock.downgrade()
        assert lock.shared
        assert acquire_nowait(str(path), shared=False) is None
        other = acquire_nowait(str(path), shared=True)
        assert other is not None
        other.release()
        lock.release()

    @needs.GONE_AT_ONCE
    @pytest.mark.parametrize("change", ["nothing", "removed", "replaced", "renamed over", "directory gone"])
    def test_is_in_place(self, tmp_path: Path, change: str) -> None:
        """Whoever has locked a file can tell whether the path still names it: `rm -rf` and mv do not ask."""
        directory = tmp_path / "env"
        directory.mkdir()
        path = directory / "lock"
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        if change == "removed":
            path.unlink()
        elif change == "replaced":
            path.unlink()
            path.touch()
        elif change == "renamed over":
            (directory / "other").touch()
            (directory / "other").rename(path)
        elif change == "directory gone":
            directory.rename(tmp_path / "elsewhere")
        assert lock.is_in_place() == (change == "nothing")
        lock.release()


@pytest.mark.parametrize("create", [True, False])
def test_one_that_is_gone_when_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    """As Windows says of an in-use lock: the one that is there by then is taken, or made."""
    path, real, tries = str(tmp_path / "in-use"), core.lock, 0
    Path(path).touch()

    def lock(fd: int, name: str, *, shared: bool) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            os.unlink(name)
            os.stat(name)
        real(fd, name, shared=shared)

    monkeypatch.setattr(core, "lock", lock)
    before = descriptors()
    if not create:
        with pytest.raises(FilesystemError) as caught:
            acquire_nowait(path, shared=False, create=False)
        assert caught.value.errno == errno.ENOENT
    else:
        held = acquire_nowait(path, shared=False)
        assert held is not None
        assert (held.is_in_place(), tries) == (True, 2)
        held.release()
    assert descriptors() == before


def refusing(cause: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(cause, os.strerror(cause))

    return refuse


def test_a_close_that_fails_has_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client of a network filesystem has died, close(2) says so, and the descriptor is gone all the same."""
    lock = acquire_nowait(str(path), shared=False)
    assert lock is not None
    original = os.close

    def failing(fd: int) -> None:
        original(fd)
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(flock.os, "close", failing)
    lock.release()
    lock.release()


class TestWithoutFlock:
    """Filesystems that have none, and other failures."""

    @pytest.mark.parametrize("cause", sorted(NO_FLOCK), ids=lambda cause: errno.errorcode[cause])
    def test_no_flock_is_refused(self, path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """Where flock is not supported nothing is done unlocked: it is an error that names the file and a way out."""
        import fcntl

        monkeypatch.setattr(fcntl, "flock", refusing(cause))
        before = descriptors()
        with pytest.raises(LockingError, match=f"cannot lock `{path}`") as caught:
            acquire_nowait(str(path), shared=False)
        assert caught.value.hint
        assert caught.value.exit_code == 125
        assert descriptors() == before

    @pytest.mark.parametrize("cause", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
    def test_somebody_holds_it(self, path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """Whatever a filesystem answers for "somebody has it" is no error."""
        import fcntl

        monkeypatch.setattr(fcntl, "flock", refusing(cause))
        assert acquire_nowait(str(path), shared=False) is None

    @pytest.mark.parametrize("cause", [errno.EIO, errno.ESTALE, errno.ENOMEM])
    def test_other_errors(self, path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """Other failures are said as what they are."""
        import fcntl

        monkeypatch.setattr(fcntl, "flock", refusing(cause))
        with pytest.raises(FilesystemError, match=f"cannot lock `{path}`"):
            acquire_nowait(str(path), shared=False)

    @pytest.mark.parametrize("cause", [errno.EEXIST, errno.ESTALE])
    def test_opening_is_tried_again(self, path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """What network filesystems answer when two clients create the file at once passes."""
        original = os.open
        answers = [cause] * 5

        def sometimes(*arguments: object, **keywords: object) -> int:
            if answers:
                raise OSError(answers.pop(), "passing")
            return original(*arguments, **keywords)  # type: ignore[arg-type]

        monkeypatch.setattr(flock.os, "open", sometimes)
        lock = acquire_nowait(str(path), shared=False)
        assert lock is not None
        lock.release()

    @pytest.mark.parametrize("cause", [errno.EEXIST, errno.ESTALE, errno.EROFS, errno.EMFILE])
    def test_opening_fails(self, path: Path, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """What does not pass is an error with the path."""
        monkeypatch.setattr(flock.os, "open", refusing(cause))
        with pytest.raises(FilesystemError, match=f"cannot open lock file `{path}`") as caught:
            acquire_nowait(str(path), shared=False)
        assert caught.value.errno == cause

    def test_a_directory_is_no_lock_file(self, tmp_path: Path) -> None:
        """A directory in its place is an error."""
        with pytest.raises(FilesystemError, match="cannot open lock file"):
            acquire_nowait(str(tmp_path), shared=False)
