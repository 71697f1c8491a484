"""The store: entries appear whole, once, verified, and leave nothing behind when they do not."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError, HashMismatchError, WheelError
from envsync.lockfile.target import Artifact
from envsync.store import store as module
from envsync.store.store import Store
from envsync.system import core, native
from envsync.wheel import manifest as manifests
from envsync.wheel.verify import origin
from tests.wheels import artifact, build_wheel, sha256_of

ZERO = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    return build_wheel(tmp_path, files={"demo/__init__.py": "x = 1\n"})


def leftovers(store: Store) -> list[str]:
    """Return what is in tmp."""
    return os.listdir(store.tmp)


def tree(directory: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()
    }


def test_preparing_makes_the_layout(tmp_path: Path) -> None:
    """The directories and the tag that backup programs look for are made, and making them again is fine."""
    store = Store(str(tmp_path / "a" / "cache"))
    store.prepare()
    store.prepare()
    root = tmp_path / "a" / "cache"
    assert (root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    assert sorted(os.listdir(root / "v1")) == ["locks", "tmp", "wheels"]


@pytest.mark.parametrize("call", ["open", "write"])
def test_a_tag_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The store works without its tag."""

    def fail(*_args: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(f"envsync.store.store.os.{call}", fail)
    Store(str(tmp_path / "cache")).prepare()


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where no directory can be made, the error names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FilesystemError, match=f"cannot create `{tmp_path}/file/v1/wheels`") as caught:
        Store(str(tmp_path / "file")).prepare()
    assert caught.value.hint is not None


def test_an_added_wheel_is_found(store: Store, wheel: str) -> None:
    """What was added is found by its hash, with the manifest that adding returned."""
    wanted = artifact(wheel)
    assert wanted.sha256 is not None
    assert store.get(wanted.sha256) is None
    assert store.filename(wanted.sha256) is None
    manifest = store.add(wheel, wanted)
    assert store.get(wanted.sha256) == manifest
    assert store.get(wanted.sha256.upper()) == manifest
    assert store.filename(wanted.sha256) == os.path.basename(wheel)
    assert set(os.listdir(store.path(wanted.sha256))) == {"manifest.json", "purelib"}
    assert leftovers(store) == []


@pytest.mark.parametrize("key", ["", "x", "../../etc", ZERO + "0", "g" * 64, "../" + "0" * 61])
def test_what_is_no_hash_is_not_looked_for(store: Store, key: str) -> None:
    """A key that is not a sha256, from a lock file that somebody made up, leads nowhere."""
    assert store.get(key) is None
    with pytest.raises(ValueError, match="not a sha256"):
        store.path(key)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"format": 3}', b'{"format": 2}', b"\xff"])
def test_a_damaged_manifest_counts_as_none(store: Store, wheel: str, text: bytes) -> None:
    """An entry whose manifest cannot be used is absent, and adding the wheel again replaces it."""
    wanted = artifact(wheel)
    manifest = store.add(wheel, wanted)
    path = Path(store.path(manifest.sha256), "manifest.json")
    path.chmod(0o644)
    path.write_bytes(text)
    assert store.get(manifest.sha256) is None
    assert store.filename(manifest.sha256) is None
    again = store.add(wheel, wanted)
    assert again._replace(mtime=manifest.mtime) == manifest  # its files are new, and have a second of their own
    assert store.get(manifest.sha256) == again
    assert leftovers(store) == []


def test_the_manifest_of_another_wheel_counts_as_none(store: Store, wheel: str) -> None:
    """An entry that was moved to another key is not taken for that key's."""
    manifest = store.add(wheel, artifact(wheel))
    os.rename(store.path(manifest.sha256), store.path(ZERO))
    assert store.get(ZERO) is None


