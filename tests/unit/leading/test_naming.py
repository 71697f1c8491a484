"""What `{digest}` stands for is left for the next, if that can be seen to be so, and where it can be written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from envsync.launch import names
from envsync.launch.names import Name
from envsync.launch.request import Request, resolve
from envsync.launch.stamp import Input
from envsync.leading import naming
from tests import pythons

OTHER = "3.12" if sys.version_info[1] != 12 else "3.11"
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def recalled(asked: Request) -> str | None:
    """Return what `{digest}` is known to stand for."""
    name = names.recall(asked)
    return None if name is None else name.digest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("demo==1\n")
    (tmp_path / "envs").mkdir()
    return tmp_path


def asked(project: Path, **settings: str | bool) -> Request:
    return resolve({"lock": f"{project}/requirements.txt", "env": f"{project}/envs/{{digest}}", **settings}, {})


def left(project: Path, **settings: str | bool) -> bool:
    """Find a name out, leave it, and tell whether the next one knows it: then it is the same."""
    request = asked(project, **settings)
    environment = naming.environment_by_digest(request, str(project / "cache"))
    naming.leave(request)
    known = recalled(asked(project, **settings))
    assert known is None or environment.path == f"{project}/envs/{known}"
    return known is not None


def kept(project: Path) -> list[Name]:
    (path,) = (project / "envs/.envsync-names").iterdir()
    return names.load(path.read_bytes())


def test_several_contents(project: Path) -> None:
    """Those that count for the same have one name, others have their own; what is known is not written again."""
    assert left(project)
    (project / "more.txt").write_text("# why\ndemo==1\n")
    assert left(project)
    assert [len(name.inputs[0].seen) for name in kept(project)] == [2]
    (project / "more.txt").write_text("demo==2\n")
    assert left(project)
    assert [len(name.inputs[0].seen) for name in kept(project)] == [2, 1]
    (path,) = (project / "envs/.envsync-names").iterdir()
    before = path.stat().st_ino
    for text in ("demo==1\n", "demo==2\n", "# why\ndemo==1\n"):
        (project / "more.txt").write_text(text)
        assert left(project)
    assert path.stat().st_ino == before


def test_names_that_drive_each_other_out(project: Path) -> None:
    """A file that is full is written once a minute at most, and then has the latest."""
    for number in range(names.KEPT + 1):
        (project / "more.txt").write_text(f"demo=={number}\n")
        assert left(project) == (number < names.KEPT)
    (path,) = (project / "envs/.envsync-names").iterdir()
    os.utime(path, (1, 1))
    assert left(project)
    assert len(kept(project)) == names.KEPT
    (project / "more.txt").write_text("demo==0\n")
    assert recalled(asked(project)) is None


def test_damage_is_mended(project: Path) -> None:
    """Whoever finds nothing there leaves it anew."""
    assert left(project)
    (path,) = (project / "envs/.envsync-names").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert recalled(asked(project)) is None
    assert left(project)


def test_where_nothing_can_be_written(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The name is found out all the same; those are told why who ask for more."""
    (project / "envs/.envsync-names").write_text("in the way")
    assert not left(project)
    assert capfd.readouterr().err == ""
    assert not left(project, verbose=True)
    assert "found out anew each time" in capfd.readouterr().err
    shutil.rmtree(project / "envs")
    assert not left(project)
    assert not (project / "envs").exists()


@pytest.mark.parametrize("mode", [0o755, 0o2770, 0o1777, 0o700])
def test_who_shares_the_environments_shares_their_names(project: Path, mode: int) -> None:
    """The directory has the permissions of the one above."""
    (project / "envs").chmod(mode)
    assert left(project)
    assert (project / "envs/.envsync-names").stat().st_mode & 0o7777 == mode
    if mode & 0o2000:
        (path,) = (project / "envs/.envsync-names").iterdir()
        assert path.stat().st_mode & 0o060 == 0o060


def test_the_oldest_go(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of lock files that are gone do not add up."""
    monkeypatch.setattr(naming, "MOST_FILES", 6)
    directory = project / "envs/.envsync-names"
    directory.mkdir()
    for number in range(6):
        (directory / f"{number}").write_text("")
        os.utime(directory / f"{number}", (number, number))
    assert left(project)
    assert {"3", "4", "5"} < {path.name for path in directory.iterdir()}
    assert len(list(directory.iterdir())) == 4


class TestPython:
    """What `--python` was answered by, and how it is seen to be the same."""

    @pytest.fixture
    def path(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A PATH of two directories, the second of which has a Python of another version."""
        for name in ("first", "second"):
            (project / name).mkdir()
        (project / f"second/python{OTHER}").symlink_to(pythons.need(OTHER))
        self.settle(project)
        monkeypatch.setenv("PATH", f"{project}/first:{project}/second")
        return project

    def settle(self, project: Path) -> None:
        for name in ("first", "second"):
            os.utime(project / name, (1_700_000_000, 1_700_000_000))

    @pytest.mark.parametrize("spec", [OWN, f">={OWN}", f"cpython{OWN}"])
    def test_the_one_that_runs_envsync(self, project: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is asked first, so nothing is looked at, whatever else there is."""
        if sys.implementation.name != "cpython":
            pytest.skip("not CPython")
        monkeypatch.setenv("PATH", "/nowhere")
        assert left(project, python=spec)
        assert [(name.path, name.seen) for name in kept(project)] == [("", {})]

    def test_on_path(self, path: Path) -> None:
        """Its directory, those before it, and the files in there that might be it."""
        assert left(path, python=OTHER)
        (name,) = kept(path)
        assert name.path == f"{path}/first:{path}/second"
        assert set(name.seen) == {f"{path}/first", f"{path}/second", f"{path}/second/python{OTHER}"}
        (path / f"first/python{OTHER}").symlink_to(path / f"second/python{OTHER}")
        assert recalled(asked(path, python=OTHER)) is None

    def test_what_was_changed_just_now(self, path: Path) -> None:
        """It may change once more without another time."""
        os.utime(path / "first")
        assert not left(path, python=OTHER)
        self.settle(path)
        assert left(path, python=OTHER)

    def test_a_script_before_it(self, path: Path) -> None:
        """One that starts another Python each time, for all anybody knows."""
        script = path / f"first/python{OTHER}"
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
        os.utime(script, (1_700_000_000, 1_700_000_000))
        self.settle(path)
        assert not left(path, python=OTHER)

    def test_a_file(self, path: Path) -> None:
        """It is looked at, through all links; no PATH counts."""
        spec = f"{path}/second/python{OTHER}"
        assert left(path, python=spec)
        assert [(name.path, list(name.seen)) for name in kept(path)] == [("", [spec])]
        os.unlink(spec)
        assert recalled(asked(path, python=spec)) is None


def test_what_is_asked_for_is_found_out_once(project: Path) -> None:
    """A name is left once, and not by who has recalled it."""
    request = asked(project)
    naming.environment_by_digest(request, str(project / "cache"))
    assert isinstance(request.name, Name)
    naming.leave(request)
    assert request.name is None
    naming.leave(request)
    assert [each.path for name in kept(project) for each in name.inputs] == ["more.txt"]
    assert isinstance(kept(project)[0].inputs[0], Input)
