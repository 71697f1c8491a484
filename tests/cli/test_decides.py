"""Whatever decides what is installed is noticed by the next launch, and nothing else is."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from envsync.launch import fast_lane, request
from tests import pythons
from tests.conftest import envsync_command
from tests.environments import FIXTURES

Run = Callable[..., subprocess.CompletedProcess[str]]
WHICH = "import importlib.metadata as m; print(m.version('greet'))"
HASH = {
    version: hashlib.sha256((FIXTURES / f"wheels/greet-{version}-py3-none-any.whl").read_bytes()).hexdigest()
    for version in ("1.0", "2.0")
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with wheels of two versions, each also in a directory of its own."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    for version in ("1.0", "2.0"):
        (tmp_path / version).mkdir()
        shutil.copy(tmp_path / f"wheels/greet-{version}-py3-none-any.whl", tmp_path / version)
    return tmp_path


def runs(run_envsync: Run, environ: Mapping[str, str | None]) -> str:
    """Return the version of `greet` that a command finds."""
    done = run_envsync("run", "-q", "--env", "env", "--", "python", "-c", WHICH, env=environ)
    return done.stdout.strip() or done.stderr


def is_current(run_envsync: Run, environ: Mapping[str, str | None]) -> bool:
    return run_envsync("status", "--env", "env", "--exit-code", env=environ).returncode == 0


PLACES: dict[str, dict[str, str]] = {
    "pin": {"requirements.txt": "--no-index\n--find-links wheels\ngreet==${V}\n"},
    "a whole line": {"requirements.txt": "--no-index\n-f wheels\n${LINE}\n"},
    "pin in an included file": {
        "requirements.txt": "--no-index\n--find-links wheels\n-r more.txt\n",
        "more.txt": "greet==${V}\n",
    },
    "name of an included file": {
        "requirements.txt": "--no-index\n--find-links wheels\n-r more-${V}.txt\n",
        "more-1.0.txt": "greet==1.0\n",
        "more-2.0.txt": "greet==2.0\n",
    },
    "name of constraints": {
        "requirements.txt": "--no-index\n--find-links wheels\ngreet\n-c only-${V}.txt\n",
        "only-1.0.txt": "greet==1.0\n",
        "only-2.0.txt": "greet==2.0\n",
    },
    "constraint": {
        "requirements.txt": "--no-index\n--find-links wheels\ngreet\n-c only.txt\n",
        "only.txt": "greet==${V}\n",
    },
    "path of a wheel": {"requirements.txt": "./wheels/greet-${V}-py3-none-any.whl\n"},
    "URL of a wheel": {"requirements.txt": "greet @ file://${HERE}/wheels/greet-${V}-py3-none-any.whl\n"},
    "hash": {"requirements.txt": "--no-index\n--find-links wheels\ngreet==${V} --hash=sha256:${HASH}\n"},
}


@pytest.mark.parametrize("place", PLACES)
def test_variables(place: str, project: Path, run_envsync: Run) -> None:
    """The value of a variable counts wherever a requirements file takes it; another value is another set."""
    for name, text in PLACES[place].items():
        (project / name).write_text(text)

    def environ(version: str) -> dict[str, str]:
        line = f"greet=={version}"
        return {"V": version, "HASH": HASH[version], "LINE": line, "HERE": str(project), "OTHER": version}

    assert runs(run_envsync, environ("1.0")) == "1.0"
    assert is_current(run_envsync, {**environ("1.0"), "OTHER": "x"})
    assert not is_current(run_envsync, environ("2.0"))
    assert not is_current(run_envsync, {**environ("1.0"), "V": None, "LINE": None})
    assert runs(run_envsync, environ("2.0")) == "2.0"
    assert runs(run_envsync, environ("1.0")) == "1.0"


@pytest.mark.parametrize("option", ["--find-links", "-f"])
def test_where_wheels_come_from(option: str, project: Path, run_envsync: Run) -> None:
    """A directory of wheels that a variable names counts where nothing has a hash, and only there."""
    (project / "requirements.txt").write_text(f"--no-index\n{option} ${{DIR}}\ngreet==1.0\n")
    shutil.copytree(project / "1.0", project / "copy")
    assert runs(run_envsync, {"DIR": "1.0"}) == "1.0"
    assert is_current(run_envsync, {"DIR": "1.0"})
    assert not is_current(run_envsync, {"DIR": "copy"})
    (project / "requirements.txt").write_text(
        f"--no-index\n{option} ${{DIR}}\ngreet==1.0 --hash=sha256:{HASH['1.0']}\n"
    )
    assert runs(run_envsync, {"DIR": "1.0"}) == "1.0"
    assert is_current(run_envsync, {"DIR": "copy"})


def test_a_password_is_neither_kept_nor_counted(project: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """A token that is another for each job changes no digest, and no file has it, nor has what is printed."""
    (project / "requirements.txt").write_text(
        "--extra-index-url https://me:${TOKEN}@127.0.0.1:9/simple\n--no-index\n--find-links wheels\ngreet==1.0\n"
    )
    first = run_envsync("sync", "-v", "--env", "env", env={"TOKEN": "hunter2secret"}, check=True)
    said = [first, run_envsync("status", "--json", "--env", "env", env={"TOKEN": "hunter2secret"})]
    assert is_current(run_envsync, {"TOKEN": "anotherSecret"})
    assert not any("hunter2secret" in each.stdout + each.stderr for each in said)
    kept = [path for root in (project / "env", nobodys_home) for path in root.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"hunter2secret" in path.read_bytes() for path in kept)


def test_a_value_is_not_kept(project: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """Of a value that counts, only a checksum goes into the digest: the stamp names the variable."""
    (project / "requirements.txt").write_text("--no-index\n--find-links wheels\ngreet==1.0 # ${NOT_THIS}\n${SECRET}\n")
    value = "greet == 1.0 ; python_version > '3.1'"
    run_envsync("sync", "--env", "env", env={"SECRET": value}, check=True)
    stamp = (project / "env/.envsync/stamp").read_text()
    assert "\nvariable SECRET\n" in stamp
    assert "NOT_THIS" not in stamp
    assert "python_version" not in stamp


def test_wheels_beside_another_lock_file(project: Path, run_envsync: Run) -> None:
    """One file in two directories, each with its own wheels beside it: without hashes, they ask for two sets."""
    text = "--no-index\n--find-links wheels\ngreet==1.0\n"
    for name in ("a", "b"):
        (project / name).mkdir()
        shutil.copytree(project / "wheels", project / name / "wheels")
        (project / name / "requirements.txt").write_text(text)
    run_envsync("sync", "--env", "../env", cwd=project / "a", check=True)
    assert run_envsync("status", "--env", "../env", "--exit-code", cwd=project / "a").returncode == 0
    assert run_envsync("status", "--env", "../env", "--exit-code", cwd=project / "b").returncode == 1


def lock(project: Path, *markers: str, requires: str = "") -> None:
    """Write a lock file that asks for `greet` 1.0 under the first marker and for 2.0 under the second."""
    lines = ['lock-version = "1.0"', 'created-by = "test"', requires]
    for version, marker in zip(("1.0", "2.0"), markers, strict=False):
        lines += ["[[packages]]", 'name = "greet"', f'version = "{version}"', f'marker = "{marker}"']
        path = f"wheels/greet-{version}-py3-none-any.whl"
        lines.append(f'wheels = [{{ path = "{path}", hashes = {{ sha256 = "{HASH[version]}" }} }}]')
    (project / "pylock.toml").write_text("\n".join(lines) + "\n")


def rebase(project: Path, python: str) -> None:
    """Let the environment stand on a Python at a path of ours, as one does that was made in a container's image."""
    (project / "image").mkdir(exist_ok=True)
    exchange(project, python)
    for link in (project / "env/bin").iterdir():
        if link.is_symlink() and os.path.isabs(os.readlink(link)):
            link.unlink()
            link.symlink_to(project / "image/python")
    config = project / "env/pyvenv.cfg"
    lines = (
        f"home = {project}/image" if line.startswith("home =") else line for line in config.read_text().split("\n")
    )
    config.write_text("\n".join(lines))


