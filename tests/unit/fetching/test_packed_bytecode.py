"""Bytecode in one file: Python runs it, a store has what it would have compiled, and all else is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib._bootstrap_external import (  # type: ignore[import-not-found]
    _classify_pyc,
    _validate_hash_pyc,
)
from pathlib import Path
from typing import NamedTuple

import pytest

from envsync.bundling.compiling import _source_hashes
from envsync.errors import EnvsyncError, FilesystemError
from envsync.fetching import packed_bytecode
from envsync.fetching.compiling import compile_wheels
from envsync.fetching.packed_bytecode import ABOUT, ChangedBytecodeError, pack, unpack
from envsync.launch.progress import quiet
from envsync.lockfile.target import Artifact
from envsync.python import interpreter as interpreters
from envsync.python.facts import Interpreter
from envsync.store.bytecode import Compiled, Shelf
from envsync.store.store import Store
from envsync.system import core, native
from envsync.wheel import near
from envsync.wheel.manifest import Manifest
from tests import pythons
from tests.hostile import zips
from tests.wheels import artifact, build_wheel

FILES = {
    "demo/__init__.py": "x = 1\n",
    "demo/deep/er/mod.py": "def f():\n    raise ValueError(1)\n",
    "demo/data.txt": "no module\n",
    "demo/na\u00efve.py": "\u00fcber = {'\u2603', 'a', 'b', 'c'}\nx in {'one', 'two', 'three', 'four'}\n",
    "single.py": "y = 2\n",
    "with,comma.py": "",
    "python2.py": "print 1\n",
}
DEMO = "purelib/demo/__pycache__/__init__.{}.pyc"


class World(NamedTuple):
    """A wheel, its bytecode in a store, and that in a file."""

    target: Interpreter
    wheel: str
    manifest: Manifest
    compiled: Compiled
    packed: bytes
    store: Store

    @property
    def demo(self) -> str:
        return DEMO.format(self.target.cache_tag)


def world(directory: Path, python: str = sys.executable, children: int | None = None) -> World:
    directory.mkdir(exist_ok=True)
    store = store_in(directory / "cache")
    target = interpreters.inspect(python, str(directory / "facts"))
    wheel = build_wheel(directory, "demo", files=FILES)
    manifest = store.add(wheel, artifact(wheel))
    compiled = compile_wheels([manifest], target, store, report=quiet, children=children)[manifest.sha256]
    packed = pack(
        Shelf(store, target.bytecode), manifest, compiled, _source_hashes(target, store, [manifest])[manifest.sha256]
    )
    return World(target, wheel, manifest, compiled, packed, store)


def store_in(directory: Path) -> Store:
    store = Store(str(directory))
    store.prepare()
    return store


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("one"))


@pytest.fixture
def node(one: World, tmp_path: Path) -> Shelf:
    """The bytecode of a node's own store, which has the wheel and nothing else."""
    store = store_in(tmp_path / "node")
    store.add(one.wheel, artifact(one.wheel))
    return Shelf(store, one.target.bytecode)


def of_node(one: World, node: Shelf) -> Manifest:
    manifest = node.store.get(one.manifest.sha256)
    assert manifest is not None
    return manifest


def file_of(tmp_path: Path, content: bytes) -> Artifact:
    path = tmp_path / "cpython.zip"
    path.write_bytes(content)
    return Artifact(
        "demo", "", path.name, {"sha256": hashlib.sha256(content).hexdigest()}, size=len(content), path=str(path)
    )


def tree(directory: str) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mode, int(path.stat().st_mtime))
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


