"""Wheels in local directories (`--find-links`), each listed once however many packages are looked up."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from shlex import quote

from envsync.errors import FilesystemError
from envsync.lockfile.wheels import Offer, offer_of
from envsync.system import paths
from envsync.system.patience import patiently, reading


class Wheelhouse:
    """Local directories of wheels. The first that has a file name wins.

    :param places: absolute paths of directories, or of single wheels
    """

    def __init__(self, places: Iterable[str]) -> None:
        self._places = tuple(places)
        self._paths: dict[str, str] | None = None
        self._offers: dict[str, list[Offer]] | None = None

    def path_of(self, filename: str) -> str | None:
        """Give the absolute path of a file.

        :raises FilesystemError: a directory cannot be listed
        """
        if self._paths is None:
            self._paths = _listed(self._places)
        return self._paths.get(filename)

    def offers(self, name: str) -> list[Offer]:
        """Give what there is of a package, wheels and source distributions.

        :param name: normalized
        :raises FilesystemError: a directory cannot be listed
        """
        if self._paths is None:
            self._paths = _listed(self._places)
        if self._offers is None:
            self._offers = {}
            for filename, path in self._paths.items():
                offer = offer_of(filename, path=path)
                if offer is not None:
                    self._offers.setdefault(offer.name, []).append(offer)
        return self._offers.get(name, [])


def _listed(places: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place in places:
        try:
            for filename in sorted(_names(place)):
                path = paths.join(place, filename) if filename else place
                found.setdefault(os.path.basename(path), path)
        except OSError as error:
            shown = f"`ls -la {quote(os.path.dirname(place))}` shows what is there"
            hint = f"--find-links takes a directory of wheels, a wheel, or a page with links; {shown}"
            raise FilesystemError("list find-links directory", place, error, hint=hint) from error
    return found


def _names(place: str) -> list[str]:
    if os.path.isfile(place):
        return [""]
    try:
        with patiently(os.scandir, place) as entries:
            return [entry.name for entry in entries if entry.name.endswith((".whl", ".tar.gz", ".zip"))]
    except NotADirectoryError:
        return [""]  # nobody could say what it is just now


def hashed(offer: Offer, algorithms: Iterable[str]) -> Offer:
    """Read a local file and add its hashes, for where the name alone cannot tell which of several is meant.

    :raises FilesystemError: the file cannot be read
    """
    import hashlib

    assert offer.path is not None
    algorithms = list(algorithms)

    def compute(path: str) -> dict[str, str]:
        computed = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
        if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise OSError(errno.ESPIPE, "it is no file")
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(1 << 20):
                for one in computed.values():
                    one.update(chunk)
        return {algorithm: one.hexdigest() for algorithm, one in computed.items()}

    try:
        return replace(offer, hashes=reading(compute, offer.path))
    except OSError as error:
        raise FilesystemError("read", offer.path, error) from error
