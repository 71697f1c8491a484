"""Reading a wheel's zip: what is refused, and that what is read is what was put in."""

from __future__ import annotations

import os
import random
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.errors import WheelError
from envsync.system import native, paths, windows_names
from envsync.wheel import archive
from envsync.wheel.archive import PIECE, READ_LIMIT, Archive, check_path, find_collision, printable
from tests.wheels import build_wheel, member, patch_member, tamper


@contextmanager
def opened(path: str) -> Iterator[Archive]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield Archive(descriptor, os.path.basename(path))
    finally:
        os.close(descriptor)


def content(wheel: Archive, name: str) -> bytes:
    return b"".join(wheel.pieces(wheel.members[name]))


def refusal(path: str, name: str | None = None) -> str:
    """Return why a wheel, or the named member of it, is refused."""
    with pytest.raises(WheelError) as caught, opened(path) as wheel:
        content(wheel, name or "")
    assert caught.value.wheel == os.path.basename(path)
    return caught.value.problem


NOISE = random.Random(1).randbytes(3 * PIECE + 7)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "data", [b"", b"a", b"a" * (PIECE - 1), b"a" * PIECE, b"a" * 20 * PIECE, NOISE, NOISE[: PIECE + 1]]
)
def test_members_are_read_as_they_were_written(tmp_path: Path, method: int, data: bytes) -> None:
    """Members of any size and compressibility come out as they went in, in pieces of bounded size."""
    path = build_wheel(tmp_path, files={"demo/x": data}, compression=method)
    with opened(path) as wheel:
        pieces = list(wheel.pieces(wheel.members["demo/x"]))
        assert b"".join(pieces) == data
        assert all(len(piece) <= PIECE for piece in pieces)
        assert wheel.read(wheel.members["demo/x"]) == data


