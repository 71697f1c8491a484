"""One lock file for several Pythons: each selects just what was chosen for it."""

from __future__ import annotations

import tomllib
from hashlib import sha256

import pytest
import tomli_w
from packaging.markers import Marker
from packaging.pylock import Pylock

from envsync.bundling.combining import Chosen, combined, wheels_in
from envsync.bundling.keeping import Wheel
from envsync.errors import UsageError
from envsync.launch.request import BUNDLE
from envsync.lockfile import conditions
from envsync.python import elsewhere


def wheel(filename: str, content: str = "") -> Wheel:
    name, version = filename.split("-")[:2]
    return Wheel(name, version, filename, sha256(f"{filename} {content}".encode()).hexdigest(), 10)


def chosen(version: str, platform: str, *wheels: Wheel, markers: tuple[str, ...] = ()) -> Chosen:
    asked = elsewhere.version_of(version)
    assert asked is not None
    facts = elsewhere.at(elsewhere.platform_of(platform), asked)
    return Chosen(
        f"{version} on {platform}",
        facts,
        wheels,
        tuple(conditions.clauses(map(str, map(Marker, markers)), facts.markers)),
    )


LINUX, MAC, MUSL = "manylinux_2_28_x86_64", "macosx_14_0_arm64", "musllinux_1_2_x86_64"
PURE = wheel("pure-1.0-py3-none-any.whl")


def test_one_python() -> None:
    """Its lock file has no markers, and says what it is: of a bundle, and for which Python."""
    text = tomli_w.dumps(combined([chosen("3.12", LINUX, PURE)]).to_dict())
    assert BUNDLE in text.encode()
    lock = Pylock.from_dict(tomllib.loads(text))
    assert [package.marker for package in lock.packages] == [None]
    assert lock.environments is not None
    assert 'python_version == "3.12"' in str(lock.environments[0])
    assert list(wheels_in(tomllib.loads(text))) == [(PURE.place, PURE.sha256, 10, "pure")]


def test_the_same_version_is_one_entry() -> None:
    """With the wheels of all; what only some want has a marker of what tells these apart, and nothing else."""
    linux = wheel("fast-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    mac = wheel("fast-1.0-cp312-cp312-macosx_11_0_arm64.whl")
    only = wheel("only-1.0-py3-none-any.whl")
    lock = combined([chosen("3.12", LINUX, PURE, linux), chosen("3.12", MAC, PURE, mac, only)])
    found = {str(package.name): package for package in lock.packages}
    assert len(found["fast"].wheels or ()) == 2
    assert found["fast"].marker is None
    assert str(found["only"].marker) == 'sys_platform == "darwin" and platform_machine == "arm64"'


def test_libraries_of_one_system_are_told_apart_by_tags() -> None:
    """No marker tells glibc from musl: the wheels do."""
    glibc = wheel("fast-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    musl = wheel("fast-1.0-cp312-cp312-musllinux_1_1_x86_64.whl")
    lock = combined([chosen("3.12", LINUX, glibc), chosen("3.12", MUSL, musl)])
    assert [len(package.wheels or ()) for package in lock.packages] == [2]


def test_two_builds_of_one_wheel() -> None:
    """They have the same name, and no tag tells them apart: each Python has an entry of its own."""
    one, other = wheel("app-1.0-py3-none-any.whl", "3.11"), wheel("app-1.0-py3-none-any.whl", "3.12")
    lock = combined([chosen("3.11", LINUX, one), chosen("3.12", LINUX, other)])
    assert [str(package.marker) for package in lock.packages] in (
        ['python_version == "3.11"', 'python_version == "3.12"'],
        ['python_version == "3.12"', 'python_version == "3.11"'],
    )


def test_two_versions() -> None:
    """A lock file may have a version for each Python."""
    one, other = wheel("dep-1.0-py3-none-any.whl"), wheel("dep-2.0-py3-none-any.whl")
    lock = combined([chosen("3.11", LINUX, one), chosen("3.12", LINUX, other), chosen("3.13", LINUX, other)])
    markers = {str(package.version): str(package.marker) for package in lock.packages}
    assert markers == {
        "1.0": 'python_version == "3.11"',
        "2.0": 'python_version == "3.12" or python_version == "3.13"',
    }


def test_what_cannot_be_told_apart() -> None:
    """Two that want different versions, and differ in nothing that a marker sees, need two bundles."""
    one, other = wheel("dep-1.0-py3-none-any.whl"), wheel("dep-2.0-py3-none-any.whl")
    with pytest.raises(UsageError, match="different wheels of `dep`") as caught:
        combined([chosen("3.12", LINUX, one), chosen("3.12", MUSL, other)])
    assert "--to bundle-2" in caught.value.hint
    with pytest.raises(UsageError, match="different packages"):
        combined([chosen("3.12", LINUX, one, PURE), chosen("3.12", MUSL, one)])


@pytest.mark.parametrize(
    ("marker", "clause"),
    [
        ('python_full_version < "3.11.4"', 'python_full_version >= "3.11.4"'),
        ('python_full_version >= "3.11.4"', 'python_full_version >= "3.11.4"'),
        ('python_full_version == "3.11.6"', 'python_full_version != "3.11.6"'),
        ('python_full_version ~= "3.11.9"', 'python_full_version == "3.11.7"'),
        ('python_full_version < "3.12"', ""),
    ],
)
def test_what_the_lock_file_looks_at_besides(marker: str, clause: str) -> None:
    """A release for which a marker would have come out otherwise is none that the bundle is for."""
    lock = combined([chosen("3.11.7", LINUX, PURE, markers=(marker,))])
    assert lock.environments is not None
    assert str(lock.environments[0]).partition('platform_machine == "x86_64"')[2].removeprefix(" and ") == clause


def test_two_releases_of_one_python() -> None:
    """What a marker tells apart is told apart."""
    marker = 'python_full_version < "3.11.4"'
    old, new = (chosen(full, LINUX, markers=(marker,)) for full in ("3.11.2", "3.11.7"))
    lock = combined([old._replace(wheels=(PURE,)), new])
    assert [str(package.marker) for package in lock.packages] == [marker]