def exchange(project: Path, python: str) -> None:
    """Put another Python into the image."""
    (project / "image/new").symlink_to(python)
    (project / "image/new").rename(project / "image/python")


def stamped(project: Path, key: str) -> list[str]:
    """Return the lines of a stamp that begin with a word."""
    lines = (project / "env/.envsync/stamp").read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{key} ")]


def test_python_upgraded_in_place(project: Path, run_envsync: Run) -> None:
    """Another full version at the same path is noticed by the next launch, if a marker cares."""
    old, new = pythons.pair()
    ask = [old, "-c", "import platform; print(platform.python_version())"]
    full = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    lock(project, f"python_full_version == '{full}'", f"python_full_version != '{full}'")
    run_envsync("sync", "--env", "env", "--python", old, check=True)
    rebase(project, old)
    assert runs(run_envsync, {}) == "1.0"
    exchange(project, new)
    said = run_envsync("status", "--env", "env").stdout
    assert f"`{project}/image/python` is not as it was synced with" in said
    assert runs(run_envsync, {}) == "2.0"
    assert is_current(run_envsync, {})
    exchange(project, old)
    assert runs(run_envsync, {}) == "1.0"


def test_images_of_other_dates_share_a_stamp(project: Path, run_envsync: Run) -> None:
    """The same version in a file of another date is added to the stamp once; then both hosts launch as it is."""
    full = platform.python_version()
    lock(project, f"python_full_version == '{full}'", f"python_full_version != '{full}'")
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    run_envsync("sync", "--env", "env", "--python", base, check=True)
    rebase(project, base)
    assert runs(run_envsync, {}) == "1.0"
    assert len(stamped(project, "seen")) == 1
    assert stamped(project, "base") == [f"{project}/image/python"]
    copies = []
    for number in range(3):
        copies.append(str(project / f"python-{number}"))
        shutil.copy(base, copies[-1])
        os.utime(copies[-1], (1_700_000_000 + number, 1_700_000_000 + number))
    for copy in copies:
        exchange(project, copy)
        if runs(run_envsync, {}) != "1.0":
            pytest.skip("a Python that was copied does not run here")
        assert is_current(run_envsync, {})
    before = (project / "env/.envsync/stamp").stat()
    for copy in (*copies, base):
        exchange(project, copy)
        assert is_current(run_envsync, {})
        assert runs(run_envsync, {}) == "1.0"
    after = (project / "env/.envsync/stamp").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(stamped(project, "seen")) == 4


