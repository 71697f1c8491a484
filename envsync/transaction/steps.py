"""Decide the steps of a commit: a pure function of what is there, what has to go and what has to come.

There are two kinds of steps, both of them one rename(2):

- remove: from the environment into the transaction's trash
- place: from the transaction's stage into the environment, where nothing is

A whole directory is moved at once if a listing shows that all in it goes, or that nothing is in its place; else its
entries are, one by one. So a sync of 22,000 files takes some hundreds of steps, and a directory that several
distributions share, or in which somebody keeps a file of their own, is changed just as much as has to be.

All removals come before all placements; the old .dist-info directories go first and the new ones come last, so
that whoever looks in between (pip, importlib.metadata) sees a distribution missing rather than half of it.

On some filesystems (of macOS, of Windows, ext4 with casefold) names that differ by case or Unicode form only are one.
A file that is to come there under one name, while another one stays or comes, too, would be moved over it: no steps are
decided then. Directories are joined, but for those in site-packages: a module would be found by one of its names only.

Bytecode in `__pycache__` belongs to whoever owns its source: what is compiled from a file that goes, goes too, and so
does what is found where a source comes. Otherwise, a source of the same size and mtime would run its predecessor's
code (PEP 552).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from envsync.staging.tree import Node

Listing = Callable[[str], Mapping[str, bool] | None]
"""Directory, relative to the environment → its entries, True for directories (not for links to them); None if it
is no directory."""


class Folding:
    """Which names a filesystem takes for one: it is asked, for each has rules of its own (docs/wheels.md).

    :param fold: returns what names have in common that may be one
    :param is_one: tells it of two that have that in common
    :param sites: the directories in which names are those of modules: Python's import tells them apart everywhere
    """

    def __init__(self, fold: Callable[[str], str], is_one: Callable[[str, str], bool], sites: Collection[str]) -> None:
        self._fold = fold
        self._is_one = is_one
        self._alike: dict[str, list[str]] = {}
        self._keys: dict[str, str] = {}
        self._sites = [self.path(site) for site in sites]

    def name(self, name: str) -> str:
        """Return one of the names that are the same as this one: always the same one."""
        found = self._keys.get(name)
        if found is None:
            alike = self._alike.setdefault(self._fold(name), [])
            found = next((each for each in alike if self._is_one(each, name)), "")
            if not found:
                alike.append(name)
                found = name
            self._keys[name] = found
        return found

    def path(self, path: str) -> str:
        """Return the same for the path of a file."""
        return "/".join(map(self.name, path.split("/")))

    def is_imported(self, directory: str) -> bool:
        """Tell whether a directory is a site, or below one."""
        return any(f"{self.path(directory)}/".startswith(f"{site}/") for site in self._sites)


class Decision(NamedTuple):
    """The steps, in order, or the reasons not to take any."""

    remove: tuple[str, ...]
    place: tuple[str, ...]
    conflicts: tuple[str, ...]
    """Paths in the way that no distribution owns."""
    twins: tuple[tuple[str, str], ...] = ()
    """Paths to come, each with what stays there, and is the same on this filesystem."""


def decide(
    listing: Listing,
    removed: Node,
    added: Node,
    *,
    protected: Collection[str],
    whole: Collection[str] = (),
    is_same: Callable[[str], bool],
    folding: Folding | None = None,
) -> Decision:
    """Decide the steps that take away `removed` and bring in `added`.

    :param protected: directories that are the environment's own and are never moved (`bin`, `lib`, ...)
    :param whole: directories that go with all that is in them (a .dist-info is its distribution's alone)
    :param is_same: tells whether a file in the way has the very content that is to come, or is a link that envsync has
        left: then it is no conflict
    :param folding: of a filesystem that takes several names for one
    """
    return _Decider(listing, frozenset(protected), frozenset(whole), is_same, folding).run(removed, added)


def covers(
    listing: Listing,
    removed: Node,
    path: str,
    *,
    protected: Collection[str],
    whole: Collection[str] = (),
    folding: Folding | None = None,
) -> bool:
    """Tell whether all that is in a directory goes, so that it goes whole. The others are as for `decide`."""
    node = removed
    for part in path.split("/"):
        child = node.children.get(part)
        if child is None:
            return False
        node = child
    return _Decider(listing, frozenset(protected), frozenset(whole), lambda _: False, folding).covers(path, node)


def find_twins(added: Node, folding: Folding, *, protected: Collection[str]) -> list[tuple[str, str]]:
    """Return the paths to come that a filesystem takes for one, in pairs. None of them must be staged.

    :param protected: as for `decide`
    """
    twins: list[tuple[str, str]] = []
    _join(added, folding, protected, twins)
    return sorted(twins)


class _Decider:
    def __init__(
        self,
        listing: Listing,
        protected: frozenset[str],
        whole: frozenset[str],
        is_same: Callable[[str], bool],
        folding: Folding | None,
    ) -> None:
        self.listing = listing
        self.protected = protected
        self.whole = whole
        self.is_same = is_same
        self.folding = folding
        self.remove: list[str] = []
        self.place: list[str] = []
        self.conflicts: list[str] = []
        self.twins: list[tuple[str, str]] = []

    def run(self, removed: Node, added: Node) -> Decision:
        if self.folding is not None:
            removed = _join(removed, self.folding, self.protected)
            added = _join(added, self.folding, self.protected)
        self._visit("", removed, added)
        remove = sorted(self.remove, key=lambda path: (not path.endswith(".dist-info"), path))
        place = sorted(self.place, key=lambda path: (path.endswith(".dist-info"), path))
        return Decision(tuple(remove), tuple(place), tuple(sorted(self.conflicts)), tuple(sorted(self.twins)))

    def _visit(self, path: str, removed: Node | None, added: Node | None) -> None:
        added = self._spelled(path, removed, added)
        entries = self._entries(path, removed, added) or {}
        removed = self._with_bytecode(path, entries, removed, added)
        names: set[str] = set()
        for node in (removed, added):
            if node is not None:
                names.update(node.children, node.files)
        already = len(self.remove), len(self.place)
        for name in sorted(names):
            going = removed.children.get(name) if removed else None
            coming = added.children.get(name) if added else None
            goes = removed is not None and name in removed.files
            comes = added is not None and name in added.files
            below = _below(path, name)
            if name not in entries:
                if coming or comes:
                    self.place.append(below)
            elif entries[name]:
                self._visit_directory(below, going, coming, comes=comes)
            else:
                self._visit_file(below, goes=goes, comes=comes, coming=coming)
        if self.folding is not None and added is not None:
            gone = set(self.remove[already[0] :])
            stays = [name for name in entries if _below(path, name) not in gone]
            self._find_twins(path, stays, added, self.place[already[1] :], self.folding)

    def _spelled(self, path: str, removed: Node | None, added: Node | None) -> Node | None:
        """Name the directories to come as those that go, where they are to be joined."""
        folding = self.folding
        if folding is None or removed is None or added is None or folding.is_imported(path):
            return added
        known = {folding.name(name): name for name in removed.children}
        children = {known.get(folding.name(name), name): child for name, child in added.children.items()}
        return Node.of(added.files, children)

    def _entries(self, path: str, removed: Node | None, added: Node | None = None) -> Mapping[str, bool] | None:
        """List a directory, with what we know named as we name it, however it was made or is listed."""
        entries, folding = self.listing(path), self.folding
        if folding is None or entries is None:
            return entries
        joins = added is not None and not folding.is_imported(path)
        directories = {*(added.children if added is not None and joins else ()), *(removed.children if removed else ())}
        ours = {True: directories, False: removed.files if removed is not None else set()}
        known = {kind: {folding.name(name): name for name in names} for kind, names in ours.items()}
        return {
            name if name in ours[kind] else known[kind].get(folding.name(name), name): kind
            for name, kind in entries.items()
        }

    def _find_twins(
        self, path: str, stays: Iterable[str], added: Node, placed: Iterable[str], folding: Folding
    ) -> None:
        """Note what is placed in a directory, and is what stays there under another name.

        So is a directory of modules that stays under a name that no import finds.
        """
        known = {folding.name(name): name for name in stays}
        for full in placed:
            parent, _, name = full.rpartition("/")
            if parent == path and folding.name(name) in known:
                self.twins.append((full, _below(path, known[folding.name(name)])))
        if folding.is_imported(path):
            listed = {folding.name(name): name for name in self.listing(path) or ()}
            for name in added.children.keys() & known.values():
                other = listed.get(folding.name(name), name)
                if other != name and other.isascii() and name.isascii():
                    self.twins.append((_below(path, name), _below(path, other)))

    def _visit_directory(self, path: str, going: Node | None, coming: Node | None, *, comes: bool) -> None:
        if going is not None and self.covers(path, going):
            self.remove.append(path)
            if coming or comes:
                self.place.append(path)
        elif comes:
            self.conflicts.append(path)
        elif going is not None or coming is not None:
            self._visit(path, going, coming)

    def _visit_file(self, path: str, *, goes: bool, comes: bool, coming: Node | None) -> None:
        if goes or ((comes or coming) and self.is_same(path)):
            self.remove.append(path)
        elif comes or coming:
            self.conflicts.append(path)
            return
        if comes or coming:
            self.place.append(path)

    def covers(self, path: str, removed: Node) -> bool:
        """Tell whether all that is in a directory goes."""
        if path in self.protected or path in self.whole:
            return path in self.whole
        entries = self._entries(path, removed)
        if entries is None:
            return False
        node = self._with_bytecode(path, entries, removed, None) or removed
        for name, is_directory in entries.items():
            if not is_directory:
                if name not in node.files:
                    return False
                continue
            below = f"{path}/{name}"
            child = node.children.get(name)
            if child is None:
                if name == "__pycache__" and not self.listing(below):
                    continue
                return False
            if not self.covers(below, child):
                return False
        return True

    def _with_bytecode(
        self, path: str, entries: Mapping[str, bool], removed: Node | None, added: Node | None
    ) -> Node | None:
        """Add the bytecode of the sources that go from a directory, or come into it, to what goes."""
        if not entries.get("__pycache__"):
            return removed
        files = [*(removed.files if removed else ()), *(added.files if added else ())]
        fold = self.folding.name if self.folding is not None else str
        sources = {fold(name[:-3]) for name in files if name.endswith(".py")}
        if not sources:
            return removed
        compiled = self.listing(f"{path}/__pycache__" if path else "__pycache__") or {}
        owned = {
            name for name, is_directory in compiled.items() if not is_directory and _has_source(name, sources, fold)
        }
        if removed is None:
            if not owned:
                return None
            removed = Node()
        known = removed.children.get("__pycache__")
        cache = Node.of(owned | (known.files if known else set()), known.children if known else {})
        return Node.of(removed.files, {**removed.children, "__pycache__": cache})


def _join(
    node: Node, folding: Folding, protected: Collection[str], twins: list[tuple[str, str]] | None = None, path: str = ""
) -> Node:
    """Join the directories that are one on a filesystem, under the name of the environment's own if one of them is.

    :param twins: what comes: other names that are one are noted here, and so are two directories of modules
    """
    spelled: dict[str, str] = {}
    children = dict(node.children)
    for name in sorted(children, key=lambda name: (_below(path, name) not in protected, name)):
        other = spelled.setdefault(folding.name(name), name)
        if other == name:
            continue
        if twins is not None and folding.is_imported(path):
            twins.append((_below(path, name), _below(path, other)))
        below = _below(path, other), _below(path, name)
        children[other] = _united(below, (children[other], children.pop(name)), twins)
    if twins is not None:
        for name in sorted(node.files):
            other = spelled.setdefault(folding.name(name), name)
            if other != name:
                twins.append((_below(path, name), _below(path, other)))
    joined = {name: _join(child, folding, protected, twins, _below(path, name)) for name, child in children.items()}
    return Node.of(node.files, joined)


def _united(paths: tuple[str, str], nodes: tuple[Node, Node], twins: list[tuple[str, str]] | None) -> Node:
    one, other = nodes
    children = {**other.children, **one.children}
    for name in one.children.keys() & other.children.keys():
        below = _below(paths[0], name), _below(paths[1], name)
        children[name] = _united(below, (one.children[name], other.children[name]), twins)
    if twins is not None:
        both = one.files & {*other.files, *other.children} | one.children.keys() & other.files
        twins += [(_below(paths[0], name), _below(paths[1], name)) for name in both]
    return Node.of(one.files | other.files, children)


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _has_source(compiled: str, sources: Collection[str], fold: Callable[[str], str]) -> bool:
    """Tell whether bytecode is compiled from one of the sources: `X.cpython-311.opt-1.pyc` is, from X.

    So is what a Python has begun to write: it adds a number to the name until it is whole (`importlib._write_atomic`).
    """
    if not compiled.endswith(".pyc"):
        compiled, _, number = compiled.rpartition(".")
        if not number.isdecimal() or not compiled.endswith(".pyc"):
            return False
    end = compiled.find(".")
    while end > 0:
        if fold(compiled[:end]) in sources and compiled[end:] != ".pyc":
            return True
        end = compiled.find(".", end + 1)
    return False