@given(st.lists(st.binary(max_size=3000), max_size=8), st.booleans())
def test_any_contents_are_read_back(tmp_path_factory: pytest.TempPathFactory, datas: list[bytes], stored: bool) -> None:
    """Whatever the contents, they are read back."""
    directory = tmp_path_factory.mktemp("wheel")
    files = {f"demo/{number}": data for number, data in enumerate(datas)}
    path = build_wheel(directory, files=files, compression=zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    with opened(path) as wheel:
        assert {name: content(wheel, name) for name in files} == files


def test_the_executable_bit_is_read(tmp_path: Path) -> None:
    """A member is executable if any of its execute bits is set."""
    path = build_wheel(tmp_path, files={"demo/a": "", "demo/b": ""}, executable=["demo/a"])
    with opened(path) as wheel:
        assert wheel.members["demo/a"].executable
        assert not wheel.members["demo/b"].executable


def test_directories_are_no_files(tmp_path: Path) -> None:
    """A directory that has a member of its own is known, but is not among the files."""
    path = build_wheel(tmp_path, members=[(member("demo/", kind=stat.S_IFDIR, method=zipfile.ZIP_STORED), b"")])
    with opened(path) as wheel:
        assert wheel.directories == {"demo/"}
        assert "demo/" not in wheel.members


def test_a_long_extra_field_is_skipped(tmp_path: Path) -> None:
    """A local header may have a longer extra field than is read along with it."""
    info = member("demo/x")
    info.extra = b"\xfe\xca\xe8\x03" + b"-" * 1000
    path = build_wheel(tmp_path, members=[(info, b"hello")])
    with opened(path) as wheel:
        assert content(wheel, "demo/x") == b"hello"


def test_members_need_not_touch(tmp_path: Path) -> None:
    """An archive that was written to a pipe, with sizes only after the data, is read like any other."""
    path = tmp_path / "piped-1.0-py3-none-any.whl"
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as sink, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr(member("piped/a"), b"first")
        written.writestr(member("piped/b"), b"second")
    with os.fdopen(reading, "rb") as source:
        path.write_bytes(source.read())
    with opened(str(path)) as wheel:
        assert content(wheel, "piped/a") == b"first"
        assert content(wheel, "piped/b") == b"second"


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\5\6" + b"\0" * 10, b"\x1f\x8b" + b"\0" * 100])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    """A file that is not a zip is refused as that."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(data)
    assert "not a zip file" in refusal(str(path))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A wheel cut short at any byte is refused."""
    path = Path(build_wheel(tmp_path, compression=zipfile.ZIP_STORED))
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert "not a zip file" in refusal(str(path))


def test_members_before_the_beginning_are_refused(tmp_path: Path) -> None:
    """An archive whose end record shifts its members out of the file is refused."""
    path = build_wheel(tmp_path)
    data = bytearray(Path(path).read_bytes())
    end = data.rindex(b"PK\5\6")
    data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"
    Path(path).write_bytes(data)
    assert "lies outside of the archive" in refusal(path)


def test_bytes_before_the_archive_do_no_harm(tmp_path: Path) -> None:
    """Something may stand before the archive; offsets count from where the archive begins."""
    path = Path(build_wheel(tmp_path))
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    with opened(str(path)) as wheel:
        assert content(wheel, "demo/__init__.py") == b"__version__ = '1.0'\n"


BAD_NAMES = {
    "../evil": "leads out",
    "demo/../../evil": "leads out",
    "demo/..": "leads out",
    "/etc/passwd": "absolute",
    "C:/evil": "absolute",
    "c:evil": "absolute",
    "demo\\evil": "backslash",
    "..\\evil": "backslash",
    "\\\\server\\share": "backslash",
    "demo//evil": "empty component",
    "demo/./evil": "empty component",
    "./evil": "empty component",
    "demo/": "empty component",
    "": "empty component",
    ".": "empty component",
    "demo/" + "x" * 256: "too long",
    "demo/" + "ä" * 128: "too long",
    "demo/" * 900 + "x": "nested too deeply",
    ("x" * 200 + "/") * 11 + "x": "too long",
    "demo/evil\n.py": "control character",
    "demo/evil\x7f.py": "control character",
    "demo/evil\u2028.py": "control character",
    "demo/evil\0.py": "NUL",
}


@pytest.mark.parametrize(("name", "problem"), BAD_NAMES.items(), ids=range(len(BAD_NAMES)))
def test_names_that_lead_elsewhere_are_refused(name: str, problem: str) -> None:
    """Paths that are absolute, lead upwards, or mean something else somewhere are refused, each for its reason."""
    assert problem in (check_path(name) or "")


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name and "\0" not in name and name != "demo/"])
def test_archives_with_such_names_are_refused(tmp_path: Path, name: str) -> None:
    """An archive with one such name is refused as a whole, before anything is read from it."""
    path = build_wheel(tmp_path, members=[(member(name), b"")])
    assert "a file name" in refusal(path)


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    """The part of a name after a NUL is not overlooked, as zipfile would have it."""
    path = build_wheel(tmp_path, members=[(member("demo/evil@.py"), b"")])
    tamper(path, b"demo/evil@.py", b"demo/evil\0.py")
    assert refusal(path) == "a file name has a NUL: `demo/evil\\x00.py`"


@pytest.mark.parametrize(
    "name", ["demo/" + "x" * 255, "demo/" + "ä" * 127, "a", "demo/..x", "demo/...", "demo/x y+z~$", "ü/é"]
)
def test_odd_but_harmless_names_pass(name: str) -> None:
    """Names that are merely unusual are no reason to refuse a wheel; of dots at the end Windows makes another name."""
    assert (check_path(name) is None) == (name != "demo/..." or not native.RESTRICTS_NAMES)


@pytest.mark.parametrize(
    "name", ["con", "demo/NUL.txt", "demo/com1", "demo/lpt9.x", "demo/x.", "demo/x ", "demo/a:b", "a?"]
)
def test_names_that_are_odd_on_windows_are_refused_there_only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Device names and what Windows cuts off or reserves are refused on Windows and fine elsewhere."""
    monkeypatch.setattr(archive.native, "RESTRICTS_NAMES", False)
    monkeypatch.setattr(archive.native, "is_possible_name", lambda part: True)
    assert check_path(name) is None
    monkeypatch.setattr(archive.native, "RESTRICTS_NAMES", True)
    monkeypatch.setattr(archive.native, "is_possible_name", windows_names.is_possible_name)
    assert check_path(name) == "a file name cannot be used on Windows"
    assert check_path("demo/console.py") is None


@given(st.text())
def test_no_path_that_passes_leaves_its_directory(path: str) -> None:
    """Whatever path passes, it lies below the directory it is joined to."""
    if check_path(path) is None:
        assert paths.normpath(os.path.join("/base", path)) == "/base/" + path


def test_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    """A name that claims to be UTF-8 but is not is refused."""
    path = build_wheel(tmp_path, members=[(member("demo/ä"), b"")])
    tamper(path, "demo/ä".encode(), b"demo/\xff\xff")
    assert "not UTF-8" in refusal(path)


def test_names_in_unknown_encodings_are_refused(tmp_path: Path) -> None:
    """A name that is neither ASCII nor marked as UTF-8 could mean anything and is refused."""
    path = build_wheel(tmp_path, members=[(member("demo/ä"), b"")])
    patch_member(path, "demo/ä", flags=0)
    assert "neither ASCII nor marked" in refusal(path)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (stat.S_IFIFO, "pipe"),
        (stat.S_IFBLK, "special file"),
        (stat.S_IFCHR, "special file"),
        (stat.S_IFSOCK, "special file"),
        (stat.S_IFDIR, "directory"),
    ],
)
def test_special_files_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    """What is neither a plain file nor a symbolic link is refused."""
    path = build_wheel(tmp_path, members=[(member("demo/link", kind=kind), b"/etc/passwd")])
    assert refusal(path) == f"`demo/link` is a {word}; only plain files are allowed"


