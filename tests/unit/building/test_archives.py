"""Unpacking a source distribution: what pip unpacks of it, and never anything outside of its directory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from envsync.building import archives
from envsync.building.archives import unpack
from envsync.errors import BuildError, FilesystemError
from tests import needs

MODES = {"foo-1.0.tar": "w", "foo-1.0.tar.gz": "w:gz", "foo-1.0.tgz": "w:gz", "foo-1.0.tar.bz2": "w:bz2"}
MODES["foo-1.0.tar.xz"] = "w:xz"


class Entry(tarfile.TarInfo):
    """A member of a tar, with its content."""

    def __init__(self, name: str, content: bytes = b"", **fields: object) -> None:
        super().__init__(name)
        self.content = content
        self.size = len(content)
        self.mtime = 1_000_000_000
        for key, value in fields.items():
            setattr(self, key, value)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return Entry(name, type=kind, linkname=target)


def make_tar(path: Path, *entries: Entry, mode: str = "w:gz", **options: object) -> str:
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
        for entry in entries:
            archive.addfile(entry, io.BytesIO(entry.content))
    return str(path)


def make_zip(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return str(path)


@pytest.fixture
def into(tmp_path: Path) -> str:
    return str(tmp_path / "unpacked")


def files(directory: str) -> dict[str, bytes]:
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


USUAL = (
    Entry("foo-1.0", type=tarfile.DIRTYPE, mode=0o700),
    Entry("foo-1.0/setup.py", b"setup()", mode=0o600),
    Entry("foo-1.0/configure", b"#!/bin/sh", mode=0o711),
    Entry("foo-1.0/src/foo.c", b"int x;" * 200_000, mtime=1_234_567_890),
)


@pytest.mark.parametrize("filename", MODES)
def test_tars(tmp_path: Path, into: str, filename: str) -> None:
    """Of each kind: contents and modification times as they are, permissions by the umask, but what is executable."""
    archive = make_tar(tmp_path / filename, *USUAL, mode=MODES[filename])
    umask = os.umask(0o022)
    try:
        top = unpack(archive, into, name="foo")
    finally:
        os.umask(umask)
    assert top == f"{into}/foo-1.0"
    assert files(top) == {"setup.py": b"setup()", "configure": b"#!/bin/sh", "src/foo.c": b"int x;" * 200_000}
    modes = {path: os.stat(f"{top}/{path}").st_mode & 0o777 for path in ("", "setup.py", "configure", "src")}
    assert modes == {"": 0o755, "setup.py": 0o644, "configure": 0o755, "src": 0o755}
    assert [os.stat(f"{top}/{path}").st_mtime for path in ("setup.py", "src/foo.c")] == [1e9, 1_234_567_890]


def test_zips(tmp_path: Path, into: str) -> None:
    """Contents, and what is executable; the directory may have another name than the package."""
    script = zipfile.ZipInfo("other/run.sh")
    script.external_attr = 0o100755 << 16
    archive = make_zip(tmp_path / "foo.zip", ("other/", b""), ("other/a/setup.py", b"setup()"), (script, b"#!/bin/sh"))
    top = unpack(archive, into, name="foo")
    assert top == f"{into}/other"
    assert files(top) == {"a/setup.py": b"setup()", "run.sh": b"#!/bin/sh"}
    assert [os.access(f"{top}/{name}", os.X_OK) for name in ("a/setup.py", "run.sh")] == [False, True]


@pytest.mark.parametrize("filename", ["foo-1.0.tar.gz", "foo-1.0.tar.bz2", "foo-1.0.tar.xz", "foo-1.0.zip"])
def test_as_pip_unpacks(tmp_path: Path, filename: str) -> None:
    """The same names, contents, permissions and times as by pip's own code."""
    entries = (*USUAL, link("foo-1.0/alias", "setup.py"), link("foo-1.0/src/up", "../configure"))
    entries += (link("foo-1.0/twin", "foo-1.0/setup.py", tarfile.LNKTYPE), Entry("foo-1.0/empty"))
    if filename.endswith(".zip"):
        archive = make_zip(tmp_path / filename, *((entry.name, entry.content) for entry in entries if entry.isreg()))
    else:
        archive = make_tar(tmp_path / filename, *entries, mode=MODES[filename])
    ours = unpack(archive, str(tmp_path / "ours"), name="foo")
    code = "import sys; from pip._internal.utils.unpacking import unpack_file; unpack_file(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, archive, str(tmp_path / "pips")], check=True)
    assert listing(Path(ours)) == listing(tmp_path / "pips")


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status, shown = path.lstat(), str(path.relative_to(root))
        if path.is_symlink():
            found[shown] = ("link", os.readlink(path))
        elif path.is_dir():
            found[shown] = ("directory", status.st_mode)
        else:
            mtime = status.st_mtime if status.st_mtime < 2e9 and status.st_mtime % 1 == 0 else "now"
            found[shown] = (status.st_mode, mtime, path.read_bytes())
    return found


