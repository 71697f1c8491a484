"""Build wheels for tests: sound ones with one call, hostile ones with a few more arguments.

    path = build_wheel(tmp_path, "demo", "1.0", {"demo/__init__.py": "x = 1\\n"})
    wanted = artifact(path)                       # an Artifact with its sha256 and path
    tamper(path, b"demo/__init__.py", b"demo/__init__.xy", count=1)

The same arguments give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from envsync.lockfile.target import Artifact

TIME = (2020, 1, 1, 0, 0, 0)

Rows = list[tuple[str, str, str]]
"""The lines of RECORD: path, hash, size."""
Content = str | bytes


def build_wheel(
    directory: str | os.PathLike[str],
    name: str = "demo",
    version: str = "1.0",
    files: Mapping[str, Content] | None = None,
    *,
    entry_points: Mapping[str, Mapping[str, str]] | str | None = None,
    data: Mapping[str, Content] | None = None,
    tag: str = "py3-none-any",
    root_is_purelib: bool = True,
    record: Content | Callable[[Rows], Iterable[tuple[str, str, str]]] | None = None,
    executable: Collection[str] = (),
    metadata: Content | None = None,
    wheel: Content | None = None,
    requires: Iterable[str] = (),
    dist_info: str | None = None,
    dist_info_files: Mapping[str, Content] | None = None,
    omit: Collection[str] = (),
    members: Iterable[tuple[zipfile.ZipInfo, bytes]] = (),
    compression: int = zipfile.ZIP_DEFLATED,
    filename: str | None = None,
) -> str:
    """Build a wheel and return its path, with slashes.

    :param files: by path in the archive; by default a package with an `__init__.py` that has the version
    :param entry_points: by section, or the text of entry_points.txt
    :param data: by path below the .data directory, as in "scripts/tool"
    :param record: RECORD's text instead of the right one, or a function from the right lines to others
    :param executable: paths in the archive
    :param metadata: the text of METADATA instead of the right one; as `wheel` for WHEEL
    :param requires: Requires-Dist lines
    :param dist_info: another name for the .dist-info directory
    :param dist_info_files: further files for it
    :param omit: paths in the archive that are left out, though RECORD lists them
    :param members: added at the end as they are, not listed in RECORD
    :param filename: another file name
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = dist_info or f"{stem}.dist-info"
    contents = {
        path: _bytes(content) for path, content in (_default(name, version) if files is None else files).items()
    }
    contents.update({f"{stem}.data/{path}": _bytes(content) for path, content in (data or {}).items()})
    requirements = "".join(f"Requires-Dist: {line}\n" for line in requires)
    contents[f"{info}/METADATA"] = _bytes(
        metadata if metadata is not None else f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}"
    )
    contents[f"{info}/WHEEL"] = _bytes(wheel if wheel is not None else wheel_text(tag, root_is_purelib=root_is_purelib))
    if entry_points is not None:
        contents[f"{info}/entry_points.txt"] = _bytes(_entry_points(entry_points))
    contents.update({f"{info}/{path}": _bytes(content) for path, content in (dist_info_files or {}).items()})
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD", record)
    target = Path(directory, filename or f"{stem}-{tag}.whl").as_posix()
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in contents.items():
            if path not in omit:
                archive.writestr(member(path, mode=0o755 if path in executable else 0o644, method=compression), content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of duplicate names
            for zipinfo, content in members:
                archive.writestr(zipinfo, content)
    return target


def member(
    path: str, *, mode: int = 0o644, kind: int = stat.S_IFREG, method: int = zipfile.ZIP_DEFLATED
) -> zipfile.ZipInfo:
    """Describe a member of an archive.

    :param kind: the file type bits, as `stat.S_IFLNK`
    """
    info = zipfile.ZipInfo(path, TIME)
    info.external_attr = (kind | mode) << 16
    info.compress_type = method
    info.create_system = 3
    return info


def wheel_text(tag: str = "py3-none-any", *, version: str = "1.0", root_is_purelib: bool = True) -> str:
    """Return the text of a WHEEL file."""
    purelib = "true" if root_is_purelib else "false"
    return f"Wheel-Version: {version}\nGenerator: tests\nRoot-Is-Purelib: {purelib}\nTag: {tag}\n"


def row(path: str, content: Content, algorithm: str = "sha256") -> tuple[str, str, str]:
    """Return the right line of RECORD for a file."""
    data = _bytes(content)
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return path, f"{algorithm}={digest}", str(len(data))


def artifact(path: str | os.PathLike[str], /, **changes: Any) -> Artifact:
    """Describe a local wheel as a lock file with its sha256 would.

    :param changes: fields of `Artifact` that shall be different
    """
    filename = os.path.basename(os.fspath(path))
    name, version = filename.split("-")[:2]
    plain = Artifact(
        name=name.replace("_", "-").replace(".", "-").lower(),
        version=version,
        filename=filename,
        hashes={"sha256": sha256_of(path)},
        path=os.path.abspath(os.fspath(path)).replace("\\", "/"),  # as paths are written everywhere
        locked=(("sha256", sha256_of(path)),),
    )
    return plain._replace(**changes)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tamper(path: str, old: bytes, new: bytes, *, count: int | None = None, last: bool = False) -> None:
    """Replace bytes in a file by as many others.

    :param count: how many of the occurrences; by default all
    :param last: replace the last occurrence only
    """
    assert len(old) == len(new)
    with open(path, "rb") as stream:
        data = stream.read()
    assert old in data
    if last:
        head, _, tail = data.rpartition(old)
        data = head + new + tail
    else:
        data = data.replace(old, new, -1 if count is None else count)
    with open(path, "wb") as stream:
        stream.write(data)


_CENTRAL = {"flags": (8, "H"), "method": (10, "H"), "crc": (16, "I"), "compressed": (20, "I"), "size": (24, "I")}
_CENTRAL |= {"attributes": (38, "I"), "offset": (42, "I")}
_LOCAL = {"flags": (6, "H"), "method": (8, "H"), "crc": (14, "I"), "compressed": (18, "I"), "size": (22, "I")}


def patch_member(path: str, name: str, *, local: bool = True, central: bool = True, **fields: int) -> None:
    """Change fields of a member's headers: flags, method, crc, compressed, size, attributes, offset."""
    with open(path, "rb") as stream:
        data = bytearray(stream.read())
    encoded = name.encode()
    for signature, wanted, known, size in ((b"PK\1\2", central, _CENTRAL, 46), (b"PK\3\4", local, _LOCAL, 30)):
        start = data.find(encoded)
        while start >= 0 and data[start - size : start - size + 4] != signature:
            start = data.find(encoded, start + 1)
        assert start >= 0
        for field, value in fields.items() if wanted else ():
            if field in known:
                offset, kind = known[field]
                struct.pack_into(f"<{kind}", data, start - size + offset, value)
    with open(path, "wb") as stream:
        stream.write(data)


def _default(name: str, version: str) -> Mapping[str, Content]:
    return {f"{name.replace('-', '_')}/__init__.py": f"__version__ = {version!r}\n"}


def _bytes(content: Content) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _entry_points(entry_points: Mapping[str, Mapping[str, str]] | str) -> str:
    if isinstance(entry_points, str):
        return entry_points
    return "\n".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for section, entries in entry_points.items()
    )


def _record(
    contents: Mapping[str, bytes], own: str, record: Content | Callable[[Rows], Iterable[tuple[str, str, str]]] | None
) -> bytes:
    if isinstance(record, str | bytes):
        return _bytes(record)
    rows = [row(path, content) for path, content in contents.items()] + [(own, "", "")]
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows if record is None else record(rows))
    return stream.getvalue().encode()