@pytest.mark.parametrize("entry", ["empty", "half", "file"])
def test_an_entry_that_is_none_is_replaced(
    store: Store, wheel: str, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory without manifest, or a file, where an entry belongs is set aside."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    wanted = artifact(wheel)
    path = Path(store.path(wanted.sha256 or ""))
    if entry == "file":
        path.write_text("")
    else:
        path.mkdir()
        if entry == "half":
            (path / "purelib").mkdir()
            (path / "purelib" / "x").write_text("")
    manifest = store.add(wheel, wanted)
    assert store.get(manifest.sha256) == manifest
    assert set(os.listdir(path)) == {"manifest.json", "purelib"}
    assert leftovers(store) == []


class TestPatience:
    """With an entry that is there and has no manifest: another host may have put it there just now."""

    @pytest.fixture
    def naps(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Let sleeping be all that takes time, and note it."""
        naps: list[float] = []
        monkeypatch.setattr(module.time, "sleep", naps.append)
        monkeypatch.setattr(module.time, "monotonic", lambda: sum(naps))
        return naps

    def emptied(self, store: Store, directory: Path, *, ago: float) -> list[str]:
        """Add wheels, and remove the files of their entries, as a purge of a scratch filesystem does."""
        wheels = [build_wheel(directory, f"demo{n}", "1.0", {f"demo{n}/__init__.py": ""}) for n in range(5)]
        for wheel in wheels:
            entry = Path(store.path(store.add(wheel, artifact(wheel)).sha256))
            for path in entry.rglob("*"):
                if path.is_file():
                    path.unlink()
            os.utime(entry, (time.time() - ago,) * 2)
        return wheels

    def test_all_are_waited_for_no_longer_than_one(self, store: Store, tmp_path: Path, naps: list[float]) -> None:
        """Once the first has shown that it is empty."""
        wheels = self.emptied(store, tmp_path, ago=0)
        entries = [store.add(wheel, artifact(wheel)) for wheel in wheels]
        assert all(store.get(entry.sha256) == entry for entry in entries)
        assert sum(naps) == pytest.approx(module.PATIENCE, abs=0.1)

    def test_what_was_purged_last_night_is_not_waited_for(
        self, store: Store, tmp_path: Path, naps: list[float]
    ) -> None:
        """Nobody is putting it there just now."""
        wheels = self.emptied(store, tmp_path, ago=3600)
        entries = [store.add(wheel, artifact(wheel)) for wheel in wheels]
        assert all(store.get(entry.sha256) == entry for entry in entries)
        assert naps == []

    def test_one_that_comes_to_light_is_used(
        self, store: Store, wheel: str, naps: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other host's entry stays where it is."""
        entry = store.add(wheel, artifact(wheel))
        path = Path(store.path(entry.sha256))
        (path / "manifest.json").rename(path.parent / "hidden")

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                (path.parent / "hidden").rename(path / "manifest.json")

        monkeypatch.setattr(module.time, "sleep", sleep)
        before = path.stat().st_ino
        assert store.add(wheel, artifact(wheel)) == entry
        assert (path.stat().st_ino, len(naps)) == (before, 3)


def test_adding_again_does_not_unpack_again(store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel without a known hash is hashed, and then found."""
    manifest = store.add(wheel, artifact(wheel))
    monkeypatch.setattr("envsync.wheel.unpack.unpack", None)
    assert store.add(wheel, artifact(wheel, hashes={})) == manifest


def test_the_name_of_the_file_does_not_matter(store: Store, wheel: str, tmp_path: Path) -> None:
    """A download may have any name: the artifact says what the wheel is called."""
    wanted = artifact(wheel)
    os.rename(wheel, tmp_path / "download-123")
    assert store.add(str(tmp_path / "download-123"), wanted).filename == wanted.filename


def hashes(wheel: str, *algorithms: str) -> dict[str, str]:
    data = Path(wheel).read_bytes()
    return {algorithm: hashlib.new(algorithm, data).hexdigest() for algorithm in algorithms}


def test_every_hash_has_to_match(store: Store, wheel: str) -> None:
    """All hashes that the lock file gives are compared, in any case of their digits."""
    right = hashes(wheel, "sha256", "sha512", "md5")
    for algorithm in right:
        with pytest.raises(HashMismatchError) as caught:
            store.add(wheel, artifact(wheel, hashes={**right, algorithm: "00"}))
        assert caught.value.problem == (
            f"the {algorithm} of {artifact(wheel).path} is {right[algorithm]}, but the lock file expects 00"
        )
        assert os.listdir(store.wheels) == leftovers(store) == []
    store.add(wheel, artifact(wheel, hashes={name: digest.upper() for name, digest in right.items()}))


def test_one_alternative_has_to_match(store: Store, wheel: str) -> None:
    """Of alternatives, one is enough; unknown algorithms among them are passed over."""
    right = hashes(wheel, "sha256", "sha384")
    wrong = (("sha256", ZERO), ("unknown", "00"))
    with pytest.raises(HashMismatchError, match="expects one of 2 others"):
        store.add(wheel, artifact(wheel, hashes={}, alternatives=wrong))
    with pytest.raises(HashMismatchError, match=right["sha256"]):
        store.add(wheel, artifact(wheel, hashes={}, alternatives=(("unknown", "00"),)))
    store.add(wheel, artifact(wheel, hashes={}, alternatives=(*wrong, ("sha384", right["sha384"]))))


@pytest.mark.parametrize("algorithm", ["crc32", "shake_128", ""])
def test_a_hash_that_cannot_be_computed_is_refused(store: Store, wheel: str, algorithm: str) -> None:
    """What cannot be verified is not taken for verified."""
    with pytest.raises(WheelError, match="a hash of an unknown kind"):
        store.add(wheel, artifact(wheel, hashes={algorithm: "00"}))


def test_the_size_has_to_match(store: Store, wheel: str) -> None:
    """The size that the lock file gives is compared."""
    size = os.path.getsize(wheel)
    with pytest.raises(WheelError, match=f"has {size} bytes, but the lock file says {size + 1}"):
        store.add(wheel, artifact(wheel, size=size + 1))
    store.add(wheel, artifact(wheel, size=size))


@pytest.mark.parametrize(("name", "version"), [("other", "1.0"), ("demo", "1.1")])
def test_the_wheel_has_to_be_the_one_that_is_meant(store: Store, wheel: str, name: str, version: str) -> None:
    """A sound wheel of another name or version is refused, new or already in the store."""
    with pytest.raises(WheelError, match=f"it is demo 1.0, but the lock file wants {name} {version}"):
        store.add(wheel, artifact(wheel, name=name, version=version))
    assert os.listdir(store.wheels) == leftovers(store) == []
    store.add(wheel, artifact(wheel, name="Demo", version="1.0.0"))
    with pytest.raises(WheelError, match=f"it is demo 1.0, but the lock file wants {name} {version}"):
        store.add(wheel, artifact(wheel, name=name, version=version))


@pytest.mark.parametrize("kind", ["directory", "absent", "pipe"])
def test_what_is_no_file_cannot_be_added(store: Store, tmp_path: Path, wheel: str, kind: str) -> None:
    """A directory, nothing, or a pipe is no wheel; the error names the path."""
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
        keep = os.open(path, os.O_RDWR)
    with pytest.raises((FilesystemError, WheelError), match=str(path)):
        store.add(str(path), artifact(wheel))
    if kind == "pipe":
        os.close(keep)


def test_a_bad_wheel_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """Of a wheel that turns out bad at its last file nothing stays."""
    files = {f"demo/{number}.py": "" for number in range(50)}
    path = build_wheel(
        tmp_path, files=files, record=lambda rows: [*rows[:49], (rows[49][0], "sha256=x", ""), *rows[50:]]
    )
    with pytest.raises(WheelError, match=r"demo/49\.py"):
        store.add(path, artifact(path))
    assert os.listdir(store.wheels) == leftovers(store) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_nothing(store: Store, wheel: str, error: type[BaseException]) -> None:
    """Nor does anything stay when the work is interrupted, at whatever checkpoint."""
    for number in range(1, 6):
        calls = iter(range(number))

        def checkpoint(calls: Any = calls) -> None:
            if next(calls, None) is None:
                raise error

        with pytest.raises(error):
            store.add(wheel, artifact(wheel), checkpoint=checkpoint)
        assert os.listdir(store.wheels) == leftovers(store) == []


def test_a_wheel_that_changes_while_it_is_read_is_refused(store: Store, wheel: str) -> None:
    """If the file is written to between hashing and unpacking, what came of it is not used."""
    calls = iter(range(1000))

    def checkpoint() -> None:
        if next(calls) == 4:
            os.utime(wheel, (1, 1))

    with pytest.raises(WheelError, match="changed while it was read"):
        store.add(wheel, artifact(wheel), checkpoint=checkpoint)
    assert os.listdir(store.wheels) == leftovers(store) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "mkdir", "write", "rename"])
def test_errors_of_the_system_are_reported_and_leave_nothing(
    store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Whatever call fails, the error names a path of the store, and nothing stays."""
    module_of = {"open": core, "rename": native}.get(call, os)
    name = {"open": "open_file", "rename": "replace"}.get(call, call)
    original = getattr(module_of, name)

    def fail(first: Any, *args: Any, **options: Any) -> Any:
        if call == "write" or (store.root in str(first) and (call != "open" or args[0] & os.O_CREAT)):
            raise OSError(code, os.strerror(code))
        return original(first, *args, **options)

    monkeypatch.setattr(module_of, name, fail)
    with pytest.raises(FilesystemError, match=store.root) as caught:
        store.add(wheel, artifact(wheel))
    monkeypatch.undo()
    assert caught.value.errno == code
    assert os.listdir(store.wheels) == leftovers(store) == []


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOTEMPTY])
def test_whoever_is_second_uses_the_first(store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """If somebody else's entry is there when ours is ready, theirs is used and ours removed."""
    rename = os.rename
    other = Store(store.root)

    def rename_late(source: str, target: str) -> None:
        if os.path.dirname(target) == store.wheels:
            monkeypatch.setattr(native, "replace", rename)
            other.add(wheel, artifact(wheel))
            raise OSError(code, os.strerror(code))
        rename(source, target)

    monkeypatch.setattr(native, "replace", rename_late)
    manifest = store.add(wheel, artifact(wheel))
    assert store.get(manifest.sha256) == manifest
    assert leftovers(store) == []


def test_an_entry_that_another_host_cannot_see_yet_is_waited_for(
    store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just after somebody else's rename a network filesystem may hide the entry; it is not thrown away for that."""
    wanted = artifact(wheel)
    first = store.add(wheel, wanted)
    path = store.path(first.sha256)
    identity = os.stat(path).st_ino
    os.rename(f"{path}/manifest.json", f"{path}/hidden")
    monkeypatch.setattr(time, "sleep", lambda _: os.rename(f"{path}/hidden", f"{path}/manifest.json"))
    assert store.add(wheel, wanted) == first
    assert os.stat(path).st_ino == identity


def test_a_read_only_store_serves_what_it_has(store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be written answers for what is in it, and says so for what is not."""
    manifest = store.add(wheel, artifact(wheel))

    def refuse(path: str, *_args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    assert store.add(wheel, artifact(wheel)) == manifest
    os.rename(store.path(manifest.sha256), store.path(ZERO))
    with pytest.raises(FilesystemError, match="Read-only file system"):
        store.add(wheel, artifact(wheel))


def test_a_discarded_entry_is_gone(store: Store, wheel: str) -> None:
    """Discarding removes an entry for good, and doing it twice is fine."""
    manifest = store.add(wheel, artifact(wheel))
    store.discard(manifest.sha256)
    store.discard(manifest.sha256)
    assert store.get(manifest.sha256) is None
    assert os.listdir(store.wheels) == leftovers(store) == []


def test_discarding_needs_no_tmp(store: Store, wheel: str) -> None:
    """If somebody removed tmp, it is made again."""
    manifest = store.add(wheel, artifact(wheel))
    os.rmdir(store.tmp)
    store.discard(manifest.sha256)
    assert store.get(manifest.sha256) is None


def test_an_entry_that_cannot_be_renamed_is_emptied(store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a lower layer of an overlay a directory cannot be renamed; its manifest goes first."""
    manifest = store.add(wheel, artifact(wheel))

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)

    monkeypatch.setattr(native, "replace", refuse)
    store.discard(manifest.sha256)
    assert os.listdir(store.wheels) == leftovers(store) == []


def test_where_directories_cannot_be_renamed_the_manifest_comes_last(
    store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is moved into place file by file, and counts only when it is whole: interrupted anywhere, it is none."""
    original = os.rename
    left = -1

    def refuse(source: str, target: str) -> None:
        nonlocal left
        if os.path.isdir(source):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        assert left, "interrupted"
        left -= 1
        original(source, target)

    monkeypatch.setattr(native, "replace", refuse)
    for number in range(100):
        left = number
        try:
            manifest = store.add(wheel, artifact(wheel))
        except AssertionError:
            assert all(store.get(name) is None for name in os.listdir(store.wheels))
        else:
            break
    assert number > 3
    assert store.get(manifest.sha256) == manifest
    for directory in manifest.directories:
        for name, size, _ in directory.files:
            place = "/".join(filter(None, (store.path(manifest.sha256), directory.scheme, directory.path, name)))
            assert os.stat(place).st_size == size
    assert leftovers(store) == []


def test_an_entry_that_cannot_be_discarded_is_an_error(
    store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it stays although it is damaged, that is said."""
    manifest = store.add(wheel, artifact(wheel))

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), source)

    monkeypatch.setattr(native, "replace", refuse)
    with pytest.raises(FilesystemError, match=f"cannot remove `{store.path(manifest.sha256)}`"):
        store.discard(manifest.sha256)


def test_sweeping_removes_what_was_left_over(store: Store) -> None:
    """What lies in tmp for more than a day is removed, file or directory; what is younger stays."""
    for name in ("unpack-old", "unpack-new"):
        os.makedirs(f"{store.tmp}/{name}/purelib")
        Path(f"{store.tmp}/{name}/purelib/x").write_text("")
    for name in ("old.part", "new.part"):
        Path(f"{store.tmp}/{name}").write_text("")
    for name in ("unpack-old", "old.part"):
        os.utime(f"{store.tmp}/{name}", (1, 1))
    assert store.sweep() == 2
    assert sorted(leftovers(store)) == ["new.part", "unpack-new"]
    assert Store("/nonexistent").sweep() == 0


def test_sweeping_removes_what_was_half_written_beside_its_place(store: Store) -> None:
    """A writer that was killed leaves a temporary file beside what is kept, which goes, too; what is kept stays."""
    for kind in ("hashes", "interpreters", "skeletons", "targets"):
        directory = Path(f"{store.root}/v1/{kind}")
        directory.mkdir()
        for name in ("old.json", "old.json.1.abcdef01.new", "new.json.2.abcdef01.new"):
            (directory / name).write_text("")
        for name in ("old.json", "old.json.1.abcdef01.new"):
            os.utime(directory / name, (1, 1))
    assert store.sweep() == 4
    for kind in ("hashes", "interpreters", "skeletons", "targets"):
        assert sorted(os.listdir(f"{store.root}/v1/{kind}")) == ["new.json.2.abcdef01.new", "old.json"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host.test/a/b.whl?token=x#sha256=0", "https://host.test/a/b.whl"),
        ("https://user@host.test:8443/b.whl", "https://host.test:8443/b.whl"),
        ("https://a:b@c@host.test/b.whl", "https://host.test/b.whl"),
        ("https://u:p@[broken/b.whl", "b.whl"),
    ],
)
def test_messages_show_no_credentials(url: str, shown: str) -> None:
    """Neither user, password, query nor fragment of a URL is shown."""
    assert origin(Artifact("b", "1", "b.whl", url=url)) == shown


def test_threads_add_one_wheel_at_once(store: Store, wheel: str) -> None:
    """Threads that add the same wheel at once all get it, and one entry remains."""
    barrier = threading.Barrier(8)
    results: list[manifests.Manifest] = []

    def add() -> None:
        barrier.wait()
        results.append(store.add(wheel, artifact(wheel)))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len({result.sha256 for result in results}) == 1
    assert leftovers(store) == []


def _add(root: str, wheels: list[str], barrier: Barrier, damage: bool) -> None:
    module.PATIENCE = 0.2
    store = Store(root)
    for wheel in wheels:
        barrier.wait(60)
        manifest = store.add(wheel, artifact(wheel))
        if damage and store.get(manifest.sha256) is not None:
            store.discard(manifest.sha256)
        elif not damage and (store.get(manifest.sha256) != manifest or not os.path.isdir(store.path(manifest.sha256))):
            sys.exit(f"another manifest for {wheel}")


@pytest.mark.parametrize("damage", [False, True])
def test_processes_add_the_same_wheels_at_once(store: Store, tmp_path: Path, damage: bool) -> None:
    """Processes that add the same wheels at once, even while each is discarded again, never fail or see half of one."""
    wheels = [
        build_wheel(tmp_path, f"demo{number}", "1.0", {f"demo{number}/{file}.py": "" for file in range(20)})
        for number in range(10)
    ]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    arguments = (store.root, wheels, barrier, damage)
    processes = [context.Process(target=_add, args=arguments, daemon=True) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert leftovers(store) == []
    if not damage:
        found = [store.get(sha256_of(wheel)) for wheel in wheels]
        assert all(found)
        assert len(os.listdir(store.wheels)) == 10


class TestSettling:
    """A store that cannot be written is read, and what it lacks goes elsewhere."""

    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> Store:
        """The same store for somebody who may not write to it."""
        access = os.access

        def refuse(path: str, mode: int) -> bool:
            return not path.startswith(store.root) and access(path, mode)

        monkeypatch.setattr(module.os, "access", refuse)
        return Store(store.root)

    def test_a_store_that_can_be_written_stays(self, store: Store, tmp_path: Path) -> None:
        """The fallback is not touched."""
        store.settle(str(tmp_path / "fallback"))
        assert (store.root, store.below, store.memory) == (str(tmp_path / "cache"), None, store.root)
        assert not (tmp_path / "fallback").exists()

    @pytest.mark.parametrize("passing", [True, False])
    def test_what_is_there_is_used_and_the_rest_goes_elsewhere(
        self, store: Store, refused: Store, wheel: str, tmp_path: Path, *, passing: bool
    ) -> None:
        """Nothing is made in the fallback before something is added; what stays is remembered there, too."""
        there = store.add(wheel, artifact(wheel))
        os.utime(store.path(there.sha256), (5000, 5000))
        before = tree(store.root)
        refused.settle(str(tmp_path / "fallback"), passing=passing)
        assert (refused.below, refused.root) == (store.root, str(tmp_path / "fallback"))
        assert refused.memory == (store.root if passing else refused.root)
        assert refused.get(there.sha256) == there
        assert refused.path(there.sha256) == store.path(there.sha256)
        assert refused.add(wheel, artifact(wheel)) == there
        assert not (tmp_path / "fallback").exists()
        other = build_wheel(tmp_path, "other")
        refused.prepare()
        added = refused.add(other, artifact(other))
        assert refused.path(added.sha256) == f"{tmp_path}/fallback/v1/wheels/{added.sha256}"
        assert refused.get(added.sha256) == added
        assert store.get(added.sha256) is None
        assert tree(store.root) == before

    def test_a_damaged_entry_below_is_not_used(self, store: Store, refused: Store, wheel: str, tmp_path: Path) -> None:
        """It cannot be removed; from then on it is as if it were not there."""
        there = store.add(wheel, artifact(wheel))
        refused.settle(str(tmp_path / "fallback"))
        refused.discard(there.sha256.upper())
        assert refused.get(there.sha256) is None
        refused.prepare()
        assert refused.add(wheel, artifact(wheel)) == there
        assert refused.path(there.sha256).startswith(str(tmp_path / "fallback"))
        assert store.get(there.sha256) == there
        refused.discard(there.sha256)
        assert refused.get(there.sha256) is None
        assert leftovers(refused) == []

    @pytest.mark.parametrize("answer", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EIO])
    def test_only_a_refusal_is_done_without(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
        """A full or broken disk is an error."""

        def fail(*_args: object, **_options: object) -> None:
            raise OSError(answer, os.strerror(answer))

        monkeypatch.setattr(module.os, "makedirs", fail)
        store = Store(str(tmp_path / "cache"))
        if answer in (errno.ENOSPC, errno.EIO):
            with pytest.raises(FilesystemError, match=os.strerror(answer)):
                store.settle("elsewhere")
        else:
            store.settle("elsewhere")
        assert store.root == (str(tmp_path / "cache") if answer in (errno.ENOSPC, errno.EIO) else "elsewhere")

    def test_directories_that_another_of_the_group_is_just_making(
        self, store: Store, refused: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They get the group's bits a moment after they are made: it is waited for, and no fallback used."""
        access = module.os.access
        os.chmod(store.root, 0o2770)
        looks = 0

        def allow_later(path: str, mode: int) -> bool:
            nonlocal looks
            looks += path == store.wheels
            return path == store.root or looks > 3 or access(path, mode)

        monkeypatch.setattr(module.os, "access", allow_later)
        refused.settle("elsewhere")
        assert (refused.below, refused.root) == (None, store.root)
        assert looks == 4


def test_a_use_is_noted_where_it_can_be(store: Store, wheel: str) -> None:
    """The time of the entry's directory is now; of one that is not there, nothing is."""
    added = store.add(wheel, artifact(wheel))
    os.utime(store.path(added.sha256), (5000, 5000))
    store.touch(added.sha256)
    assert time.time() - os.stat(store.path(added.sha256)).st_mtime < 100
    store.touch(ZERO)
    assert not os.path.exists(store.path(ZERO))


def test_what_may_not_be_removed_is_an_error_that_says_whose_turn_it_is(
    store: Store, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of another user, in a cache that no group shares."""
    added = store.add(wheel, artifact(wheel))

    def refuse(_source: str, _destination: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(native, "replace", refuse)
    with pytest.raises(FilesystemError, match=f"cannot remove `{store.path(added.sha256)}`") as caught:
        store.discard(added.sha256)
    assert "let its owner run" in str(caught.value.hint)
    assert store.get(added.sha256) == added