def test_names_that_begin_with_a_dot(tmp_path: Path, into: str) -> None:
    """`tar c .` writes them."""
    archive = make_tar(
        tmp_path / "foo",
        Entry(".", type=tarfile.DIRTYPE),
        Entry("./foo/", type=tarfile.DIRTYPE),
        Entry("./foo/a", b"a"),
    )
    assert files(unpack(archive, into, name="foo")) == {"a": b"a"}


@needs.ANY_NAME
def test_names_that_are_not_utf_8(tmp_path: Path, into: str) -> None:
    """Old archives have them, of a language's test data say: the bytes are the name."""
    name = "foo-1.0/" + "\udce9" * 70
    archive = make_tar(tmp_path / "foo", Entry(name, b"a"), format=tarfile.GNU_FORMAT)
    top = unpack(archive, into, name="foo")
    assert os.listdir(os.fsencode(top)) == [b"\xe9" * 70]


def test_the_last_of_several_counts(tmp_path: Path, into: str) -> None:
    """As with tar; a link among them is not followed."""
    archive = make_tar(
        tmp_path / "foo",
        *(Entry("foo/a", b"first"), Entry("foo/b", b"b"), link("foo/a", "b"), Entry("foo/a", b"last")),
        *(Entry("foo/c", b"c"), link("foo/c", "b")),
    )
    top = unpack(archive, into, name="foo")
    assert files(top) == {"a": b"last", "b": b"b", "c": b"b"}
    assert os.readlink(f"{top}/c") == "b"


@pytest.mark.parametrize("subdirectory", ["", "python", "a/b", "a/../python", "./python/"])
def test_subdirectories(tmp_path: Path, into: str, subdirectory: str) -> None:
    """A project may lie anywhere in the tree."""
    archive = make_tar(tmp_path / "foo", Entry("foo/python/x"), Entry("foo/a/b/x"), Entry("foo/x"))
    found = unpack(archive, into, name="foo", subdirectory=subdirectory)
    assert os.path.samefile(found, f"{into}/foo/{subdirectory}")
    assert os.path.exists(f"{found}/x")


@pytest.mark.parametrize("subdirectory", ["..", "../..", "a/../..", "/", "/tmp", "missing", "file", "out"])
def test_subdirectories_that_are_none(tmp_path: Path, into: str, subdirectory: str) -> None:
    """One that leaves the tree, by a link too, or is not there."""
    archive = make_tar(tmp_path / "foo", Entry("foo/file"), Entry("foo/a/x"), link("foo/out", "."))
    if subdirectory == "out":
        found = unpack(archive, into, name="foo", subdirectory="a")
        os.symlink("/tmp", f"{into}/foo/there")
        assert os.path.isdir(found)
        with pytest.raises(BuildError, match="leads out"):
            archives.within(f"{into}/foo", "there", "foo")
        return
    with pytest.raises(BuildError, match=r"cannot build `foo`: .*(leads out of its source|there is no directory)"):
        unpack(archive, into, name="foo", subdirectory=subdirectory)
    assert not os.path.exists(into)


