"""State files: what is written is sealed JSON, what is read is what was written, and all else is nothing."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.launch.stamp import unseal
from envsync.system import records
from envsync.system.records import FORMAT, dump, load, parse

TEXTS = st.text(
    st.characters(exclude_categories=()).filter(lambda character: not "\ud800" <= character <= "\udbff"),
    max_size=30,
)
"""Any text that os.fsdecode can give: all of Unicode, and lone surrogates for bytes that are not UTF-8."""
VALUES = st.one_of(
    TEXTS,
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.booleans(),
)
OBJECTS = st.dictionaries(TEXTS.filter(lambda key: key != "format"), VALUES, max_size=8)


def same(left: object, right: object) -> bool:
    """Tell whether two values are equal and of one type, inside out: True is not 1, and 1 is not 1.0."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


@given(OBJECTS)
def test_what_is_written_is_read(value: dict[str, object]) -> None:
    """Any flat object comes back as it was, read here and by any JSON reader, and names its format."""
    data = dump(value)
    expected = {"format": FORMAT, **value}
    assert same(parse(data), expected)
    assert same(json.loads(unseal(data)), expected)


@given(st.binary(max_size=12))
def test_any_argument_of_a_process_is_read(argument: bytes) -> None:
    """Whatever bytes a command line has can be written down, and come back."""
    said = {"command": os.fsdecode(argument)}
    assert parse(dump(said))["command"] == said["command"]


@given(OBJECTS)
def test_it_is_read_without_json(value: dict[str, object]) -> None:
    """What was written here needs no JSON reader, which takes longer to import than all else that a waiter does."""
    assert same(records._plain(unseal(dump(value)).decode()), {"format": FORMAT, **value})


@given(OBJECTS, st.data())
def test_a_torn_file_is_empty(value: dict[str, object], data: st.DataObject) -> None:
    """A file that was cut anywhere is nothing, not half of something."""
    whole = dump(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert parse(whole[:cut]) == {}


NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(st.dictionaries(TEXTS.filter(lambda key: key != "format"), NESTED, max_size=4))
def test_what_is_nested_comes_back(value: dict[str, object]) -> None:
    """Lists and objects in an object are read as they were written, by way of `json`."""
    assert same(parse(dump(value)), {"format": FORMAT, **value})


@given(OBJECTS, st.data())
def test_a_damaged_file_is_empty(value: dict[str, object], data: st.DataObject) -> None:
    """A bit that is wrong, wherever it is, makes a file say nothing."""
    damaged = bytearray(dump(value))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert parse(bytes(damaged)) == {}


@given(st.binary(max_size=40))
def test_any_bytes_never_raise(data: bytes) -> None:
    """Nor do bytes that nobody ever wrote."""
    assert isinstance(parse(data), dict)


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", "3", "null", '"x"', "{\n}", '{"a": 1', "\0" * 64, "{\n\n}\n", '{\n"a"\n}\n', '{\n"a": \n}\n'],
)
def test_nothing_but_an_object(tmp_path: Path, content: str) -> None:
    """A file that holds anything but one object is empty; so is one that is not there."""
    path = tmp_path / "x"
    assert load(str(path)) == {}
    path.write_text(content)
    assert load(str(path)) == {}


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5_000 + b"}"])
def test_what_makes_readers_choke(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no text, and JSON that is too deep or too long for a reader, are damage like any other."""
    path = tmp_path / "x"
    path.write_bytes(content)
    assert load(str(path)) == {}


def test_of_anybody_else(tmp_path: Path) -> None:
    """Any JSON object of format 1, which had no seal, is read, however it is laid out."""
    path = tmp_path / "x"
    path.write_text('{"a": 1, "b": [2, {"c": null}], "format": 1}')
    assert load(str(path)) == {"a": 1, "b": [2, {"c": None}], "format": 1}
    path.write_text('{\n"a": [1],\n"b": {"c": "d"}\n}\n')
    assert load(str(path)) == {"a": [1], "b": {"c": "d"}}


@pytest.mark.parametrize("version", [3, 99, "1", None, 0])
def test_a_newer_format(tmp_path: Path, version: object) -> None:
    """What another version of envsync writes in a format that we do not know is empty to us."""
    path = tmp_path / "x"
    path.write_bytes(dump({"format": version, "a": 1}))
    assert load(str(path)) == {}
    path.write_bytes(dump({"a": 1}))
    assert load(str(path)) == {"format": FORMAT, "a": 1}


def test_a_directory_or_no_permission(tmp_path: Path) -> None:
    """What cannot be read is empty."""
    assert load(str(tmp_path)) == {}
    assert load(str(tmp_path / "x" / "y")) == {}


def test_text_and_number() -> None:
    """A value of the wrong type counts as none."""
    said: dict[str, object] = {"a": "x", "b": 3, "c": 2.5, "d": None, "e": [1]}
    assert [records.text(said, key) for key in "abdex"] == ["x", "", "", "", ""]
    assert [records.number(said, key, 7) for key in "abcdex"] == [7, 3, 2.5, 7, 7, 7]
    assert math.isclose(records.number({}, "x"), 0.0)
    strange: dict[str, object] = {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 10**400}
    assert [records.number(strange, key, 7) for key in "abcd"] == [7, 7, 7, 7]