def test_a_symbolic_link_is_a_plain_file_with_its_target_for_content(tmp_path: Path) -> None:
    """So pip and uv take it, and nothing is ever followed."""
    path = build_wheel(tmp_path, members=[(member("demo/link", kind=stat.S_IFLNK), b"/etc/passwd")])
    with opened(path) as wheel:
        assert wheel.links == ("demo/link",)
        assert content(wheel, "demo/link") == b"/etc/passwd"


def test_a_symbolic_link_that_poses_as_a_directory_is_refused(tmp_path: Path) -> None:
    """A slash at the end of its name does not get a symbolic link through."""
    path = build_wheel(tmp_path, members=[(member("demo/link/", kind=stat.S_IFLNK, method=0), b"")])
    assert "symbolic link" in refusal(path)


def test_a_directory_with_content_is_refused(tmp_path: Path) -> None:
    """A directory that has bytes is refused."""
    path = build_wheel(tmp_path, members=[(member("demo/", kind=stat.S_IFDIR, method=0), b"bytes")])
    assert "has content" in refusal(path)


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000])
def test_encrypted_members_are_refused(tmp_path: Path, flag: int) -> None:
    """Encrypted members are refused."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo/__init__.py", flags=flag)
    assert refusal(path) == "`demo/__init__.py` is encrypted"


def test_a_local_header_that_alone_says_encrypted_is_refused(tmp_path: Path) -> None:
    """The local header's flags count, too."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo/__init__.py", flags=1, central=False)
    assert refusal(path, "demo/__init__.py") == "`demo/__init__.py` is encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(tmp_path: Path, method: int) -> None:
    """Only stored and deflated members are read."""
    assert f"by method {method}" in refusal(build_wheel(tmp_path, compression=method))


def test_two_members_of_one_name_and_different_contents_are_refused(tmp_path: Path) -> None:
    """A name may stand for one content only."""
    path = build_wheel(tmp_path, members=[(member("demo/__init__.py"), b"evil")])
    assert refusal(path) == "it has `demo/__init__.py` twice, with different contents"


