"""Small state files: replaced as a whole, read with patience."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError
from envsync.launch import request
from envsync.store.store import Store
from envsync.system import atomic, core, native, patience


def refuse(cause: int) -> Any:
    """Return a function that fails as the operating system does."""

    def refusing(*arguments: object, **_: object) -> None:
        raise OSError(cause, os.strerror(cause), arguments[0])

    return refusing


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def removing(monkeypatch: pytest.MonkeyPatch, path: str, what: str) -> list[str]:
    """Remove a directory, or the one above it, three times just before it is made; the list says how often that was."""
    original, removed = os.mkdir, []

    def mkdir(name: str, mode: int = 0o777) -> None:
        if name != path or len(removed) == 3:
            original(name, mode)
            return
        removed.append(name)
        if what == "above":
            os.rmdir(os.path.dirname(name))
            original(name, mode)
        original(name, mode)  # others do
        try:
            original(name, mode)
        finally:
            os.rmdir(name)

    monkeypatch.setattr(os, "mkdir", mkdir)
    return removed


class TestMakeDirectory:
    """Making directories."""

    @pytest.mark.parametrize("what", ["itself", "above"])
    def test_others_remove_it(self, path: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        """It is made again, if it was there a moment ago or what it is in is not any more."""
        removed = removing(monkeypatch, f"{path}/a/b", what)
        atomic.make_directory(f"{path}/a/b")
        assert os.path.isdir(f"{path}/a/b")
        assert len(removed) == 3

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_something_else_is_there(self, path: str, kind: str) -> None:
        """That is an error, and is left."""
        if kind == "file":
            Path(path).write_text("x")
        else:
            os.symlink("nowhere", path)
        with pytest.raises(FileExistsError):
            atomic.make_directory(path)
        with pytest.raises((FileExistsError, FileNotFoundError, NotADirectoryError)):
            atomic.make_directory(f"{path}/below")
        assert os.path.lexists(path)

    @pytest.mark.parametrize("what", ["itself", "above"])
    def test_a_cache_that_is_removed_meanwhile(self, path: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        """Whoever prepares a cache needs no luck while others remove it."""
        store = Store(path)
        removed = removing(monkeypatch, store.wheels, what)
        store.prepare()
        assert len(removed) == 3
        assert sorted(os.listdir(f"{path}/v1")) == ["locks", "tmp", "wheels"]


class TestWrite:
    """Writing."""

    def test_new_and_again(self, path: str) -> None:
        """A file is written, and written anew as another inode: who reads the old one reads it to its end."""
        atomic.write(path, b"one")
        with open(core.open_file(path, os.O_RDONLY), "rb") as reader:
            first = os.fstat(reader.fileno()).st_ino
            atomic.write(path, b"two")
            assert reader.read() == b"one"
            assert os.stat(path).st_ino != first
        assert Path(path).read_bytes() == b"two"

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_the_umask_decides(self, path: str, umask: int) -> None:
        """Who may read it is the user's decision: mode 0666 under the umask."""
        before = os.umask(umask)
        try:
            atomic.write(path, b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask

    @pytest.mark.parametrize("data", [b"", b"x" * 3_000_000])
    def test_any_size(self, path: str, data: bytes) -> None:
        """What is written is what is read, nothing and much."""
        atomic.write(path, data)
        assert atomic.read_if_there(path) == data

    def test_short_writes(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that takes less than it was given is continued."""
        original = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: original(fd, bytes(data)[:3]))
        atomic.write(path, b"0123456789")
        assert atomic.read_if_there(path) == b"0123456789"

    @pytest.mark.parametrize("call", ["open", "write", "close", "replace"])
    @pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EIO, errno.EACCES])
    def test_a_failure_leaves_what_was_there(
        self, path: str, monkeypatch: pytest.MonkeyPatch, call: str, cause: int
    ) -> None:
        """A failure at any call says the path, leaves the old content, and no temporary file."""
        atomic.write(path, b"old")
        original = os.close
        with monkeypatch.context() as patched:
            if call == "close":

                def close(fd: int) -> None:
                    original(fd)
                    refuse(cause)(path)

                patched.setattr(os, "close", close)
            else:
                module, name = {"open": (core, "open_file"), "replace": (native, "replace")}.get(call, (os, call))
                patched.setattr(module, name, refuse(cause))
            with pytest.raises(FilesystemError, match=f"cannot write `{path}`") as caught:
                atomic.write(path, b"new")
        assert caught.value.errno == cause
        assert Path(path).read_bytes() == b"old"
        assert os.listdir(os.path.dirname(path)) == ["state"]

    def test_an_interrupt_leaves_what_was_there(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """So does Ctrl-C."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(native, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                atomic.write(path, b"new")
        assert os.listdir(os.path.dirname(path)) == []

    def test_no_directory(self, path: str) -> None:
        """A directory that is gone is an error that names the file."""
        with pytest.raises(FilesystemError, match="No such file"):
            atomic.write(f"{path}/x", b"")

    def test_many_threads_at_once(self, path: str) -> None:
        """Threads of one process, and processes of one number in different containers, do not write into one file."""
        contents = [bytes([number]) * (1 << 16) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: [atomic.write(path, content) for _ in range(20)], contents))
        assert atomic.read_if_there(path) in contents
        assert os.listdir(os.path.dirname(path)) == ["state"]


class TestRead:
    """Reading."""

    def test_none(self, path: str) -> None:
        """What is not there is None, and so is what is in a directory that is not there."""
        assert atomic.read_if_there(path) is None
        assert atomic.read_if_there(f"{path}/x/y") is None

    @pytest.mark.parametrize("cause", [errno.ESTALE, errno.EEXIST])
    def test_what_passes_is_waited_for(self, path: str, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """What network filesystems answer while a file is replaced is asked again."""
        atomic.write(path, b"content")
        original = request.os.open
        answers = [OSError(cause, os.strerror(cause))] * 3
        slept: list[float] = []

        def sometimes(*arguments: Any, **keywords: Any) -> Any:
            if answers:
                raise answers.pop()
            return original(*arguments, **keywords)

        monkeypatch.setattr(patience.time, "sleep", slept.append)
        monkeypatch.setattr(request.os, "open", sometimes)
        assert atomic.read_if_there(path) == b"content"
        assert len(slept) == 2  # after the first time, it is asked again at once

    def test_but_not_for_ever(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """After two seconds of it, it is an error."""
        slept: list[float] = []
        monkeypatch.setattr(patience.time, "sleep", slept.append)
        monkeypatch.setattr(request.os, "open", refuse(errno.ESTALE))
        with pytest.raises(FilesystemError, match=f"cannot read `{path}`"):
            atomic.read_if_there(path)
        assert 1 < sum(slept) < 3

    @pytest.mark.parametrize("cause", [errno.EACCES, errno.EIO])
    def test_other_errors(self, path: str, monkeypatch: pytest.MonkeyPatch, cause: int) -> None:
        """What does not pass is an error at once."""
        monkeypatch.setattr(request.os, "open", refuse(cause))
        monkeypatch.setattr(patience.time, "sleep", refuse(errno.EINVAL))
        with pytest.raises(FilesystemError, match=f"cannot read `{path}`"):
            atomic.read_if_there(path)


class TestRemove:
    """Removing and renaming."""

    def test_remove(self, path: str) -> None:
        """What must not stay is removed; that it was gone already is as good."""
        atomic.write(path, b"")
        atomic.remove(path)
        atomic.remove(path)
        assert not os.path.exists(path)

    def test_remove_says_why_not(self, path: str) -> None:
        """What cannot be removed is said with its path."""
        os.mkdir(path)
        with pytest.raises(FilesystemError, match=f"cannot remove `{path}`"):
            atomic.remove(path)

    def test_discard_never_fails(self, path: str) -> None:
        """What may stay is removed if that can be."""
        atomic.discard(path)
        os.mkdir(path)
        atomic.discard(path)
        assert os.path.isdir(path)

    def test_rename_if_there(self, path: str, tmp_path: Path) -> None:
        """A file is renamed if it is there, and it is said whether it was."""
        assert not atomic.rename_if_there(path, f"{path}2")
        atomic.write(path, b"x")
        assert atomic.rename_if_there(path, f"{path}2")
        assert os.listdir(tmp_path) == ["state2"]

    def test_rename_says_why_not(self, path: str) -> None:
        """What cannot be renamed is said with its path."""
        atomic.write(path, b"x")
        os.mkdir(f"{path}2")
        with pytest.raises(FilesystemError, match=f"cannot rename `{path}`"):
            atomic.rename_if_there(path, f"{path}2")


class TestMove:
    """Renames that some filesystems refuse for a moment."""

    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Let renames fail with these errors, the last one first."""
        causes: list[int] = []
        original = os.replace

        def refusing(source: str, destination: str) -> None:
            if causes:
                cause = causes.pop()
                raise OSError(cause, os.strerror(cause), source)
            original(source, destination)

        monkeypatch.setattr(native, "replace", refusing)
        return causes

    @pytest.mark.parametrize("cause", [errno.EBUSY, errno.EACCES])
    def test_it_is_tried_again(self, path: str, refused: list[int], cause: int) -> None:
        """What is refused three times, and allowed then, is done: over SMB somebody had the file open."""
        atomic.write(path, b"x")
        refused += [cause] * 3
        atomic.move(path, f"{path}2")
        assert atomic.read_if_there(f"{path}2") == b"x"
        assert refused == []

    @pytest.mark.parametrize("cause", [errno.EBUSY, errno.EACCES])
    def test_not_for_ever(self, path: str, refused: list[int], cause: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """What goes on being refused is said after a while."""
        monkeypatch.setattr(atomic, "MOVE_SECONDS", 0.1)
        atomic.write(path, b"x")
        refused += [cause] * 1000
        with pytest.raises(OSError, match=f"Errno {cause}"):
            atomic.move(path, f"{path}2")
        assert 2 <= 1000 - len(refused) < 20

    @pytest.mark.parametrize("cause", [errno.EPERM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EXDEV])
    def test_nothing_else_is_tried_again(self, path: str, refused: list[int], cause: int) -> None:
        """What does not pass is said at once."""
        refused += [cause, cause]
        with pytest.raises(OSError, match=f"Errno {cause}"):
            atomic.move(path, f"{path}2")
        assert refused == [cause]

    def test_a_place_without_permission_is_not_tried_again(
        self, path: str, refused: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Permissions do not pass by themselves."""
        monkeypatch.setattr(os, "access", lambda *_: False)
        refused += [errno.EACCES, errno.EACCES]
        with pytest.raises(PermissionError):
            atomic.move(path, f"{path}2")
        assert refused == [errno.EACCES]

    def test_a_tree_is_moved_file_by_file(self, tmp_path: Path) -> None:
        """All of a directory is moved, links to nowhere and empty directories included, and the old one is gone."""
        source = tmp_path / "source"
        (source / "below" / "empty").mkdir(parents=True)
        (source / "below" / "file").write_text("x")
        (source / "link").symlink_to("nowhere")
        assert atomic.move_tree(str(source), f"{tmp_path}/target")
        assert not source.exists()
        assert (tmp_path / "target/below/file").read_text() == "x"
        assert os.readlink(tmp_path / "target/link") == "nowhere"
        assert (tmp_path / "target/below/empty").is_dir()

    def test_two_names_of_one_file(self, tmp_path: Path) -> None:
        """rename(2) does nothing with two names of one file, so the old name is removed."""
        (tmp_path / "source").mkdir()
        (tmp_path / "target").mkdir()
        (tmp_path / "source/file").write_text("x")
        os.link(tmp_path / "source/file", tmp_path / "target/file")
        assert atomic.move_tree(f"{tmp_path}/source", f"{tmp_path}/target")
        assert not (tmp_path / "source").exists()
