"""The directory of an environment: which may be filled, and who is within it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from envsync.errors import EnvironmentRefusedError, EnvsyncError, FilesystemError
from envsync.launch import Environment
from envsync.system import processes
from envsync.waiting import directory
from envsync.waiting.directory import is_inside, is_marked, prepare
from tests import needs
from tests.unit.scene import helper, holder

INSIDE = """\
import os
from envsync.waiting import directory
from envsync.launch import Environment
print(directory.is_inside(Environment(sys.argv[1])), flush=True)
"""


class TestPrepare:
    """Which directories may be filled."""

    @pytest.mark.parametrize("names", [(), (".lock",), ("CACHEDIR.TAG", ".gitignore"), ("pyvenv.cfg", "bin/", "x")])
    def test_accepted(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        """An empty directory, one with nothing but our own, and a virtual environment of anybody's."""
        for name in names:
            (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
        environment = Environment(str(tmp_path))
        prepare(environment)
        assert os.path.isdir(environment.state)

    def test_half_an_environment(self, tmp_path: Path) -> None:
        """An environment that has lost its pyvenv.cfg is one still: it has a bin/python, even a dangling one."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to("/nowhere")
        (tmp_path / "notes.txt").touch()
        prepare(Environment(str(tmp_path)))

    @pytest.mark.parametrize("link", ["env", "env/.envsync", "env/above"])
    @pytest.mark.parametrize("target", ["nowhere", "nowhere/x", "itself"])
    def test_a_link_that_leads_nowhere(self, tmp_path: Path, link: str, target: str) -> None:
        """It is named, be it the environment, a directory above it or our own in it, and nothing is made."""
        place = tmp_path / link
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(place.name if target == "itself" else target)
        environment = Environment(str(place / "x" if link.endswith("above") else tmp_path / "env"))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(EnvironmentRefusedError, match=r"is a symbolic link to .*, which leads nowhere") as raised:
            prepare(environment)
        assert raised.value.hint == f"remove the link, which leads nowhere: `rm {place}`"
        assert sorted(tmp_path.rglob("*")) == before

    def test_what_a_leader_has_put_back(self, tmp_path: Path) -> None:
        """A leader whose environment is removed meanwhile makes a part of its stage again: that is nobody's."""
        site = tmp_path / "lib" / "python3.11" / "site-packages"
        (site / ".envsync" / "0123" / "new" / "lib").mkdir(parents=True)
        (site / ".envsync" / "0123" / "new" / "lib" / "x.py").touch()
        (site / "__pycache__").mkdir()
        prepare(Environment(str(tmp_path)))

    @pytest.mark.parametrize("path", ["lib/x.py", "lib/python3.11/site-packages/x.py", "lib/link"])
    def test_a_lib_of_somebody_else(self, tmp_path: Path, path: str) -> None:
        """One file or link in it that is not in our own directories, and it is left alone."""
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).symlink_to("/usr")
        with pytest.raises(EnvironmentRefusedError, match="not a virtual environment"):
            prepare(Environment(str(tmp_path)))

    def test_a_base_installation(self, tmp_path: Path) -> None:
        """A `python` that leads to another name beside it is that of a base installation, or of conda: refused."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3.11").touch()
        (tmp_path / "bin" / "python").symlink_to("python3.11")
        with pytest.raises(EnvironmentRefusedError, match="not a virtual environment"):
            prepare(Environment(str(tmp_path)))

    @pytest.mark.parametrize("name", ["notes.txt", "src", ".git", "bin"])
    def test_refused(self, tmp_path: Path, name: str) -> None:
        """A directory with anything else in it is somebody's, and left as it is."""
        (tmp_path / name).mkdir()
        with pytest.raises(EnvironmentRefusedError, match="not a virtual environment") as caught:
            prepare(Environment(str(tmp_path)))
        assert "--env" in str(caught.value.hint)
        assert os.listdir(tmp_path) == [name]

    @needs.ANY_NAME
    def test_a_colon(self, tmp_path: Path) -> None:
        """A path that PATH cannot hold is refused before anything is made."""
        with pytest.raises(EnvironmentRefusedError, match="PATH cannot hold"):
            prepare(Environment(str(tmp_path / "a:b")))
        assert os.listdir(tmp_path) == []

    def test_a_file(self, tmp_path: Path) -> None:
        """A file is no directory."""
        (tmp_path / "env").touch()
        with pytest.raises(EnvironmentRefusedError, match="not a directory"):
            prepare(Environment(str(tmp_path / "env")))

    def test_below_a_file(self, tmp_path: Path) -> None:
        """Nor is there a directory below one."""
        (tmp_path / "x").touch()
        with pytest.raises(EnvsyncError, match=f"{tmp_path}/x"):
            prepare(Environment(str(tmp_path / "x" / "env")))

    def test_a_read_only_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing can be made, that is a refusal by the system, with the path."""

        def read_only(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "mkdir", read_only)
        with pytest.raises(FilesystemError, match=f"{tmp_path}/env") as caught:
            prepare(Environment(str(tmp_path / "env")))
        assert caught.value.is_refusal

    def test_what_was_made_in_vain_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the disk is full after two of three directories, those two go again."""
        mkdir = os.mkdir

        def full(path: str, *_: object, **__: object) -> None:
            if path.endswith("/env"):
                raise OSError(28, "No space left on device")
            mkdir(path)

        monkeypatch.setattr(os, "mkdir", full)
        with pytest.raises(FilesystemError):
            prepare(Environment(str(tmp_path / "a" / "b" / "env")))
        assert os.listdir(tmp_path) == []