def test_a_member_may_come_twice_with_one_content(tmp_path: Path) -> None:
    """The last counts; whoever reads it is told of the other, to compare the two."""
    path = build_wheel(tmp_path, files={"demo/a": "a"}, members=[(member("demo/a", mode=0o755), b"a")])
    with opened(path) as wheel:
        (repeated,) = wheel.repeated
        assert (repeated.name, repeated.executable) == ("demo/a", False)
        assert wheel.members["demo/a"].executable


@pytest.mark.parametrize(
    ("one", "other"),
    [("demo/a.py", "demo/A.py"), ("Demo/a.py", "demo/a.py"), ("demo/ß", "demo/SS"), ("demo/x", "demo/X/y/z")],
)
def test_names_that_some_filesystems_do_not_tell_apart_pass(tmp_path: Path, one: str, other: str) -> None:
    """Two names that differ in case or Unicode form only are two names in an archive."""
    with opened(build_wheel(tmp_path, files={one: "", other: ""})) as wheel:
        assert {one, other} <= set(wheel.members)


@pytest.mark.parametrize(("file", "other"), [("demo", "demo/x"), ("demo/x/y/z", "demo/x")])
def test_a_file_where_another_needs_a_directory_is_refused(tmp_path: Path, file: str, other: str) -> None:
    """A path cannot be a file and a directory."""
    assert "is both a file and a directory" in refusal(build_wheel(tmp_path, files={file: "", other: ""}))


def test_a_file_and_an_empty_directory_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nor if the directory is an empty member."""
    path = build_wheel(tmp_path, files={"demo/x": ""}, members=[(member("demo/x/", kind=stat.S_IFDIR, method=0), b"")])
    assert "is both a file and a directory" in refusal(path)


@given(st.lists(st.text("aAbß/", min_size=1, max_size=6), unique=True))
def test_collisions_are_found_exactly(names: list[str]) -> None:
    """A set of paths is refused exactly if one of them is a parent of another."""
    names = [name for name in names if check_path(name) is None]
    collide = any(b.startswith(a + "/") for a in names for b in names)
    assert (find_collision(names) is not None) == collide


def test_another_name_in_the_local_header_is_refused(tmp_path: Path) -> None:
    """The central directory and the local header have to agree on the name, or tools would see different files."""
    path = build_wheel(tmp_path)
    tamper(path, b"demo/__init__.py", b"demo/__evil__.py", count=1)
    assert "another name" in refusal(path, "demo/__init__.py")


def test_another_method_in_the_local_header_is_refused(tmp_path: Path) -> None:
    """They have to agree on the compression method, too."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo/__init__.py", method=0, central=False)
    assert "another compression method" in refusal(path, "demo/__init__.py")


def test_a_damaged_local_header_is_refused(tmp_path: Path) -> None:
    """A member whose local header is not one is refused."""
    path = build_wheel(tmp_path)
    tamper(path, b"PK\3\4", b"PK\3\5", count=1)
    assert "damaged local header" in refusal(path, "demo/__init__.py")


@pytest.mark.parametrize("data", [b"x" * 1000, b"x" * 10 * PIECE, NOISE])
@pytest.mark.parametrize("missing", [1, 500])
def test_a_member_with_more_than_it_declares_is_refused(tmp_path: Path, data: bytes, missing: int) -> None:
    """Inflating stops at the declared size plus one."""
    path = build_wheel(tmp_path, files={"demo/bomb": data})
    patch_member(path, "demo/bomb", size=len(data) - missing)
    assert refusal(path, "demo/bomb") == f"`demo/bomb` holds more than the {len(data) - missing} bytes it declares"


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """A member that inflates to a thousand times its declared size yields no more than what it declares."""
    path = build_wheel(tmp_path, files={"demo/bomb": b"\0" * 300 * PIECE})
    patch_member(path, "demo/bomb", size=2 * PIECE)
    got: list[int] = []
    with pytest.raises(WheelError), opened(path) as wheel:
        got.extend(map(len, wheel.pieces(wheel.members["demo/bomb"])))
    assert sum(got) <= 2 * PIECE


