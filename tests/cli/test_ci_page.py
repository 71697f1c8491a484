"""The files of docs/ci.md: each is read, and its commands are run in a project, as the service would run them.

What a service does itself is done here in its place: working copies, variables, and caches that are kept by tar.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import pythons
from tests.conftest import ROOT
from tests.environments import FIXTURES, unverified

yaml = pytest.importorskip("yaml", reason="reads YAML by PyYAML, of the group `test`")
EXAMPLES = ROOT / "docs/examples/ci"
TEST = """\
import sys, unittest
import greet

class TestGreet(unittest.TestCase):
    def test_where_it_is_from(self):
        self.assertTrue(greet.__file__.startswith(sys.prefix), greet.__file__)
"""
PYTHONS = {version: path for version in pythons.VERSIONS[2:] if (path := pythons.find(version))}
"""Those that envsync is for, by version: their paths."""
OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    return found


class Service:
    """Checks a project out, runs scripts in it, and keeps directories between runs, as such services do.

    :ivar kept: archives by key, the latest last
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kept: dict[str, bytes] = {}
        self.events = root / "events.jsonl"
        shutil.copytree(FIXTURES / "wheels", root / "wheels")

    def check_out(self, name: str) -> Path:
        """Return a working copy."""
        copy = self.root / name
        shutil.copytree(FIXTURES / "project", copy)
        (copy / "test_greet.py").write_text(TEST)
        return copy

    def start(self, copy: Path, script: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a script as both services do: by bash, which ends at the first command that fails."""
        path = ":".join([str(Path(sys.executable).parent), os.environ["PATH"], *map(os.path.dirname, PYTHONS.values())])
        return subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=copy,
            env={**os.environ, "PATH": path, "ENVSYNC_EVENTS": str(self.events), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, copy: Path, script: str, variables: Mapping[str, str]) -> str:
        """Run a script to its end, and return what it says."""
        process = self.start(copy, script, variables)
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, f"{script}\n{said}"
        return said

    def save(self, key: str, directory: Path) -> None:
        """Keep a directory, unless there is something under that key."""
        words = ["tar", "--posix", "-C", str(directory.parent), "-cf", "-", directory.name]
        self.kept.setdefault(key, subprocess.run(words, check=True, capture_output=True).stdout)

    def restore(self, keys: list[str], directory: Path) -> None:
        """Put back what was kept under the first key, or else the latest whose key begins with one of the others."""
        first, *others = keys
        found = self.kept.get(first)
        for prefix in others:
            found = found or next((self.kept[key] for key in reversed(self.kept) if key.startswith(prefix)), None)
        if found:
            subprocess.run(["tar", "-C", str(directory.parent), "-xf", "-"], input=found, check=True)

    def count(self, event: str) -> int:
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return sum(json.loads(line)["event"] == event for line in lines)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


class Workflow:
    """Runs the job of github.yml."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.job = read("github.yml")["jobs"]["test"]

    def run(self, name: str, *, system: str = "Linux", lock: str = "", python: str = OURS) -> tuple[Path, list[str]]:
        """Run it in a new working copy; return that, and which steps did something.

        :param lock: is added to the lock file
        :param python: what setup-python puts in place
        """
        copy = self.service.check_out(name)
        with (copy / "uv.lock").open("a") as file:
            file.write(lock)
        known = {
            "matrix.python": python,
            "runner.os": system,
            "runner.arch": "X64",
            "github.workspace": str(copy),
            "hashFiles('uv.lock')": hashlib.sha256((copy / "uv.lock").read_bytes()).hexdigest(),
        }
        done = []
        variables = {name: _filled(value, known) for name, value in self.job["env"].items()}
        for step in self.job["steps"]:
            place = {key: _filled(value, known) for key, value in step.get("with", {}).items()}
            uses = step.get("uses", "").partition("@")[0]
            if uses == "actions/cache/restore":
                keys = [place["key"], *place.get("restore-keys", "").split()]
                self.service.restore(keys, copy / place["path"])
            elif uses == "actions/cache/save":
                self.service.save(place["key"], copy / place["path"])
            elif uses:
                assert uses in ("actions/checkout", "actions/setup-python")
            elif step["run"] != "pip install envsync":  # it is
                self.service.run(copy, _filled(step["run"], known), {**variables, "ENVSYNC_PYTHON": python})
                done.append(step["run"])
        return copy, done


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known[match[1]], text)


