"""What markers look at beyond X.Y, and whether it matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from envsync.lockfile import conditions
from envsync.lockfile.conditions import Conditions
from envsync.python.facts import Interpreter
from tests.unit.lockfile.conftest import make_interpreter


def of(*markers: str, full: str = "3.11.7", **changes: str) -> Conditions:
    environment = {**make_interpreter(full).markers, **changes}
    return conditions.of([str(Marker(marker)) for marker in markers], environment)


SETTLED = [
    "python_version < '3.12'",
    "python_full_version < '3.12'",
    "python_full_version >= '3.11'",
    "python_full_version < '3.11'",
    "python_full_version < '3.12.4'",
    "python_full_version != '3.10.0'",
    "python_full_version == '3.11.*'",
    "python_full_version ~= '3.9'",
    "python_full_version >= '3.10' and python_full_version < '3.13' and sys_platform == 'linux'",
    "implementation_version >= '3.11'",
    "'3.12' > python_full_version",
    "platform_machine == 'x86_64' or platform_system == 'Linux'",
    "os_name == 'python_full_version'",
]


@pytest.mark.parametrize("marker", SETTLED)
def test_settled_by_the_short_version(marker: str) -> None:
    """Most comparisons come out the same for every release of one X.Y: nothing has to be looked at."""
    assert of(marker) == Conditions()


UNSETTLED = [
    ("python_full_version == '3.11.7'", True, ()),
    ("python_full_version != '3.11.2'", True, ()),
    ("python_full_version < '3.11.4'", True, ()),
    ("python_full_version <= '3.11'", True, ()),
    ("python_full_version > '3.11'", True, ()),
    ("'3.11.4' <= python_full_version", True, ()),
    ("python_full_version ~= '3.11.4'", True, ()),
    ("python_full_version < '3.11.4rc1'", True, ()),
    ("python_full_version in '3.11.6 3.11.7'", True, ()),
    ("python_full_version === '3.11.7'", True, ()),
    ("implementation_version == '3.11.7'", True, ()),
    ("platform_release >= '6'", False, ("platform_release",)),
    ("'Debian' in platform_version", False, ("platform_version",)),
    ("platform_version == 'x' and platform_release == 'y'", False, ("platform_release", "platform_version")),
    ("python_version > '3' and (os_name == 'nt' or python_full_version < '3.11.9')", True, ()),
]


@pytest.mark.parametrize(("marker", "full", "kernel"), UNSETTLED)
def test_what_has_to_be_looked_at(marker: str, full: bool, kernel: tuple[str, ...]) -> None:
    """What an upgrade in place or another kernel may change is named."""
    found = of(marker)
    assert found.text
    assert (found.full, found.kernel) == (full, kernel)


def test_how_it_comes_out_counts() -> None:
    """Versions of which no comparison thinks otherwise have one digest."""
    marker = "python_full_version < '3.11.4'"
    assert of(marker, full="3.11.2") == of(marker, full="3.11.3")
    assert of(marker, full="3.11.3") != of(marker, full="3.11.4")
    release = "'6.1' in platform_release"
    assert of(release, platform_release="6.1.0-18") == of(release, platform_release="6.1.0-22")
    assert of(release, platform_release="6.1.0-18") != of(release, platform_release="5.10")


def test_a_prerelease_is_not_settled() -> None:
    """Of a Python that is not final yet, even X.Y is not sure."""
    assert of("python_full_version >= '3.14'", full="3.14.0rc2").full
    assert of("python_full_version >= '3.14'", full="3.14.0") == Conditions()
    assert of("python_full_version >= '3.11'", full="3.11.7+").full


def test_other_implementations_have_versions_of_their_own() -> None:
    """The version of PyPy is not that of the language."""
    assert of("implementation_version >= '7.3'", implementation_name="pypy", implementation_version="7.3.16").full


OPERATORS = st.sampled_from(["<", "<=", "==", "!=", ">=", ">", "~="])
VERSIONS = st.builds(
    lambda major, minor, rest: f"{major}.{minor}{rest}",
    st.just(3),
    st.integers(10, 12),
    st.sampled_from(["", ".0", ".1", ".5", ".6", ".7", ".8", ".20", ".7rc1", ".7.post1", ".0a2", ".7.1"]),
)


@given(OPERATORS, VERSIONS, st.booleans(), st.integers(0, 40), st.integers(0, 40))
def test_equal_conditions_mean_equal_selection(
    operator: str, version: str, reverse: bool, one: int, other: int
) -> None:
    """Two releases have the same conditions exactly if the marker is the same for both."""
    text = f"'{version}' {operator} python_full_version" if reverse else f"python_full_version {operator} '{version}'"
    marker = Marker(text)
    outcomes = []
    for micro in (one, other):
        environment = {**make_interpreter(f"3.11.{micro}").markers}
        try:
            outcomes.append(str(marker.evaluate(environment)))
        except Exception:  # noqa: BLE001  # `packaging` has no word for some
            outcomes.append("undefined")
    first, second = (of(text, full=f"3.11.{micro}") for micro in (one, other))
    assert (first.text == second.text) == (outcomes[0] == outcomes[1])


def test_requires_python(interpreter_of: Callable[[str], Interpreter]) -> None:
    """What a lock file needs of Python is a condition as well, if it is more than X.Y."""
    markers = interpreter_of("3.11.7").markers
    assert conditions.of(conditions.needs(SpecifierSet(">=3.11")), markers) == Conditions()
    assert conditions.of(conditions.needs(SpecifierSet(">=3.9,!=3.9.7")), markers) == Conditions()
    assert conditions.of(conditions.needs(SpecifierSet(">=3.11.4,<4")), markers).full
    assert conditions.needs(None) == []