class TestInside:
    """Who descends from a command of the environment, and would wait for itself."""

    @pytest.fixture
    def token(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable that `run` sets for its command."""
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino}:abc")

    @pytest.mark.usefixtures("token")
    def test_the_descriptor_is_inherited(self, environment: Environment) -> None:
        """Whoever has the in-use lock open is within."""
        fd = os.open(environment.in_use, os.O_RDONLY)
        try:
            assert is_inside(environment)
        finally:
            os.close(fd)

    @pytest.mark.usefixtures("token")
    @pytest.mark.parametrize(("ours", "inside"), [("12", True), ("13", False), ("", False)])
    def test_of_the_same_job(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, ours: str, *, inside: bool
    ) -> None:
        """A step that the command has started by srun is within, and a job that it has submitted is not."""
        monkeypatch.setenv("ENVSYNC_IN_JOB", "12")
        monkeypatch.setenv("SLURM_JOB_ID", ours)
        assert is_inside(environment) is inside

    @pytest.mark.usefixtures("token")
    def test_the_mark(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable alone is a mark: a command that runs there may have started this process by way of a daemon."""
        assert is_marked(environment)
        os.rename(environment.in_use, environment.in_use + ".gone")
        assert not is_marked(environment)
        for token in ("", "1:abc", ":", "garbage"):
            monkeypatch.setenv("ENVSYNC_IN", token)
            assert not is_marked(environment)

    @pytest.mark.usefixtures("token")
    def test_the_variable_is_not_enough(self, environment: Environment) -> None:
        """A batch job that has inherited variables only is not within: nobody would wait for it."""
        assert not is_inside(environment)
        with holder(environment.in_use, "shared"):
            assert not is_inside(environment)

    @needs.PROC
    @pytest.mark.usefixtures("token")
    def test_an_ancestor_holds_the_lock(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process whose parent runs in the environment, though it closed all descriptors, is within."""
        import fcntl

        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        fd = os.open(environment.in_use, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            with helper(INSIDE, environment.path) as child:
                assert child.hear() == "True"
            fcntl.flock(fd, fcntl.LOCK_UN)
            with helper(INSIDE, environment.path) as child:
                assert child.hear() == "False"
        finally:
            os.close(fd)

    def test_another_environment(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Having it open is not being within, unless `run` said so: others may look at that file."""
        with open(environment.in_use, "rb"):
            for token in ("", "1:abc", ":", "garbage"):
                monkeypatch.setenv("ENVSYNC_IN", token)
                assert not is_inside(environment)

    @pytest.mark.usefixtures("token")
    def test_nothing_is_known_of_processes(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no /proc, the descriptor decides."""
        monkeypatch.setattr(processes, "read_proc", lambda path: "")
        assert not is_inside(environment)
        with open(environment.in_use, "rb"):
            assert is_inside(environment)

    @pytest.mark.usefixtures("token")
    def test_the_environment_is_gone(self, environment: Environment) -> None:
        """Nobody is within what is not there."""
        os.unlink(environment.in_use)
        assert not is_inside(environment)


def test_was_environment(tmp_path: Path) -> None:
    """A link that leads out of the directory makes it an environment; a file, or a link that stays, does not."""
    environment = Environment(str(tmp_path))
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    assert not directory.was_environment(environment)
    python.touch()
    assert not directory.was_environment(environment)
    python.unlink()
    python.symlink_to("/usr/bin/python3")
    assert directory.was_environment(environment)


@pytest.mark.parametrize("times", [1, 5])
def test_what_others_remove_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Another request, that shares the directory above, is refused and takes it along just when it is used."""
    environment = Environment(f"{tmp_path}/envs/one")
    mkdir, removed = os.mkdir, 0

    def make(path: str, *arguments: int) -> None:
        nonlocal removed
        if path == environment.path and removed < times:
            removed += 1
            os.rmdir(f"{tmp_path}/envs")
        mkdir(path, *arguments)

    monkeypatch.setattr(os, "mkdir", make)
    prepare(environment)
    assert removed == times
    assert os.listdir(environment.state) == ["bare"]


def test_what_is_removed_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network filesystem says ESTALE of a directory that others remove meanwhile: it is made again, too."""
    environment = Environment(str(tmp_path / "env"))
    os.mkdir(environment.path)
    listdir = os.listdir

    def stale(path: str) -> list[str]:
        monkeypatch.setattr(os, "listdir", listdir)
        os.rmdir(path)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    monkeypatch.setattr(os, "listdir", stale)
    prepare(environment)
    assert os.path.isdir(environment.state)
