"""Requirements that have to be built, beside pip: what it installs of a file, we select; what it refuses, we do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from envsync.errors import EnvsyncError
from envsync.lockfile import Sources, read
from envsync.lockfile.target import ARCHIVE, GIT, Artifact
from envsync.python.interpreter import inspect
from tests.projects import git, make_project, make_repository, make_sdist, ran
from tests.wheels import build_wheel

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore:.*installed as a copy of")]

FORMS = {
    "dot": "./{name}",
    "dotted-slash": "./{name}/",
    "extra": "./{name}[more]",
    "marked": './{name} ; python_version > "3"',
    "absolute": "{tree}",
    "file-url": "file://{tree}",
    "named": "{name} @ file://{tree}",
    "named-extra": "{name}[more] @ file://{tree} ; python_version > '3'",
    "subdirectory": "file://{parent}#subdirectory={name}",
    "editable": "-e ./{name}",
    "editable-extra": "-e ./{name}[more]",
    "editable-url": "-e file://{tree}",
    "editable-egg": "-e file://{tree}#egg={name}",
    "editable-named": "-e '{name} @ file://{tree}'",
    "set": "./{name} --config-settings a=b -C a=c -Cd=e=f",
    "editable-set": "-e ./{name} --config-settings=a=b",
    "commit": "{name} @ git+file://{tree}@{commit}",
    "commit-egg": "git+file://{tree}@{commit}#egg={name}",
    "commit-below": "{name} @ git+file://{repository}@{below}#subdirectory={name}",
    "commit-editable": "-e git+file://{tree}@{commit}#egg={name}",
    "commit-editable-named": "-e '{name} @ git+file://{tree}@{commit}'",
    "sdist": "./{sdist}",
    "sdist-bare": "{sdist}",
    "sdist-url": "file://{parent}/{sdist}",
    "sdist-named": "{name} @ file://{parent}/{sdist}",
    "sdist-hashed": "{name} @ file://{parent}/{sdist}#sha256={digest}",
    "sdist-pinned": "{name}==1.0",
    "both-pinned": "{name}==1.0",
    "wheel-forbidden": "{name}==1.0",
    "constrained": "{name}",
}
"""A line for each project, which has that name."""


class Place(NamedTuple):
    """What pip has made of a file of all forms, and the file."""

    directory: Path
    installed: dict[str, Any]
    """By name: version, direct_url.json, and whether it is built."""
    log: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Have pip install all forms at once."""
    directory = tmp_path_factory.mktemp("requirements")
    log, wheelhouse = directory / "log", directory / "wheelhouse"
    wheelhouse.mkdir()
    repository = directory / "repository"
    make_project(repository / "commit-below", "commit-below", log=log)
    below = make_repository(repository)
    lines = ["--find-links wheelhouse", "-c pins.txt", "--no-binary wheel-forbidden"]
    for name, form in FORMS.items():
        tree = make_project(directory / name, name, log=log)
        sdist = make_sdist(tree, wheelhouse if name.endswith(("pinned", "forbidden")) else None)
        known = {"tree": tree, "parent": directory, "repository": repository, "below": below, "sdist": sdist.name}
        commit = make_repository(tree) if name.startswith("commit") else ""
        digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
        lines.append(form.format(name=name, commit=commit, digest=digest, **known))
    for name in ("both-pinned", "wheel-forbidden"):
        build_wheel(wheelhouse, name)
    (directory / "pins.txt").write_text(f"constrained @ file://{directory}/constrained\n")
    (directory / "requirements.txt").write_text("\n".join(lines) + "\n")
    env = directory / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    done = pip(directory, "-r", "requirements.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import importlib.metadata as m, json; print(json.dumps({d.name: "
        "(d.version, json.loads(d.read_text('direct_url.json') or 'null')) for d in m.distributions()}))"
    )
    said = subprocess.run([str(env / "bin/python"), "-c", code], capture_output=True, text=True, check=True)
    return Place(directory, json.loads(said.stdout), log)


