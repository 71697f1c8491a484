"""What a goal looks at besides the lock file, and by which name an environment has its base interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.launch.stamp import Stamp, dump
from envsync.leading import sightings
from envsync.leading.goal import Goal, Inputs, Python, looks_at_full_version
from envsync.lockfile.conditions import Conditions
from tests.unit.lockfile.conftest import make_interpreter

SPECS = {
    None: False,
    "3.11": False,
    ">=3.9,<3.12": False,
    "cpython3.11": False,
    "/opt/python-3.11.7/bin/python": False,
    "3.11.7": True,
    ">=3.9,!=3.11.2": True,
    "cpython3.11.7": True,
}


@pytest.mark.parametrize("spec", SPECS)
def test_what_python_is_asked_for(spec: str | None) -> None:
    """Only three numbers look at the full version; a range of two, or the name of a file, does not."""
    assert looks_at_full_version(spec) is SPECS[spec]


class TestBase:
    """The path that a launch looks at to see whether the base interpreter is as it was."""

    def make(self, tmp_path: Path) -> Environment:
        (tmp_path / "env/bin").mkdir(parents=True)
        (tmp_path / "env/.envsync").mkdir()
        (tmp_path / "image").mkdir()
        (tmp_path / "image/python3.11").write_text("base")
        return Environment(str(tmp_path / "env"))

    def test_where_the_links_lead_out(self, tmp_path: Path) -> None:
        """The first name outside: what an upgrade exchanges may be a link there."""
        environment = self.make(tmp_path)
        (tmp_path / "image/python3").symlink_to("python3.11")
        (tmp_path / "env/bin/python").symlink_to("python3.11")
        (tmp_path / "env/bin/python3.11").symlink_to("../bin/base")
        (tmp_path / "env/bin/base").symlink_to(tmp_path / "image/python3")
        assert sightings.base_of(environment, make_interpreter()) == f"{tmp_path}/image/python3"

    def test_of_a_copy(self, tmp_path: Path) -> None:
        """An environment that has a copy names its base in pyvenv.cfg; if that is not there, the copy has to do."""
        environment = self.make(tmp_path)
        (tmp_path / "env/bin/python").write_text("copy")
        facts = make_interpreter()._replace(base_executable=f"{tmp_path}/image/python3.11")
        assert sightings.base_of(environment, facts) == f"{tmp_path}/image/python3.11"
        gone = facts._replace(base_executable="/no/such/python")
        assert sightings.base_of(environment, gone) == f"{tmp_path}/env/bin/python"

    def note(self, tmp_path: Path, environment: Environment, digest: str = "d") -> Stamp:
        """Note what is seen for a digest, and leave the stamp for the next."""
        status = (tmp_path / "image/python3.11").stat()
        facts = make_interpreter()._replace(identity=(status.st_size, status.st_mtime_ns))
        conditions = Conditions("c", full=True, kernel=("platform_release",))
        python = Python(facts, make=False, env=environment.path)
        vouched = Stamp()
        vouched.digest = digest
        sightings.note(vouched, Goal(Inputs(), python, digest, (), (), conditions), environment, os.devnull)
        Path(environment.stamp).write_bytes(dump(vouched))
        return vouched

    def test_eight_are_known(self, tmp_path: Path) -> None:
        """Images of eight dates live with one stamp; the ninth drives out the one that was added first."""
        environment = self.make(tmp_path)
        base = tmp_path / "image/python3.11"
        (tmp_path / "env/bin/python").symlink_to(base)
        dates = [1_700_000_000_000_000_000 + number for number in range(9)]
        for date in dates:
            os.utime(base, ns=(date, date))
            vouched = self.note(tmp_path, environment)
        assert vouched.base == str(base)
        assert [date for _, date in vouched.bases] == dates[1:]
        assert len(vouched.kernels) == 1

    def test_another_digest_begins_anew(self, tmp_path: Path) -> None:
        """What was seen for another outcome says nothing of this one."""
        environment = self.make(tmp_path)
        base = tmp_path / "image/python3.11"
        (tmp_path / "env/bin/python").symlink_to(base)
        self.note(tmp_path, environment)
        os.utime(base, (1_700_000_000, 1_700_000_000))
        assert len(self.note(tmp_path, environment, "other").bases) == 1
        assert len(self.note(tmp_path, environment, "other").bases) == 1
