"""Keys of built wheels: what tells builds apart, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from envsync.building import keys
from envsync.building.keys import Recipe
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, BuildRules, Source
from envsync.python.facts import Interpreter

PYTHON = Interpreter(
    executable="/usr/bin/python3",
    prefix="/usr",
    base_prefix="/usr",
    implementation="cpython",
    version="3.11.7",
    machine="x86_64",
    libc="glibc",
    cache_tag="cpython-311",
    markers={},
    tags=("cp311-cp311-manylinux_2_36_x86_64", "py3-none-any"),
    layout={},
    fingerprint="x",
    key="y",
    release="3.11",
)
ARTIFACT = Artifact("demo", "1.0", "demo-1.0.tar.gz", source=Source(ARCHIVE))


def key(**changes: Any) -> str:
    """Compute a key, with something changed."""
    values: dict[str, Any] = {
        "artifact": ARTIFACT,
        "identity": "0" * 64,
        "recipe": Recipe(),
        "python": PYTHON,
        "site": "",
    }
    values.update(changes)
    return keys.key_of(**values)


OTHERS: list[dict[str, Any]] = [
    {"identity": "1" * 64},
    {"site": "zen3"},
    {"artifact": ARTIFACT._replace(source=Source(ARCHIVE, subdirectory="a"))},
    {"artifact": ARTIFACT._replace(source=Source(DIRECTORY, "/a"))},
    {"artifact": ARTIFACT._replace(source=Source(GIT, "https://a.example/x", "0" * 40))},
    {"artifact": ARTIFACT._replace(source=Source(GIT, "https://a.example/x", "0" * 40, lfs=True))},
    {"recipe": Recipe(config=(("a", "1"),))},
    {"recipe": Recipe(config=(("a", "2"),))},
    {"recipe": Recipe(requires=("numpy",))},
    {"recipe": Recipe(variables=(("CC", "gcc"),))},
    {"recipe": Recipe(constraints=("setuptools<81",))},
    {"recipe": Recipe(beside=())},
    {"recipe": Recipe(beside=("0" * 64,))},
    {"python": PYTHON._replace(release="3.11t")},
    {"python": PYTHON._replace(implementation="pypy")},
    {"python": PYTHON._replace(machine="aarch64")},
    {"python": PYTHON._replace(libc="musl")},
]


def test_what_tells_builds_apart() -> None:
    """Each of these gives another key: what was built for one is of no use to another."""
    found = [key(), *(key(**change) for change in OTHERS)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "change",
    [
        {"python": PYTHON._replace(version="3.11.9", executable="/opt/python")},
        {"artifact": ARTIFACT._replace(url="https://a.example/demo-1.0.tar.gz", direct_url="{}")},
    ],
)
def test_what_does_not(change: dict[str, Any]) -> None:
    """Another patch version, or another place of the same bytes, has the same key."""
    assert key(**change) == key()


def test_passwords_are_not_in_a_key() -> None:
    """Who fetches a repository decides nothing: a token that is another for each job builds nothing anew."""
    of = [
        ARTIFACT._replace(source=Source(GIT, f"https://{user}a.example/x", "0" * 40)) for user in ("", "u:p@", "u:q@")
    ]
    assert len({key(artifact=artifact) for artifact in of[1:]}) == 1


def test_rules_of_options() -> None:
    """Settings are for all packages, or for one that is named before a colon."""
    rules = keys.rules_of(["a=1", "Some.Name:--b=x=y", "url=https://c.example"], ["s<1"], ["A_b"], isolated=True)
    assert rules.config == (("a", "1"), ("url", "https://c.example"))
    assert rules.config_of == (("some-name", "--b", "x=y"),)
    assert (rules.constraints, rules.unisolated) == (("s<1",), ("a-b",))
    for senseless in ("a", "=b"):
        with pytest.raises(ValueError, match=senseless):
            keys.rules_of([senseless], [], [], isolated=True)


def test_recipes() -> None:
    """Of the rules, those for a package count for it; without isolation, what is installed beside it counts instead."""
    rules = BuildRules(
        constraints=("b", "a"),
        config=(("x", "1"), ("x", "2"), ("y", "3")),
        config_of=(("demo", "y", "4"), ("other", "z", "5")),
        requires=(("demo", ("numpy",)), ("other", ("scipy",))),
        variables=(("demo", "CC", "cc"), ("other", "CC", "icc")),
        unisolated=("other",),
    )
    demo = keys.recipe_of("demo", rules, ["f" * 64])
    assert demo.settings == {"x": ["1", "2"], "y": ["3", "4"]}
    assert (demo.requires, demo.variables, demo.constraints, demo.beside) == (
        ("numpy",),
        (("CC", "cc"),),
        ("a", "b"),
        None,
    )
    assert keys.recipe_of("other", rules, ["f" * 64, "a" * 64]).beside == ("a" * 64, "f" * 64)


def test_variants() -> None:
    """A pure wheel fits everywhere; another counts for the C library's version of the host that has built it."""
    assert keys.variant_of("demo-1.0-py3-none-any.whl", PYTHON) == "any"
    assert keys.variant_of("demo-1.0-cp311-cp311-linux_x86_64.whl", PYTHON) == "glibc-2.36"
    musl = PYTHON._replace(tags=("cp311-cp311-musllinux_1_2_x86_64",), libc="musl")
    assert keys.variant_of("demo-1.0-cp311-cp311-linux_x86_64.whl", musl) == "musl"