def test_a_lock_file_that_does_not_care(project: Path, run_envsync: Run) -> None:
    """Without such a marker, or with one that X.Y settles, the base interpreter is not in the stamp."""
    lock(project, "python_full_version >= '3.9' and sys_platform == 'linux'", "python_full_version < '3.9'")
    assert runs(run_envsync, {}) == "1.0"
    assert stamped(project, "base") == stamped(project, "seen") == stamped(project, "conditions") == []


def test_another_kernel(project: Path, run_envsync: Run) -> None:
    """A marker of the kernel is evaluated where a launch is; hosts where it comes out the same share a stamp."""
    if shutil.which("setarch") is None:
        pytest.skip("setarch is not installed")
    other = ["setarch", platform.machine(), "--uname-2.6"]
    asked = subprocess.run([*other, "uname", "-r"], capture_output=True, text=True, check=False)
    if not asked.stdout.startswith("2.6."):
        pytest.skip("no other kernel can be pretended here")
    lock(project, "'2.6.' in platform_release", "'2.6.' not in platform_release")
    words = ["run", "-q", "--env", "env", "--", "python", "-c", WHICH]

    def on_the_other() -> str:
        done = subprocess.run(
            [*other, *envsync_command(), *words], capture_output=True, text=True, cwd=project, check=True
        )
        return done.stdout.strip()

    assert runs(run_envsync, {}) == "2.0"
    assert on_the_other() == "1.0"
    assert runs(run_envsync, {}) == "2.0"
    lock(project, "'9999.' in platform_release", "'9999.' not in platform_release")
    assert (runs(run_envsync, {}), on_the_other(), runs(run_envsync, {})) == ("2.0", "2.0", "2.0")
    assert is_current(run_envsync, {})
    assert len(stamped(project, "on")) == 2


def test_full_version_asked_for(project: Path, run_envsync: Run) -> None:
    """`--python X.Y.Z` looks at the full version as a marker does."""
    lock(project, "python_version >= '3'")
    full = platform.python_version()
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    run_envsync("sync", "--env", "env", "--python", base, check=True)
    done = run_envsync("sync", "--env", "env", "--python", full)
    assert done.returncode == 0, done.stderr
    assert len(stamped(project, "seen")) == 1
    short = ".".join(full.split(".")[:2])
    run_envsync("sync", "--env", "env", "--python", short, check=True)
    assert stamped(project, "seen") == []


