"""What `{digest}` stands for: a name is recalled only while all that it was found by is as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.launch import names, stamp
from envsync.launch.names import Name
from envsync.launch.request import Request, own_python, own_version, resolve
from envsync.launch.stamp import Input, LocalFile, checksum
from tests.unit.launch.test_stamp import NUMBERS, PATHS, WORDS

STATES = st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS) | st.just(names.NOTHING)


def recalled(asked: Request) -> str | None:
    """Return what `{digest}` is known to stand for."""
    name = names.recall(asked)
    return None if name is None else name.digest


def fields(value: object) -> object:
    """Return what an object with slots says, comparable."""
    if isinstance(value, list):
        return [fields(each) for each in value]
    if isinstance(value, Name | Input | LocalFile):
        return {slot: fields(getattr(value, slot)) for slot in value.__slots__}
    return value


@st.composite
def made(draw: st.DrawFn) -> Name:
    name = Name(draw(WORDS))
    name.python = draw(st.just("cpython 3.11 x86_64 glibc") | WORDS)
    name.version = draw(WORDS)
    name.path = draw(st.just("") | PATHS)
    name.seen = draw(st.dictionaries(PATHS, STATES, max_size=3))
    name.inputs = draw(st.lists(st.builds(Input, PATHS, WORDS, st.lists(WORDS, min_size=1, max_size=8)), max_size=3))
    name.variables = draw(st.lists(WORDS, max_size=2))
    name.looks_at = draw(st.lists(WORDS, max_size=2))
    name.unhashed = draw(st.booleans())
    name.placed = draw(st.booleans())
    name.local_files = draw(st.lists(st.builds(LocalFile, PATHS, NUMBERS, NUMBERS, direct=st.just(True)), max_size=2))
    return name


@given(st.lists(made(), max_size=4))
def test_what_is_written_is_read(several: list[Name]) -> None:
    """Every name, whatever the paths in it are."""
    assert fields(names.load(names.dump(several))) == fields(several)


@given(st.lists(made(), min_size=1, max_size=2), st.data())
def test_damage_is_not_there(several: list[Name], data: st.DataObject) -> None:
    """One bit that is flipped, or an end that is missing: no name at all."""
    whole = names.dump(several)
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    assert names.load(bytes(flipped)) == []
    assert names.load(whole[:position]) == []


@pytest.mark.parametrize(
    "lines",
    [
        "envsync-names 2\nname x",
        "envsync-names 1\npython x",
        "envsync-names 1\nname x\nwhat",
        "envsync-names 1\nname x\nfurther 1",
        "envsync-names 1\nname x\ndirect 1 x /w",
        "envsync-names 1\nname x\nseen 1",
    ],
)
def test_what_is_sealed_and_makes_no_sense(lines: str) -> None:
    """Another format, or nothing that we write."""
    assert names.load(stamp.seal(f"{lines}\n".encode())) == []


def asked(directory: Path, **settings: str) -> Request:
    return resolve({"lock": f"{directory}/requirements.txt", "env": f"{directory}/envs/{{digest}}", **settings}, {})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("demo==1\n")
    (tmp_path / "envs/.envsync-names").mkdir(parents=True)
    return tmp_path


def found(request: Request, change: Callable[[Name], object] = lambda _: None) -> Name:
    """Return a name that was found just now by the file that is included, and by what `change` adds."""
    name = Name("")
    name.python, name.version = own_python(), own_version()
    name.inputs = [Input("more.txt", "c0", [checksum(Path(request.directory, "more.txt").read_bytes())])]
    change(name)
    name.digest = names.digest_of(name, request)
    return name


def leave(request: Request, *several: Name) -> None:
    Path(names.path_of(request)).write_bytes(names.dump(several))


def test_another_content_is_not_known(project: Path) -> None:
    """Until somebody has found out what it counts for: then both are."""
    request = asked(project)
    name = found(request)
    leave(request, name)
    assert recalled(asked(project)) == name.digest
    (project / "more.txt").write_bytes(b"demo==1  # why\n")
    assert recalled(asked(project)) is None
    name.inputs[0].seen.append(checksum(b"demo==1  # why\n"))
    leave(request, name)
    assert recalled(asked(project)) == name.digest
    (project / "more.txt").unlink()
    assert recalled(asked(project)) is None


def test_several_contents_have_several_names(project: Path) -> None:
    """Each is known by its own."""
    request = asked(project)
    one = found(request)
    (project / "more.txt").write_text("demo==2\n")
    two = found(request, lambda name: setattr(name.inputs[0], "counts", "c1"))
    leave(request, one, two)
    assert recalled(asked(project)) == two.digest != one.digest
    (project / "more.txt").write_text("demo==1\n")
    assert recalled(asked(project)) == one.digest


def test_a_name_counts_only_if_it_comes_out_as_it_says(project: Path) -> None:
    """Whoever writes another one into the file sends nobody elsewhere."""
    request = asked(project)
    name = found(request)
    name.digest = "f" * 32
    leave(request, name)
    assert recalled(asked(project)) is None


def test_options_and_lock_file_have_names_of_their_own(project: Path) -> None:
    """What needs no parser is in the name of the file."""
    places = {names.path_of(asked(project)), names.path_of(asked(project, python="3.12"))}
    places.add(names.path_of(resolve({"lock": f"{project}/more.txt", "env": f"{project}/envs/{{digest}}"}, {})))
    (project / "requirements.txt").write_text("-r more.txt\n\n")
    places.add(names.path_of(asked(project)))
    assert len(places) == 4
    assert {os.path.dirname(place) for place in places} == {f"{project}/envs/.envsync-names"}


@pytest.mark.parametrize(
    ("template", "directory"),
    [
        ("{digest}", ".envsync-names"),
        ("a/{digest}/b", "a/.envsync-names"),
        ("/w/x-{digest}", "/w/.envsync-names"),
        ("/{digest}", "/.envsync-names"),
    ],
)
def test_names_are_in_the_directory_that_holds_the_environments(template: str, directory: str) -> None:
    """Beside what is named."""
    assert names.directory_of(Request({}, "pylock.toml", "0", template)) == directory


def test_a_variable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value is another digest: not the one that it says."""
    monkeypatch.setenv("V", "1")
    request = asked(project)
    leave(request, found(request, lambda name: name.variables.append("V")))
    assert recalled(asked(project)) is not None
    monkeypatch.setenv("V", "2")
    assert recalled(asked(project)) is None


