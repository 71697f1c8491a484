"""What of a lock file is asked for: which of its roots, extras and groups, and what of that is left out.

The words are uv's. Each format takes from it what it has; what a format cannot have is refused by name, never passed
over. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from envsync.launch import options

if TYPE_CHECKING:
    from envsync.launch.options import Settings

DEFAULT_GROUP = "dev"
"""The one that is chosen if nothing is said of default groups, as uv has it."""


class UndefinedError(Exception):
    """An extra or a group was asked for that the lock file does not define."""

    def __init__(self, kind: str, names: tuple[str, ...], defined: Iterable[str]) -> None:
        there_are = ", ".join(sorted(defined)) or "none"
        super().__init__(f"it does not define the {kind} `{names[0]}`; the {kind}s that it defines: {there_are}")
        self.kind = kind
        self.names = names
        """Those that are not defined, as they were asked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that say what of a lock file is to be installed. Names as they were given."""

    extras: tuple[str, ...] = ()
    all_extras: bool = False
    no_extras: tuple[str, ...] = ()
    """Left out of `all_extras`."""
    groups: tuple[str, ...] = ()
    """In addition to the project and the default groups."""
    no_groups: tuple[str, ...] = ()
    """Left out, whatever else includes them."""
    only_groups: tuple[str, ...] = ()
    """If there are any: these alone, neither the project, nor what it requires, nor default groups."""
    all_groups: bool = False
    no_default_groups: bool = False
    dev_if_any: bool = False
    """The group `dev` was asked for, or left out, by an option of its own, which any lock file may be given."""
    packages: tuple[str, ...] = ()
    """Members of a workspace to install, instead of the one one stands in."""
    all_packages: bool = False
    """All members of the workspace."""
    member: str = "."
    """The directory one stands in, relative to the lock file's: it tells which member is meant."""
    editable: bool = True
    """Local trees are installed as links to their sources, where the lock file says so."""
    no_install_project: bool = False
    no_install_workspace: bool = False
    no_install_packages: tuple[str, ...] = ()
    """Left out themselves; what they require stays."""
    no_build: bool = False
    """Nothing may be built. It wins over all that wants something to be built."""
    no_build_packages: tuple[str, ...] = ()
    no_binary: bool = False
    """No wheel may be taken."""
    no_binary_packages: tuple[str, ...] = ()

    def extras_of(self, defined: Collection[str]) -> frozenset[str]:
        """Return which of the defined extras are chosen, spelled as they are defined.

        :raises UndefinedError: one was named that is not defined
        """
        spelled = _spelled(defined)
        _known("extra", self.no_extras, spelled)
        chosen = set(spelled) if self.all_extras else set()
        chosen |= _known("extra", self.extras, spelled)
        return frozenset(spelled[name] for name in chosen - set(map(canonicalize_name, self.no_extras)))

    def groups_of(self, defined: Collection[str], defaults: Iterable[str]) -> frozenset[str]:
        """Return which of the defined groups are chosen, spelled as they are defined.

        :param defaults: those that are chosen if nothing is said; one that is not defined adds nothing
        :raises UndefinedError: one was named that is not defined
        """
        spelled = _spelled(defined)
        asked = _known("group", (*self.groups, *self.only_groups), spelled, unless=self._tolerated)
        _known("group", self.no_groups, spelled, unless=self._tolerated)
        if self.all_groups:
            asked = set(spelled)
        elif not self.only_groups and not self.no_default_groups:
            asked |= set(map(canonicalize_name, defaults)) & spelled.keys()
        return frozenset(spelled[name] for name in asked - set(map(canonicalize_name, self.no_groups)))

    def may_build(self, name: str) -> bool:
        """Tell whether a package may be built.

        :param name: normalized
        """
        return not self.no_build and all(name != canonicalize_name(each) for each in self.no_build_packages)

    def may_be_wheel(self, name: str) -> bool:
        """Tell whether a wheel of a package may be taken that others have built.

        :param name: normalized
        """
        return not self.no_binary and all(name != canonicalize_name(each) for each in self.no_binary_packages)

    def forbids_build(self, name: str) -> str:
        """Tell which option forbids to build a package, as it is typed; empty if none does.

        :param name: normalized
        """
        return "" if self.may_build(name) else f"`--no-build{'' if self.no_build else '-package'}`"

    def forbids_wheel(self, name: str) -> str:
        """Tell which option forbids to take a wheel of a package, as it is typed; empty if none does.

        :param name: normalized
        """
        return "" if self.may_be_wheel(name) else f"`--no-binary{'' if self.no_binary else '-package'}`"

    def leaves_out(self, name: str) -> bool:
        """Tell whether a package itself is to be left out by its name.

        :param name: normalized
        """
        return any(name == canonicalize_name(each) for each in self.no_install_packages)

    @property
    def _tolerated(self) -> str:
        return DEFAULT_GROUP if self.dev_if_any else ""

    @property
    def of_workspace(self) -> tuple[str, ...]:
        """The options that were given and that mean nothing where there are no members, as they are typed."""
        given = [f"--package {name}" for name in self.packages]
        return (*given, *(["--all-packages"] if self.all_packages else []))


def choice_of(settings: Settings, member: str = ".") -> Choice:
    """Return the choice that options make. What it is made of is what the digest has of it.

    :param member: the directory one stands in, relative to the lock file's
    """
    chosen = options.folded(settings)

    def names(key: str) -> tuple[str, ...]:
        value = chosen.get(key, [])
        assert isinstance(value, list)
        return tuple(value)

    return Choice(
        extras=names("extra"),
        all_extras="all_extras" in chosen,
        no_extras=names("no_extra"),
        groups=names("group"),
        no_groups=names("no_group"),
        only_groups=names("only_group"),
        all_groups="all_groups" in chosen,
        no_default_groups="no_default_groups" in chosen,
        dev_if_any=any(settings.get(key) for key in ("dev", "no_dev", "only_dev")),
        packages=names("package"),
        all_packages="all_packages" in chosen,
        member=member,
        editable="no_editable" not in chosen,
        no_install_project="no_install_project" in chosen,
        no_install_workspace="no_install_workspace" in chosen,
        no_install_packages=names("no_install_package"),
        no_build=bool(settings.get("no_build")),
        no_build_packages=_texts(settings, "no_build_package"),
        no_binary=bool(settings.get("no_binary")),
        no_binary_packages=_texts(settings, "no_binary_package"),
    )


def _texts(settings: Settings, key: str) -> tuple[str, ...]:
    value = settings.get(key, [])
    assert isinstance(value, list)
    return tuple(value)


def _spelled(defined: Collection[str]) -> dict[str, str]:
    return {str(canonicalize_name(name)): name for name in defined}


def _known(kind: str, asked: tuple[str, ...], spelled: Mapping[str, str], *, unless: str = "") -> set[str]:
    names = {str(canonicalize_name(name)): name for name in asked}
    unknown = tuple(name for normalized, name in names.items() if normalized not in spelled and name != unless)
    if unknown:
        raise UndefinedError(kind, unknown, spelled.values())
    return set(names) & spelled.keys()
