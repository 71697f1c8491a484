"""Pythons that are not here: what is worked out is what such a Python says, and what pip and packaging take."""

from __future__ import annotations

import pytest

from envsync.errors import UsageError
from envsync.python import elsewhere, interpreter


@pytest.mark.parametrize(
    ("name", "first", "last", "machine"),
    [
        ("manylinux_2_28_x86_64", "manylinux_2_28_x86_64", "linux_x86_64", "x86_64"),
        ("linux-x86_64", "manylinux_2_28_x86_64", "linux_x86_64", "x86_64"),
        ("linux_aarch64", "manylinux_2_28_aarch64", "linux_aarch64", "aarch64"),
        ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "linux_x86_64", "x86_64"),
        ("musllinux_1_2_aarch64", "musllinux_1_2_aarch64", "linux_aarch64", "aarch64"),
        ("macosx-14.0-arm64", "macosx_14_0_arm64", "macosx_11_0_universal2", "arm64"),
        ("win_amd64", "win_amd64", "win_amd64", "AMD64"),
    ],
)
def test_names_of_platforms(name: str, first: str, last: str, machine: str) -> None:
    """They are those of wheels, as `pip download --platform` takes them."""
    found = elsewhere.platform_of(name)
    assert (found.tags[0], found.machine) == (first, machine)
    assert last in found.tags


@pytest.mark.parametrize("name", ["", "linux", "solaris_sparc", "manylinux_x86_64", "macosx_arm64", "win_sparc"])
def test_what_is_no_platform(name: str) -> None:
    """It is refused, with one that is."""
    with pytest.raises(UsageError, match="not the name of a platform") as caught:
        elsewhere.platform_of(name)
    assert "--platform manylinux_2_28_x86_64" in caught.value.hint


def test_older_libraries_are_taken() -> None:
    """Down to the oldest for which there are wheels, with the names that they had then."""
    tags = elsewhere.platform_of("manylinux_2_28_x86_64").tags
    assert "manylinux1_x86_64" in tags
    assert "manylinux_2_29_x86_64" not in tags
    assert "manylinux_2_5_aarch64" not in elsewhere.platform_of("manylinux_2_28_aarch64").tags


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3.12", ("3.12", "3.12.0", False)),
        ("3.12.4", ("3.12", "3.12.4", False)),
        ("cpython3.13t", ("3.13", "3.13.0", True)),
        ("pypy3.10", None),
        (">=3.11", None),
        ("python3", None),
    ],
)
def test_versions(text: str, found: tuple[str, str, bool] | None) -> None:
    """A version is enough to work out what a CPython takes; anything else is looked for here."""
    version = elsewhere.version_of(text)
    assert (None if version is None else tuple(version)) == found


def test_it_is_what_that_python_says(tmp_path: object) -> None:
    """Of the Python that runs this: its tags, in order, and its markers."""
    own = interpreter.inspect(interpreter.own_base(), str(tmp_path))
    version = elsewhere.version_of(own.version.rstrip("+") + ("t" if "t" in own.release else ""))
    if own.implementation != "cpython" or version is None:
        pytest.skip("only of a CPython that is released")
    found = elsewhere.like(own, version)
    assert found.tags == own.tags
    kernel = ("platform_release", "platform_version")
    same = {name: value for name, value in own.markers.items() if name not in kernel}
    assert {name: value for name, value in found.markers.items() if name not in kernel} == same
    assert (found.release, found.machine, found.libc) == (own.release, own.machine, own.libc)