def entries(cache: Path) -> set[str]:
    return {path.name for path in (cache / "v1/wheels").iterdir()}


def test_every_file_is_on_the_page() -> None:
    """As it is, and each is run here."""
    page, here = (ROOT / "docs/ci.md").read_text(), Path(__file__).read_text()
    names = sorted(path.name for path in EXAMPLES.iterdir())
    assert len(names) == 5
    for name in names:
        assert (EXAMPLES / name).read_text().strip() in page
        assert f'"{name}"' in here


def test_a_workflow(service: Service) -> None:
    """The second run needs no wheel: all come from what the first has kept."""
    workflow = Workflow(service)
    copy, done = workflow.run("first")
    assert done == [
        "envsync sync",
        "envsync run -- python -m unittest",
        "envsync check",
        "envsync cache prune --older-than 1h",
    ]
    assert len(entries(copy / ".envsync-cache")) == 5
    (service.root / "wheels").rename(service.root / "gone")
    copy, _ = workflow.run("second")
    assert unverified(copy / ".venv") == []
    assert service.run(copy, "envsync cache verify --cache-dir .envsync-cache", {}).endswith(
        "5 wheels verified, 0 removed\n"
    )


def test_a_workflow_whose_lock_file_is_new(service: Service) -> None:
    """What the latest cache has is used, and what nobody has used goes before it is saved."""
    workflow = Workflow(service)
    copy, _ = workflow.run("first")
    cache = copy / ".envsync-cache"
    unused = cache / "v1/wheels" / ("0" * 64)
    shutil.copytree(min((cache / "v1/wheels").iterdir()), unused)
    for path in (cache / "v1/wheels").iterdir():
        os.utime(path, (time.time() - 90 * 60,) * 2)
    service.kept.clear()
    service.save(f"envsync-Linux-X64-{OURS}-before", cache)
    copy, _ = workflow.run("second", lock="\n# another one\n")
    assert len(service.kept) == 2
    assert len(entries(copy / ".envsync-cache")) == 5


def test_a_workflow_with_the_cache_of_another_python(service: Service) -> None:
    """And of another system: wrong keys cost room, and nothing else."""
    other = next((version for version in PYTHONS if version != OURS), None)
    if other is None:
        pytest.skip("there is one Python here")
    workflow = Workflow(service)
    workflow.run("first", system="macOS")
    (kept,) = service.kept.values()
    service.kept[f"envsync-Linux-X64-{other}-wrong"] = kept
    copy, _ = workflow.run("second", python=other)
    assert unverified(copy / ".venv") == []
    assert (copy / f".venv/lib/python{other}").is_dir()


def gitlab(variables: Mapping[str, str], copy: Path, **more: str) -> dict[str, str]:
    """Return the variables of a job, with those in them that GitLab knows."""
    known = {"CI_PROJECT_DIR": str(copy), **more}
    return {
        **known,
        **{name: re.sub(r"\$(\w+)", lambda match: known[match[1]], value) for name, value in variables.items()},
    }


def test_gitlab_with_a_container_for_each_job(service: Service) -> None:
    """The second job needs no wheel: all come from what the first has kept."""
    job = read("gitlab-docker.yml")["test"]
    (kept,) = job["cache"]["paths"]
    for name in ("first", "second"):
        copy = service.check_out(name)
        variables = gitlab(job["variables"], copy, PYTHON=OURS)
        assert Path(variables["ENVSYNC_CACHE_DIR"]) == copy / kept.rstrip("/")
        service.restore(["key"], copy / kept)
        install, *before = job["before_script"]
        assert install == "pip install envsync"
        service.run(copy, "\n".join([*before, *job["script"]]), variables)
        service.run(copy, "\n".join(job["after_script"]), variables)
        service.save("key", copy / kept)
        assert unverified(copy / ".venv") == []
        if name == "first":
            (service.root / "wheels").rename(service.root / "gone")


