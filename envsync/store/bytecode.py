"""The bytecode of wheels in the store, compiled once for each interpreter and linked ever after.

    <root>/v1/bytecode/<sha256>/<tag>/     of one wheel, beside its entry: made in tmp, renamed here whole, immutable
        manifest.json                      written last
        purelib/pkg/__pycache__/mod.cpython-311.pyc

The tag is the interpreter's cache tag and magic number, as in `cpython-311-a70d0d0a`: bytecode of one is good for all
interpreters that have both.

Invariants:

- Bytecode is compiled from bytes whose hash was that in the wheel's manifest, so it stays right for that wheel
  whatever becomes of the wheel's entry. It is of no use without it, and whoever removes that may remove it, too.
- It is valid by CPython's own check: the header has the source's size and mtime (PEP 552), and every way of linking
  keeps that mtime, which is the entry's own (`envsync.wheel.seconds`). The bytecode files have it as well, to be
  compared before they are linked. An entry that was fetched again has another mtime, and needs bytecode of its own.
  Where times cannot be set there is none.
- It is there whole or not at all, as an entry is (`envsync.store.store`). Of two that add the same, the first wins.
- It is replaced in one case only: a child has died of some source, or had not enough memory. So it lacks that one, the
  next sync that needs it tries again, and if it succeeds, what it adds to all the rest takes its place.

After a crash there are leftovers in tmp, which `Store.sweep` removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from envsync.launch.reading import content
from envsync.store.store import Store
from envsync.system import atomic, native
from envsync.wheel.manifest import NAME, Directory, Manifest, NewerError, Rows, directories_of, is_newer, pack, unpack

FORMAT = 3
"""As that of `envsync.wheel.manifest`: another one gets another directory."""
CACHE = "__pycache__"
SUFFIX = ".py"
_SCHEMES = frozenset({"purelib", "platlib"})
"""Where modules are. Python itself compiles what is anywhere else, if it is ever imported."""


class Compiled(NamedTuple):
    """The manifest of one wheel's bytecode for one kind of interpreter."""

    sha256: str
    """Of the wheel."""
    filename: str
    """The wheel's, for messages."""
    tag: str
    mtime: int
    """Of every file, in seconds since the epoch: that of the wheel's entry."""
    directories: tuple[Directory, ...]
    """Every file but the manifest; each path ends in `__pycache__`."""
    record: Rows
    failures: tuple[tuple[str, str], ...]
    """(path of a source below its scheme, why it does not compile)."""
    died: tuple[tuple[str, str, str], ...] = ()
    """(scheme, path of a source below it, what became of whoever compiled it). It is tried again."""
    late: tuple[str, ...] = ()
    """Sources that were among these once, and are no more: environments of that time lack their bytecode."""


def sources(manifest: Manifest) -> Iterator[tuple[str, str, list[str]]]:
    """List the sources of a wheel that have bytecode: (scheme, directory below it, names), none empty."""
    for scheme, path, files in manifest.directories:
        if scheme in _SCHEMES:
            names = [name for name, _, _ in files if name.endswith(SUFFIX) and name != SUFFIX]
            if names and all(name != CACHE for name, _, _ in files):
                yield scheme, path, names


def name_of(source: str, tag: str) -> str:
    """Return the name of the bytecode of a source, as in `mod.cpython-311.pyc` (PEP 3147)."""
    return f"{source.removesuffix(SUFFIX)}.{_cache_tag(tag)}.pyc"


def source_of(path: str, tag: str) -> str:
    """Return the path of the source of bytecode, as in `pkg/mod.py` for `pkg/__pycache__/mod.cpython-311.pyc`."""
    directory, _, name = path.rpartition("/")
    return f"{directory.removesuffix(CACHE)}{name.removesuffix(f'.{_cache_tag(tag)}.pyc')}{SUFFIX}"


def _cache_tag(tag: str) -> str:
    return tag.rpartition("-")[0]


