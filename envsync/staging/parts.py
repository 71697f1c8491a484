"""The parts of a wheel: its directories by the entry of the environment that they belong to.

An entry is what stands in site-packages, in `bin` or at the top of the environment (`Layout.entry`), as a package does.
Most entries belong to one distribution, and what concerns one entry concerns no other: so that two wheels share a file,
or two processes meet in a directory, need only be asked where two have the same entry. There are hundreds of entries
where there are thousands of directories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envsync.installed.plan import Wanted
    from envsync.python.facts import Layout
    from envsync.store.bytecode import Compiled
    from envsync.wheel.manifest import Directory, Manifest

GUARD = "REQUESTED"
"""The file of each .dist-info that is made for the environment so that a stamp may name it: empty, and never read."""


class Part(NamedTuple):
    """What one scheme of a wheel has in one entry, or loose in a directory that has many entries."""

    place: str
    """The entry, relative to the environment; that directory for loose files (`is_loose`)."""
    scheme: str
    base: str
    """The scheme's directory, relative to the environment; the paths of `directories` are below it."""
    directories: list[Directory]
    is_loose: bool
    """Each file is an entry of its own, as single-file modules and scripts are."""


def parts(layout: Layout, name: str, has: Manifest | Compiled) -> list[Part]:
    """Return the parts of a wheel, or of its bytecode.

    :param name: of the distribution
    """
    found: dict[tuple[str, str], Part] = {}
    sites, schemes = layout.sites, {scheme for scheme, _, _ in has.directories}
    bases = {scheme: layout.directory(scheme, name) for scheme in schemes}
    for directory in has.directories:
        scheme, path, _ = directory
        base = bases[scheme]
        if path and base in sites:
            place, is_loose = f"{base}/{path.partition('/')[0]}", False
        else:
            full = "/".join(part for part in (base, path) if part)
            place, is_loose = _place(layout, full)
        part = found.get((scheme, place))
        if part is None:
            found[scheme, place] = Part(place, scheme, base, [directory], is_loose)
        else:
            part.directories.append(directory)
    return list(found.values())


def place_of(layout: Layout, path: str) -> str:
    """Return the place of a file, by its path relative to the environment, as parts have it."""
    return _place(layout, path.rpartition("/")[0])[0]


def _place(layout: Layout, directory: str) -> tuple[str, bool]:
    """Return the place of a directory, and whether the files in it are loose."""
    is_loose = directory in (*layout.sites, layout.scripts, layout.headers, "")
    return (directory if is_loose else layout.entry(directory)), is_loose


def entries_of(layout: Layout, manifest: Manifest, found: Sequence[Part]) -> set[str]:
    """Name the top-level entries of a wheel (`Layout.entry`).

    :param found: its parts
    """
    entries = {f"{layout.scripts}/{script.filename}" for script in manifest.scripts}
    for part in found:
        if part.is_loose:
            above = f"{part.place}/" if part.place else ""
            entries.update(f"{above}{name}" for directory in part.directories for name, _, _ in directory.files)
        else:
            entries.add(part.place)
    return entries


class Item(NamedTuple):
    """One distribution to be staged."""

    wanted: Wanted
    manifest: Manifest
    parts: tuple[Part, ...]
    """Of the manifest."""
    skip: frozenset[str] = frozenset()
    """The files of it that another one provides (`envsync.staging.shared_files`)."""
    compiled: Compiled | None = None
    """Its bytecode, if it is to have any."""
    later: frozenset[str] = frozenset()
    """Sources that replace others of equal size and second: leftover bytecode of those would fit them."""
    fresh: int = 0
    """The time of its files where they are copies or clones, if that is not the cache's: in seconds since the epoch."""

    @property
    def has_guard(self) -> bool:
        """Tell whether it has the file that a stamp may name (`envsync.transaction.stamping`)."""
        return any(
            directory.path == self.manifest.dist_info and any(name == GUARD for name, _, _ in directory.files)
            for directory in self.manifest.directories
            if directory.scheme == self.manifest.root
        )