HOSTILE = {
    "absolute": [Entry("/tmp/evil", b"x")],
    "dots": [Entry("foo/../../evil", b"x")],
    "dots at first": [Entry("../evil", b"x")],
    "dots alone": [Entry("..", type=tarfile.DIRTYPE)],
    "link out": [Entry("foo/a"), link("foo/out", "../../evil")],
    "link out, absolute": [Entry("foo/a"), link("foo/out", "/etc/passwd")],
    "link in, absolute": [Entry("foo/a"), link("foo/out", "{into}/foo/a")],
    "link to nothing out": [Entry("foo/a"), link("foo/out", "../../missing/evil")],
    "link by a link": [Entry("foo/a"), Entry("foo/t/x"), link("foo/d/e/l", "../../t"), link("foo/o", "d/e/l/../../..")],
    "through a link": [link("foo", "/tmp"), Entry("foo/evil", b"x")],
    "through a link within": [Entry("top/a/x"), link("top/l", "a"), Entry("top/l/evil", b"x")],
    "links in a circle through one out": [Entry("f/a"), link("f/x", "y"), link("f/y", "../../evil")],
    "hard link out": [Entry("foo/a"), link("foo/out", "../evil", tarfile.LNKTYPE)],
    "hard link to absolute": [Entry("foo/a"), link("foo/out", "/etc/passwd", tarfile.LNKTYPE)],
    "hard link to what comes later": [link("foo/out", "foo/a", tarfile.LNKTYPE), Entry("foo/a")],
    "hard link to a link": [link("foo/l", "/etc/passwd"), link("foo/out", "foo/l", tarfile.LNKTYPE)],
    "hard link by a link": [link("foo/l", "/etc"), link("foo/out", "foo/l/passwd", tarfile.LNKTYPE)],
    "pipe": [Entry("foo/pipe", type=tarfile.FIFOTYPE)],
    "device": [Entry("foo/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "disk": [Entry("foo/sda", type=tarfile.BLKTYPE)],
    "file and directory": [Entry("foo/a", b"x"), Entry("foo/a/b", b"x")],
    "directory and file": [Entry("foo/a/b", b"x"), Entry("foo/a", b"x")],
    "two directories": [Entry("foo/a", b"x"), Entry("bar/a", b"x")],
    "a file beside": [Entry("foo/a", b"x"), Entry("evil", b"x")],
    "a file alone": [Entry("setup.py", b"x")],
    "a link alone": [link("foo", "/tmp")],
    "nothing": [],
    "control characters": [Entry("foo/\x1b[2Jevil", b"x")],
    "backslashes": [Entry("foo\\..\\..\\evil", b"x")],
    "deep": [Entry("foo/" + "a/" * 200 + "x", b"x")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tars(tmp_path: Path, into: str, case: str) -> None:
    """Each is refused, and nothing is left, neither there nor elsewhere."""
    entries = HOSTILE[case]
    for entry in entries:
        entry.linkname = entry.linkname.replace("{into}", into)
    archive = make_tar(tmp_path / "foo-1.0.tar.gz", *entries)
    with pytest.raises(BuildError, match="cannot build `foo`: its archive is refused: ") as caught:
        unpack(archive, into, name="foo")
    assert "\x1b" not in str(caught.value)
    assert os.listdir(tmp_path) == ["foo-1.0.tar.gz"]
    assert not os.path.exists("/tmp/evil")


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("name", ["/tmp/evil", "../evil", "foo/../../evil", "foo\\..\\evil", "C:/evil", "foo//evil"])
def test_hostile_zips(tmp_path: Path, into: str, name: str) -> None:
    """The same of zips."""
    archive = make_zip(tmp_path / "foo.zip", ("foo/a", b""), (name, b"x"))
    with pytest.raises(BuildError, match="its archive is refused: a file name"):
        unpack(archive, into, name="foo")
    assert os.listdir(tmp_path) == ["foo.zip"]


def test_special_files_in_zips(tmp_path: Path, into: str) -> None:
    """A link is a file to pip and uv, and so it is here; anything else that is none is refused."""
    archive = make_zip(tmp_path / "foo.zip", ("foo/a", b""), (special("foo/l", 0o120777), b"/etc/passwd"))
    assert files(unpack(archive, into, name="foo")) == {"a": b"", "l": b"/etc/passwd"}
    archive = make_zip(tmp_path / "bar.zip", ("foo/a", b""), (special("foo/p", 0o010666), b""))
    with pytest.raises(BuildError, match="a device, a pipe"):
        unpack(archive, into + "2", name="foo")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow little."""
    monkeypatch.setattr(archives, "UNSUSPECTED", 1000)
    monkeypatch.setattr(archives, "RATIO", 2)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("entries", [[("foo/a", b"0" * 10_000)], [(f"foo/{n}", b"") for n in range(30)]])
def test_bombs(tmp_path: Path, into: str, kind: str, entries: list[tuple[str, bytes]]) -> None:
    """What holds far more than its size, in bytes or in members, is not unpacked."""
    if kind == "tar":
        archive = make_tar(tmp_path / "foo", *(Entry(*entry) for entry in entries))
    else:
        archive = make_zip(tmp_path / "foo", *entries)
    with pytest.raises(BuildError, match="more than makes sense"):
        unpack(archive, into, name="foo")


def test_a_header_that_is_too_long(tmp_path: Path, into: str) -> None:
    """It would be held in memory as a whole."""
    entry = Entry("foo/a", b"x", pax_headers={"comment": "x" * (archives.LARGEST_HEADER + 1)})
    archive = make_tar(tmp_path / "foo", entry, format=tarfile.PAX_FORMAT)
    with pytest.raises(BuildError, match="a header claims"):
        unpack(archive, into, name="foo")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8bhello", b"BZhello", b"\xfd7zXZ\0hello", b"PK\3\4hello"])
def test_what_is_no_archive(tmp_path: Path, into: str, content: bytes) -> None:
    """It is refused, whatever it is called."""
    (tmp_path / "foo-1.0.tar.gz").write_bytes(content)
    with pytest.raises(BuildError, match="it is damaged, or no archive"):
        unpack(str(tmp_path / "foo-1.0.tar.gz"), into, name="foo")


@pytest.mark.parametrize("filename", [*MODES, "foo.zip"])
def test_what_is_cut_short_or_damaged(tmp_path: Path, into: str, filename: str) -> None:
    """Wherever it ends, and whichever byte is another one: it is refused, or what is there is the whole of it."""
    content = os.urandom(3000)
    if filename.endswith(".zip"):
        make_zip(tmp_path / filename, ("foo/a", content), ("foo/b", content))
    else:
        make_tar(tmp_path / filename, Entry("foo/a", content), Entry("foo/b", content), mode=MODES[filename])
    data = (tmp_path / filename).read_bytes()
    refused = 0
    for number in range(0, len(data), 97):
        damaged = data[:number] + bytes([data[number] ^ 0xFF]) + data[number + 1 :]
        for what in (data[:number], damaged):
            (tmp_path / "damaged").write_bytes(what)
            try:
                unpack(str(tmp_path / "damaged"), f"{into}-{number}-{len(what)}", name="foo")
            except BuildError:
                refused += 1
    assert refused > len(data) // 97 / 3


class Enough(Exception):  # noqa: N818  # it is no error
    """What a test's checkpoint raises."""


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_what_a_checkpoint_raises(tmp_path: Path, into: str, calls: int) -> None:
    """It goes on to the caller, and nothing is left."""
    left = iter(range(calls))

    def checkpoint() -> None:
        if next(left, None) is None:
            raise Enough

    archive = make_tar(tmp_path / "foo", *USUAL)
    with pytest.raises(Enough):
        unpack(archive, into, name="foo", checkpoint=checkpoint)
    assert not os.path.exists(into)


def test_what_the_system_refuses(tmp_path: Path, into: str) -> None:
    """An archive that is not there, and a directory that cannot be made, or is there already and stays."""
    with pytest.raises(FilesystemError, match="cannot unpack"):
        unpack(str(tmp_path / "missing"), into, name="foo")
    archive = make_tar(tmp_path / "foo", *USUAL)
    for place in (f"{into}/deep/down", str(tmp_path)):
        with pytest.raises(FilesystemError, match="cannot create"):
            unpack(archive, place, name="foo")
    assert os.listdir(tmp_path) == ["foo"]