class Shelf:
    """The bytecode in a store for one kind of interpreter.

    :param tag: cache tag and magic number
    """

    def __init__(self, store: Store, tag: str) -> None:
        self.store = store
        self.tag = tag

    def path(self, sha256: str, mtime: int | None = None) -> str:
        """Return the directory of a wheel's bytecode, which need not exist. The mtime is as for `get`."""
        return self._find(sha256, mtime)[0]

    def get(self, sha256: str, mtime: int | None = None) -> Compiled | None:
        """Read the manifest of a wheel's bytecode; None if there is none that can be used.

        :param mtime: that the wheel's entry has; None: whatever it has
        """
        return self._find(sha256, mtime)[1]

    def _find(self, sha256: str, mtime: int | None) -> tuple[str, Compiled | None]:
        """Find the most complete bytecode of a wheel."""
        below = self._get_below(sha256)
        if below is not None and mtime not in (None, below.mtime):
            below = None
        if below is not None and not below.died:
            return self._place_below(sha256), below
        compiled = self._get(self._place(sha256), sha256)
        if compiled is not None and mtime not in (None, compiled.mtime):
            compiled = None
        if below is not None and (compiled is None or len(compiled.died) >= len(below.died)):
            return self._place_below(sha256), below
        return self._place(sha256), compiled

    def _place(self, sha256: str) -> str:
        return f"{self.store.root}/v1/bytecode/{sha256}/{self.tag}"

    def _place_below(self, sha256: str) -> str:
        return f"{self.store.below}/v1/bytecode/{sha256}/{self.tag}"

    def _get_below(self, sha256: str) -> Compiled | None:
        """Look in the store that cannot be written to, if there is one."""
        if self.store.below is None or f"{sha256}/{self.tag}" in self.store.damaged_below:
            return None
        return self._get(self._place_below(sha256), sha256)

    def _get(self, path: str, sha256: str) -> Compiled | None:
        try:
            compiled = load(content(f"{path}/{NAME}"))
        except (OSError, ValueError):
            return None  # absent, damaged and unreadable come to the same: it has to be compiled
        return compiled if (compiled.sha256, compiled.tag) == (sha256, self.tag) else None

    def find(self, manifests: Iterable[Manifest], *, again: bool = True) -> tuple[dict[str, Compiled], list[Manifest]]:
        """Find the bytecode of wheels. Returns it by the wheel's sha256, and those of which it has to be compiled.

        :param again: that is so, too, if a child has died of a source
        """
        found: dict[str, Compiled] = {}
        missing: list[Manifest] = []
        for manifest in manifests:
            compiled = self.get(manifest.sha256, manifest.mtime)
            if compiled is not None and not (again and compiled.died):
                found[manifest.sha256] = compiled
            elif next(sources(manifest), None) is not None:
                missing.append(manifest)
        return found, missing

    def add(self, directory: str, compiled: Compiled) -> Compiled:
        """Write the manifest of what was compiled, and rename it all into place, or use what is there by now.

        :param directory: in the store's tmp; has all the files
        :raises FilesystemError: it cannot be written; what is in the directory is of no use any more
        """
        from envsync.store.publish import publish

        data = dump(compiled)
        atomic.write(f"{directory}/{NAME}", data, mode=0o444)
        with suppress(OSError):  # CIFS: the mount says the modes of all files
            native.chmod(f"{directory}/{NAME}", 0o444)  # whatever the umask
        self.store.note_written()
        sha256 = compiled.sha256
        place = self._place(sha256)
        found = publish(self.store, directory, place, lambda: self._as_good(compiled), lambda: is_newer(place, load))
        return found or load(data)  # just as whoever finds it later will read it

    def _as_good(self, compiled: Compiled) -> Compiled | None:
        """Return what is there, if it lacks no more than that."""
        theirs = self.get(compiled.sha256, compiled.mtime)
        return theirs if theirs is not None and len(theirs.died) <= len(compiled.died) else None

    def discard(self, sha256: str) -> None:
        """Remove a wheel's bytecode: out of sight at once, then for good. Having nothing to remove is no error.

        :raises FilesystemError: it is there and cannot be removed
        """
        if self._get_below(sha256) is not None:
            self.store.damaged_below.add(f"{sha256}/{self.tag}")
            return
        self.store.discard_path(self._place(sha256))


def dump(compiled: Compiled) -> bytes:
    """Serialize a manifest."""
    return pack(compiled._asdict(), FORMAT)


def load(data: bytes) -> Compiled:
    """Read a manifest.

    :raises NewerError: a newer envsync has written it
    :raises ValueError: it is damaged or of an older format; it is then as good as absent
    """
    try:
        value, record = unpack(data, FORMAT)
        return Compiled(
            sha256=value["sha256"],
            filename=value["filename"],
            tag=value["tag"],
            mtime=value["mtime"],
            directories=directories_of(value),
            record=record,
            failures=tuple((path, problem) for path, problem in value["failures"]),
            died=tuple((scheme, path, problem) for scheme, path, problem in value["died"]),
            late=tuple(value["late"]),
        )
    except NewerError:
        raise
    except atomic.SENSELESS as error:
        raise ValueError(f"damaged manifest: {error}") from None