class TestWhatIsInIt:
    """Python runs it as it is, wherever its source is and whenever that was made."""

    def test_unchecked(self, one: World) -> None:
        """Each module that compiles, with the hash that Python itself has for its source."""
        with zipfile.ZipFile(io.BytesIO(one.packed)) as archive:
            names = set(archive.namelist()) - {ABOUT}
            assert len(names) == sum(name.endswith(".py") for name in FILES) - 1
            for name in names:
                source = f"{one.store.path(one.manifest.sha256)}/{importlib.util.source_from_cache(name)}"
                data = archive.read(name)
                assert _classify_pyc(data, name, {}) == 0b01
                _validate_hash_pyc(data, importlib.util.source_hash(Path(source).read_bytes()), name, {})
            about = json.loads(archive.read(ABOUT))
        assert about["wheel"] == one.manifest.sha256
        assert about["python"] == one.target.bytecode
        assert [path for path, _ in about["failures"]] == ["python2.py"]

    def test_unpacked_by_hand(self, one: World, tmp_path: Path) -> None:
        """A traceback names the source where it is now; nothing is compiled, even if Python compares the hashes."""
        site = tmp_path / "site"
        with zipfile.ZipFile(one.wheel) as wheel:
            wheel.extractall(site)
        with zipfile.ZipFile(io.BytesIO(one.packed)) as archive:
            archive.extractall(tmp_path)
        shutil.copytree(tmp_path / "purelib", site, dirs_exist_ok=True)
        before = tree(str(site))
        load = f"import sys; sys.path.insert(0, {str(site)!r}); import demo.deep.er.mod as m; m.f()"
        words = [sys.executable, "-I", "-v", "--check-hash-based-pycs", "always", "-c", load]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert f'File "{site}/demo/deep/er/mod.py", line 2, in f' in done.stderr
        assert f"code object from '{site}/demo/deep/er/__pycache__/mod" in done.stderr
        assert tree(str(site)) == before

    @pytest.mark.parametrize("version", ["", *pythons.VERSIONS])
    def test_the_same_again(self, one: World, tmp_path: Path, version: str) -> None:
        """Another cache, where sources have other times, and other children that compile: not a byte differs."""
        python = pythons.need(version) if version else sys.executable
        first = world(tmp_path / "first", python).packed if version else one.packed
        again = world(tmp_path / "again", python, children=2)
        for path in Path(again.store.root, "v1").rglob("*.pyc"):
            assert path.stat().st_mtime == again.manifest.mtime
        assert again.packed == first

    def test_changed_bytecode(self, tmp_path: Path) -> None:
        """What somebody has written into the cache is not handed on."""
        there = world(tmp_path / "there")
        shelf = Shelf(there.store, there.target.bytecode)
        path = Path(shelf.path(there.manifest.sha256), there.demo)
        path.chmod(0o600)
        path.write_bytes(b"#" * path.stat().st_size)
        hashes = _source_hashes(there.target, there.store, [there.manifest])[there.manifest.sha256]
        with pytest.raises(ChangedBytecodeError, match="__init__"):
            pack(shelf, there.manifest, there.compiled, hashes)


