"""Decide what to remove and what to install: a pure function of what is installed and what is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

MOST_NAMED = 5


class Origin(NamedTuple):
    """Where an installed distribution came from, as far as that decides whether it is the one that is wanted."""

    sha256: str
    """Of the wheel."""
    direct_url: str | None = None
    """The text of its direct_url.json."""


class Installed(NamedTuple):
    """A distribution found in the environment."""

    name: str
    """Normalized."""
    version: str
    dist_info: str
    """Its .dist-info directory, relative to the environment."""
    origin: Origin | None
    """Known only for what envsync installed and what has not been touched since."""
    bytecode: str = ""
    """The tag of the bytecode that was installed with it (`Interpreter.bytecode`); empty for none."""


class Wanted(NamedTuple):
    """A distribution that the lock file asks for, whose wheel is in the store."""

    name: str
    version: str
    origin: Origin
    bytecode: str = ""
    """The tag of the bytecode that it is to have; empty if any will do, and none."""
    unverified: bool = False
    """The lock file has no hash for it: the one that was kept when it was first fetched vouches for it."""


class Plan(NamedTuple):
    """What a sync does; each part sorted by name. An upgrade is in both `remove` and `install`."""

    remove: tuple[Installed, ...]
    install: tuple[Wanted, ...]
    keep: tuple[Installed, ...]

    @property
    def is_empty(self) -> bool:
        return not self.remove and not self.install


def named(items: Iterable[Installed | Wanted]) -> tuple[str, ...]:
    """Name distributions as people do: `name==version`."""
    return tuple(f"{item.name}=={item.version}" for item in items)


def told_unverified(names: Sequence[str]) -> str:
    """Say for people what was installed without a hash in the lock file."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"unverified, for the lock file has no hash of it: {', '.join(names[:MOST_NAMED])}{more}"


def plan(
    installed: Iterable[Installed],
    wanted: Iterable[Wanted],
    *,
    exact: bool = True,
    spare: Collection[str] = (),
    reinstall: Collection[str] = (),
) -> Plan:
    """Plan the way from what is installed to what is wanted.

    A distribution that pip or uv installed is replaced by the verified wheel of the same version, unless it was taken
    over before (`envsync.leading.adopt`): nothing says what is in it. Two dist-infos of one name are what an
    interrupted installer leaves: both go. What lacks the bytecode that it is to have is installed anew with it.

    :param exact: remove what is not wanted
    :param spare: names that an exact sync keeps all the same (pip in a fresh environment)
    :param reinstall: names of which the files are known to be damaged
    """
    wanted_by_name = {item.name: item for item in wanted}
    installed = sorted(installed, key=lambda item: (item.name, item.dist_info))
    count = Counter(item.name for item in installed)
    keep: list[Installed] = []
    remove: list[Installed] = []
    for item in installed:
        want = wanted_by_name.get(item.name)
        if want is None:
            (remove if exact and item.name not in spare else keep).append(item)
        elif _is_as_wanted(item, want) and count[item.name] == 1 and item.name not in reinstall:
            keep.append(item)
        else:
            remove.append(item)
    kept = {item.name for item in keep}
    install = [item for name, item in sorted(wanted_by_name.items()) if name not in kept]
    return Plan(tuple(remove), tuple(install), tuple(keep))


def _is_as_wanted(item: Installed, want: Wanted) -> bool:
    return item.origin == want.origin and want.bytecode in ("", item.bytecode)
