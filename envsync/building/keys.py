"""The key of a built wheel: what decides how it comes out, and so for whom it is of use. Pure.

In it are the source, the Python (implementation, X.Y, machine, C library), the settings and what else has to be there,
constraints, what a site adds (`build-key`), and variables that say which version it has. Not in it: the versions of the
build requirements, the compiler and its flags, the host. They are noted beside the wheel (`envsync.building.built`),
for nobody would find a wheel again whose key has a flag that one shell sets and another does not. So do uv and pip.

The version of the C library of the build host counts for wheels that are not pure alone, and which are, shows only when
they are built: it is in the name beside the key (`variant_of`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from packaging.utils import canonicalize_name, parse_wheel_filename

from envsync.errors.redact import redacted
from envsync.lockfile.target import GIT, Artifact, BuildRules
from envsync.python.facts import Interpreter

FORMAT = 1
PURE = "any"
"""The variant of a wheel that fits every platform."""
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_OF_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):([^=]+)=(.*)", re.DOTALL)

Config = dict[str, str | list[str]]


class Recipe(NamedTuple):
    """How one package is built: what a project's rules come to for it."""

    config: tuple[tuple[str, str], ...] = ()
    requires: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    constraints: tuple[str, ...] = ()
    beside: tuple[str, ...] | None = None
    """If it is built with what is installed beside it: the hashes of those wheels, sorted. None: by itself."""

    @property
    def settings(self) -> Config:
        """What is given to every hook of the backend."""
        found: Config = {}
        for key, value in self.config:
            before = found.get(key)
            if before is None:
                found[key] = value
            else:
                found[key] = [*(before if isinstance(before, list) else [before]), value]
        return found


def rules_of(
    config: Iterable[str], constraints: Iterable[str], unisolated: Iterable[str], *, isolated: bool
) -> BuildRules:
    """Return the rules that options make: settings are `KEY=VALUE` or `NAME:KEY=VALUE`.

    :raises ValueError: a setting is neither
    """
    for_all, for_one = [], []
    for text in config:
        match = _OF_PACKAGE.fullmatch(text)
        if match is not None:
            for_one.append((str(canonicalize_name(match[1])), match[2], match[3]))
            continue
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(text)
        for_all.append((key, value))
    names = tuple(str(canonicalize_name(name)) for name in unisolated)
    return BuildRules(tuple(constraints), tuple(for_all), tuple(for_one), unisolated=names, isolated=isolated)


def is_unisolated(name: str, rules: BuildRules) -> bool:
    """Tell whether a package is built with what is installed beside it."""
    return not rules.isolated or name in rules.unisolated


def recipe_of(name: str, rules: BuildRules, beside: Iterable[str] = ()) -> Recipe:
    """Say how a package is built.

    :param name: normalized
    :param beside: the hashes of all wheels that are installed with it
    """
    config = (*rules.config, *((key, value) for each, key, value in rules.config_of if each == name))
    requires = tuple(text for each, texts in rules.requires if each == name for text in texts)
    variables = tuple((variable, value) for each, variable, value in rules.variables if each == name)
    alone = not is_unisolated(name, rules)
    constraints = tuple(sorted(rules.constraints)) if alone else ()
    return Recipe(config, requires, variables, constraints, None if alone else tuple(sorted(beside)))


def key_of(artifact: Artifact, identity: str, recipe: Recipe, python: Interpreter, site: str = "") -> str:
    """Return the key of what is built of a source, a SHA-256 in hexadecimal.

    :param identity: what its content is: the hash of an archive or of a directory
    :param site: what a site adds
    """
    source = artifact.source
    assert source is not None
    place = [redacted(source.place), source.commit, source.lfs] if source.kind == GIT else []
    of_python = [python.implementation, python.release or python.short_version, python.machine, python.libc]
    whole = [FORMAT, artifact.name, source.kind, identity, source.subdirectory, place, recipe, of_python, site]
    return sha256(json.dumps(whole, default=str).encode()).hexdigest()


def editable_key(tree: str, name: str, decides: Mapping[str, str], recipe: Recipe, python: Interpreter) -> str:
    """Return the key of an editable wheel, which is of use to one environment alone.

    :param decides: what says how the tree is built: file or variable → what stands for its content
    """
    of_python = [python.implementation, python.release or python.short_version, python.machine, python.libc]
    whole = [FORMAT, "editable", tree, name, sorted(decides.items()), recipe, of_python]
    return sha256(json.dumps(whole, default=str).encode()).hexdigest()


def host_variant(python: Interpreter) -> str:
    """Name the variant of wheels that are not pure, as they are built on this host: by its C library's version."""
    for tag in python.tags:
        match = _MANYLINUX.search(tag)
        if match is not None:
            return f"glibc-{match[1]}.{match[2]}"
    return python.libc or "native"


def variant_of(filename: str, python: Interpreter) -> str:
    """Name the variant that a built wheel is."""
    tags = parse_wheel_filename(filename)[3]
    return PURE if all(tag.platform == "any" for tag in tags) else host_variant(python)
