"""Forget what `{digest}` stands for, of environments that are gone (`envsync.launch.names`).

A name that stays does no harm: whoever goes by it finds no environment and makes it. So nothing of this is an error.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from envsync.errors import FilesystemError
from envsync.launch import names
from envsync.launch.reading import content
from envsync.system import atomic, groups


def forget(directory: str, digests: Collection[str]) -> None:
    """Take names out of the files beside the environments.

    :param directory: that of the environments, as a prefix
    :param digests: what is gone
    """
    place = directory + names.DIRECTORY
    try:
        files = os.listdir(place) if digests and not os.path.islink(place) else []
    except OSError:
        return  # nobody has left any
    for path in (f"{place}/{name}" for name in files):
        try:
            known = names.load(content(path))
            left = [name for name in known if name.digest not in digests]
            if known and not left:
                atomic.discard(path)
            elif len(left) < len(known):
                atomic.write(path, names.dump(left))
                groups.grant(path, groups.bits(place))
        except (OSError, FilesystemError):
            continue  # gone meanwhile, or somebody else's