def test_gitlab_on_one_machine(service: Service) -> None:
    """Eight jobs at once in eight working copies: one sync, one environment. Then what is old is tidied away."""
    text = (EXAMPLES / "gitlab-shell.yml").read_text()
    assert text.count("/srv/ci/") == 2
    found = yaml.safe_load(text.replace("/srv/ci/", f"{service.root}/ci/"))
    copies = [service.check_out(f"copy-{number}") for number in range(8)]
    started = [
        service.start(copy, "\n".join(found[job]["script"]), gitlab(found["variables"], copy))
        for copy, job in zip(copies, ("test", "lint") * 4, strict=True)
    ]
    for process in started:
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
    assert (service.count("synced"), service.count("launched")) == (1, 8)
    (env,) = (path for path in (service.root / "ci/envs").iterdir() if not path.name.startswith("."))
    assert env.name.startswith(f"{OURS}-")
    tidy = "\n".join(found["tidy"]["script"])
    service.run(copies[0], tidy, gitlab(found["variables"], copies[0]))
    assert env.exists()
    os.utime(env / ".envsync/in-use", (time.time() - 15 * 86400,) * 2)
    service.run(copies[0], tidy, gitlab(found["variables"], copies[0]))
    assert not env.exists()


def test_a_matrix_on_one_machine(service: Service) -> None:
    """All Pythons that are here, at once; one that fails fails the script."""
    versions = [*PYTHONS][:3]
    copy = service.check_out("copy")
    shutil.copy(EXAMPLES / "matrix.sh", copy)
    variables = {"PYTHONS": " ".join(versions), "ENVSYNC_CACHE_DIR": str(service.root / "cache")}
    service.run(copy, "./matrix.sh", variables)
    assert sorted(path.name for path in (copy / ".venvs").iterdir() if not path.name.startswith(".")) == versions
    assert len(entries(service.root / "cache")) == 5
    process = service.start(copy, "./matrix.sh", {**variables, "PYTHONS": f"3.2 {versions[0]}"})
    assert process.communicate(timeout=100)[0]
    assert process.returncode == 1


def test_hooks_of_pre_commit(service: Service) -> None:
    """They pass, they run in the project's environment, and one fails once pyproject.toml asks for something else."""
    hooks = {hook["id"]: hook for hook in read("pre-commit-config.yaml")["repos"][0]["hooks"]}
    copy = service.check_out("copy")
    variables = {"ENVSYNC_CACHE_DIR": str(service.root / "cache")}
    files = "test_greet.py"
    started = [service.start(copy, f"{hooks['compile']['entry']} {files}", variables) for _ in range(3)]
    for process in started:
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
    assert service.count("synced") == 1
    service.run(copy, hooks["locked"]["entry"], variables)
    pyproject = copy / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"greet[count]"', '"greet[count]", "absentee"'))
    process = service.start(copy, hooks["locked"]["entry"], variables)
    assert "it is not what pyproject.toml asks for" in process.communicate(timeout=100)[0]
    assert process.returncode == 125


def test_the_workflow_of_envsync_itself() -> None:
    """Three systems, the oldest Python that envsync runs on and the newest that it is for; Linux by `.ci/run`."""
    path = ROOT / ".github/workflows/tests.yml"
    job = yaml.safe_load(path.read_text())["jobs"]["tests"]
    matrix, steps = job["strategy"]["matrix"], {step["name"]: step for step in job["steps"] if "name" in step}
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    text = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r"Python :: (3\.\d+)", text)
    assert matrix["python"] == [versions[0], versions[-1]]
    assert f'requires-python = ">={versions[0]}"' in text
    assert steps["all checks"]["run"] == "bash .ci/run"
    for line in steps["unit tests"]["run"].splitlines():
        words = line.split()
        assert words[:2] == ["python", "-m"]
        assert not [word for word in words if word.startswith("tests") and not (ROOT / word).is_dir()]
