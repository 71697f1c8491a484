"""Unpacking one wheel: the entry and manifest that come of it, and every wheel that is refused."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError, WheelError
from envsync.system import core, native
from envsync.wheel import manifest as manifests
from envsync.wheel.archive import PIECE
from envsync.wheel.manifest import Manifest, Script
from envsync.wheel.unpack import unpack
from tests.wheels import build_wheel, member, patch_member, row, sha256_of, tamper, wheel_text

INFO = "demo-1.0.dist-info"
SECOND = 1_700_000_000
"""That the files get."""


def unpacked(path: str, directory: Path, **options: Any) -> Manifest:
    directory.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        chosen = {"second_for": lambda _: SECOND, **options}
        return unpack(descriptor, os.path.basename(path), sha256_of(path), str(directory), **chosen)
    finally:
        os.close(descriptor)


def refusal(path: str, directory: Path) -> str:
    with pytest.raises(WheelError) as caught:
        unpacked(path, directory / "entry")
    assert caught.value.wheel == os.path.basename(path)
    return caught.value.problem


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def record_of(text: str) -> dict[str, tuple[str, str]]:
    return {path: (digest, size) for path, digest, size in csv.reader(text.splitlines())}


FULL: Mapping[str, Any] = {
    "files": {"demo/__init__.py": "x = 1\n", "demo/sub/mod.py": "", "demo/tool.sh": "#!/bin/sh\n", "top.py": "y = 2\n"},
    "entry_points": {"console_scripts": {"demo": "demo:main"}, "gui_scripts": {"demo-gui": "demo.gui:App.run"}},
    "data": {
        "scripts/tool": "#!python -u\nprint(1)\n",
        "scripts/plain": "#!/bin/sh\n",
        "data/share/demo/x.txt": "x",
        "headers/demo.h": "",
        "platlib/demo_native/a.so": b"\x7fELF",
    },
    "executable": ["demo/tool.sh"],
}


@pytest.mark.skipif(native.RESTRICTS_NAMES, reason="Windows has no such names")
def test_a_pure_wheel_makes_a_complete_entry(tmp_path: Path) -> None:
    """A wheel of plain modules needs nothing from the environment: its entry has the final RECORD."""
    path = build_wheel(tmp_path, files={"demo/__init__.py": "x = 1\n", 'demo/a,"b".py': "", "demo/ü.py": ""})
    manifest = unpacked(path, tmp_path / "entry")
    entry = tree(tmp_path / "entry")
    assert manifest.complete
    assert (manifest.name, manifest.version, manifest.root, manifest.dist_info) == ("demo", "1.0", "purelib", INFO)
    assert (manifest.sha256, manifest.filename) == (sha256_of(path), os.path.basename(path))
    assert (manifest.scripts, manifest.rewrite) == ((), ())
    assert set(entry) == {
        "manifest.json",
        "purelib/demo/__init__.py",
        'purelib/demo/a,"b".py',
        "purelib/demo/ü.py",
        *(f"purelib/{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "INSTALLER", "REQUESTED")),
    }
    assert entry[f"purelib/{INFO}/INSTALLER"] == b"envsync\n"
    assert entry[f"purelib/{INFO}/REQUESTED"] == b""
    assert manifests.load(entry["manifest.json"]) == manifest


@pytest.mark.skipif(native.RESTRICTS_NAMES, reason="Windows has no such names")
def test_the_record_of_a_complete_entry_is_exact(tmp_path: Path) -> None:
    """It lists every file with sha256 and size, itself without, sorted, and equals what the manifest says."""
    manifest = unpacked(build_wheel(tmp_path, files={"demo/b.py": "b", 'demo/a,"b".py': "a"}), tmp_path / "entry")
    entry = tree(tmp_path / "entry" / "purelib")
    text = entry[f"{INFO}/RECORD"].decode()
    lines = record_of(text)
    assert lines.pop(f"{INFO}/RECORD") == ("", "")
    assert lines == {name: row(name, data)[1:] for name, data in entry.items() if name != f"{INFO}/RECORD"}
    assert [*lines] == sorted(lines)
    assert [*manifest.record] == [("purelib", text.replace(f"{INFO}/RECORD,,\n", ""))]


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    """Directories, names, sizes and executable bits in the manifest are those on disk, sorted."""
    manifest = unpacked(build_wheel(tmp_path, **FULL), tmp_path / "entry")
    listed = {
        f"{directory.scheme}/{directory.path}/{name}".replace("//", "/"): (size, executable)
        for directory in manifest.directories
        for name, size, executable in directory.files
    }
    on_disk = {
        str(path.relative_to(tmp_path / "entry")): (path.stat().st_size, bool(path.stat().st_mode & stat.S_IXUSR))
        for path in (tmp_path / "entry").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert listed == on_disk
    assert all(list(directory.files) == sorted(directory.files) for directory in manifest.directories)
    assert [(d.scheme, d.path) for d in manifest.directories] == sorted(
        {(d.scheme, d.path) for d in manifest.directories}
    )


def test_a_wheel_with_scripts_and_data_is_described(tmp_path: Path) -> None:
    """What depends on the environment is described; the entry has no RECORD, but the manifest has its lines."""
    manifest = unpacked(build_wheel(tmp_path, **FULL), tmp_path / "entry")
    entry = tree(tmp_path / "entry")
    assert not manifest.complete
    assert f"purelib/{INFO}/RECORD" not in entry
    assert manifest.scripts == (
        Script("demo", "demo", "main", "console"),
        Script("demo-gui", "demo.gui", "App.run", "gui"),
    )
    assert manifest.rewrite == ("tool",)
    assert entry["scripts/tool"] == b"#!python -u\nprint(1)\n"
    assert entry["data/share/demo/x.txt"] == b"x"
    lines = {scheme: record_of(text) for scheme, text in manifest.record}
    assert lines["scripts"] == {"plain": row("plain", "#!/bin/sh\n")[1:]}
    assert lines["headers"] == {"demo.h": row("demo.h", "")[1:]}
    assert lines["data"] == {"share/demo/x.txt": row("x", "x")[1:]}
    assert lines["platlib"] == {"demo_native/a.so": row("x", b"\x7fELF")[1:]}
    assert lines["purelib"].keys() == {name.removeprefix("purelib/") for name in entry if name.startswith("purelib/")}


@pytest.mark.parametrize(
    ("options", "complete"),
    [
        ({}, True),
        ({"data": {"purelib/other.py": ""}}, True),
        ({"root_is_purelib": False}, True),
        ({"entry_points": {"other.group": {"x": "demo"}}}, True),
        ({"data": {"platlib/other.so": ""}}, False),
        ({"data": {"scripts/tool": "#!/bin/sh\n"}}, False),
        ({"data": {"data/x": ""}}, False),
        ({"data": {"headers/x.h": ""}}, False),
        ({"entry_points": {"console_scripts": {"demo": "demo:main"}}}, False),
    ],
)
def test_only_what_needs_nothing_of_the_environment_is_complete(
    tmp_path: Path, options: dict[str, Any], complete: bool
) -> None:
    """Scripts, rewritten files and files outside the root scheme make an entry incomplete, nothing else does."""
    manifest = unpacked(build_wheel(tmp_path, **options), tmp_path / "entry")
    assert manifest.complete == complete
    root = "purelib" if options.get("root_is_purelib", True) else "platlib"
    assert manifest.root == root
    assert (tmp_path / "entry" / root / INFO / "RECORD").exists() == complete


def test_files_are_read_only_and_of_one_time(tmp_path: Path) -> None:
    """All files are read-only, executable where they should be, and carry the second that was taken for them."""
    path = build_wheel(tmp_path, **FULL)
    manifest = unpacked(path, tmp_path / "entry")
    executable = {"purelib/demo/tool.sh", "scripts/tool", "scripts/plain"}
    for file in (tmp_path / "entry").rglob("*"):
        status = file.stat()
        if file.is_dir():
            assert status.st_mode & 0o700 == 0o700
            continue
        expected = 0o555 if str(file.relative_to(tmp_path / "entry")) in executable else 0o444
        assert stat.S_IMODE(status.st_mode) == expected
        assert status.st_mtime_ns == SECOND * 10**9 == manifest.mtime * 10**9


def test_what_the_wheel_says_of_its_installation_is_not_believed(tmp_path: Path) -> None:
    """INSTALLER, REQUESTED and direct_url.json of the wheel and bundled bytecode are left out; signatures are kept."""
    path = build_wheel(
        tmp_path,
        files={
            "demo/__init__.py": "",
            "demo/__pycache__/x.pyc": "evil",
            "demo/__pycache__/deep/y": "",
            "legacy.pyc": "",
        },
        dist_info_files={"INSTALLER": "pip\n", "REQUESTED": "yes", "direct_url.json": "{}", "licenses/LICENSE": ""},
        members=[(member(f"{INFO}/RECORD.jws"), b"{}"), (member(f"{INFO}/RECORD.p7s"), b"")],
    )
    unpacked(path, tmp_path / "entry")
    entry = tree(tmp_path / "entry" / "purelib")
    names = ("METADATA", "WHEEL", "RECORD", "INSTALLER", "REQUESTED", "licenses/LICENSE", "RECORD.jws", "RECORD.p7s")
    assert set(entry) == {"demo/__init__.py", "legacy.pyc", *(f"{INFO}/{name}" for name in names)}
    assert entry[f"{INFO}/INSTALLER"] == b"envsync\n"
    assert entry[f"{INFO}/REQUESTED"] == b""


@pytest.mark.parametrize("path", ["demo/__pycache__/x.pyc", f"{INFO}/INSTALLER"])
def test_what_is_left_out_is_verified_all_the_same(tmp_path: Path, path: str) -> None:
    """A wheel is sound as a whole or not at all."""
    files = {"demo/__init__.py": "", path: "right"}
    wheel = build_wheel(tmp_path, files=files, compression=zipfile.ZIP_STORED)
    tamper(wheel, b"right", b"wrong")
    assert refusal(wheel, tmp_path) == f"`{path}` does not have the hash that its RECORD says"


def test_an_entry_point_replaces_a_script_of_its_name(tmp_path: Path) -> None:
    """As with pip, a script that has the name of an entry point is not installed: the entry point is."""
    path = build_wheel(
        tmp_path, entry_points={"console_scripts": {"demo": "demo:main"}}, data={"scripts/demo": "#!python\n"}
    )
    manifest = unpacked(path, tmp_path / "entry")
    assert manifest.scripts == (Script("demo", "demo", "main", "console"),)
    assert manifest.rewrite == ()
    assert not (tmp_path / "entry" / "scripts").exists()


def test_names_and_versions_are_normalized(tmp_path: Path) -> None:
    """The manifest has the normalized name and version, however file name, .dist-info and METADATA write them."""
    path = build_wheel(
        tmp_path,
        "Demo.Pkg",
        "1.0.post1",
        {"x.py": ""},
        filename="demo_pkg-1.0.post1-py3-none-any.whl",
        dist_info="Demo.Pkg-1.0.POST1.dist-info",
        metadata="Metadata-Version: 2.1\nName: DEMO_PKG\nVersion: 1.0-1\n\nText\n",
    )
    manifest = unpacked(path, tmp_path / "entry")
    assert (manifest.name, manifest.version) == ("demo-pkg", "1.0.post1")
    assert manifest.dist_info == "Demo.Pkg-1.0.POST1.dist-info"


def test_the_data_directory_is_found_by_what_is_in_the_archive(tmp_path: Path) -> None:
    """A .data directory may be spelt otherwise than the .dist-info directory."""
    files = {"x.py": "", "Demo_Pkg-1.0.0.data/scripts/tool": "#!/bin/sh\n"}
    path = build_wheel(tmp_path, "demo-pkg", "1.0", files)
    unpacked(path, tmp_path / "entry")
    assert (tmp_path / "entry" / "scripts" / "tool").exists()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "sha3_256", "blake2b"])
def test_stronger_hashes_are_verified_and_sha256_is_written(tmp_path: Path, algorithm: str) -> None:
    """A wheel's RECORD may use any strong algorithm; ours uses sha256."""

    def strong(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        contents = {"demo/__init__.py": "x", f"{INFO}/WHEEL": wheel_text()}
        return [row(path, contents[path], algorithm) if path in contents else (path, *rest) for path, *rest in rows]

    path = build_wheel(tmp_path, files={"demo/__init__.py": "x"}, record=strong)
    manifest = unpacked(path, tmp_path / "entry")
    assert record_of(dict(manifest.record)["purelib"])["demo/__init__.py"] == row("x", "x")[1:]
    bad = build_wheel(tmp_path, files={"demo/__init__.py": "y"}, record=strong, filename="demo-1.0-1-py3-none-any.whl")
    with pytest.raises(WheelError, match="does not have the hash"):
        unpacked(bad, tmp_path / "other")


def changed(path: str, *fields: str) -> Callable[[Iterable[tuple[str, str, str]]], list[tuple[str, ...]]]:
    """Return a function that replaces one line of RECORD."""
    return lambda rows: [(path, *fields) if line[0] == path else line for line in rows]


RECORD_VARIANTS = {
    "padded": lambda rows: [(path, digest + "=" if digest else "", size) for path, digest, size in rows],
    "without its own line": lambda rows: rows[:-1],
    "with its own hash": lambda rows: [*rows[:-1], row(f"{INFO}/RECORD", "whatever")],
    "without sizes": lambda rows: [(path, digest, "") for path, digest, _ in rows],
    "with backslashes": lambda rows: [(path.replace("/", "\\"), digest, size) for path, digest, size in rows],
    "repeated": lambda rows: [*rows, rows[0]],
    "reversed": lambda rows: rows[::-1],
}


@pytest.mark.parametrize("variant", RECORD_VARIANTS)
def test_harmless_deviations_of_record_pass(tmp_path: Path, variant: str) -> None:
    """RECORDs that are unusual but say the right thing are accepted, and ours comes out the same."""
    usual = unpacked(build_wheel(tmp_path), tmp_path / "usual")
    odd = unpacked(build_wheel(tmp_path, record=RECORD_VARIANTS[variant]), tmp_path / "odd")
    assert odd.record == usual.record


def test_line_endings_and_empty_lines_of_record_do_not_matter(tmp_path: Path) -> None:
    """RECORD may have CRLF and empty lines, and list a directory that has a member."""
    text = "\r\n".join(
        [
            ",".join(row("demo/x.py", "x")),
            ",".join(row("demo/", "")),
            "",
            ",".join(row(f"{INFO}/METADATA", "Name: demo\nVersion: 1.0\n")),
            ",".join(row(f"{INFO}/WHEEL", wheel_text())),
            f"{INFO}/RECORD,,",
            "",
        ]
    )
    path = build_wheel(
        tmp_path,
        files={"demo/x.py": "x"},
        metadata="Name: demo\nVersion: 1.0\n",
        record=text,
        members=[(member("demo/", kind=stat.S_IFDIR, method=0), b"")],
    )
    assert unpacked(path, tmp_path / "entry").complete


BAD_RECORDS: dict[str, tuple[Any, str]] = {
    "unlisted": (lambda rows: [line for line in rows if line[0] != "demo/a.py"], "`demo/a.py` is not in its RECORD"),
    "absent": (lambda rows: [*rows, row("demo/ghost.py", "")], "lists `demo/ghost.py`, which it does not have"),
    "outside": (lambda rows: [*rows, row("../ghost.py", "")], "lists `../ghost.py`, which it does not have"),
    "wrong hash": (changed("demo/a.py", *row("", "b")[1:]), "`demo/a.py` does not have the hash"),
    "malformed hash": (changed("demo/a.py", "sha256=?", "1"), "`demo/a.py` does not have the hash"),
    "wrong hash in hex": (
        changed("demo/a.py", f"sha256={hashlib.sha256(b'b').hexdigest()}", "1"),
        "`demo/a.py` does not have the hash",
    ),
    "wrong hash of METADATA": (changed(f"{INFO}/METADATA", row("", "")[1], ""), "METADATA` does not have the hash"),
    "wrong size": (changed("demo/a.py", row("", "a")[1], "2"), "`demo/a.py` has 1 bytes, but its RECORD says 2"),
    "no number": (changed("demo/a.py", row("", "a")[1], "-1"), "says `demo/a.py` has size '-1'"),
    "no hash": (changed("demo/a.py", "", "1"), "no hash for `demo/a.py`"),
    "md5": (changed("demo/a.py", *row("", "a", "md5")[1:]), "md5 hash for `demo/a.py`; sha256 or better"),
    "sha1": (changed("demo/a.py", *row("", "a", "sha1")[1:]), "sha1 hash for `demo/a.py`; sha256 or better"),
    "unknown hash": (changed("demo/a.py", "crc32=AAAA", "1"), "crc32 hash for `demo/a.py`"),
    "contradiction": (lambda rows: [*rows, row("demo/a.py", "b")], "lists `demo/a.py` twice"),
    "four fields": (lambda rows: [*rows, ("a", "b", "c", "d")], "has 4 fields, not 3"),
    "one field": ("demo/a.py\n", "has 1 fields, not 3"),
    "not UTF-8": (b"\xff,,\n", "its RECORD cannot be used"),
    "open quote": (b'"demo/a.py,,\n', "its RECORD cannot be used"),
    "NUL": (b"demo/a\0.py,,\n", "is not in its RECORD"),
    "empty": ("", "is not in its RECORD"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_record_that_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    """RECORD has to list every file, and nothing else, with its right, strong hash and its right size."""
    record, problem = BAD_RECORDS[case]
    assert problem in refusal(build_wheel(tmp_path, files={"demo/a.py": "a"}, record=record), tmp_path)


@pytest.mark.parametrize("size", [5, PIECE + 5, 5 * PIECE])
def test_changed_bytes_are_noticed(tmp_path: Path, size: int) -> None:
    """A file whose bytes are not those of RECORD is refused, small or large."""
    path = build_wheel(tmp_path, files={"demo/a.py": b"a" * (size - 5) + b"right"}, compression=zipfile.ZIP_STORED)
    tamper(path, b"right", b"wrong")
    assert refusal(path, tmp_path) == "`demo/a.py` does not have the hash that its RECORD says"


@pytest.mark.parametrize("name", ["WHEEL", "METADATA", "RECORD"])
def test_a_wheel_without_its_metadata_is_refused(tmp_path: Path, name: str) -> None:
    """WHEEL, METADATA and RECORD have to be there."""
    omitted = f"{INFO}/{name}"
    path = build_wheel(tmp_path, omit=[omitted], record=lambda rows: [line for line in rows if line[0] != omitted])
    assert refusal(path, tmp_path) == f"it has no {name}"


def test_a_wheel_without_dist_info_is_refused(tmp_path: Path) -> None:
    """There has to be a .dist-info directory."""
    path = build_wheel(tmp_path, dist_info="demo")
    assert refusal(path, tmp_path) == "it has no .dist-info directory"


def test_a_wheel_with_several_dist_infos_is_refused(tmp_path: Path) -> None:
    """There may not be two."""
    path = build_wheel(tmp_path, files={"other-1.0.dist-info/METADATA": ""})
    assert "several .dist-info directories: `other-1.0.dist-info` and `demo-1.0.dist-info`" in refusal(path, tmp_path)


@pytest.mark.parametrize("scheme", ["purelib", "platlib"])
def test_a_second_dist_info_by_the_back_door_is_refused(tmp_path: Path, scheme: str) -> None:
    """Nor may one come by way of the .data directory."""
    path = build_wheel(tmp_path, data={f"{scheme}/other-1.0.dist-info/METADATA": ""})
    assert "several .dist-info directories" in refusal(path, tmp_path)


@pytest.mark.parametrize(
    "dist_info", ["other-1.0.dist-info", "demo-2.0.dist-info", "demo.dist-info", "demo-x.dist-info"]
)
def test_a_dist_info_of_somebody_else_is_refused(tmp_path: Path, dist_info: str) -> None:
    """The .dist-info directory has to have the name and version of the file name."""
    path = build_wheel(tmp_path, dist_info=dist_info)
    assert refusal(path, tmp_path) == f"`{dist_info}` does not fit the file name"


@pytest.mark.parametrize(
    "filename", ["demo.whl", "demo-1.0.whl", "demo-x-py3-none-any.whl", "de mo-1.0-py3-none-any.whl"]
)
def test_a_file_name_that_is_none_is_refused(tmp_path: Path, filename: str) -> None:
    """The wheel's file name has to follow the standard."""
    assert "its file name does not follow the standard" in refusal(build_wheel(tmp_path, filename=filename), tmp_path)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ("Name: other\nVersion: 1.0\n", "its METADATA says that its name is 'other'"),
        ("Name: demo\nVersion: 2.0\n", "its METADATA says that its version is '2.0'"),
        ("Name: demo\n\nVersion: 1.0\n", "its METADATA says that its version is None"),
        ("Version: 1.0\n", "its METADATA says that its name is None"),
        (b"\xff\xfe", "its METADATA says that its name is None"),
    ],
)
def test_metadata_of_somebody_else_are_refused(tmp_path: Path, metadata: str, problem: str) -> None:
    """METADATA has to agree with the file name."""
    assert refusal(build_wheel(tmp_path, metadata=metadata), tmp_path) == problem


def test_a_description_in_an_old_encoding_does_no_harm(tmp_path: Path) -> None:
    """METADATA of old wheels may have a text that is not UTF-8."""
    path = build_wheel(tmp_path, metadata=b"Name: demo\nVersion: 1.0\nAuthor: J\xf6rg\n\nSch\xf6n\n")
    assert unpacked(path, tmp_path / "entry").version == "1.0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (wheel_text(version="2.0"), "it has version 2.0 of the wheel format"),
        (wheel_text(version="10.1"), "it has version 10.1 of the wheel format"),
        (wheel_text(version="x"), "does not say which version"),
        ("Root-Is-Purelib: true\n", "does not say which version"),
        ("", "does not say which version"),
        (b"\xff", "its WHEEL is not UTF-8"),
    ],
)
def test_wheels_of_another_format_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """Version 1 of the wheel format is the newest that is known."""
    assert problem in refusal(build_wheel(tmp_path, wheel=text), tmp_path)