def pip(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `pip install` in a directory, for the environment there; it has no index and no cache."""
    given = ["--no-index", "--no-deps", "--no-cache-dir", "--src", str(directory / "src"), *words]
    command = [sys.executable, "-m", "pip", "--python", str(directory / "env/bin/python"), "install", *given]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)


def selected(directory: Path, name: str = "requirements.txt") -> dict[str, Artifact]:
    """Return what we select of a file, by name."""
    interpreter = inspect(sys.executable, str(directory / "facts"))
    target = read(str(directory / name)).select(interpreter, sources=Sources(no_index=True))
    return {artifact.name: artifact for artifact in target.artifacts}


def test_the_same_packages_are_selected(place: Place) -> None:
    """All that pip has installed and nothing else."""
    assert selected(place.directory).keys() == place.installed.keys() == FORMS.keys()


@pytest.mark.parametrize("name", FORMS)
def test_each_form_means_what_it_means_to_pip(place: Place, name: str) -> None:
    """Version, direct_url.json, editable or not, built or not, and with which settings."""
    artifact = selected(place.directory)[name]
    version, said = place.installed[name]
    assert artifact.version in ("", version)
    assert told(artifact) == (said if said is None else without_freedom(said, name))
    hooks = [each for each in ran(place.log) if each["name"] == name and each["hook"].startswith("build_")]
    assert bool(hooks) == (artifact.source is not None)
    if artifact.source is not None and artifact.source.kind != GIT:
        assert {each["hook"] for each in hooks} == {"build_editable" if artifact.source.editable else "build_wheel"}
    settings: dict[str, Any] = {}
    rules = (
        read(str(place.directory / "requirements.txt"))
        .select(inspect(sys.executable, str(place.directory / "facts")), sources=Sources(no_index=True))
        .rules
    )
    for package, key, value in rules.config_of:
        if package == name:
            former = settings.get(key)
            settings[key] = value if former is None else [former, value]
    assert [each["config"] for each in hooks if each["config"] != settings] == []


def told(artifact: Artifact) -> Any:
    """Return our direct_url.json without what the specification leaves free."""
    if artifact.direct_url is None:
        return None
    return without_freedom(json.loads(artifact.direct_url), artifact.name)


def without_freedom(said: Any, name: str) -> Any:
    """Leave out that something is not editable, hashes of archives, and where pip cloned an editable to."""
    if "archive_info" in said:
        said["archive_info"] = {}
    if said.get("dir_info") == {"editable": False}:
        said["dir_info"] = {}
    if name.startswith("commit-editable"):
        return {}
    return said


def test_a_commit_that_is_editable_is_that_commit(place: Place) -> None:
    """pip clones it and links to the clone; ours is a copy, of the same commit."""
    for name in ("commit-editable", "commit-editable-named"):
        source = selected(place.directory)[name].source
        assert source is not None
        (clone,) = (path for path in (place.directory / "src").iterdir() if path.name == name)
        assert git(clone, "rev-parse", "HEAD") == source.commit


def test_archives_that_are_the_only_form(place: Place) -> None:
    """Where there is a wheel as well, that is taken, unless the file forbids it."""
    artifacts = selected(place.directory)
    kinds = {name: artifacts[name].source for name in ("sdist-pinned", "both-pinned", "wheel-forbidden")}
    assert {name: source and source.kind for name, source in kinds.items()} == {
        "sdist-pinned": ARCHIVE,
        "both-pinned": None,
        "wheel-forbidden": ARCHIVE,
    }


REFUSED = {
    "a directory beside hashes": "./dot\nboth-pinned==1.0 --hash=sha256:" + "0" * 64,
    "a directory where hashes are required": "--require-hashes\n./dot",
    "an editable where hashes are required": "--require-hashes\n-e ./dot",
    "a commit where hashes are required": "--require-hashes\ndot @ git+file:///nowhere@" + "0" * 40,
    "an editable version": "-e both-pinned==1.0",
    "an editable archive": "-e https://host.invalid/foo-1.0.tar.gz",
    "no directory": "./none",
    "no project": "./wheelhouse",
    "an editable without a value": "-e",
    "a nameless commit": "-e git+file:///nowhere@" + "0" * 40,
    "a wheel that is forbidden": "--no-binary both-pinned\n--find-links wheels\nboth-pinned==2.0",
    "an sdist that is forbidden": "--only-binary :all:\n--find-links wheelhouse\nsdist-pinned==1.0",
    "a constraint that is editable": "-c editable.txt\ndot",
    "a constraint with extras": "-c extras.txt\ndot",
    "a constraint without a name": "-c nameless.txt\ndot",
    "a constraint that contradicts": "-c elsewhere.txt\ndot @ file://{directory}/dot",
    "a version that contradicts": "-c version.txt\n./sdist-1.0.tar.gz",
    "a setting that is none": "./dot --config-settings a",
    "another hash": "dot @ file://{directory}/dot-1.0.tar.gz --hash=md5:x",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_pip_refuses_is_refused(place: Place, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By pip when it installs, by us before anything is fetched or built."""
    directory = place.directory
    pins = {
        "editable.txt": f"-e {directory}/dot",
        "extras.txt": "dot[x]==1.0",
        "nameless.txt": f"{directory}/dot",
        "elsewhere.txt": f"dot @ file://{directory}/absolute",
        "version.txt": "sdist>=2",
    }
    for name, line in pins.items():
        (directory / name).write_text(line + "\n")
    (directory / "wheels").mkdir(exist_ok=True)
    build_wheel(directory / "wheels", "both-pinned", "2.0")
    (directory / "refused.txt").write_text(text.format(directory=directory) + "\n")
    done = pip(directory, "--dry-run", "--ignore-installed", "-r", "refused.txt")
    assert done.returncode != 0, done.stdout
    with pytest.raises(EnvsyncError) as caught:
        selected(directory, "refused.txt")
    assert caught.value.hint
