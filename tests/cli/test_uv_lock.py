"""A project of uv, from its uv.lock: synced, run in, known as current, and left in peace by uv itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES, unverified
from tests.unit.fetching.server import File, serving
from tests.uv_oracle import UV
from tests.wheels import build_wheel, sha256_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WHEELS = FIXTURES / "wheels"
PYPROJECT = """\
[project]
name = "job"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["greet", "tally"]

[dependency-groups]
dev = ["shout"]

[tool.uv]
package = false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that requires a wheel of an index in a directory, which has no hash, and one by its URL, which has."""
    shutil.copytree(WHEELS, tmp_path / "index")
    wheel = WHEELS / "shout-1.0-py3-none-any.whl"
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "job" / "uv.lock").write_text(
        f"""\
version = 1
revision = 5
requires-python = ">=3.9"

[[package]]
name = "greet"
version = "1.0"
source = {{ registry = "../index" }}
wheels = [{{ path = "greet-1.0-py3-none-any.whl" }}]

[[package]]
name = "job"
version = "1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "greet" }}, {{ name = "absent", marker = "sys_platform == 'win32'" }}]

[package.dev-dependencies]
dev = [{{ name = "shout" }}]

[[package]]
name = "absent"
version = "1.0"
source = {{ registry = "../index" }}
sdist = {{ path = "absent-1.0.tar.gz" }}

[[package]]
name = "shout"
version = "1.0"
source = {{ registry = "https://index.invalid/simple" }}
wheels = [{{ url = "file://{wheel}", hash = "sha256:{sha256_of(str(wheel))}" }}]
"""
    )
    return tmp_path / "job"


def test_a_project_is_synced_run_in_and_current(run_envsync: Run, project: Path) -> None:
    """Without an option that names anything: the lock file is found, and its default group is in."""
    done = run_envsync("sync", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["installed"]) == ("synced", ["greet==1.0", "shout==1.0"])
    assert unverified(project / ".venv") == []
    done = run_envsync("run", "--", "python", "-c", "import shout", cwd=project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(run_envsync("sync", "--json", cwd=project).stdout)["outcome"] == "current"


def test_what_has_no_hash_is_said_to_be_unverified(run_envsync: Run, project: Path) -> None:
    """When it is installed, in the result, and whenever somebody asks."""
    done = run_envsync("sync", cwd=project)
    assert "unverified, for the lock file has no hash of it: greet" in done.stderr
    assert json.loads(run_envsync("sync", "--json", cwd=project).stdout)["unverified"] == ["greet"]
    assert json.loads(run_envsync("status", "--json", cwd=project).stdout)["unverified"] == ["greet"]
    assert "unverified, for the lock file has no hash of it: greet" in run_envsync("status", cwd=project).stdout


def test_another_file_in_its_place_is_noticed(run_envsync: Run, project: Path) -> None:
    """Nothing but size and time vouch for what has no hash."""
    run_envsync("sync", cwd=project)
    shutil.copy(project.parent / "index" / "greet-1.0-py3-none-any.whl", project / "copy")
    (project / "copy").replace(project.parent / "index" / "greet-1.0-py3-none-any.whl")
    assert run_envsync("status", "--exit-code", cwd=project).returncode == 1
    assert run_envsync("sync", cwd=project).returncode == 0
    assert run_envsync("status", "--exit-code", cwd=project).returncode == 0


def test_default_groups_in_pyproject_toml_count(run_envsync: Run, project: Path) -> None:
    """It is an input: what it says of groups is installed at once, and a comment changes nothing."""
    run_envsync("sync", cwd=project)
    (project / "pyproject.toml").write_text(PYPROJECT + "default-groups = []\n")
    assert json.loads(run_envsync("sync", "--json", cwd=project).stdout)["removed"] == ["shout==1.0"]
    (project / "pyproject.toml").write_text(PYPROJECT + "default-groups = [] # none\n")
    assert json.loads(run_envsync("sync", "--json", cwd=project).stdout)["outcome"] == "current"


@pytest.mark.skipif(not UV, reason="there is no uv on PATH")
def test_uv_finds_nothing_to_do_after_us(run_envsync: Run, project: Path) -> None:
    """It selects the same, and takes what is there for it."""
    assert run_envsync("sync", cwd=project).returncode == 0
    words = [UV, "sync", "--frozen", "--dry-run", "--offline", "--no-config", "--color", "never"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith((" +", " -", " ~"))], done.stderr


def test_what_has_no_hash_is_downloaded_once_for_a_cache(run_envsync: Run, tmp_path: Path) -> None:
    """The hash that was kept is that of the URL: another environment gets the same bytes, also offline."""
    wheel = build_wheel(tmp_path, "torchlike", "1.0", {"torchlike.py": "x = 1\n"})
    name = Path(wheel).name
    with serving() as server:
        server.files[f"/{name}"] = File(Path(wheel).read_bytes())
        (tmp_path / "uv.lock").write_text(
            f"""\
version = 1
requires-python = ">=3.9"
package = [
    {{ name = "p", source = {{ virtual = "." }}, dependencies = [{{ name = "torchlike" }}] }},
    {{ name = "torchlike", version = "1.0", source = {{ registry = "{server.url}/simple" }}, wheels = [
        {{ url = "{server.url}/{name}" }},
    ] }},
]
"""
        )
        assert run_envsync("sync", "--env", "one").returncode == 0
        server.files[f"/{name}"] = File(b"something else")
        done = run_envsync("sync", "--env", "two", "--json")
    assert json.loads(done.stdout)["unverified"] == ["torchlike"]
    done = run_envsync("sync", "--env", "three", "--offline", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["installed"] == ["torchlike==1.0"]
    run_envsync("cache", "clean")
    assert "torchlike" in run_envsync("sync", "--env", "four", "--offline").stderr