def test_a_local_wheel(project: Path) -> None:
    """One without a hash is looked at."""
    wheel = project / "demo.whl"
    wheel.write_bytes(b"one")
    status = wheel.stat()
    local = LocalFile(str(wheel), status.st_size, status.st_mtime_ns, direct=True)
    request = asked(project)
    leave(request, found(request, lambda name: (name.local_files.append(local), setattr(name, "unhashed", True))))
    assert recalled(asked(project)) is not None
    wheel.write_bytes(b"other")
    assert recalled(asked(project)) is None


def test_the_same_files_elsewhere(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where wheels are found by paths relative to the lock file, another directory has another name."""
    other = tmp_path_factory.mktemp("other")
    for name in ("requirements.txt", "more.txt"):
        (other / name).write_bytes((project / name).read_bytes())
    request = asked(project)

    def at(place: Path) -> Request:
        return resolve({"lock": f"{place}/requirements.txt", "env": request.env_template}, {})

    leave(request, found(request))
    assert recalled(at(other)) == recalled(at(project)) is not None
    leave(request, found(request, lambda name: (setattr(name, "placed", True), setattr(name, "unhashed", True))))
    assert recalled(at(project)) is not None
    assert recalled(at(other)) is None


def test_what_was_looked_at_to_find_a_python(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on PATH that has changed, come or gone, a file behind a link, another PATH: nothing is known."""
    directory, late = project / "bin", project / "late"
    directory.mkdir()
    (directory / "python9").symlink_to("../python")
    (project / "python").write_text("a Python")
    paths = [str(directory), str(directory / "python9"), str(late)]

    def looked(name: Name) -> None:
        name.path = f"{late}:{directory}"
        name.seen = {path: names.look_at(path) for path in paths}

    def is_known() -> bool:
        return recalled(asked(project, python="9")) is not None

    def again() -> None:
        request = asked(project, python="9")
        leave(request, found(request, looked))
        assert is_known()

    monkeypatch.setenv("PATH", f"{late}:{directory}:/bin")
    again()
    monkeypatch.setenv("PATH", f"{late}:{directory}")
    assert is_known()
    for other in (f"{directory}:{late}", f"/other:{late}:{directory}", f"{late}:{directory}2", ""):
        monkeypatch.setenv("PATH", other)
        assert not is_known()
    monkeypatch.setenv("PATH", f"{late}:{directory}:/other")
    assert is_known()
    (project / "python").write_text("another Python")
    assert not is_known()
    again()
    (project / "python").chmod(0o700)
    assert not is_known()
    os.utime(directory, (1_700_000_000, 1_700_000_000))  # or it may be changed within the tick that it was made in
    again()
    (directory / "python9.1").write_text("")
    assert not is_known()
    again()
    late.mkdir()
    assert not is_known()


def test_the_full_version_and_the_kernel(project: Path) -> None:
    """They are in the name if a marker has theirs, as they are on this host."""
    request = asked(project)
    name = found(request, lambda name: name.looks_at.extend(["python_full_version", "platform_release"]))
    leave(request, name)
    assert recalled(asked(project)) == name.digest
    name.version = "3.1.1"
    leave(request, name)
    assert recalled(asked(project)) is None