@pytest.mark.empty_cache
def test_what_was_remembered_is_for_this_host(project: Path, run_envsync: Run, nobodys_home: Path) -> None:
    """What a lock file selects is remembered only if digest and interpreter decide it alone."""
    memory = nobodys_home / ".cache/envsync/v1/targets"
    lock(project, "platform_release != 'x'", "platform_release == 'x'")
    assert runs(run_envsync, {}) == "1.0"
    assert not memory.exists() or not list(memory.iterdir())
    lock(project, "sys_platform != 'x'")
    assert runs(run_envsync, {}) == "1.0"
    assert len(list(memory.iterdir())) == 1


def test_repair_keeps_what_was_asked_for(project: Path, run_envsync: Run) -> None:
    """After a repair, the environment is still current for what it was synced to, variables and markers included."""
    (project / "requirements.txt").write_text(
        f"--no-index\n-f wheels\ngreet==${{V}}; python_full_version == '{platform.python_version()}'\n"
    )
    assert runs(run_envsync, {"V": "1.0"}) == "1.0"
    next((project / "env").glob("lib/*/site-packages/greet*/**/*.py")).unlink()
    run_envsync("check", "--env", "env", "--repair", env={"V": "1.0"}, check=True)
    assert is_current(run_envsync, {"V": "1.0"})
    assert not is_current(run_envsync, {"V": "2.0"})


def test_a_directory_for_each_version(project: Path, run_envsync: Run) -> None:
    """An environment that is named by its digest is found by the fast lane, and is another for another full version."""
    lock(project, f"python_full_version == '{platform.python_version()}'")
    for _ in range(2):
        done = run_envsync("run", "-q", "--env", "envs/{digest}", "--", "python", "-c", WHICH, check=True)
        assert done.stdout == "1.0\n"
    assert len(list((project / "envs").iterdir())) == 1
    asked = request.resolve({"lock": str(project / "pylock.toml"), "env": str(project / "envs/{digest}")}, {})
    environment = fast_lane.environment_of(asked)
    assert environment is not None
    entry = fast_lane.enter(asked, environment)
    assert entry is not None
    os.close(entry.fd)


PINNED = f"greet==1.0 --hash=sha256:{HASH['1.0']}\n"


@pytest.fixture
def included(project: Path, run_envsync: Run) -> Path:
    """An included file of a lock file whose environment is current."""
    (project / "requirements.txt").write_text("--no-index\n--find-links wheels\n-r more.txt\n")
    (project / "more.txt").write_text(PINNED)
    run_envsync("sync", "--env", "env", check=True)
    return project / "more.txt"


def state(project: Path) -> dict[str, int]:
    """Return the inodes of what a sync would write besides the stamp, and when site-packages was changed."""
    site = next((project / "env/lib").glob("python*/site-packages"))
    found = {name: (project / f"env/.envsync/{name}").stat().st_ino for name in ("installed.json", "in-use")}
    return {**found, "site-packages": site.stat().st_mtime_ns}