@pytest.mark.parametrize("data", [b"", b"x" * 1000, b"x" * 10 * PIECE])
def test_a_member_with_less_than_it_declares_is_refused(tmp_path: Path, data: bytes) -> None:
    """A member that ends early is refused."""
    path = build_wheel(tmp_path, files={"demo/x": data})
    patch_member(path, "demo/x", size=len(data) + 10)
    assert "is cut short" in refusal(path, "demo/x")


def test_a_deflated_member_that_does_not_end_is_refused(tmp_path: Path) -> None:
    """A member whose compressed data are cut off is refused even if all declared bytes came out."""
    path = build_wheel(tmp_path, files={"demo/x": NOISE[:1000]})
    with opened(path) as wheel:
        compressed = wheel.members["demo/x"].compressed
    patch_member(path, "demo/x", compressed=compressed - 3)
    assert "is cut short" in refusal(path, "demo/x")


def test_damaged_compressed_data_are_refused(tmp_path: Path) -> None:
    """Bytes that are no deflate stream are refused."""
    path = build_wheel(tmp_path, files={"demo/x": "hello " * 100})
    with opened(path) as wheel:
        start = wheel.members["demo/x"].offset + 30 + len("demo/x")
    data = bytearray(Path(path).read_bytes())
    data[start] = 0xFF
    Path(path).write_bytes(data)
    assert "`demo/x` is damaged" in refusal(path, "demo/x")


def test_a_stored_member_with_two_sizes_is_refused(tmp_path: Path) -> None:
    """What is stored has one size."""
    path = build_wheel(tmp_path, compression=zipfile.ZIP_STORED)
    patch_member(path, "demo/__init__.py", size=1)
    assert "declares 1" in refusal(path)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """Two members may not share bytes: that is how small archives inflate to petabytes."""
    path = build_wheel(tmp_path, files={"demo/a": b"x" * 1000, "demo/b": b"y" * 1000})
    patch_member(path, "demo/a", compressed=10_000)
    assert "overlaps what follows it" in refusal(path)


def test_two_members_at_one_place_are_refused(tmp_path: Path) -> None:
    """Two names for one local header overlap."""
    path = build_wheel(tmp_path, files={"demo/a": b"x", "demo/b": b"y"})
    with opened(path) as wheel:
        offset = wheel.members["demo/a"].offset
    patch_member(path, "demo/b", offset=offset)
    assert "overlaps what follows it" in refusal(path)


def test_a_member_that_reaches_into_the_next_by_its_extra_field_is_refused(tmp_path: Path) -> None:
    """The length of the local extra field counts for the overlap, too."""
    path = build_wheel(tmp_path, files={"demo/a": b"x", "demo/b": b"y"})
    data = bytearray(Path(path).read_bytes())
    start = data.index(b"demo/a") - 2
    data[start : start + 2] = b"\xff\x00"
    Path(path).write_bytes(data)
    assert "overlaps what follows it" in refusal(path, "demo/a")


def test_a_wrong_crc_is_noticed_where_nothing_else_would_notice(tmp_path: Path) -> None:
    """RECORD, which no RECORD vouches for, is checked by its CRC."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo-1.0.dist-info/RECORD", crc=1)
    with opened(path) as wheel, pytest.raises(WheelError, match="CRC"):
        wheel.read(wheel.members["demo-1.0.dist-info/RECORD"])


def test_metadata_of_absurd_size_are_not_read(tmp_path: Path) -> None:
    """What is read whole has a bound."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo-1.0.dist-info/RECORD", size=READ_LIMIT + 1)
    with opened(path) as wheel, pytest.raises(WheelError, match="more than makes sense"):
        wheel.read(wheel.members["demo-1.0.dist-info/RECORD"])


def test_messages_do_not_act_on_the_terminal() -> None:
    """Control characters of a name are escaped in messages."""
    assert printable("a\x1b[31mä\n") == "a\\x1b[31mä\\n"
