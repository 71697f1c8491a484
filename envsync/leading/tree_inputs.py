"""What directories that are installed add to the digest and to the stamp.

To the digest: the files that say how they are built, and variables, as `envsync.building.trees` finds them. To the
stamp, besides: what stands for all that only a sync looks at. A launch takes one file operation for each of the files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from envsync.building import trees
from envsync.errors import FilesystemError
from envsync.launch import stamp
from envsync.launch.reading import content_if_there
from envsync.launch.stamp import Tree
from envsync.launch.variables import describe
from envsync.system import core, paths

if TYPE_CHECKING:
    from envsync.launch.request import Request
    from envsync.lockfile.target import Source


def files_of(
    request: Request, sources: Iterable[Source], *, besides: Collection[str]
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield the files that say how directories are built: path, what counts in it, and its content.

    :param besides: the paths of those that are inputs already
    :raises FilesystemError: one cannot be read
    """
    known = {paths.abspath(path) for path in besides}
    for source in sources:
        tree = trees.project_of(source)
        for file in trees.deciding(tree).files:
            path = paths.normpath(paths.join(tree, file))
            if path not in known:
                known.add(path)
                yield _named(request, path), *_read(path)


def _named(request: Request, path: str) -> str:
    """Name a file from the lock file's directory, so that a project may be moved, or have another name elsewhere."""
    relative = paths.relpath(path, paths.abspath(request.directory or "."))
    return paths.join(request.directory, relative)


def _read(path: str) -> tuple[bytes, bytes]:
    try:
        content = content_if_there(path)
    except OSError as error:
        raise FilesystemError("read", path, error) from error
    return trees.canonical(path, content), content


def again(request: Request, inputs: Sequence[stamp.Input]) -> list[stamp.Input]:
    """Return what the files are now that were found for the trees of a stamp.

    :raises FilesystemError: one cannot be read
    """
    found = []
    for each in inputs:
        counts, content = _read(each.path if os.path.isabs(each.path) else request.directory + each.path)
        found.append(stamp.Input(each.path, stamp.checksum(counts), [stamp.checksum(content)]))
    return found


def variables_of(sources: Iterable[Source]) -> tuple[str, ...]:
    """Return the names of the variables that say how directories are built."""
    named = (trees.deciding(trees.project_of(source)).variables for source in sources)
    return tuple(dict.fromkeys(name for names in named for name in names))


def described(names: Sequence[str]) -> list[str]:
    """Return what stands for them and their values in the digest."""
    return describe(names, core.variables()) if names else []


def signed(sources: Iterable[Source]) -> tuple[Tree, ...]:
    """Return what a stamp says of directories of which a sync looks at more than a launch does."""
    found = []
    for source in sources:
        tree = trees.project_of(source)
        signature = trees.signature(tree, editable=source.editable)
        if signature:
            found.append(Tree(tree, signature, editable=source.editable))
    return tuple(found)


def have_changed(known: Iterable[Tree]) -> bool:
    """Tell whether one of the directories of a stamp is not as it was."""
    return any(trees.signature(each.path, editable=each.editable) != each.signature for each in known)
