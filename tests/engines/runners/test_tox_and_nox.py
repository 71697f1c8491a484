"""tox and nox, with environments that envsync makes."""

from __future__ import annotations

import os
import signal

import pytest

from tests.engines.runners.scene import Scene, program, version
from tests.engines.runners.table import NOX, RUNNERS, TOX
from tests.engines.standing import standing

pytestmark = pytest.mark.engines


@pytest.fixture(params=["tox", "nox"])
def runner(request: pytest.FixtureRequest, scene: Scene) -> list[str]:
    """The words that run the session `tests`, whose environment is then the scene's."""
    return RUNNERS[request.param].prepare(scene)


def test_a_run_and_another(scene: Scene, runner: list[str]) -> None:
    """The modules are those of the lock file; the second run, and one that is told to make it anew, sync nothing."""
    for _ in range(2):
        scene.run(runner)
    scene.check_jobs(2)
    scene.run([*runner, "-r"])
    assert scene.count("synced") in (1, 2)  # tox itself removes the directory; nox leaves to envsync what is to be done


def test_four_at_once(scene: Scene, runner: list[str]) -> None:
    """Whoever is first syncs, the others wait for it."""
    runners = [scene.start(runner) for _ in range(4)]
    for each in runners:
        said, _ = each.communicate(timeout=100)
        assert each.returncode == 0, said
    scene.check_jobs(4)


def test_an_interrupt_in_mid_sync(scene: Scene, runner: list[str]) -> None:
    """Ctrl-C ends it at once, and the lock is free."""
    with standing(scene.lock, scene.env) as sync:
        first = scene.start(runner)
        assert sync.leader(first) == first.pid
        os.kill(first.pid, signal.SIGINT)
        said, _ = first.communicate(timeout=60)
        assert first.returncode != 0, said
    scene.write_lock()
    scene.run(runner)
    scene.check_jobs(1)


def test_the_recipe_of_tox(scene: Scene) -> None:
    """Two environments of one lock file, which are one."""
    version("tox")
    scene.recipe("tox.ini")
    scene.run([program("tox"), "run"])
    scene.check_jobs(2, next((scene.directory / ".tox/shared").glob("[0-9a-f]*")))
    said = scene.run([program("tox"), "config", "-e", "docs", "-k", "lock", "env_python", "env_site_packages_dir"])
    assert "lock = pylock.toml" in said


def test_what_tox_would_install(scene: Scene) -> None:
    """`deps` are refused: what is installed is what the lock file says."""
    version("tox")
    scene.write("tox.ini", TOX + "deps = requests\n")
    said = scene.run([program("tox"), "run", "-e", "tests"], status=None)
    assert "`deps` is not for `runner = envsync`" in said
    assert "Traceback" not in said


def test_a_python_that_is_not_there(scene: Scene) -> None:
    """tox and nox say so in their own words, and skip if they are told to."""
    version("tox")
    scene.write("tox.ini", TOX)
    said = scene.run([program("tox"), "run", "-e", "py399"], status=None)
    assert "could not find python interpreter" in said
    version("nox")
    scene.write("noxfile.py", NOX.replace("venv_backend", 'python="3.99", venv_backend'))
    said = scene.run([program("nox"), "--error-on-missing-interpreters"], status=None)
    assert "Python interpreter 3.99 not found" in said


def test_the_recipe_of_nox(scene: Scene) -> None:
    """As it stands in the documentation."""
    version("nox")
    scene.recipe("noxfile.py")
    scene.run([program("nox")])
    scene.check_jobs(1, scene.directory / ".nox/tests/env")


def test_tox_without_the_runner(scene: Scene) -> None:
    """Nothing of envsync but one small module is loaded by a tox that does not ask for it."""
    version("tox")
    code = "import sys; from tox.run import main; main(['config', '-e', 'py']); print(*sys.modules)"
    loaded = scene.run([program("python"), "-c", code]).split()
    ours = {name for name in loaded if name.split(".")[0] == "envsync"}
    assert ours <= {
        "envsync",
        "envsync.errors",
        "envsync.errors.redact",
        "envsync.integrations",
        "envsync.integrations.tox",
    }
