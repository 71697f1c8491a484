"""What packages require and a requirements file lacks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from envsync.lockfile.required import described, missing

MARKERS = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.7",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1",
    "platform_system": "Linux",
    "platform_version": "#1",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("absent", True),
        ("Absent >=1,<2", True),
        ("absent (>=1)", True),
        ("absent; python_version < '3.9'", False),
        ("absent; python_version >= '3.9'", True),
        ("absent; sys_platform == 'win32'", False),
        ("absent; extra == 'wanted'", True),
        ("absent; extra == 'unwanted'", False),
        ("absent; python_version >= '3.9' and extra == 'unwanted'", False),
        ("absent; extra == 'unwanted' or sys_platform == 'linux'", True),
        ("absent; nonsense == 'x'", False),
        ("absent;;", False),
        ("=nonsense=", False),
        ("absent @ https://host.invalid/absent-1.0-py3-none-any.whl", True),
        ("pre_sent", False),
        ("pre-sent[more]", False),
    ],
)
@pytest.mark.parametrize("extras", [{"foo": ["wanted"]}, {"foo": ["wanted", "other"]}])
def test_what_is_missing_is_told_for_the_target(line: str, lacks: bool, extras: dict[str, Sequence[str]]) -> None:
    """By name, for the markers of the target and the extras that are asked for; nonsense requires nothing."""
    found = missing({"foo": [line], "pre-sent": []}, {"foo", "pre-sent"}, extras, MARKERS)
    assert found == ({"absent": ["foo"]} if lacks else {})


def test_an_extra_that_a_package_asks_of_another_counts() -> None:
    """It is followed from package to package, in any order and in a circle."""
    requires = {
        "a": ["b[x]"],
        "b": ["c[y]; extra == 'x'", "never; extra == 'z'"],
        "c": ["absent; extra == 'y'", "a[w]; extra == 'y'"],
    }
    assert missing(requires, set(requires), {}, MARKERS) == {"absent": ["c"]}


def test_it_is_described_in_a_line() -> None:
    """With who requires it, up to ten, and then a number."""
    assert described({"x": ["a", "b"], "y": ["c"]}) == "`x` (of a, b), `y` (of c)"
    assert described({f"p{number:02}": ["a"] for number in range(12)}).endswith("`p09` (of a) and 2 more")


def test_an_or_counts_however_it_is_spaced() -> None:
    """What an extra or a platform asks for is looked at whole, whatever stands around its `or`."""
    for text in (
        "extra=='x'or(os_name=='posix')",
        "(extra=='x')or os_name=='posix'",
        "extra=='x'\tor os_name=='posix'",
    ):
        assert missing({"one": [f"two; {text}"]}, {"one"}, {}, {"os_name": "posix"}) == {"two": ["one"]}