@pytest.mark.parametrize("version", ["0.1", "0.9", "00.1"])
def test_older_versions_of_the_format_pass(tmp_path: Path, version: str) -> None:
    """The standard says to fail only if the major version is greater than what is known. WHEEL stays as it is."""
    text = wheel_text(version=version, root_is_purelib=False)
    assert unpacked(build_wheel(tmp_path, wheel=text), tmp_path / "entry").root == "platlib"
    assert tree(tmp_path / "entry")[f"platlib/{INFO}/WHEEL"] == text.encode()


def test_a_later_minor_version_of_the_format_passes(tmp_path: Path) -> None:
    """A minor version may add what can be ignored."""
    assert unpacked(build_wheel(tmp_path, wheel=wheel_text(version="1.9")), tmp_path / "entry").complete


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"lib/x": ""}, "belongs to a scheme that does not exist"),
        ({"Scripts/x": ""}, "belongs to a scheme that does not exist"),
        ({"purelib": ""}, "in no scheme"),
        ({"x": ""}, "in no scheme"),
    ],
)
def test_data_of_unknown_schemes_are_refused(tmp_path: Path, data: dict[str, str], problem: str) -> None:
    """What is in the .data directory has to belong to a scheme."""
    assert problem in refusal(build_wheel(tmp_path, data=data), tmp_path)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"other-1.0.data/scripts/x": ""}, "`other-1.0.data` does not fit the file name"),
        ({"Demo-1.0.data/data/x": "", "demo-1.0.data/data/y": ""}, "it has several .data directories"),
    ],
)
def test_a_data_directory_of_somebody_else_is_refused(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    """There is one .data directory at most, and it is the wheel's own."""
    assert problem in refusal(build_wheel(tmp_path, files=files), tmp_path)


@pytest.mark.parametrize(
    ("files", "data"),
    [
        ({"demo/a.py": ""}, {"purelib/demo/a.py": ""}),
        ({"demo/a.py": ""}, {"platlib/demo/a.py": ""}),
        ({}, {"purelib/a.py": "", "platlib/a.py": ""}),
        ({"demo": ""}, {"platlib/demo/a.py": ""}),
        ({"demo/a/b": ""}, {"platlib/demo/a": ""}),
        ({}, {f"purelib/{INFO}/INSTALLER": ""}),
    ],
)
def test_two_members_for_one_place_are_refused(tmp_path: Path, files: dict[str, str], data: dict[str, str]) -> None:
    """No two members may end up at one place; purelib and platlib are one directory in an environment."""
    assert refusal(build_wheel(tmp_path, files=files, data=data), tmp_path).startswith("once installed, ")


@pytest.mark.parametrize(
    "data",
    [
        {"data/.lock": ""},
        {"data/.envsync/stamp": ""},
        {"data/.EnvSync/stamp": ""},
        {"data/pyvenv.cfg": ""},
        {"platlib/.envsync/x": ""},
    ],
)
def test_the_places_of_the_environment_itself_are_refused(tmp_path: Path, data: dict[str, str]) -> None:
    """A wheel cannot bring the environment's lock, stamp or configuration."""
    assert "where the environment keeps its own files" in refusal(build_wheel(tmp_path, data=data), tmp_path)


BAD_ENTRY_POINTS = {
    "[console_scripts]\ndemo = demo\n": "does not name a function",
    "[console_scripts]\ndemo = demo:\n": "does not name a function",
    "[console_scripts]\ndemo = demo:a-b\n": "does not name a function",
    "[console_scripts]\ndemo = import os; os.x:y\n": "does not name a function",
    "[gui_scripts]\ndemo =\n": "does not name a function",
    "[console_scripts]\n../evil = demo:main\n": "is not the name of a file",
    "[console_scripts]\n.. = demo:main\n": "is not the name of a file",
    "[console_scripts]\na/b = demo:main\n": "is not the name of a file",
    "[console_scripts]\na\\b = demo:main\n": "is not the name of a file",
    "[console_scripts]\na\0b = demo:main\n": "is not the name of a file",
    "[console_scripts]\n/bin/sh = demo:main\n": "is not the name of a file",
    "[console_scripts]\ndemo\n": "its entry_points.txt cannot be read",
    "demo = demo:main\n": "its entry_points.txt cannot be read",
    "[console_scripts]\na = demo:%(x)s\n": "does not name a function",
    "[console_scripts]\na = b:c\na = d:e\n": "its entry_points.txt cannot be read",
}


@pytest.mark.parametrize(("text", "problem"), BAD_ENTRY_POINTS.items(), ids=range(len(BAD_ENTRY_POINTS)))
def test_entry_points_that_cannot_become_scripts_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """An entry point has to name a function and have the name of a file."""
    assert problem in refusal(build_wheel(tmp_path, entry_points=text), tmp_path)


@pytest.mark.parametrize("first", ["console", "gui"])
def test_a_name_that_is_a_console_and_a_gui_script_is_the_latter(tmp_path: Path, first: str) -> None:
    """As pip, which writes gui scripts last, whatever comes first in the file."""
    sections = ["[console_scripts]\na = demo:console\nb = demo:b\n", "[gui_scripts]\na = demo:gui\n"]
    text = "".join(sections if first == "console" else reversed(sections))
    manifest = unpacked(build_wheel(tmp_path, entry_points=text), tmp_path / "entry")
    assert sorted(manifest.scripts) == [Script("a", "demo", "gui", "gui"), Script("b", "demo", "b", "console")]


def test_entry_points_may_name_extras(tmp_path: Path) -> None:
    """Extras after an entry point, and groups that make no scripts, are no matter."""
    text = "[console_scripts]\ndemo = demo.cli : main [color,fast]\n[demo.plugins]\nx = demo\n"
    manifest = unpacked(build_wheel(tmp_path, entry_points=text), tmp_path / "entry")
    assert manifest.scripts == (Script("demo", "demo.cli", "main", "console"),)


def test_a_member_whose_header_lies_is_refused_while_unpacking(tmp_path: Path) -> None:
    """What the archive checks only when a member is read is an error of the wheel, too."""
    path = build_wheel(tmp_path)
    patch_member(path, "demo/__init__.py", method=0, central=False)
    assert "another compression method" in refusal(path, tmp_path)


def test_a_checkpoint_ends_the_work(tmp_path: Path) -> None:
    """Whatever the checkpoint raises comes out, and no manifest has been written."""
    path = build_wheel(tmp_path, files={f"demo/{number}.py": "" for number in range(100)})
    calls = iter([None] * 50)
    with pytest.raises(StopIteration):
        unpacked(path, tmp_path / "entry", checkpoint=lambda: next(calls))
    assert len(list((tmp_path / "entry" / "purelib" / "demo").iterdir())) == 50
    assert not (tmp_path / "entry" / "manifest.json").exists()


@pytest.mark.parametrize("call", ["open", "write", "utime", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_errors_of_the_system_name_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """A full disk and its like are reported with the path that was being written."""
    if (call, code) == ("utime", errno.EACCES):
        pytest.skip("an entry goes without times where they cannot be set")
    path = build_wheel(tmp_path)
    descriptor = os.open(path, os.O_RDONLY)
    os.mkdir(tmp_path / "entry")

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    module = {"open": core, "utime": native}.get(call, os)
    monkeypatch.setattr(module, "open_file" if call == "open" else call, fail)
    with pytest.raises(FilesystemError, match=f"{tmp_path}/entry/.*{os.strerror(code)}") as caught:
        unpack(descriptor, os.path.basename(path), "0" * 64, str(tmp_path / "entry"), second_for=lambda _: SECOND)
    monkeypatch.undo()
    os.close(descriptor)
    assert caught.value.errno == code


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write less than asked; the rest follows."""
    path = build_wheel(tmp_path, files={"demo/a.py": "hello " * 1000})
    write = os.write
    monkeypatch.setattr("envsync.wheel.unpack.os.write", lambda fd, data: write(fd, data[:100]))
    unpacked(path, tmp_path / "entry")
    assert (tmp_path / "entry/purelib/demo/a.py").read_text() == "hello " * 1000
