"""The files of docs/containers.md, as far as that takes no engine: the rest is in tests/containers.

What an image does is done in a box (`tests.boxes`), what pods do in containers of namespaces alone.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box
from tests.conftest import ROOT
from tests.contention.test_containers import Containers, containers, unshare
from tests.environments import FIXTURES, leftovers, unverified

__all__ = ["containers", "unshare"]
yaml = pytest.importorskip("yaml", reason="reads YAML by PyYAML, of the group `test`")
EXAMPLES = ROOT / "docs/examples/containers"
JOB = "import json, os, sys, greet\nprint(json.dumps([os.getuid(), sys.prefix, greet.__file__]))\n"
STRANGER = 4711
"""A user without a name."""


def test_every_file_is_on_the_page() -> None:
    """As it is, and each is run by a test here, in tests/containers or in tests/lab."""
    page = (ROOT / "docs/containers.md").read_text()
    others = (ROOT / "tests/containers/test_podman.py", ROOT / "tests/lab/test_slurm.py")
    tests = "".join(path.read_text() for path in (Path(__file__), *others))
    names = {path.name for path in EXAMPLES.iterdir()}
    assert len(names) == 6
    for name in names:
        assert (EXAMPLES / name).read_text().strip() in page
        assert f'{name}"' in tests


def sections(name: str) -> dict[str, str]:
    """Return the sections of a definition file of Apptainer, by name."""
    parts = re.split(r"(?m)^%(\w+)\n", (EXAMPLES / name).read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box, with what `pylock.toml` names beside it, where an index would be."""
    yield Box(tmp_path / "box")
    subprocess.run(["chmod", "-R", "u+rwX", str(tmp_path)], check=False)


def project(directory: Path) -> Path:
    directory.mkdir()
    shutil.copy(FIXTURES / "pylock.toml", directory)
    (directory / "job.py").write_text(JOB)
    return directory


def test_an_environment_within_an_image(box: Box, tmp_path: Path) -> None:
    """It is made once, by root, and runs read-only for a user who has no name: as it was made, with its bytecode."""
    made = sections("job.def")
    source = project(tmp_path / "source")
    wheels = {str(FIXTURES / "wheels"): "/app/wheels"}
    copies = "\n".join(f"cp {shlex.join(line.split())}" for line in made["files"].strip().splitlines())
    done = box.run(f"set -e; mkdir -p /app; {copies}\n{made['post']}", directory=str(source), mounts=wheels)
    assert done.returncode == 0, done.stderr
    script = f"{made['runscript']}"
    done = box.run(script, user=STRANGER, read_only=True)
    assert done.returncode == 0, done.stderr
    user, prefix, module = json.loads(done.stdout)
    assert (user, prefix) == (STRANGER, "/opt/env")
    assert module.startswith("/opt/env/lib/")
    assert not (box.root / "upper/tmp/cache").exists()
    assert list((box.root / "upper/opt/env").rglob("*.pyc"))


def test_an_environment_as_one_file(box: Box, tmp_path: Path) -> None:
    """It is made at the path at which it is mounted, and runs from there, read-only."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("there is no mksquashfs")
    source = project(tmp_path / "source")
    shutil.copytree(FIXTURES / "wheels", source / "wheels")
    shutil.copy(EXAMPLES / "squash.sh", source)
    where = {str(source): "/shared"}
    done = box.run("./squash.sh", directory="/shared", mounts=where, env={"ENVSYNC_CACHE_DIR": "/shared/cache"})
    assert done.returncode == 0, done.stderr
    assert "mount -t squashfs -o ro,loop env.sqfs /opt/env" in (source / "squash.sh").read_text()
    node = Box(tmp_path / "node")
    mount = "mkdir -p /opt/env && mount -t squashfs -o ro,loop env.sqfs /opt/env && "
    (run,) = re.findall(r"envsync run .*", (source / "squash.sh").read_text())
    done = node.run(f"{mount} {run}", directory="/shared", mounts=where)
    if "mount: " in done.stderr:
        pytest.skip(f"no squashfs can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[1] == "/opt/env"


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """Return what a manifest has, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((EXAMPLES / name).read_text())}


def test_a_manifest_is_one() -> None:
    """What refers to something else in it refers to something that is there."""
    found = manifests("job.yaml")
    job = found["Job"]["spec"]
    pod = job["template"]["spec"]
    (claim,) = (volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"])
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert all(isinstance(word, str) for word in container["command"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert all(isinstance(each["value"], str) for each in container["env"])
    rule = job["podFailurePolicy"]["rules"][-1]
    assert rule["onExitCodes"]["containerName"] in {container["name"] for container in pod["containers"]}
    assert rule["onExitCodes"]["values"] == sorted(rule["onExitCodes"]["values"])
    assert pod["restartPolicy"] == "Never"  # or there must be no podFailurePolicy


@pytest.mark.parametrize("same", [False, True], ids=["a host name each", "one host name"])
def test_pods_of_a_job(containers: Containers, same: bool) -> None:
    """Eight pods at once on one volume: one syncs, all run; a second job finds the environment current."""
    job = manifests("job.yaml")["Job"]["spec"]
    work = containers.shared
    project_ = project(work / "project")
    shutil.copytree(FIXTURES / "wheels", project_ / "wheels")
    pod = job["template"]["spec"]
    scripts = [
        "\n".join(
            [
                f"cd {shlex.quote(container['workingDir'].replace('/shared', str(work)))}",
                *(
                    f"export {each['name']}={shlex.quote(each['value'].replace('/shared', str(work)))}"
                    for each in container["env"]
                ),
                shlex.join(container["command"]).replace("envsync", f"{shlex.quote(sys.executable)} -m envsync", 1),
            ]
        )
        for container in (*pod["initContainers"], *pod["containers"])
    ]
    script = " || exit\n".join(f"({each})" for each in scripts)
    for round_ in range(2):
        processes = [
            containers.start("pod" if same else f"pod-{number}", script) for number in range(job["parallelism"])
        ]
        for process in processes:
            out, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
            assert json.loads(out)[1].startswith(f"{work}/envs/")
        assert len(containers.said("synced")) == 1
        assert len(containers.said("launched")) == 8 * (round_ + 1)
    (env,) = (path for path in (work / "envs").iterdir() if not path.name.startswith("."))
    assert unverified(env) == []
    assert set(leftovers(env)) <= {"waiting"}  # empty, of who began to wait when the sync was done
