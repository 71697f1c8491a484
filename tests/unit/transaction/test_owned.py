"""The files that a RECORD claims, and whether they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.transaction.owned import files_of, is_intact
from envsync.wheel.record import OwnedFile
from tests.unit.dist_infos import SITE, add, make_environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment with an empty site-packages."""
    return make_environment(tmp_path / "env")


class TestFiles:
    """Whose a file is."""

    def test_paths_are_relative_to_the_environment(self, environment: Environment) -> None:
        """RECORD's paths begin at site-packages, may leave it, and may be quoted."""
        item = add(
            environment,
            "demo-1.dist-info",
            'demo/a.py,sha256=x,3\n../../../bin/demo,sha256=y,4\n"demo/a, ""b"".py",,\ndemo-1.dist-info/RECORD,,\n',
        )
        assert files_of(environment, item) == [
            OwnedFile(f"{SITE}/demo/a.py", "sha256=x", 3),
            OwnedFile("bin/demo", "sha256=y", 4),
            OwnedFile(f'{SITE}/demo/a, "b".py', "", None),
            OwnedFile(f"{SITE}/demo-1.dist-info/RECORD", "", None),
        ]

    def test_absolute_paths(self, environment: Environment) -> None:
        """Absolute paths within the environment are its own, as are those with detours."""
        item = add(environment, "demo-1.dist-info", f"{environment.path}/share/x,,\nx/../../site-packages/y.py,,\n")
        files = files_of(environment, item)
        assert files is not None
        assert [file.path for file in files] == ["share/x", f"{SITE}/y.py"]

    @pytest.mark.parametrize(
        "path",
        ["/etc/passwd", "../../../../outside", "../../../../env2/x", "{env}/../outside", "{env}2/x", "../../../.."],
    )
    def test_nothing_outside_is_ours(self, environment: Environment, path: str) -> None:
        """A RECORD that claims files outside the environment is not believed in that."""
        item = add(environment, "demo-1.dist-info", f"{path.format(env=environment.path)},,\n")
        assert files_of(environment, item) == []

    @pytest.mark.parametrize(
        "record", [None, b"\xff\xfe,,\n", b"a,b\n", b"a,b,many\n", b"a,b,c,d\n", b"a\0b,,\n", b"a,,-1\n", b",,\n"]
    )
    def test_a_record_that_cannot_be_read(self, environment: Environment, record: bytes | None) -> None:
        """Without a RECORD that can be read nobody knows what a distribution owns."""
        assert files_of(environment, add(environment, "demo-1.dist-info", record)) is None

    @pytest.mark.parametrize(
        "path", ["pyvenv.cfg", ".lock", ".envsync/in-use", "bin/python", "bin/python3.11", f"{SITE}/.envsync/x"]
    )
    def test_the_environments_own_is_nobodys(self, environment: Environment, path: str) -> None:
        """A RECORD that claims the skeleton or our own files is not believed in that."""
        item = add(
            environment, "demo-1.dist-info", f"{environment.path}/{path},,\nbin/../../../../bin/python-argcomplete,,\n"
        )
        files = files_of(environment, item)
        assert files is not None
        assert path not in [file.path for file in files]


class TestDamage:
    """Whether the recorded files are there."""

    def check(self, environment: Environment, *files: OwnedFile) -> bool:
        return not all(is_intact(environment, file, sized=True) for file in files)

    def test_the_size_need_not_count(self, environment: Environment) -> None:
        """Of a file that another distribution provides, it is enough that it is there."""
        Path(environment.path, "a").write_text("abcd")
        assert is_intact(environment, OwnedFile("a", "", 3), sized=False)
        assert not is_intact(environment, OwnedFile("b", "", 3), sized=False)

    def test_sound(self, environment: Environment) -> None:
        """Files that are there, of their size or of none that is known, are sound."""
        Path(environment.path, "a").write_text("abc")
        assert not self.check(environment, OwnedFile("a", "", 3), OwnedFile("a", "", None))

    def test_missing(self, environment: Environment) -> None:
        """A missing file is damage."""
        assert self.check(environment, OwnedFile("a", "", 3))

    def test_another_size(self, environment: Environment) -> None:
        """A file of another size is damage."""
        Path(environment.path, "a").write_text("abcd")
        assert self.check(environment, OwnedFile("a", "", 3))

    def test_a_directory(self, environment: Environment) -> None:
        """A directory in a file's place is damage, as is a file in a directory's."""
        Path(environment.path, "a").mkdir()
        Path(environment.path, "b").touch()
        assert self.check(environment, OwnedFile("a", "", None))
        assert self.check(environment, OwnedFile("b/c", "", None))

    def test_a_link(self, environment: Environment) -> None:
        """A link to a file of the right size is as good as the file."""
        Path(environment.path, "a").write_text("abc")
        Path(environment.path, "link").symlink_to("a")
        assert not self.check(environment, OwnedFile("link", "", 3))
        assert self.check(environment, OwnedFile("link", "", 4))

    @pytest.mark.parametrize("target", ["nowhere", "link"])
    def test_a_link_to_nothing(self, environment: Environment, target: str) -> None:
        """A link that leads nowhere, or in a circle, is damage."""
        Path(environment.path, "link").symlink_to(target)
        assert self.check(environment, OwnedFile("link", "", 3))
