"""What has no wheel is built: the project itself, trees, archives and repositories, each once for all who ask."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envsync.launch import Environment, stamp
from tests.conftest import envsync_command
from tests.environments import leftovers, site_packages, unverified
from tests.projects import built, make_project, make_repository, make_sdist

Run = Callable[..., subprocess.CompletedProcess[str]]

LOCK = """\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "app"
version = "1.0"
source = {{ editable = "." }}
dependencies = [{{ name = "lib" }}, {{ name = "packed" }}, {{ name = "versioned" }}]

[[package]]
name = "lib"
version = "1.0"
source = {{ directory = "../lib" }}

[[package]]
name = "packed"
version = "1.0"
source = {{ path = "../packed-1.0.tar.gz" }}
sdist = {{ hash = "sha256:{sha256}" }}

[[package]]
name = "versioned"
version = "1.0"
source = {{ git = "file://{repository}?rev=main#{commit}" }}
"""
NAMES = ("app", "lib", "packed", "versioned")
IMPORT_ALL = "import app, lib, packed, versioned; print(app.__version__)"


class Scene:
    """A project with a lock file, and all that it is built of.

    :ivar directory: of the project
    :ivar log: what backends have run
    :ivar events: what envsync has done
    """

    def __init__(self, place: Path, run: Run, **app: Any) -> None:
        self.log, self.events = place / "log", place / "events"
        self.lib = make_project(place / "lib", "lib", log=self.log)
        packed = make_project(place / "packed", "packed", log=self.log)
        self.repository = make_project(place / "versioned", "versioned", log=self.log)
        commit = make_repository(self.repository)
        self.sdist = make_sdist(packed, filename="packed-1.0.tar.gz")
        self.directory = make_project(place / "app", "app", log=self.log, scripts={"app": "app:main"}, **app)
        (self.directory / "src/app/__init__.py").write_text('__version__ = "1.0"\n\ndef main():\n    print("ran")\n')
        from hashlib import sha256

        digest = sha256(self.sdist.read_bytes()).hexdigest()
        text = LOCK.format(sha256=digest, repository=self.repository, commit=commit)
        (self.directory / "uv.lock").write_text(text)
        self.env = self.directory / ".venv"
        self.environ = {"ENVSYNC_EVENTS": str(self.events), "ENVSYNC_CACHE_DIR": str(place / "cache")}
        self.cache = place / "cache"
        self._run = run

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one envsync command line in the project."""
        env = {**self.environ, **options.pop("env", {})}
        check = options.pop("check", False)
        done = self._run(*words, cwd=self.directory, env=env, **options)
        assert not check or done.returncode == 0, done.stderr
        return done

    def happened(self, event: str) -> int:
        """Count events of one kind."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return sum(json.loads(line)["event"] == event for line in lines)

    @property
    def hooks(self) -> list[str]:
        """What was built, in alphabetical order."""
        return sorted(built(self.log))


ALL_BUILT = ["build_editable app", "build_wheel lib", "build_wheel packed", "build_wheel versioned"]


@pytest.fixture
def scene(tmp_path: Path, run_envsync: Run) -> Scene:
    return Scene(tmp_path, run_envsync)


def test_senseless_options_are_usage_errors(scene: Scene) -> None:
    """They are named before anything is built, with one that makes sense."""
    for option, value, example in (
        ("--config-setting", "nonsense", "--config-setting key=value"),
        ("--build-constraint", "setuptools<", "--build-constraint 'setuptools<81'"),
    ):
        done = scene.run("sync", option, value)
        assert done.returncode == 2
        assert f"error: `{value}`, given to {option}, is no " in done.stderr
        assert example in done.stderr
    assert scene.hooks == []


def test_all_kinds_are_built_and_installed(scene: Scene) -> None:
    """Editable, directory, archive and commit: each is built once, installed whole, and says where it came from."""
    done = scene.run("run", "--", "python", "-c", IMPORT_ALL, check=True)
    assert done.stdout == "1.0\n"
    assert scene.hooks == ALL_BUILT
    assert unverified(scene.env) == []
    site = site_packages(scene.env)
    origins = {name: json.loads((site / f"{name}-1.0.dist-info/direct_url.json").read_text()) for name in NAMES}
    assert origins["app"] == {"url": f"file://{scene.directory}", "dir_info": {"editable": True}}
    assert origins["lib"] == {"url": f"file://{scene.lib}", "dir_info": {"editable": False}}
    assert origins["packed"]["url"] == f"file://{scene.sdist}"
    assert origins["versioned"]["vcs_info"]["vcs"] == "git"
    assert origins["versioned"]["vcs_info"]["requested_revision"] == "main"
    assert subprocess.run([scene.env / "bin/app"], capture_output=True, text=True, check=True).stdout == "ran\n"
    assert os.listdir(scene.cache / "v1/tmp") == []


def test_an_edit_of_a_source_costs_nothing(scene: Scene) -> None:
    """Python sees it at once, and nothing is synced or built for it."""
    scene.run("sync", check=True)
    (scene.directory / "src/app/__init__.py").write_text('__version__ = "2.0"\n')
    done = scene.run("run", "--", "python", "-c", IMPORT_ALL, check=True)
    assert done.stdout == "2.0\n"
    assert scene.hooks == ALL_BUILT
    assert (scene.happened("started"), scene.happened("synced")) == (1, 1)


def test_what_says_how_it_is_built_is_looked_at_by_every_launch(scene: Scene) -> None:
    """A new entry point: one sync, the new script, and nothing else is built or touched."""
    scene.run("sync", check=True)
    before = (site_packages(scene.env) / "lib").stat().st_ino
    project = scene.directory / "pyproject.toml"
    project.write_text(project.read_text().replace('app = "app:main"', 'app = "app:main"\nother = "app:main"'))
    done = scene.run("run", "--", "other", check=True)
    assert done.stdout == "ran\n"
    assert scene.hooks == sorted([*ALL_BUILT, "build_editable app"])
    assert scene.happened("synced") == 2
    assert (site_packages(scene.env) / "lib").stat().st_ino == before
    assert len(os.listdir(scene.env / ".envsync/editables")) == 1  # the one before is gone


def test_a_comment_builds_nothing(scene: Scene) -> None:
    """What counts for nothing in a pyproject.toml costs a look at it."""
    scene.run("sync", check=True)
    for tree in (scene.directory, scene.lib):
        with (tree / "pyproject.toml").open("a") as file:
            file.write("# a comment\n")
    scene.run("run", "--", "true", check=True)
    assert scene.hooks == ALL_BUILT
    assert scene.happened("synced") == 1


def test_a_copy_is_made_again_by_a_sync(scene: Scene) -> None:
    """An edit of a tree that is no editable: `run` sees nothing of it, `status` says so, and `sync` builds it."""
    scene.run("sync", check=True)
    (scene.lib / "src/lib/__init__.py").write_text('__version__ = "1.1"\n')
    show = ("run", "--", "python", "-c", "import lib; print(lib.__version__)")
    assert scene.run(*show, check=True).stdout == "1.0\n"
    assert f"built of `{scene.lib}`, which has changed since" in scene.run("status", check=True).stdout
    scene.run("sync", check=True)
    assert scene.run(*show, check=True).stdout == "1.1\n"
    assert scene.hooks == sorted([*ALL_BUILT, "build_wheel lib"])
    assert "has changed since" not in scene.run("status", check=True).stdout


def test_another_environment_builds_only_its_links(scene: Scene) -> None:
    """Wheels that were built are shared by all environments; an editable is each environment's own."""
    scene.run("sync", check=True)
    scene.run("sync", "--env", "other", check=True)
    assert scene.hooks == sorted([*ALL_BUILT, "build_editable app"])


