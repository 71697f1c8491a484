"""The stamp: what is written is read again, and whatever else is read is no stamp."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.launch import stamp
from envsync.launch.request import describe_python, resolve
from envsync.launch.stamp import Input, LocalFile, Site, Stamp, checksum, dump, is_newer, load

PATHS = st.binary(max_size=30).filter(lambda data: b"\0" not in data).map(os.fsdecode) | st.text(
    st.sampled_from("\\n\n\r end/ "), max_size=12
)
"""Everything that can be the name of a file: any bytes but NUL, and what the format itself is made of."""
NUMBERS = st.integers(0, 2**64)
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


def full() -> Stamp:
    """A stamp that has something of everything."""
    made = Stamp()
    made.digest = "0123456789abcdef0123456789abcdef"
    made.python = "cpython 3.11 x86_64 glibc"
    made.environment = "/home/x/pro\nject/.venv"
    made.in_use = 2156495
    made.config = "227 1795328528783938900"
    made.commands = ["python", "tool"]
    made.sites = [Site("/home/x/.venv/lib/python3.11/site-packages", 2156317, 1795328528790031717)]
    made.inputs = [Input("constraints.txt", "ab", ["cd", "ef"]), Input("/abs/end \\n", "12", ["34"])]
    made.member = "packages/a\nb"
    made.variables = ["NAME", "VERSION_2"]
    made.unhashed = True
    made.placed = True
    made.guards = [Site("/w/env/lib/demo.dist-info/REQUESTED", 8, 9)]
    made.conditions = "fedcba9876543210fedcba9876543210"
    made.base = "/opt/py\nthon/bin/python3.11"
    made.bases = [(5904936, 1795328528783938900), (5904937, 1)]
    made.kernel = ["platform_release"]
    made.kernels = ["0" * 32, "1" * 32]
    made.local_files = [LocalFile("/w/a.whl", 3, 4, direct=True), LocalFile("/w/b.whl", 5, 6, direct=False)]
    made.racy = True
    return made


def fields(value: Stamp | Site | LocalFile | Input) -> dict[str, object]:
    """Return what an object with slots says, comparable."""
    found = {name: getattr(value, name) for name in value.__slots__}
    return {
        name: [fields(item) if isinstance(item, Site | LocalFile | Input) else item for item in item]
        if isinstance(item, list)
        else item
        for name, item in found.items()
    }


@st.composite
def stamps(draw: st.DrawFn) -> Stamp:
    made = Stamp()
    made.digest = draw(st.text("0123456789abcdef", min_size=32, max_size=32))
    made.python = draw(st.just("cpython 3.11 x86_64 glibc") | WORDS)
    made.environment = draw(PATHS)
    made.in_use = draw(NUMBERS)
    made.config = f"{draw(NUMBERS)} {draw(NUMBERS)}"
    made.commands = draw(st.lists(WORDS, max_size=4))
    made.sites = draw(st.lists(st.builds(Site, PATHS, NUMBERS, NUMBERS), max_size=2))
    made.inputs = draw(st.lists(st.builds(Input, PATHS, WORDS, st.lists(WORDS, min_size=1, max_size=8)), max_size=3))
    made.member = draw(PATHS)
    made.variables = draw(st.lists(WORDS, max_size=2))
    made.unhashed = draw(st.booleans())
    made.placed = draw(st.booleans())
    made.conditions = draw(st.just("") | WORDS)
    made.base = draw(st.just("") | PATHS)
    made.bases = draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
    made.kernel = draw(st.lists(WORDS, max_size=2))
    made.kernels = draw(st.lists(WORDS, max_size=8))
    made.local_files = draw(st.lists(st.builds(LocalFile, PATHS, NUMBERS, NUMBERS, direct=st.booleans()), max_size=3))
    made.racy = draw(st.booleans())
    return made


@given(stamps())
def test_what_is_written_is_read(made: Stamp) -> None:
    """Every stamp is read as it was written, whatever the paths in it are."""
    read = load(dump(made))
    assert read is not None
    assert fields(read) == fields(made)


def test_a_full_stamp_is_read() -> None:
    """Every field survives."""
    read = load(dump(full()))
    assert read is not None
    assert fields(read) == fields(full())


@pytest.mark.parametrize("made", [Stamp(), full()], ids=["empty", "full"])
def test_one_flipped_bit_is_no_stamp(made: Stamp) -> None:
    """Not one bit can be wrong without being noticed."""
    data = bytearray(dump(made))
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            assert load(bytes(data)) is None, (position, bit)
            data[position] ^= 1 << bit


@pytest.mark.parametrize("made", [Stamp(), full()], ids=["empty", "full"])
def test_a_truncated_stamp_is_no_stamp(made: Stamp) -> None:
    """A stamp that was not written to its end vouches for nothing, wherever it ends, nor does its tail."""
    data = dump(made)
    for length in range(len(data)):
        assert load(data[:length]) is None
        assert load(data[len(data) - length :]) is None


@given(stamps(), st.data())
def test_damage_is_no_stamp(made: Stamp, data: st.DataObject) -> None:
    """Whatever part of a stamp is replaced by whatever else, what is left is no stamp."""
    whole = dump(made)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:]
    if damaged != whole:
        assert load(damaged) is None


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"end ", b"x" * 1000, b"\0" * 500, dump(full()) + b"\n", dump(full()) * 2]
)
def test_other_files_are_no_stamps(data: bytes) -> None:
    """What was never a stamp, or has something after its end, is none."""
    assert load(data) is None


def test_another_format_is_no_stamp() -> None:
    """A stamp of another format is none, although its checksum fits; that it is a newer one can be told."""
    body = dump(full()).rpartition(b"end ")[0].replace(b"envsync-stamp 2", b"envsync-stamp 3", 1)
    newer = body + b"end " + checksum(body).encode() + b"\n"
    assert load(newer) is None
    assert is_newer(newer)
    assert not is_newer(dump(full()))
    assert not is_newer(b"envsync-stamp")
    assert not is_newer(b"")


def test_a_stamp_is_text() -> None:
    """A person can read it: one `key value` a line, the checksum last."""
    lines = dump(full()).decode().splitlines()
    assert lines[0] == "envsync-stamp 2"
    assert "digest 0123456789abcdef0123456789abcdef" in lines
    assert "environment /home/x/pro\\nject/.venv" in lines
    assert lines[-1].startswith("end ")


def test_the_checksum_is_known() -> None:
    """The checksum of a content never changes: digests and journals of earlier versions stay what they are."""
    assert stamp.checksum(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert stamp.checksum(b"envsync") != stamp.checksum(b"envsynd")


@pytest.mark.parametrize(
    "line",
    [
        "in-use abc",
        "in-use",
        "in-use " + "9" * 5000,
        "site x y z",
        "site 1 2",
        "found 1 x /w",
        "direct 1",
        "further a\0b",
        "further 1 2",
    ],
    ids=lambda line: line[:20],
)
def test_a_sealed_stamp_that_makes_no_sense_vouches_for_nothing(line: str) -> None:
    """Its checksum says that it is whole, not that whoever wrote it knew what he did."""
    body = f"{stamp.HEADER}\ndigest x\n{line}\n".encode()
    assert stamp.load(body + b"end " + stamp.checksum(body).encode() + b"\n") is None


def test_a_version_of_any_length_is_newer() -> None:
    """However many digits it has."""
    assert stamp.is_newer(b"envsync-stamp " + b"9" * 5000 + b"\n")
    assert not stamp.is_newer(stamp.HEADER.encode() + b"\n")


def test_the_latest_eight_are_kept() -> None:
    """What is seen again is not kept twice, and becomes the latest; the one that was seen least lately goes."""
    seen: list[int] = []
    for number in (1, 2, 1, 3, 4, 5, 6, 7, 8, 2, 9):
        seen = stamp.latest(seen, number)
    assert seen == [3, 4, 5, 6, 7, 8, 2, 9]


def test_every_field_is_of_the_request_or_of_the_environment() -> None:
    """Whoever adds a field decides whether a repair, which knows no request, has to carry it over."""
    environment = {"digest", "environment", "in_use", "config", "commands", "sites", "guards", "racy", "network"}
    assert set(Stamp.__slots__) - environment == set(stamp.OF_THE_REQUEST)


def test_further_inputs_of_a_former_version_are_not_current(tmp_path: Path) -> None:
    """A stamp that names them without what counts in them says what is not known any more: it vouches for nothing."""
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("demo==1\n")
    asked = resolve({"lock": f"{tmp_path}/requirements.txt"}, {})
    python = describe_python("cpython", "3.11")
    digest = asked.digest(python, [checksum(b"demo==1\n")])
    body = f"{stamp.HEADER}\ndigest {digest}\npython {python}\ninput more.txt\n".encode()
    assert load(body + b"end " + checksum(body).encode() + b"\n") is None
