"""The files of docs/containers.md that an engine runs, by podman: images, and containers of several users."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_containers_page import EXAMPLES, manifests, project
from tests.containers.conftest import BASE, Podman
from tests.environments import FIXTURES, unverified

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]


def said(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


def test_an_image_is_built(podman: Podman, tmp_path: Path) -> None:
    """The environment is in one layer, the cache in none; it runs as a user without a name. The next build uses it."""
    context = project(tmp_path / "context")
    shutil.copy(EXAMPLES / "Containerfile", context)
    wheels = f"--volume={FIXTURES / 'wheels'}:/app/wheels:ro"
    done = podman.build("job", context, wheels)
    assert done.returncode == 0, done.stderr.decode()
    done = podman.call("run", "--rm", *podman.options, "localhost/job")
    assert done.returncode == 0, done.stderr.decode()
    user, prefix, module = json.loads(done.stdout)
    assert (user, prefix) == (1000, "/opt/env")
    assert module.startswith("/opt/env/lib/")
    look = podman.call(
        "run",
        "--rm",
        *podman.options,
        "localhost/job",
        "sh",
        "-c",
        "find /cache | wc -l; find /opt -name '*.pyc' | wc -l",
    )
    cached, compiled = map(int, look.stdout.split())
    assert cached <= 1
    assert compiled
    # Another lock file: the layer is made anew, and all that it needs is in the cache.
    with (context / "pylock.toml").open("a") as file:
        file.write("\n# changed\n")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    done = podman.build("job", context, f"--volume={nothing}:/app/wheels:ro")
    assert done.returncode == 0, done.stderr.decode()


def test_two_users_share_a_cache(podman: Podman, tmp_path: Path) -> None:
    """At once, and each adds to it; both have the bits of the group, and neither is refused anything."""
    work = project(tmp_path / "work")
    shutil.copytree(FIXTURES / "wheels", work / "wheels")
    for path in (tmp_path, work):
        path.chmod(0o755)
    done = subprocess.run(
        ["sh", str(EXAMPLES / "shared-cache.sh")],
        cwd=work,
        env={
            **os.environ,
            "PODMAN": shlex.join(podman.command),
            "OPTIONS": shlex.join([*podman.options, "--env=ENVSYNC_CACHE_FALLBACK="]),
            "IMAGE": BASE,
            "CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line)[0] for line in done.stdout.splitlines()) == [1000, 1001]
    assert "cannot be written to" not in done.stderr
    entries = list((tmp_path / "cache/v1/wheels").iterdir())
    assert len(entries) == 5
    assert {path.stat().st_gid for path in entries} == {5000}


def test_pods_of_a_job(podman: Podman, tmp_path: Path) -> None:
    """Each pod's containers in turn, four pods at once, as the user and group that the manifest says: one sync."""
    pod = manifests("job.yaml")["Job"]["spec"]["template"]["spec"]
    who = pod["securityContext"]
    volume = tmp_path / "volume"
    volume.mkdir()
    shutil.copytree(FIXTURES / "wheels", project(volume / "project") / "wheels")
    # As the kubelet does with a volume for `fsGroup`.
    for path in (volume, *volume.rglob("*")):
        os.chown(path, 0, who["fsGroup"])
        path.chmod(0o2775 if path.is_dir() else 0o664)
    for container in (*pod["initContainers"], *pod["containers"]):
        (mount,) = container["volumeMounts"]
        variables = [f"--env={each['name']}={each['value']}" for each in container["env"]]
        words = [
            *podman.command,
            *("run", "--rm", "--user", f"{who['runAsUser']}:{who['runAsGroup']}"),
            *(f"--volume={volume}:{mount['mountPath']}", "--workdir", container["workingDir"]),
            *(*variables, "--env=ENVSYNC_EVENTS=/shared/events.jsonl", *podman.options, BASE, *container["command"]),
        ]
        started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        for process in started:
            status, _, err = said(process)
            assert status == 0, err
    events = [json.loads(line)["event"] for line in (volume / "events.jsonl").read_text().splitlines()]
    assert (events.count("synced"), events.count("launched")) == (1, 4)
    (env,) = (path for path in (volume / "envs").iterdir() if not path.name.startswith("."))
    assert unverified(Path(str(env))) == []