def test_twenty_at_once(scene: Scene) -> None:
    """Of twenty runs at once, nothing cached, one builds each, and all have what they ask for."""
    command = [*envsync_command(), "run", "--", "python", "-c", IMPORT_ALL]
    environ = {**os.environ, **scene.environ}
    runs = [
        subprocess.Popen(command, cwd=scene.directory, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(20)
    ]
    ended = [(*run.communicate(timeout=100), run.returncode) for run in runs]
    assert [(out, code) for out, _, code in ended] == [(b"1.0\n", 0)] * 20, ended
    assert scene.hooks == ALL_BUILT
    assert scene.happened("synced") == 1


def test_environments_at_once_share_builds(scene: Scene) -> None:
    """Six environments at once: what can be shared is built once, whoever is first."""
    environ = {**os.environ, **scene.environ}
    runs = [
        subprocess.Popen([*envsync_command(), "sync", "--env", f"env{n}"], cwd=scene.directory, env=environ)
        for n in range(6)
    ]
    assert [run.wait(timeout=100) for run in runs] == [0] * 6
    assert scene.hooks == sorted([*ALL_BUILT[1:], *["build_editable app"] * 6])


def test_no_editable(scene: Scene) -> None:
    """With --no-editable the project is a copy, and an edit of it is one of a source that only a sync sees."""
    scene.run("sync", "--no-editable", check=True)
    assert (site_packages(scene.env) / "app/__init__.py").is_file()
    assert scene.hooks == ["build_wheel app", *ALL_BUILT[1:]]
    direct = json.loads((site_packages(scene.env) / "app-1.0.dist-info/direct_url.json").read_text())
    assert direct["dir_info"] == {"editable": False}


def test_no_build(scene: Scene) -> None:
    """With --no-build all that would be built is named, and nothing is run, fetched or made."""
    done = scene.run("sync", "--no-build")
    assert done.returncode == 125
    assert all(f"`{name}`" in done.stderr for name in NAMES)
    assert scene.hooks == []
    assert not scene.env.exists()


@pytest.mark.parametrize("fails", ["the compiler is on holiday"])
def test_a_failure(tmp_path: Path, run_envsync: Run, fails: str) -> None:
    """What the build has said last is shown, and the log, which is kept; nothing is installed, nothing is left."""
    scene = Scene(tmp_path, run_envsync, fails=fails)
    done = scene.run("sync")
    assert done.returncode == 125
    assert "cannot build `app 1.0`" in done.stderr
    assert fails in done.stderr
    log = next((scene.cache / "v1/logs").iterdir())
    assert str(log) in done.stderr
    assert fails in log.read_text()
    assert os.listdir(scene.cache / "v1/tmp") == []
    assert not scene.env.exists()


def test_a_dry_run_builds_nothing(scene: Scene) -> None:
    """It says what would be installed, with nothing cached and with everything."""
    done = scene.run("sync", "--dry-run", check=True)
    assert all(name in done.stdout + done.stderr for name in NAMES)
    assert scene.hooks == []
    scene.run("sync", check=True)
    done = scene.run("sync", "--dry-run", check=True)
    assert "current" in done.stdout + done.stderr


@pytest.fixture
def waiting(tmp_path: Path, run_envsync: Run) -> Iterator[tuple[Scene, subprocess.Popen[bytes]]]:
    """A sync whose build waits for the file `go`."""
    scene = Scene(tmp_path, run_envsync, wait_for=tmp_path / "go")
    environ = {**os.environ, **scene.environ}
    command = [*envsync_command(), "sync"]
    process = subprocess.Popen(command, cwd=scene.directory, env=environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while "build_editable app" not in scene.hooks:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield scene, process
    process.kill()
    process.wait()


def backends(scene: Scene) -> list[int]:
    """Return the ids of backends that are alive."""
    found = []
    for line in scene.log.read_text().splitlines():
        pid = json.loads(line)["pid"]
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_sync_that_is_killed_while_it_builds(
    waiting: tuple[Scene, subprocess.Popen[bytes]], number: signal.Signals, tmp_path: Path
) -> None:
    """The backend goes with it, and the next sync builds what is missing, and only that."""
    scene, process = waiting
    process.send_signal(number)
    process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while backends(scene):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "go").touch()
    scene.run("sync", check=True)
    assert scene.hooks.count("build_editable app") == 2
    assert unverified(scene.env) == []
    assert leftovers(scene.env) == []


def test_who_waits_is_told(waiting: tuple[Scene, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """A second process says what is being built, since when, and by whom."""
    scene, process = waiting
    environ = {**os.environ, **scene.environ}
    command = [*envsync_command(), "run", "--", "true"]
    with subprocess.Popen(command, cwd=scene.directory, env=environ, stderr=subprocess.PIPE, text=True) as waiter:
        assert waiter.stderr is not None
        said = waiter.stderr.readline()
        (tmp_path / "go").touch()
        assert waiter.wait(timeout=60) == 0
    assert f"waiting for pid {process.pid} on " in said
    assert "building " in said
    assert "app 1.0" in said


def test_the_stamp_says_which_trees_only_a_sync_looks_at(scene: Scene) -> None:
    """Both trees, for a linked one may get another package below `src`."""
    scene.run("sync", check=True)
    vouched = stamp.load(Path(Environment(str(scene.env)).stamp).read_bytes())
    assert vouched is not None
    assert {(tree.path, tree.editable) for tree in vouched.trees} == {
        (str(scene.directory), True),
        (str(scene.lib), False),
    }


def test_a_fresh_sync_of_uvs_finds_nothing_to_do(scene: Scene) -> None:
    """Nor does ours find anything after uv: both say the same of where a distribution came from."""
    uv = pytest.importorskip("uv").find_uv_bin()
    scene.run("sync", check=True)
    words = [uv, "sync", "--frozen", "--offline", "--inexact", "--no-python-downloads"]
    environ = {**os.environ, "VIRTUAL_ENV": "", "UV_CACHE_DIR": str(scene.cache.parent / "uv-cache")}
    done = subprocess.run(words, cwd=scene.directory, env=environ, capture_output=True, text=True, check=True)
    assert "Installed" not in done.stderr, done.stderr
    assert "Uninstalled" not in done.stderr, done.stderr


def test_an_archive_without_a_hash_is_fetched_once(scene: Scene, tmp_path: Path) -> None:
    """Whoever is sent to that URL later takes what was built of it, though the server is gone by then."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://user:secret@127.0.0.1:{server.server_port}/packed-1.0.tar.gz"
        (scene.directory / "requirements.txt").write_text(f"packed @ {url}\n")
        scene.run("sync", "--lock", "requirements.txt", "--env", "one", check=True)
        server.shutdown()
    done = scene.run("sync", "--lock", "requirements.txt", "--env", "two", check=True)
    assert scene.hooks == ["build_wheel packed"]
    assert "secret" not in done.stderr
    kept = [path for path in scene.cache.rglob("*") if path.is_file() and path.name != "packed-1.0.tar.gz"]
    assert [str(path) for path in kept if b"secret" in path.read_bytes()] == []


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_project_cannot_say_whom_to_trust(scene: Scene) -> None:
    """Whose built wheels are taken is for the user or the site to say."""
    with (scene.directory / "pyproject.toml").open("a") as file:
        file.write('\n[tool.envsync]\ntrusted-builder = ["nobody"]\n')
    done = scene.run("sync")
    assert done.returncode == 2
    assert "`trusted-builder` in [tool.envsync]" in done.stderr


def test_a_site_can_forbid_builds(scene: Scene) -> None:
    """By a variable, which wins over what a project's file says."""
    with (scene.directory / "pyproject.toml").open("a") as file:
        file.write("\n[tool.envsync]\nno-build = false\n")
    done = scene.run("sync", env={"ENVSYNC_NO_BUILD": "1"})
    assert done.returncode == 125
    assert scene.hooks == []


def test_within_a_job_it_is_said_where_it_is_built(scene: Scene) -> None:
    """With how to do it beforehand; the build itself does not see the scheduler's variables, nor tokens."""
    done = scene.run("sync", env={"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SOME_TOKEN": "x"}, check=True)
    assert f"this is done on {os.uname().nodename}" in done.stderr
    seen = set().union(*(json.loads(line)["variables"] for line in scene.log.read_text().splitlines()))
    assert "PATH" in seen
    assert not seen & {"SLURM_STEP_ID", "SLURM_JOB_ID", "SOME_TOKEN"}


def test_two_checkouts_of_one_project(scene: Scene, tmp_path: Path, run_envsync: Run) -> None:
    """With one environment for both, each run sees its own sources: what is linked is part of what is asked for."""
    other = tmp_path / "other" / "app"
    for path in (scene.directory, scene.lib):
        shutil.copytree(path, other.parent / path.name)
    shutil.copy(scene.sdist, other.parent)
    show = ("--env", str(tmp_path / "env"), "--", "python", "-c", "import app; print(app.__file__)")
    for place in (scene.directory, other, scene.directory):
        done = run_envsync("run", *show, cwd=place, env=scene.environ)
        assert done.stdout.startswith(f"{place}/"), done.stderr


@pytest.mark.parametrize("line", ["-e .", "-e ./", "."])
def test_a_requirements_file(scene: Scene, line: str) -> None:
    """A tree of its is as one of any lock file: an edit of it, or a new file in it, is no change for a launch."""
    (scene.directory / "requirements.txt").write_text(f"{line}\n../lib\n")
    words = ("run", "--lock", "requirements.txt", "--", "python", "-c", "import app, lib; print(app.__version__)")
    assert scene.run(*words, check=True).stdout == "1.0\n"
    (scene.directory / "notes.txt").write_text("a new file\n")
    (scene.directory / "src/app/__init__.py").write_text('__version__ = "2.0"\n')
    assert scene.run(*words, check=True).stdout == ("2.0\n" if line.startswith("-e") else "1.0\n")
    assert scene.happened("synced") == 1
    assert len(scene.hooks) == 2


def test_what_only_a_sync_looks_at_builds_an_editable_again(tmp_path: Path, run_envsync: Run) -> None:
    """A file that a pattern of the cache keys names is edited: `sync` builds, and the one after has nothing to do."""
    pattern = '[tool.uv]\ncache-keys = [{ file = "src/**/*.c" }]\n'
    scene = Scene(tmp_path, run_envsync, pyproject=pattern)
    scene.run("sync", check=True)
    (scene.directory / "src/app/fast.c").write_text("int x;")
    for _ in range(2):
        scene.run("sync", check=True)
    assert scene.hooks.count("build_editable app") == 2


def test_a_build_beside_what_was_built(scene: Scene) -> None:
    """Without isolation, what has been built itself is seen; what is linked to a tree has no part in it."""
    plan = json.loads((scene.lib / "backend/plan.json").read_text())
    (scene.lib / "backend/plan.json").write_text(json.dumps(plan | {"hook_requires": ["packed>=1"]}))
    scene.run("sync", "--no-build-isolation-package", "lib", check=True)
    assert scene.hooks == ALL_BUILT
    scene.run("sync", "--no-build-isolation-package", "lib", "--env", "other", check=True)
    assert scene.hooks == sorted([*ALL_BUILT, "build_editable app"])


@pytest.mark.parametrize(("name", "said"), [("out", "leads out of its source"), ("none", "there is no directory")])
def test_a_subdirectory_of_a_commit_that_is_elsewhere(scene: Scene, tmp_path: Path, name: str, said: str) -> None:
    """By a link in the repository: nothing outside is built, or written to; what is not there is said."""
    make_project(tmp_path / "private", "versioned", log=scene.log)
    (scene.repository / "out").symlink_to(tmp_path / "private")
    commit = make_repository(scene.repository)
    lock = f"versioned @ git+file://{scene.repository}@{commit}#subdirectory={name}\n"
    (scene.directory / "requirements.txt").write_text(lock)
    done = scene.run("sync", "--lock", "requirements.txt")
    assert done.returncode == 125
    assert f"the subdirectory `{name}` {said}" in done.stderr or f"{said} `{name}`" in done.stderr
    assert scene.hooks == []


def test_a_build_sees_where_things_are(scene: Scene) -> None:
    """Compilers, flags and modules, as they are set; a time for what it packs; and no packages of the user's own."""
    scene.run("sync", env={"CC": "gcc-12", "CFLAGS": "-O3", "CUDA_HOME": "/opt/cuda", "SOME_TOKEN": "x"}, check=True)
    for line in scene.log.read_text().splitlines():
        seen = json.loads(line)["variables"]
        assert (seen["CC"], seen["CFLAGS"], seen["CUDA_HOME"]) == ("gcc-12", "-O3", "/opt/cuda")
        assert {"HOME", "SOURCE_DATE_EPOCH", "PYTHONNOUSERSITE"} <= seen.keys()
        assert "SOME_TOKEN" not in seen


def test_two_checkouts_with_a_pylock(scene: Scene, tmp_path: Path, run_envsync: Run) -> None:
    """Environments that are named by `{digest}` are two, though the lock file is the same: each has its own sources."""
    text = """lock-version = "1.0"
created-by = "test"

[[packages]]
name = "app"
directory = { path = ".", editable = true }
"""
    (scene.directory / "pylock.toml").write_text(text)
    other = tmp_path / "other"
    shutil.copytree(scene.directory, other)
    words = ("--lock", "pylock.toml", "--env", str(tmp_path / "envs/{digest}"))
    for place in (scene.directory, other, scene.directory, other):
        show = ("--", "python", "-c", "import app; print(app.__file__)")
        done = run_envsync("run", *words, *show, cwd=place, env=scene.environ)
        assert done.stdout.startswith(f"{place}/"), done.stderr
    assert scene.happened("synced") == 2
    assert len([path for path in (tmp_path / "envs").iterdir() if not path.name.startswith(".")]) == 2
