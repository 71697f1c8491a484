"""Paths as a tree: directories, and the files in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Node:
    """A directory of paths: the files in it and the directories below."""

    __slots__ = ("_children", "_files", "_later")

    def __init__(self) -> None:
        self._children: dict[str, Node] = {}
        self._files: set[str] = set()
        self._later: list[Callable[[Node], None]] = []

    @classmethod
    def of(cls, files: set[str], children: dict[str, Node]) -> Node:
        """Make one of what is in it."""
        node = cls()
        node._files, node._children = files, children
        return node

    @property
    def children(self) -> dict[str, Node]:
        """Name → the directory of that name."""
        if self._later:
            self._fill()
        return self._children

    @property
    def files(self) -> set[str]:
        """The names of the files in it."""
        if self._later:
            self._fill()
        return self._files

    def later(self, fill: Callable[[Node], None]) -> None:
        """Have it filled when it is looked into for the first time: most directories come whole, and never are."""
        self._later.append(fill)

    def _fill(self) -> None:
        while self._later:
            self._later.pop()(self)

    def directory(self, path: str) -> Node:
        """Return the node of a directory below this one, made if it is missing."""
        node = self
        for part in path.split("/") if path else ():
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Node()
            node = child
        return node

    def add(self, path: str) -> None:
        """Add a file."""
        directory, _, name = path.rpartition("/")
        self.directory(directory).files.add(name)


def tree(paths: Iterable[str]) -> Node:
    """Make a tree of file paths."""
    root = Node()
    for path in paths:
        root.add(path)
    return root
