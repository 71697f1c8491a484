"""How a project of uv's has its packages built: what `[tool.uv]` says, and the lock file of build constraints. Pure.

Build constraints stand in the lock file, and uv takes them from there alone. The rest stands in pyproject.toml. What
would change what comes out, and is not done here, is refused by name once something has to be built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envsync.lockfile.target import BuildRules
from envsync.lockfile.uv.records import BuildConstraint, MalformedError, TomlTable

REFUSED = ("require-build-hashes",)
"""Settings that are true or false, and not done here if they are true."""


class UndoneError(Exception):
    """A setting counts that is not done here; the text says which."""


class Settings(NamedTuple):
    """What `[tool.uv]` says of builds."""

    rules: BuildRules = BuildRules()
    at_runtime: tuple[tuple[str, str], ...] = ()
    """Package → a further requirement of its build that has to be there in the version that is installed beside."""
    undone: tuple[str, ...] = ()
    """What is said and not done here."""


def settings_of(table: TomlTable) -> Settings:
    """Read what `[tool.uv]` says of builds.

    :raises MalformedError: something is of another type than it ought to be
    """
    listed = [(name, *each) for name, each in _requires(table)]
    at_runtime = tuple((name, requirement) for name, requirement, is_matched in listed if is_matched)
    simple = [(name, requirement) for name, requirement, is_matched in listed if not is_matched]
    sources = {canonicalize_name(name) for name in table.table("sources").values}
    undone = [f"`{key}`" for key in REFUSED if table.values.get(key) is True]
    undone += [
        f"`extra-build-dependencies` of `{name}`, whose `{requirement}` has a source of its own,"
        for name, requirement, _ in listed
        if _name(requirement) in sources
    ]
    isolation = table.values.get("no-build-isolation")
    if not isinstance(isolation, (bool, type(None))):
        raise MalformedError("`no-build-isolation` is not true or false")
    of_packages = _tables(table, "config-settings-package")
    rules = BuildRules(
        config=tuple(_pairs(table.table("config-settings"))),
        config_of=tuple((name, *pair) for name, each in of_packages for pair in _pairs(each)),
        requires=tuple((name, tuple(r for n, r in simple if n == name)) for name in dict(simple)),
        variables=tuple(
            (name, key, each.text(key) or "")
            for name, each in _tables(table, "extra-build-variables")
            for key in each.values
        ),
        unisolated=table.names("no-build-isolation-package"),
        isolated=isolation is not True,
    )
    return Settings(rules, at_runtime, tuple(undone))


def rules_for(
    settings: Settings, constraints: Collection[BuildConstraint], versions: Mapping[str, str], built: Collection[str]
) -> BuildRules:
    """Return the rules for the packages that have to be built.

    :param constraints: those of the lock file
    :param versions: of all that is selected, by name; empty if one is not known
    :param built: the names of what has to be built
    :raises UndoneError: something is asked for that is not done here
    """
    if not built:
        return BuildRules()
    if settings.undone:
        raise UndoneError(f"{settings.undone[0]} in pyproject.toml counts for what has to be built")
    for constraint in constraints:
        if constraint.place:
            raise UndoneError(f"a build constraint comes from `{constraint.place}`, `{constraint.requirement}`, which")
    further: dict[str, tuple[str, ...]] = {}
    for name, requirement in settings.at_runtime:
        if name in built:
            further[name] = (*further.get(name, ()), _beside(name, requirement, versions))
    return settings.rules.together_with(
        BuildRules(tuple(each.requirement for each in constraints), requires=tuple(further.items()))
    )


def _beside(name: str, requirement: str, versions: Mapping[str, str]) -> str:
    """Require what is installed beside, in its version."""
    version = versions.get(_name(requirement), "")
    if not version:
        problem = f"`{name}` is to be built with the `{requirement}` that is installed beside it (`match-runtime`), and"
        raise UndoneError(f"{problem} none is: this")
    return f"{requirement}=={version}"


def _requires(table: TomlTable) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Yield what is required besides, and whether in the version that is installed beside."""
    given = table.table("extra-build-dependencies")
    for name in given.values:
        values = given.values[name]
        for each in values if isinstance(values, list) else [None]:
            text, is_matched = each, False
            if isinstance(each, dict):
                text, is_matched = each.get("requirement"), each.get("match-runtime") is True
            requirement = _parsed(text)
            if requirement is None or (is_matched and requirement.specifier):
                raise MalformedError(f"`extra-build-dependencies` of `{name}` is not a list of requirements")
            yield canonicalize_name(name), (str(requirement), is_matched)


def _parsed(text: object) -> Requirement | None:
    try:
        return Requirement(text) if isinstance(text, str) else None
    except InvalidRequirement:
        return None


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _tables(table: TomlTable, key: str) -> Iterator[tuple[str, TomlTable]]:
    given = table.table(key)
    for name in given.values:
        yield canonicalize_name(name), given.table(name)


def _pairs(table: TomlTable) -> Iterator[tuple[str, str]]:
    """Yield settings; a list is several of one key."""
    for key, value in table.values.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise MalformedError(f"the setting `{key}` for builds is neither a text nor a list of texts")
        yield from ((key, each) for each in values)
