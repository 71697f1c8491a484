"""What starts programs by their path: systemd, cron, and whatever takes the path of a Python."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.engines.runners.scene import RECIPES, Scene, program

pytestmark = pytest.mark.engines
GREET = "greet-2.0-py3-none-any.whl"
HOSTS_OWN = ("/usr/local/bin/envsync", "/srv/job")
"""Paths in files of the documentation, which are the reader's."""


def adapted(scene: Scene, name: str) -> str:
    """Return the text of a recipe with paths of the scene."""
    text = (RECIPES / name).read_text()
    for path, ours in zip(HOSTS_OWN, (f"{scene.directory}/commands/envsync", str(scene.directory)), strict=True):
        assert path in text
        text = text.replace(path, ours)
    return text


def test_a_service_of_systemd(scene: Scene) -> None:
    """systemd finds no fault with the unit; what it would start runs with nothing of ours in its variables."""
    unit = scene.write("job.service", adapted(scene, "job.service"))
    analyze = program("systemd-analyze", "systemd")
    said = scene.run([analyze, "verify", "--man=no", str(unit)], env={"SYSTEMD_LOG_LEVEL": "warning"})
    assert "job.service" not in said, said
    start = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
    words = shlex.split(start.partition("=")[2])
    kept = {name: scene.variables[name] for name in ("ENVSYNC_EVENTS", "ENVSYNC_CACHE_DIR")}
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **kept}
    subprocess.run(words, env=variables, cwd="/", check=True, capture_output=True, timeout=60)
    scene.check_jobs(1)
    scene.write_lock(wrong=True)
    done = subprocess.run(words, env=variables, cwd="/", check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 125, "the status that the unit does not start again for"
    assert GREET in done.stderr, "which goes to the journal"


def test_a_line_of_cron(scene: Scene) -> None:
    """Run as cron runs it: by sh, in the home directory, with cron's own few variables."""
    text = adapted(scene, "job.cron")
    line = next(line for line in text.splitlines() if line.startswith("*/5 "))
    assert "%" not in line, "which is a line's end to cron"
    command = line.split(maxsplit=5)[5]
    kept = {name: scene.variables[name] for name in ("ENVSYNC_EVENTS", "ENVSYNC_CACHE_DIR")}
    home = scene.directory / "home"
    home.mkdir()
    variables = {"HOME": str(home), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", **kept}
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", command], env=variables, cwd=home, check=True, capture_output=True, timeout=60)
    scene.check_jobs(2)
    scene.write_lock(wrong=True)
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=variables, cwd=home, check=False, capture_output=True, text=True, timeout=60
    )
    assert GREET in done.stderr, "which cron mails"


def test_a_file_that_is_a_python(scene: Scene) -> None:
    """For what takes the path of a Python, as Airflow's `python=`: it runs it with a script and arguments.

    Several at once, from elsewhere; it answers what is asked of a Python before it is used.
    """
    python = str(scene.directory / "job-python")
    scene.run(["envsync", "shim", python, "--lock", scene.lock, "--env", scene.env])
    runs = [scene.start([python, str(scene.directory / "job.py"), str(number)], cwd="/") for number in range(4)]
    for each in runs:
        said, _ = each.communicate(timeout=60)
        assert each.returncode == 0, said
    scene.check_jobs(4)
    asked = scene.run([python, "-c", "import sys; print(sys.version_info[:2], sys.argv[1:])", "a b"], cwd="/")
    assert asked == f"{sys.version_info[:2]} ['a b']\n"


def test_all_files_are_tried() -> None:
    """Whoever adds a recipe tests it."""
    texts = "".join(path.read_text() for path in (ROOT / "tests/engines").rglob("*.py"))
    texts += (ROOT / "tests/cli/test_examples.py").read_text()
    files = [path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*") if path.is_file()]
    assert len(files) > 7
    assert [file for file in files if file not in texts] == []
