"""uv's ways to write which Python is wanted."""

from __future__ import annotations

import os
import platform
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_discovery import PythonSpec

from envsync.errors import InterpreterError
from envsync.python.spelling import translate, translate_pin
from envsync.system import core

MACHINE = platform.machine()
SYSTEM = {"darwin": "macos"}.get(sys.platform, sys.platform)
LIBC = {"glibc": "gnu", "other": "musl"}.get(core.libc_family(), "none")
HERE = f"{SYSTEM}-{MACHINE}-{LIBC}"

FORMS = {
    "3": "3",
    "3.12": "3.12",
    "3.12.1": "3.12.1",
    "312": "3.12",
    "v3.12": "3.12",
    "3.012": "3.12",
    "cp312": "cpython3.12",
    "cp-312": "cpython3.12",
    "CPython@3.12": "cpython3.12",
    "cpython3.12": "cpython3.12",
    "cpython": "cpython",
    "python3.12": "3.12",
    "python@3.12": "3.12",
    "any-3.12": "3.12",
    "pypy@3.10": "pypy3.10",
    "pp310": "pypy3.10",
    "graalpy": "graalpy",
    "3.13t": "3.13t",
    "3.13+freethreaded": "3.13t",
    "cpython-3.13+freethreaded+debug": "cpython3.13td",
    "3.13+gil": "3.13",
    ">=3.11, <3.13": ">=3.11,<3.13",
    "~=3.12.0": "~=3.12.0",
    "==3.12.*": "==3.12.*",
    "cpython@>=3.11": "cpython>=3.11",
    "cpython >=3.11": "cpython>=3.11",
    f"cpython-3.12-{HERE}": "cpython3.12",
    f"cpython-3.12.1-{HERE}": "cpython3.12.1",
    f"cpython-3.12-{SYSTEM}": "cpython3.12",
    f"cpython-any-{SYSTEM}-any": "cpython",
    "/opt/Python/bin/python3": "/opt/Python/bin/python3",
    "any": None,
    "Default": None,
    "python": None,
}

STRANGE = [
    "3.12-dev",
    "3.12.x",
    "3.12rc1",
    "3.12 3.11",
    "3.12 # ours",
    "miniconda3-4.7",
    "system",
    "latest",
    "cpython@latest",
    "cpython@cp312",
    "pyodide",
    f"cpython-3.12-windows-{MACHINE}-none",
    f"cpython-3.12-{SYSTEM}-sparc64-{LIBC}",
    f"cpython-3.12-{SYSTEM}-{MACHINE}-{'musl' if LIBC == 'gnu' else 'gnu'}",
]


@pytest.mark.parametrize("form", FORMS)
def test_what_uv_takes(form: str) -> None:
    """Each form says the same as the one that is looked for, and that one can be read."""
    found = translate(form)
    assert found == FORMS[form]
    if found is not None and os.sep not in found:
        assert PythonSpec.from_string_spec(found).path is None
        assert translate(found) == found


@pytest.mark.parametrize("form", STRANGE)
def test_what_names_none_is_refused_by_name(form: str) -> None:
    """Nothing else is taken for it, and the file is named, with how to write it."""
    with pytest.raises(ValueError, match=r".+"):
        translate(form)
    with pytest.raises(InterpreterError) as raised:
        translate_pin(f"{form}\n".encode(), "p/.python-version")
    assert f"`{form}` in `p/.python-version`" in str(raised.value)
    assert "`echo 3.12 > p/.python-version`" in (raised.value.hint or "")


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# none\n", b"any\n3.12\n"])
def test_a_pin_that_asks_for_nothing(text: bytes) -> None:
    """Any Python will do."""
    assert translate_pin(text, ".python-version") is None


@pytest.mark.parametrize("text", [b"3.12", b"3.12\r\n", b"\xef\xbb\xbf3.12\n", b"\n# a\n  # b\n\n  3.12  \n3.11\n"])
def test_the_first_line_of_a_pin_counts(text: bytes) -> None:
    """Comments and empty lines do not."""
    assert translate_pin(text, ".python-version") == "3.12"


@given(st.sampled_from(["", "cpython", "pypy"]), st.lists(st.integers(0, 99), min_size=2, max_size=3))
def test_every_version_stays_what_it_is(implementation: str, numbers: list[int]) -> None:
    """Whichever way it is joined to the implementation."""
    version = ".".join(map(str, numbers))
    for joint in ("", "-", "@") if implementation else ("",):
        assert translate(f"{implementation}{joint}{version}") == implementation + version
