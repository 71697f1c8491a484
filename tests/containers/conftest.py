"""Podman, with a store of its own, and an image that has this machine's Python and this envsync.

    python -m pytest -m containers tests/containers

Needs root. The image has next to nothing in itself: `/usr`, Python and envsync are bind mounts of this machine's.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import envsync

BASE = "localhost/base"
RUNTIMES = ((), ("--runtime", "runc"))
"""What is tried: crun, podman's own choice, does without some kinds of control groups."""

LIMIT = 1024
"""Of open files and of processes: less than what this machine has, which even root may not be allowed to raise."""


class Podman:
    """Podman.

    :ivar command: its words, with all options that come before the subcommand
    :ivar mounts: options that give a container Python and envsync
    """

    def __init__(self, place: Path, runtime: tuple[str, ...]) -> None:
        stores = ["--root", f"{place}/store", "--runroot", f"{place}/run", "--cgroup-manager", "cgroupfs"]
        self.command = ["podman", *stores, *runtime]
        self.variables = {**os.environ, "TMPDIR": str(place)}
        """Cache mounts of builds are there, too."""
        needed = {sys.prefix, sys.base_prefix, str(Path(envsync.__file__).parents[1])}
        self.mounts = [f"--volume={path}:{path}:ro" for path in ("/usr", *sorted(needed)) if path != "/usr"]
        self.mounts.append("--volume=/usr:/usr:ro")
        self.limits = [f"--ulimit={name}={LIMIT}" for name in ("nofile", "nproc")]
        """Root that may not raise its limits cannot set those that podman sets."""

    def call(
        self, *words: str, data: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.command, *words],
            input=data,
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            check=False,
            timeout=110,
        )

    @property
    def options(self) -> list[str]:
        """What each `run` needs besides."""
        return ["--network=none", *self.limits, *self.mounts]

    def build(self, tag: str, context: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Build an image of a Containerfile."""
        base = ["--build-arg", f"BASE={BASE}", "--pull=never", "--env", "PIP_NO_INDEX=1"]
        return self.call("build", "--isolation", "chroot", "--tag", tag, *base, *self.mounts, *words, str(context))

    def make_base(self) -> None:
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as packed:
                for name in ("dev", "etc", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var"):
                    made = tarfile.TarInfo(name)
                    made.type, made.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                    packed.addfile(made)
                for name in ("bin", "sbin", "lib", "lib64"):
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                    packed.addfile(link)
            path = f"PATH={Path(sys.executable).parent}:/usr/bin:/usr/sbin"
            done = self.call("import", "--quiet", "--change", f"ENV {path}", "-", BASE, data=file.getvalue())
            assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="session")
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    """A podman that runs containers, or a skip with the reason."""
    if "containers" not in request.config.getoption("markexpr"):
        pytest.skip("needs a container engine: run with pytest -m containers")
    if os.geteuid() != 0 or shutil.which("podman") is None or not Path("/bin").is_symlink():
        pytest.skip("needs root, podman, and a /bin that is a link to /usr/bin")
    reasons = []
    for runtime in RUNTIMES:
        place = Path(tempfile.mkdtemp(prefix="podman", dir="/tmp"))  # podman takes no longer paths than 50 characters
        found = Podman(place, runtime)
        found.make_base()
        done = found.call("run", "--rm", *found.options, BASE, "envsync", "--version")
        if done.returncode == 0:
            yield found
            found.call("rmi", "--all", "--force")
            shutil.rmtree(place, ignore_errors=True)
            return
        reasons.append(done.stderr.decode().strip())
        found.call("rmi", "--all", "--force")
        shutil.rmtree(place, ignore_errors=True)
    pytest.skip(f"podman runs no containers here: {'; '.join(reasons)}")