class TestInAStore:
    """A node has then, byte for byte, what it would have compiled."""

    def test_as_compiled(self, one: World, node: Shelf, tmp_path: Path) -> None:
        """Files, modes, times, and the manifest."""
        manifest = of_node(one, node)
        assert unpack(file_of(tmp_path, one.packed), manifest, node, lambda: None) == ""
        place = node.path(manifest.sha256)
        taken, there = node.get(manifest.sha256, manifest.mtime), tree(place)
        node.discard(manifest.sha256)
        compiled = compile_wheels([manifest], one.target, node.store, report=quiet)[manifest.sha256]
        assert taken == compiled
        now = tree(place)
        assert there["manifest.json"][:2] == now["manifest.json"][:2]  # its time is that of its making
        assert {**there, "manifest.json": None} == {**now, "manifest.json": None}
        assert os.listdir(node.store.tmp) == []

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_others_may_read_it(self, one: World, node: Shelf, tmp_path: Path, umask: int) -> None:
        """Whatever the umask, as all in a store."""
        before = os.umask(umask)
        try:
            assert unpack(file_of(tmp_path, one.packed), of_node(one, node), node, lambda: None) == ""
        finally:
            os.umask(before)
        modes = {mode for _, mode, _ in tree(node.path(one.manifest.sha256)).values()}
        assert {stat.S_IMODE(mode) for mode in modes} == {0o444}

    def test_what_the_compiler_died_of(self, one: World, node: Shelf, tmp_path: Path) -> None:
        """It is compiled here, that source alone."""
        died = one.compiled._replace(died=(("purelib", "single.py", "the compiler died of it"),))
        content = changed(
            one, lambda name, data: None if name.startswith("purelib/__pycache__/single") else about(data, died)
        )
        manifest = of_node(one, node)
        assert unpack(file_of(tmp_path, content), manifest, node, lambda: None) == ""
        found = node.get(manifest.sha256)
        assert found is not None
        assert found.died == died.died
        whole = compile_wheels([manifest], one.target, node.store, report=quiet)[manifest.sha256]
        assert (whole.died, whole.late) == ((), ("single.py",))

    @pytest.mark.parametrize("far", [False, True])
    def test_read_once(
        self, one: World, node: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, far: bool
    ) -> None:
        """One that is far, from its beginning to its end, and not again."""
        file = file_of(tmp_path, one.packed)
        reads: list[int] = []
        original = os.pread

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            if os.fstat(descriptor).st_ino == os.stat(file.path or "").st_ino:
                reads.append(offset)
            return original(descriptor, length, offset)

        monkeypatch.setattr(native, "pread", pread)
        if far:
            near_copy = near.copy_of
            elsewhere = os.stat("/dev").st_dev
            monkeypatch.setattr(
                near,
                "copy_of",
                lambda status, *rest: near_copy(os.stat_result((*status[:2], elsewhere, *status[3:10])), *rest),
            )
        assert unpack(file, of_node(one, node), node, lambda: None) == ""
        assert (reads == [0, len(one.packed)]) is far

    def test_a_full_or_closed_store(
        self, one: World, node: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That is no fault of the file; nothing is left."""
        original = core.open_file

        def refuse(path: str, flags: int, *rest: int, **more: int) -> int:
            if str(path).endswith(".pyc"):
                raise OSError(28, "No space left on device", path)
            return original(path, flags, *rest, **more)

        monkeypatch.setattr(core, "open_file", refuse)
        with pytest.raises(FilesystemError, match="No space"):
            unpack(file_of(tmp_path, one.packed), of_node(one, node), node, lambda: None)
        assert os.listdir(node.store.tmp) == []

    def test_somebody_ends_it(self, one: World, node: Shelf, tmp_path: Path) -> None:
        """At each checkpoint: then nothing is left."""
        count = 0

        def checkpoint() -> None:
            nonlocal count
            count += 1
            if count == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            unpack(file_of(tmp_path, one.packed), of_node(one, node), node, checkpoint)
        assert os.listdir(node.store.tmp) == []
        assert node.get(one.manifest.sha256) is None


def about(data: bytes, compiled: Compiled) -> bytes:
    """Say another thing of what died, if that is what it is said in."""
    if not data.startswith(b"{"):
        return data
    return json.dumps({**json.loads(data), "died": compiled.died}).encode()


def changed(one: World, change: Callable[[str, bytes], bytes | None], more: Iterable[zips.Entry] = ()) -> bytes:
    """Write the file anew, with members changed, left out, or added."""
    entries = []
    with zipfile.ZipFile(io.BytesIO(one.packed)) as archive:
        for name in archive.namelist():
            data = change(name, archive.read(name))
            if data is not None:
                entries.append(zips.Entry(name, data))
    return zips.archive([*entries, *more])


def same(_: str, data: bytes) -> bytes:
    return data


def only(part: str, change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
    return lambda name, data: change(data) if part in name else data


def told(**said: object) -> Callable[[str, bytes], bytes | None]:
    return only(ABOUT, lambda data: json.dumps({**json.loads(data), **said}).encode())


def damaged(one: World) -> bytes:
    middle = one.packed.index(b"__init__") + 60
    return (
        one.packed[:middle]
        + bytes(byte ^ 0x55 for byte in one.packed[middle : middle + 20])
        + one.packed[middle + 20 :]
    )


def plus(one: World, name: str, data: bytes | None = None) -> bytes:
    with zipfile.ZipFile(io.BytesIO(one.packed)) as archive:
        good = archive.read(one.demo)
    return changed(one, same, [zips.Entry(name.format(one.target.cache_tag), good if data is None else data)])


def linked(one: World) -> bytes:
    link = zips.Entry(one.demo, b"/etc/passwd", kind=stat.S_IFLNK, mode=0o777)
    return changed(one, only("demo/__pycache__/__init__", lambda _: None), [link])


def lying(one: World) -> bytes:
    entry = zips.Entry(one.demo, b"\0" * 1_000_000, lies={"size": 100})
    return changed(one, only("demo/__pycache__/__init__", lambda _: None), [entry])


BY_TIME = struct.pack("<3I", 0, 1, 2)
CHECKED = struct.pack("<I", 0b11)
HOSTILE: dict[str, tuple[Callable[[World], bytes], str]] = {
    "no zip": (lambda one: b"PK" * 20, "not a zip file"),
    "cut short": (lambda one: one.packed[:-30], "not a zip file"),
    "damaged": (damaged, "damaged|cut short|CRC"),
    "empty": (lambda one: zips.archive([]), "no bytecode of a bundle"),
    "says nothing": (lambda one: changed(one, only(ABOUT, lambda _: None)), "no bytecode of a bundle"),
    "nonsense": (lambda one: changed(one, only(ABOUT, lambda _: b"[]")), "makes no sense"),
    "no JSON": (lambda one: changed(one, only(ABOUT, lambda _: b"\xff{")), "makes no sense"),
    "deep": (lambda one: changed(one, only(ABOUT, lambda _: b"[" * 100_000)), "makes no sense"),
    "another format": (lambda one: changed(one, told(format=2)), "format 2"),
    "another wheel": (lambda one: changed(one, told(wheel="0" * 64)), "another wheel"),
    "another Python": (lambda one: changed(one, told(python="cpython-399-00000000")), "compiled for"),
    "failures of others": (lambda one: changed(one, told(failures=[["os.py", "x"]])), "no module of the wheel"),
    "failures that are none": (lambda one: changed(one, told(failures=[["single.py"]])), "makes no sense"),
    "another magic number": (lambda one: changed(one, only("__init__", lambda data: b"\0" + data[1:])), "no unchecked"),
    "by time": (
        lambda one: changed(one, only("__init__", lambda data: data[:4] + BY_TIME + data[16:])),
        "no unchecked",
    ),
    "checked": (lambda one: changed(one, only("__init__", lambda data: data[:4] + CHECKED + data[8:])), "no unchecked"),
    "only a header": (lambda one: changed(one, only("__init__", lambda data: data[:16])), "no unchecked"),
    "one is missing": (lambda one: changed(one, only("single", lambda _: None)), "nothing of `single.py`"),
    "another's": (lambda one: plus(one, "purelib/os.{}.pyc"), "not the bytecode of a module of the wheel"),
    "another's directory": (lambda one: plus(one, "purelib/__pycache__/os.{}.pyc"), "not the bytecode of a module"),
    "another scheme": (lambda one: plus(one, "data/lib/__pycache__/single.{}.pyc"), "not the bytecode of a module"),
    "a source": (lambda one: plus(one, "purelib/single.py"), "not the bytecode of a module"),
    "leads out": (lambda one: plus(one, "purelib/../../x.{}.pyc"), "leads out"),
    "absolute": (lambda one: plus(one, "/tmp/x.{}.pyc"), "absolute"),
    "twice": (lambda one: plus(one, DEMO, data=b"x"), "twice"),
    "a link": (linked, "no unchecked|not the bytecode"),
    "a bomb": (
        lambda one: changed(one, only("__init__", lambda data: data + b"\0" * 200_000)),
        "more than makes sense",
    ),
    "a bomb that lies": (lying, "holds more|declares"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_none(one: World, node: Shelf, tmp_path: Path, kind: str) -> None:
    """Whatever the hash vouches for: it is refused with a reason, nothing is left, and the wheel can be compiled."""
    make, problem = HOSTILE[kind]
    manifest = of_node(one, node)
    said = unpack(file_of(tmp_path, make(one)), manifest, node, lambda: None)
    assert said
    assert re.search(problem, said), said
    assert said.isprintable()
    assert node.get(manifest.sha256) is None
    assert os.listdir(node.store.tmp) == []
    compile_wheels([manifest], one.target, node.store, report=quiet)


@pytest.mark.parametrize("kind", ["another hash", "another size", "missing", "directory", "unreadable"])
def test_what_is_not_as_the_lock_file_says(
    one: World, node: Shelf, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a byte of it is used."""
    monkeypatch.setattr(packed_bytecode, "Archive", lambda *_: pytest.fail("it was opened"))
    file = file_of(tmp_path, one.packed)
    path = Path(file.path or "")
    if kind == "another hash":
        file = file._replace(hashes={"sha256": "0" * 64})
    elif kind == "another size":
        file = file._replace(size=1)
    elif kind == "missing":
        path.unlink()
    elif kind == "directory":
        path.unlink()
        path.mkdir()
    else:
        monkeypatch.setattr(native, "pread", refuse)
    said = unpack(file, of_node(one, node), node, lambda: None)
    assert {
        "another hash": "sha256",
        "another size": "bytes",
        "missing": "No such file",
        "directory": "not a file",
        "unreadable": "Input/output error",
    }[kind] in said
    assert os.listdir(node.store.tmp) == []


def refuse(*_: object) -> bytes:
    raise OSError(5, os.strerror(5))


def test_hashes_of_what_cannot_be_read(one: World, tmp_path: Path) -> None:
    """It is said, as is a Python that does not run."""
    empty = store_in(tmp_path / "empty")
    with pytest.raises(FilesystemError, match="No such file"):
        _source_hashes(one.target, empty, [one.manifest])
    with pytest.raises(EnvsyncError, match="does not hash sources"):
        _source_hashes(one.target._replace(executable="/bin/false"), one.store, [one.manifest])