def test_a_comment_in_a_further_input(project: Path, included: Path, run_envsync: Run) -> None:
    """It renews the stamp, and is no sync: nobody is waited for, and neither cache nor wheels are needed."""
    before, digest = state(project), stamped(project, "digest")
    shutil.rmtree(project / "wheels")
    events = project / "events"
    holding = [*envsync_command(), "run", "--env", "env", "--", "sh", "-c", "echo in; read line"]
    with subprocess.Popen(holding, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "in\n"
        for text in (f"# why\n{PINNED}", f"{PINNED}# because\n", f"# why\n{PINNED}"):
            included.write_text(text)
            assert is_current(run_envsync, {})
            words = ["--timeout", "20", "--env", "env", "--cache-dir", str(project / "empty")]
            done = run_envsync("run", *words, "--", "python", "-c", WHICH, env={"ENVSYNC_EVENTS": str(events)})
            assert (done.stdout, done.stderr) == ("1.0\n", "")
        command.communicate("\n")
    assert [line for line in events.read_text().splitlines() if '"launched"' not in line] == []
    assert (state(project), stamped(project, "digest")) == (before, digest)
    seen = stamped(project, "further")[0].split(" ")[1]
    assert len(seen.split(",")) == 3


def test_contents_that_come_and_go_are_all_known(project: Path, included: Path, run_envsync: Run) -> None:
    """Two that count for the same do not write the stamp in turn."""
    texts = (PINNED, f"# why\n{PINNED}")
    for text in texts:
        included.write_text(text)
        assert runs(run_envsync, {}) == "1.0"
    before = (project / "env/.envsync/stamp").stat().st_ino
    for text in texts:
        included.write_text(text)
        assert runs(run_envsync, {}) == "1.0"
    assert (project / "env/.envsync/stamp").stat().st_ino == before


def test_what_counts_in_a_further_input(project: Path, included: Path, run_envsync: Run) -> None:
    """Another pin, a file that is gone or that makes no sense: none of it is taken for a comment."""
    included.write_text(PINNED.replace(HASH["1.0"], HASH["2.0"]).replace("1.0", "2.0"))
    assert not is_current(run_envsync, {})
    assert runs(run_envsync, {}) == "2.0"
    included.write_text("greet==\n")
    assert not is_current(run_envsync, {})
    assert "more.txt" in runs(run_envsync, {})
    included.unlink()
    assert not is_current(run_envsync, {})
    assert "more.txt" in runs(run_envsync, {})


UV_LOCK = f"""\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "demo"
version = "1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "greet", version = "1.0", source = {{ path = "wheels/greet-1.0-py3-none-any.whl" }} }}]

[package.dev-dependencies]
new = [{{ name = "tally" }}]

[[package]]
name = "greet"
version = "1.0"
source = {{ path = "wheels/greet-1.0-py3-none-any.whl" }}
wheels = [{{ filename = "greet-1.0-py3-none-any.whl", hash = "sha256:{HASH["1.0"]}" }}]

[[package]]
name = "tally"
version = "1.0"
source = {{ path = "wheels/tally-1.0-py3-none-any.whl" }}
wheels = [{{ filename = "tally-1.0-py3-none-any.whl", hash = "sha256:{
    hashlib.sha256((FIXTURES / "wheels/tally-1.0-py3-none-any.whl").read_bytes()).hexdigest()
}" }}]
"""
PYPROJECT = """\
[project]
name = "demo"
version = "1.0"
dependencies = ["greet"]

[dependency-groups]
new = ["tally"]
"""


@pytest.mark.parametrize("place", ["", "./", "x//", "x/../x/", "{here}/x/"])
def test_a_comment_in_pyproject_toml(
    project: Path, run_envsync: Run, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renews the stamp and leaves `{digest}` as it is; what counts does neither, wherever the lock file is."""
    (project / "x").mkdir()
    directory = project / place.format(here=project)
    if directory != project:
        shutil.copytree(project / "wheels", directory / "wheels")
    (directory / "uv.lock").write_text(UV_LOCK)
    lock = f"{place.format(here=project)}uv.lock"
    texts = [PYPROJECT, f"# why\n{PYPROJECT}", f"{PYPROJECT}[tool.ruff]\nfix = true\n"]
    asked = ["--lock", lock, "--env", "envs/{digest}"]

    def runs() -> list[str]:
        run_envsync("run", "-q", *asked, "--", "true", check=True)
        wanted = request.resolve({"lock": lock, "env": "envs/{digest}"}, {})
        environment = fast_lane.environment_of(wanted)
        assert environment is not None
        entry = fast_lane.enter(wanted, environment)
        assert entry is not None
        os.close(entry.fd)
        return sorted(name for name in os.listdir("envs") if not name.startswith("."))

    monkeypatch.chdir(project)
    (directory / "pyproject.toml").write_text(texts[0])
    first = runs()
    assert len(first) == 1
    for text in texts:
        (directory / "pyproject.toml").write_text(text)
        assert runs() == first
    (directory / "pyproject.toml").write_text(f'{PYPROJECT}[tool.uv]\ndefault-groups = ["new"]\n')
    assert len(runs()) == 2


def test_a_pyproject_toml_that_comes(project: Path, run_envsync: Run) -> None:
    """And one that goes: whether there is one decides."""
    (project / "uv.lock").write_text(UV_LOCK)
    names = "import importlib.metadata as m; print(any(each.name == 'tally' for each in m.distributions()))"
    which = ["run", "-q", "--", "python", "-c", names]
    text = f'{PYPROJECT}[tool.uv]\ndefault-groups = ["new"]\n'
    for content, expected in ((None, "False"), (text, "True"), (None, "False"), ("", "False")):
        (project / "pyproject.toml").unlink(missing_ok=True)
        if content is not None:
            (project / "pyproject.toml").write_text(content)
        assert run_envsync(*which).stdout == f"{expected}\n"
        assert run_envsync("status", "--exit-code").returncode == 0
